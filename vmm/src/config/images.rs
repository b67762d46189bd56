//! Finds truncated images before a guest stumbles over them: an initramfs without its trailer, a
//! disk shorter than the file system in it says.

use std::os::unix::fs::FileExt;

use super::files::{FileError, Named};

const SECTOR: u64 = 512;
const CPIO_MAGIC: &[u8] = b"070701";
const CPIO_HEADER: usize = 110;
const CPIO_TRAILER: &[u8] = b"TRAILER!!!\0";
const EROFS_MAGIC: u32 = 0xe0f5_e1e2;
const EXT_MAGIC: u16 = 0xef53;
const SUPERBLOCK: u64 = 1024;

fn length(file: &Named) -> Result<u64, FileError> {
    use std::io::{Seek, SeekFrom};
    // Seeking knows the size of block devices, too.
    (&file.file)
        .seek(SeekFrom::End(0))
        .map_err(|error| file.host(error))
}

/// Checks an initramfs and returns its length. Compressed archives are only checked for being
/// there at all.
pub fn check_initramfs(file: &Named) -> Result<u64, FileError> {
    let length = length(file)?;
    if length == 0 {
        return Err(file.content("is empty: build it again"));
    }
    let truncated = || file.content("is truncated: build or copy it again");
    let mut offset = 0;
    let mut complete = true;
    let mut header = [0; CPIO_HEADER];
    while file.file.read_exact_at(&mut header, offset).is_ok() && header.starts_with(CPIO_MAGIC) {
        complete = false;
        let field = |index: usize| {
            let digits = header
                .get(6 + index * 8..14 + index * 8)
                .unwrap_or_default();
            std::str::from_utf8(digits)
                .ok()
                .and_then(|text| u64::from_str_radix(text, 16).ok())
        };
        let (Some(size), Some(name_size)) = (field(6), field(11)) else {
            return Err(file.content("is damaged: build or copy it again"));
        };
        let name_at = offset + CPIO_HEADER as u64;
        let data = (name_at + name_size).next_multiple_of(4);
        let next = (data + size).next_multiple_of(4);
        if name_size == CPIO_TRAILER.len() as u64 {
            let mut name = [0; CPIO_TRAILER.len()];
            file.file
                .read_exact_at(&mut name, name_at)
                .map_err(|_| truncated())?;
            if name == CPIO_TRAILER {
                complete = true;
                break;
            }
        }
        offset = next;
    }
    if complete {
        Ok(length)
    } else {
        Err(truncated())
    }
}

/// Checks a disk image and returns its length.
pub fn check_disk(file: &Named) -> Result<u64, FileError> {
    let length = length(file)?;
    if length == 0 || !length.is_multiple_of(SECTOR) {
        return Err(file.content(format!(
            "has {length} bytes, which is not a number of {SECTOR}-byte sectors: it is truncated \
             or not a raw image; build or copy it again"
        )));
    }
    if let Some(needed) = file_system_bytes(file)
        && needed > length
    {
        return Err(file.content(format!(
            "has {length} bytes but its file system needs {needed}: it is truncated; build or \
             copy it again"
        )));
    }
    Ok(length)
}

/// The size that the file system in an image claims, if it is one that we know.
fn file_system_bytes(file: &Named) -> Option<u64> {
    let mut superblock = [0; 1024];
    file.file.read_exact_at(&mut superblock, SUPERBLOCK).ok()?;
    let bytes = |at: usize| superblock.get(at..at + 4)?.try_into().ok();
    let word = |at: usize| bytes(at).map(u32::from_le_bytes);
    if word(0)? == EROFS_MAGIC {
        let block_bits = u32::from(superblock[12]);
        return u64::from(word(36)?).checked_shl(block_bits);
    }
    if word(56)? as u16 == EXT_MAGIC {
        const INCOMPAT_64BIT: u32 = 0x80;
        let high = if word(96)? & INCOMPAT_64BIT != 0 {
            word(336)?
        } else {
            0
        };
        let blocks = u64::from(high) << 32 | u64::from(word(4)?);
        let block_bytes = 1024u64.checked_shl(word(24)?)?;
        return blocks.checked_mul(block_bytes);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn named(bytes: &[u8]) -> Named {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Named {
            file,
            name: "image".into(),
        }
    }

    fn cpio(name: &str, data: &[u8]) -> Vec<u8> {
        let mut entry = b"070701".to_vec();
        for index in 0..13 {
            let value = match index {
                6 => data.len(),
                11 => name.len() + 1,
                _ => 0,
            };
            entry.extend(format!("{value:08x}").bytes());
        }
        entry.extend(name.bytes());
        entry.push(0);
        entry.resize(entry.len().next_multiple_of(4), 0);
        entry.extend(data);
        entry.resize(entry.len().next_multiple_of(4), 0);
        entry
    }

    #[test]
    fn truncated_archives_are_found() {
        let mut archive = cpio("init", &[1; 1000]);
        archive.extend(cpio("bin/true", &[2; 33]));
        archive.extend(cpio("TRAILER!!!", &[]));
        assert_eq!(
            check_initramfs(&named(&archive)).unwrap(),
            archive.len() as u64
        );
        for cut in [5, 130, 200, 700, archive.len() - 200] {
            let part = &archive[..archive.len() - cut];
            assert!(check_initramfs(&named(part)).is_err(), "{cut}");
        }
        assert!(check_initramfs(&named(b"")).is_err());
        assert!(check_initramfs(&named(&[0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3])).is_ok());
        assert!(check_initramfs(&named(&[b"070701", [b'z'; 104].as_slice()].concat())).is_err());
    }

    #[test]
    fn truncated_disks_are_found() {
        let mut erofs = vec![0; 8192];
        erofs[1024..1028].copy_from_slice(&EROFS_MAGIC.to_le_bytes());
        erofs[1036] = 12;
        erofs[1060..1064].copy_from_slice(&2u32.to_le_bytes());
        assert_eq!(check_disk(&named(&erofs)).unwrap(), 8192);
        erofs[1060] = 3;
        let message = check_disk(&named(&erofs)).unwrap_err().to_string();
        assert!(message.contains("needs 12288"), "{message}");
        let mut ext = vec![0; 8192];
        ext[1024 + 56..1024 + 58].copy_from_slice(&EXT_MAGIC.to_le_bytes());
        ext[1028] = 8;
        assert_eq!(check_disk(&named(&ext)).unwrap(), 8192);
        ext[1028] = 9;
        assert!(check_disk(&named(&ext)).is_err());
        assert!(check_disk(&named(&[0; 1000])).is_err());
        assert!(check_disk(&named(&[])).is_err());
        assert_eq!(check_disk(&named(&[0; 512])).unwrap(), 512);
    }
}
