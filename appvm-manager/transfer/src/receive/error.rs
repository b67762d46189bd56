//! Why nothing was received.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use super::Received;
use crate::format::{FormatError, MAX_MESSAGE, Status, Verdict};
use crate::links::LinkFault;
use crate::names::{self, NameFault};

/// Why a transfer did not happen, seen from its receiver. But for [`ReceiveError::Unanswered`],
/// nothing was left in the incoming folder.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The bytes cannot be read, or mean nothing.
    #[error("{0}")]
    Stream(#[from] FormatError),
    /// The sender gave up.
    #[error("the sender gave up: {message}")]
    Aborted {
        /// Its words, cleaned; nothing that it says has been checked.
        message: String,
    },
    /// A name that is never made.
    #[error("`{name}` in {at} cannot be a name: {fault}; the sender must rename it")]
    Name {
        /// Which, made visible.
        name: String,
        /// The folder, from the top of the transfer.
        at: String,
        /// What is wrong with it.
        fault: NameFault,
    },
    /// A name that was there already.
    #[error("`{name}` came twice in {at}: the stream is wrong; copy the files again")]
    Duplicate {
        /// Which, made visible.
        name: String,
        /// The folder, from the top of the transfer.
        at: String,
    },
    /// A link that is never made.
    #[error("the link `{name}` in {at} is refused: {fault}; copy without it")]
    Link {
        /// Which, made visible.
        name: String,
        /// The folder, from the top of the transfer.
        at: String,
        /// What is wrong with it.
        fault: LinkFault,
    },
    /// More than this receiver takes.
    #[error("{found} {what} are more than the {most} that are taken: copy fewer at once")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many were announced or came.
        found: u64,
        /// How many are allowed.
        most: u64,
    },
    /// It is not what was announced, and what the user was asked about.
    #[error("{what}: the files are refused; copy them again")]
    Untrue {
        /// What differs.
        what: &'static str,
    },
    /// The disk is full, or would be.
    #[error("there is no space left for the files: free some, or let the domain's home grow")]
    NoSpace,
    /// All numbers for a name are in use.
    #[error("`{name}` exists too often in the incoming folder: move what is there away")]
    Namesakes {
        /// Which.
        name: String,
    },
    /// A system call failed.
    #[error("receiving failed ({doing} {at}): {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        at: String,
        /// The reason.
        source: io::Error,
    },
    /// The incoming folder cannot be used.
    #[error("the folder `{}` cannot be used: {source}; make it a folder of your own", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It was stopped here.
    #[error("receiving was cancelled")]
    Cancelled,
    /// Everything is in place, but the sender could not be told.
    #[error("everything was received, but the sender could not be told: {source}")]
    Unanswered {
        /// What is in place.
        received: Received,
        /// Why the answer did not get through.
        source: FormatError,
    },
}

impl ReceiveError {
    pub(super) fn io(doing: &'static str, at: impl Into<String>, error: Errno) -> Self {
        match error {
            Errno::NOSPC | Errno::DQUOT => ReceiveError::NoSpace,
            _ => ReceiveError::Io {
                doing,
                at: at.into(),
                source: error.into(),
            },
        }
    }

    pub(super) fn aborted(untrusted_message: &[u8]) -> Self {
        ReceiveError::Aborted {
            message: names::printable(untrusted_message, MAX_MESSAGE),
        }
    }

    /// What the sender's program is told to act on.
    pub fn verdict(&self) -> Verdict {
        match self {
            ReceiveError::Stream(error) if error.is_stall() => Verdict::Stalled,
            ReceiveError::Stream(_) => Verdict::Damaged,
            ReceiveError::Aborted { .. } => Verdict::Aborted,
            ReceiveError::Name { .. }
            | ReceiveError::Duplicate { .. }
            | ReceiveError::Link { .. } => Verdict::Refused,
            ReceiveError::Limit { .. } => Verdict::TooMuch,
            ReceiveError::Untrue { .. } => Verdict::NotAsAnnounced,
            ReceiveError::NoSpace => Verdict::NoSpace,
            ReceiveError::Namesakes { .. }
            | ReceiveError::Io { .. }
            | ReceiveError::Folder { .. } => Verdict::Failed,
            ReceiveError::Cancelled => Verdict::Cancelled,
            ReceiveError::Unanswered { .. } => Verdict::Received,
        }
    }

    /// The answer to the sender, after so many entries and bytes.
    pub fn status(&self, entries: u64, bytes: u64) -> Status {
        Status {
            verdict: self.verdict(),
            entries,
            bytes,
            message: self.for_the_sender(),
        }
    }

    /// What the sender is told besides: what is about its own stream, and nothing about the files,
    /// folders and disks of this domain.
    pub fn for_the_sender(&self) -> String {
        match self {
            ReceiveError::Stream(FormatError::Read(_) | FormatError::Write(_))
            | ReceiveError::Namesakes { .. }
            | ReceiveError::Io { .. }
            | ReceiveError::Folder { .. }
            | ReceiveError::NoSpace
            | ReceiveError::Cancelled
            | ReceiveError::Unanswered { .. } => String::new(),
            _ => self.to_string(),
        }
    }
}
