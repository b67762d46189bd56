//! What the image builder writes onto the kernel's command line, and this program reads from it:
//! the root's hash and shape, and by them the names of its partitions.

use std::fmt;

use crate::guid::Guid;

/// Partition type of a root for x86-64 (Discoverable Partitions Specification).
pub const ROOT_TYPE: &str = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709";
/// Partition type of that root's hash tree.
pub const VERITY_TYPE: &str = "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5";
/// Partition type of Bulkhead's data: our own, so that nothing else mounts it by itself.
pub const DATA_TYPE: &str = "e0921d21-f506-44a3-933d-39f8c591cbea";

/// Bytes of a block of the root and of its hash tree.
pub const BLOCK_BYTES: u64 = 4096;
/// Bytes of a sector, the unit of partition tables and device mapper.
pub const SECTOR_BYTES: u64 = 512;
/// The data partition must be at least this large, or there is no use in starting.
pub const LEAST_DATA_BYTES: u64 = 1 << 30;

/// Everything that decides which bytes are the root. It stands on the command line, beside the
/// kernel: nothing of it is read from the disk that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerityParameters {
    /// The hash of the top of the tree: SHA-256.
    pub root_hash: [u8; 32],
    /// Goes into every hash.
    pub salt: Vec<u8>,
    /// Blocks of [`BLOCK_BYTES`] that the root has.
    pub blocks: u64,
}

/// Why the command line does not name a root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// A word is missing.
    #[error("the kernel's command line has no `{0}`")]
    Missing(&'static str),
    /// A word is there and makes no sense.
    #[error("`{0}` on the kernel's command line does not have the form it should have")]
    Malformed(&'static str),
}

const HASH: &str = "bulkhead.root";
const SALT: &str = "bulkhead.salt";
const BLOCKS: &str = "bulkhead.blocks";
const BACKEND: &str = "bulkhead.backend";

impl VerityParameters {
    /// From the kernel's command line. The first of several words counts: what a boot loader
    /// adds comes after our own.
    pub fn from_command_line(line: &str) -> Result<Self, ParameterError> {
        let root_hash = from_hex(word(line, HASH)?)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(ParameterError::Malformed(HASH))?;
        let salt = from_hex(word(line, SALT)?)
            .filter(|salt| !salt.is_empty() && salt.len() <= 64)
            .ok_or(ParameterError::Malformed(SALT))?;
        // The upper limit, 16 TiB, keeps every later multiplication inside 64 bits.
        let blocks = word(line, BLOCKS)?
            .parse()
            .ok()
            .filter(|blocks| (1..=1_u64 << 32).contains(blocks))
            .ok_or(ParameterError::Malformed(BLOCKS))?;
        Ok(Self {
            root_hash,
            salt,
            blocks,
        })
    }

    /// The name of the root's partition: the first half of the hash (Discoverable Partitions
    /// Specification). So a kernel finds its own root, whichever slot that is in.
    #[must_use]
    pub fn root_partition(&self) -> Guid {
        self.half(0)
    }

    /// The name of the hash tree's partition: the second half of the hash.
    #[must_use]
    pub fn verity_partition(&self) -> Guid {
        self.half(16)
    }

    fn half(&self, start: usize) -> Guid {
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(self.root_hash.iter().skip(start)) {
            *to = *from;
        }
        Guid::from_text_order(bytes)
    }

    /// Sectors of the root.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.blocks * (BLOCK_BYTES / SECTOR_BYTES)
    }

    /// The device mapper's table line (`Documentation/admin-guide/device-mapper/verity.rst`).
    /// The tree starts after one block that holds veritysetup's header. A wrong block is an I/O
    /// error for whoever reads it, and an event that [`crate::watch`] reports.
    #[must_use]
    pub fn table(&self, data_device: &str, hash_device: &str) -> String {
        format!(
            "1 {data_device} {hash_device} {BLOCK_BYTES} {BLOCK_BYTES} {} 1 sha256 {} {}",
            self.blocks,
            to_hex(&self.root_hash),
            to_hex(&self.salt),
        )
    }
}

impl fmt::Display for VerityParameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{HASH}={} {SALT}={} {BLOCKS}={}",
            to_hex(&self.root_hash),
            to_hex(&self.salt),
            self.blocks
        )
    }
}

/// The compositor's backend, if the command line asks for another than the display: a single
/// lower-case word, since it goes into a file of settings.
#[must_use]
pub fn backend(line: &str) -> Option<&str> {
    word(line, BACKEND).ok().filter(|name| {
        !name.is_empty()
            && name.len() <= 16
            && name.bytes().all(|letter| letter.is_ascii_lowercase())
    })
}

fn word<'a>(line: &'a str, key: &'static str) -> Result<&'a str, ParameterError> {
    line.split_ascii_whitespace()
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .ok_or(ParameterError::Missing(key))
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a text of hexadecimal digits.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len() / 2)
        .map(|index| u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> VerityParameters {
        let mut root_hash = [0xab; 32];
        root_hash[0] = 0x01;
        root_hash[31] = 0xfe;
        VerityParameters {
            root_hash,
            salt: vec![0x62, 0x68],
            blocks: 1000,
        }
    }

    #[test]
    fn what_the_builder_writes_is_what_is_read() {
        let line = format!("quiet {} bulkhead.blocks=7 bulkhead.root=00", sample());
        assert_eq!(
            VerityParameters::from_command_line(&line).unwrap(),
            sample()
        );
    }

    #[test]
    fn the_partitions_are_named_by_the_hash() {
        assert_eq!(
            sample().root_partition().to_string(),
            "01ababab-abab-abab-abab-abababababab"
        );
        assert_eq!(
            sample().verity_partition().to_string(),
            "abababab-abab-abab-abab-abababababfe"
        );
    }

    #[test]
    fn the_table_is_what_the_kernel_documents() {
        let table = sample().table("254:3", "254:4");
        let words: Vec<&str> = table.split(' ').collect();
        assert_eq!(
            words[..8],
            ["1", "254:3", "254:4", "4096", "4096", "1000", "1", "sha256"]
        );
        assert_eq!(words[8].len(), 64);
        assert_eq!(words[9..], ["6268"]);
        assert_eq!(sample().sectors(), 8000);
    }

    #[test]
    fn a_wrong_word_is_named() {
        let good = sample().to_string();
        for (from, to, name) in [
            ("bulkhead.root=01", "bulkhead.root=zz", "bulkhead.root"),
            ("bulkhead.root=01", "bulkhead.root=", "bulkhead.root"),
            (
                "bulkhead.blocks=1000",
                "bulkhead.blocks=0",
                "bulkhead.blocks",
            ),
            (
                "bulkhead.blocks=1000",
                "bulkhead.blocks=-1",
                "bulkhead.blocks",
            ),
            (
                "bulkhead.blocks=1000",
                "bulkhead.blocks=18446744073709551615",
                "bulkhead.blocks",
            ),
            ("bulkhead.salt=6268", "salt=6268", "bulkhead.salt"),
        ] {
            let line = good.replace(from, to);
            let error = VerityParameters::from_command_line(&line).unwrap_err();
            assert!(error.to_string().contains(name), "{line}: {error}");
        }
    }

    #[test]
    fn a_backend_is_one_plain_word() {
        assert_eq!(backend("a bulkhead.backend=headless b"), Some("headless"));
        for line in [
            "",
            "bulkhead.backend=",
            "bulkhead.backend=a;b",
            "bulkhead.backend=../x",
        ] {
            assert_eq!(backend(line), None, "{line}");
        }
    }
}
