//! How much a receiver takes.

/// Limits of one transfer. A stream that would go beyond one is refused as soon as it can be known,
/// most from the manifest alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The sizes of all files together, in bytes, holes included.
    pub bytes: u64,
    /// The size of one file, in bytes, holes included.
    pub file_bytes: u64,
    /// Folders, files and links.
    pub entries: u64,
    /// Names at the top. They are kept in memory until the end: 1 KiB each at most.
    pub top_level: u32,
    /// Folders in each other, the one at the top included; at most [`MAX_DEPTH`].
    pub depth: usize,
    /// So much of the disk stays free, in bytes: a full home is more than a failed copy. It is
    /// looked at every 16 MiB.
    pub keep_free_bytes: u64,
}

/// Folders in each other that anything here can handle: each costs an open descriptor.
pub const MAX_DEPTH: usize = 64;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            bytes: 1 << 40,
            file_bytes: 1 << 40,
            entries: 4_000_000,
            top_level: 65_536,
            depth: MAX_DEPTH,
            keep_free_bytes: 64 * 1024 * 1024,
        }
    }
}
