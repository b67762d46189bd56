//! Why nothing was sent, or not everything.

use std::io;
use std::path::PathBuf;

use super::shown;
use crate::format::{FormatError, Status, Verdict};
use crate::limits::MAX_DEPTH;
use crate::links::LinkFault;
use crate::names::NameFault;

/// Why a transfer did not happen, seen from its sender.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No paths were given.
    #[error("there is nothing to send: name at least one file or folder")]
    Nothing,
    /// A path without a name at its end.
    #[error(
        "`{}` has no name of its own: give the folder by its name",
        shown(path)
    )]
    NoName {
        /// Which.
        path: PathBuf,
    },
    /// Two of the paths have the same last name.
    #[error(
        "`{}` has the same name as another one that you send: send them one after the other",
        shown(path)
    )]
    SameName {
        /// The second one.
        path: PathBuf,
    },
    /// A name that no receiver takes.
    #[error("`{}` has a name that cannot be sent: {fault}; rename it", shown(path))]
    Name {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        fault: NameFault,
    },
    /// A device, a FIFO, a socket.
    #[error(
        "`{}` is {what}: only folders, regular files and links are sent; move it away, or send the \
         others by name",
        shown(path)
    )]
    Special {
        /// Which.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A link at the top, or one that leads out of the folder that is sent.
    #[error(
        "`{}` is a link that cannot be sent: {fault}; send what it leads to",
        shown(path)
    )]
    Link {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        fault: LinkFault,
    },
    /// Too many folders in each other.
    #[error(
        "`{}` is more than {MAX_DEPTH} folders deep: send a folder further down, or an archive",
        shown(path)
    )]
    Depth {
        /// Which.
        path: PathBuf,
    },
    /// It changed while it was counted and sent.
    #[error(
        "`{}` changed while it was being sent: close the program that writes it, and try once more",
        shown(path)
    )]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("`{}` cannot be read ({doing}): {source}", shown(path))]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Writing the stream failed.
    #[error("sending stopped: {0}")]
    Stream(#[from] FormatError),
    /// Everything was sent, and no answer came.
    #[error(
        "everything was sent, but the receiver did not confirm it ({0}): look whether it is there \
         before you delete anything here"
    )]
    Answer(#[source] FormatError),
    /// The receiver refused or failed.
    #[error("the receiving domain {}{}", said(*verdict), colon(message))]
    Refused {
        /// What it said.
        verdict: Verdict,
        /// Its words, cleaned; nothing that it says has been checked.
        message: String,
    },
    /// It was stopped here.
    #[error("sending was cancelled")]
    Cancelled,
}

impl SendError {
    pub(super) fn refused(status: Status) -> Self {
        SendError::Refused {
            verdict: status.verdict,
            message: status.message,
        }
    }

    /// Whether the stream itself failed, so that nothing more can be said on it.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, SendError::Stream(_))
    }

    pub(super) fn is_broken_pipe(&self) -> bool {
        matches!(self, SendError::Stream(FormatError::Write(e))
            if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset))
    }

    /// What the other side is told: no path of this side that was not sent anyway.
    pub(super) fn for_the_receiver(&self) -> &'static str {
        match self {
            SendError::Changed { .. } => "a file changed while it was being sent",
            SendError::Cancelled => "sending was cancelled",
            _ => "a file could not be read",
        }
    }
}

fn said(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Received => "received it",
        Verdict::Damaged => "got a damaged stream",
        Verdict::Refused => "refused it",
        Verdict::TooMuch => "does not take so much",
        Verdict::NotAsAnnounced => "got something else than was announced",
        Verdict::NoSpace => "has no space left",
        Verdict::Failed => "could not write it",
        Verdict::Cancelled => "cancelled it",
        Verdict::Aborted => "was told that sending was given up",
        Verdict::Stalled => "waited too long",
    }
}

fn colon(message: &str) -> String {
    if message.is_empty() {
        return String::new();
    }
    format!("; it says: {message}")
}
