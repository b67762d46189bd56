//! Finds the guest's disks by the serial that the VMM gave them.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The device whose virtio-blk serial is `serial`.
pub fn by_serial(serial: &str) -> Option<PathBuf> {
    block_devices(Path::new("/sys/block"))
        .into_iter()
        .find_map(|(name, found)| {
            (found.as_deref() == Some(serial)).then(|| Path::new("/dev").join(name))
        })
}

/// The first virtio disk, for machines that give no serials.
pub fn first() -> Option<PathBuf> {
    block_devices(Path::new("/sys/block"))
        .into_iter()
        .find(|(name, _)| name.starts_with("vd"))
        .map(|(name, _)| Path::new("/dev").join(name))
}

/// Names and serials, in the order of the names.
fn block_devices(sys_block: &Path) -> Vec<(String, Option<String>)> {
    let mut devices: Vec<_> = fs::read_dir(sys_block)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|name| {
            let serial = fs::read_to_string(sys_block.join(&name).join("serial"));
            let serial = serial
                .ok()
                .map(|text| text.trim_end_matches(['\n', '\0']).to_owned());
            (name, serial)
        })
        .collect();
    devices.sort();
    devices
}

/// Whether the first bytes belong to an ext2, ext3 or ext4 filesystem.
pub fn is_ext4(device: &Path) -> std::io::Result<bool> {
    let mut file = File::open(device)?;
    // The superblock begins at 1024, its magic 0x38 into it.
    file.seek(SeekFrom::Start(1024 + 0x38))?;
    let mut magic = [0; 2];
    file.read_exact(&mut magic)?;
    Ok(magic == [0x53, 0xef])
}

/// Whether an ext4 filesystem is smaller than its device by more than rounding: the volume has
/// grown since.
pub fn has_grown(device: &Path) -> std::io::Result<bool> {
    let mut file = File::open(device)?;
    let length = file.seek(SeekFrom::End(0))?;
    let mut superblock = [0; 1024];
    file.seek(SeekFrom::Start(1024))?;
    file.read_exact(&mut superblock)?;
    let field = |at: usize| {
        let bytes = superblock.get(at..at + 4).and_then(|b| b.try_into().ok());
        u64::from(bytes.map_or(0, u32::from_le_bytes))
    };
    // struct ext4_super_block: s_blocks_count_lo at 0x4, s_log_block_size at 0x18,
    // s_feature_incompat at 0x60 (0x80: 64 bits), s_blocks_count_hi at 0x150.
    let high = if field(0x60) & 0x80 != 0 {
        field(0x150)
    } else {
        0
    };
    let block_bytes = 1024_u64 << field(0x18).min(6);
    let used = (high << 32 | field(0x4)).saturating_mul(block_bytes);
    Ok(used.saturating_add(1 << 20) <= length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_sorted_and_have_their_serials() {
        let folder = tempfile::tempdir().unwrap();
        for (name, serial) in [
            ("vdb", Some("home")),
            ("vda", Some("root\n")),
            ("loop0", None),
        ] {
            fs::create_dir(folder.path().join(name)).unwrap();
            if let Some(serial) = serial {
                fs::write(folder.path().join(name).join("serial"), serial).unwrap();
            }
        }
        let found = block_devices(folder.path());
        let expected = [
            ("loop0", None),
            ("vda", Some("root")),
            ("vdb", Some("home")),
        ];
        let expected: Vec<_> = expected
            .map(|(n, s)| (n.to_owned(), s.map(str::to_owned)))
            .into_iter()
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn ext4_is_known_by_its_magic() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = vec![0; 4096];
        fs::write(file.path(), &bytes).unwrap();
        assert!(!is_ext4(file.path()).unwrap());
        bytes[1080] = 0x53;
        bytes[1081] = 0xef;
        fs::write(file.path(), &bytes).unwrap();
        assert!(is_ext4(file.path()).unwrap());
    }

    #[test]
    fn a_volume_that_has_grown_is_known() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = vec![0; 8 << 20];
        // 1024 blocks of 4 KiB.
        bytes[1024 + 4..1024 + 8].copy_from_slice(&1024_u32.to_le_bytes());
        bytes[1024 + 0x18] = 2;
        fs::write(file.path(), &bytes).unwrap();
        assert!(has_grown(file.path()).unwrap());
        bytes[1024 + 4..1024 + 8].copy_from_slice(&2048_u32.to_le_bytes());
        fs::write(file.path(), &bytes).unwrap();
        assert!(!has_grown(file.path()).unwrap());
        // The upper half counts only where the filesystem has one.
        bytes[1024 + 4..1024 + 8].copy_from_slice(&1024_u32.to_le_bytes());
        bytes[1024 + 0x150] = 1;
        fs::write(file.path(), &bytes).unwrap();
        assert!(has_grown(file.path()).unwrap());
        bytes[1024 + 0x60] = 0x80;
        fs::write(file.path(), &bytes).unwrap();
        assert!(!has_grown(file.path()).unwrap());
    }
}
