//! The stream: what a sender writes, and the short answer that comes back.
//!
//! All numbers are little endian. Names and link targets are bytes, without a zero at the end. The
//! reader of this module checks numbers and lengths before it allocates or loops; it does **not**
//! check names: [`crate::names`] does, where they are used.
//!
//! ```text
//! manifest   8  "BLKHXFER"
//!            2  version, 1
//!            2  zero
//!            8  entries in all: folders, files and links, those at the top included
//!            8  bytes in all: the sizes of all files, holes included
//!            4  entries at the top, at least 1
//!            2  how many of them are described here: all, at most 256
//!            each: 1 kind (1 folder, 2 file), 8 bytes in it, 2 length of the name, the name
//!
//! records    1  what it is, then
//!   1 folder 2 mode, 8 seconds, 4 nanoseconds (modification time), 2 length, name; what follows
//!            is in the folder, until its leave
//!   2 file   2 mode, 8 seconds, 4 nanoseconds, 2 length, name, 8 size; data and holes follow,
//!            which together are exactly as long
//!   3 link   8 seconds, 4 nanoseconds, 2 length, name, 2 length, target
//!   4 leave  the folder is complete
//!   5 data   4 length (1 to 262,144), the bytes
//!   6 hole   8 length (at least 1)
//!   7 end    8 entries, 8 bytes, 4 CRC-32 (IEEE) of everything before it, from the first byte
//!   8 abort  2 length, a text: the sender gives up; it may stand wherever a record may
//!
//! status     4  "BLKR"
//! (answer)   2  version, 1
//!            1  verdict (see [`Verdict`])
//!            8  entries, 8 bytes that were received
//!            2  length, a text for the person who sent it
//! ```
//!
//! The first entries at the top are those that the manifest describes, in its order. The checksum
//! finds mistakes; it does not stop anybody who wants to deceive, and need not: the sender may say
//! whatever it likes.

pub mod manifest;
pub mod reader;
pub mod record;
pub mod status;
pub mod writer;

use std::io;

pub use manifest::{Item, Kind, Manifest};
pub use reader::StreamReader;
pub use record::{Meta, Record};
pub use status::{Status, Verdict};
pub use writer::StreamWriter;

/// The first bytes of a stream.
pub const STREAM_MAGIC: &[u8; 8] = b"BLKHXFER";
/// The first bytes of an answer.
pub const STATUS_MAGIC: &[u8; 4] = b"BLKR";
/// The version of both.
pub const VERSION: u16 = 1;
/// A name's most bytes, as on every file system of Linux.
pub const MAX_NAME: usize = 255;
/// A link target's most bytes (`PATH_MAX` without its zero).
pub const MAX_TARGET: usize = 4095;
/// The most bytes of one data record.
pub const MAX_DATA: usize = 256 * 1024;
/// The most bytes of a text for a person.
pub const MAX_MESSAGE: usize = 1024;
/// So many entries at the top are described in the manifest, at most.
pub const MAX_SHOWN: usize = 256;

/// What is wrong with the bytes themselves.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Reading failed, or took longer than whoever opened the stream allows.
    #[error("the stream cannot be read: {0}")]
    Read(io::Error),
    /// Writing failed.
    #[error("the stream cannot be written: {0}")]
    Write(io::Error),
    /// The other side went away.
    #[error("the stream ends too early: the other side has stopped; try once more")]
    Ended,
    /// These are other bytes.
    #[error("this is no stream of files from Bulkhead")]
    Magic,
    /// Another version.
    #[error(
        "the stream has version {0}, this program knows {VERSION}: update the templates of both \
         domains"
    )]
    Version(u16),
    /// A number outside of its range.
    #[error("the stream is damaged: {what} is {value}, which cannot be; copy the files again")]
    Number {
        /// Which.
        what: &'static str,
        /// What it says.
        value: u64,
    },
    /// A record where it cannot stand.
    #[error("the stream is damaged: {0}; copy the files again")]
    Order(&'static str),
    /// Name, target, data or text that does not fit into a record: a mistake of the writer.
    #[error("{what} of {length} bytes does not fit into the stream")]
    DoesNotFit {
        /// Which.
        what: &'static str,
        /// How long it is.
        length: usize,
    },
    /// Something was lost or changed on the way.
    #[error("the checksum is wrong: something was lost on the way; copy the files again")]
    Checksum,
}

impl FormatError {
    /// A failed read.
    pub(crate) fn read(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => FormatError::Ended,
            _ => FormatError::Read(error),
        }
    }

    /// Whether the other side was silent for too long.
    pub fn is_stall(&self) -> bool {
        matches!(self, FormatError::Read(e) | FormatError::Write(e)
            if matches!(e.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock))
    }
}
