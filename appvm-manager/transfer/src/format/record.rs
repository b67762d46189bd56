//! One record of the stream.

/// Permission bits and modification time of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits, 0 to 0o777. The receiver ignores them; they are there for other receivers.
    pub mode: u16,
    /// Modification time: seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds, 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// A record, without the bytes of [`Record::Data`]. Names and targets are not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A folder begins.
    Folder {
        /// Permissions and time.
        meta: Meta,
        /// Its name.
        untrusted_name: Vec<u8>,
    },
    /// A file begins.
    File {
        /// Permissions and time.
        meta: Meta,
        /// Its name.
        untrusted_name: Vec<u8>,
        /// Its length in bytes, holes included.
        untrusted_size: u64,
    },
    /// A symbolic link.
    Link {
        /// Its time (the mode means nothing).
        meta: Meta,
        /// Its name.
        untrusted_name: Vec<u8>,
        /// Where it leads to.
        untrusted_target: Vec<u8>,
    },
    /// The folder is complete.
    Leave,
    /// So many bytes of the file follow: 1 to [`super::MAX_DATA`].
    Data(usize),
    /// So many bytes of the file are zero: at least 1.
    Hole(u64),
    /// Everything was sent. The reader has compared the checksum.
    End {
        /// How many entries.
        untrusted_entries: u64,
        /// How many bytes.
        untrusted_bytes: u64,
    },
    /// The sender gives up, and why: at most [`super::MAX_MESSAGE`] bytes.
    Abort {
        /// The reason.
        untrusted_message: Vec<u8>,
    },
}

pub(super) const FOLDER: u8 = 1;
pub(super) const FILE: u8 = 2;
pub(super) const LINK: u8 = 3;
pub(super) const LEAVE: u8 = 4;
pub(super) const DATA: u8 = 5;
pub(super) const HOLE: u8 = 6;
pub(super) const END: u8 = 7;
pub(super) const ABORT: u8 = 8;
