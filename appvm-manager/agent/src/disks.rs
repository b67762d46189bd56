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
}
