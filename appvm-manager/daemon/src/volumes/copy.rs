//! Copies of volumes: shared blocks where the file system can (Btrfs, XFS, bcachefs), else only
//! what is not empty.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::store::{NEEDED_MIB, free_mib, new_file, remove_all};
use crate::{Error, Result};

/// What is read at once, and the unit in which emptiness is looked for.
const CHUNK: usize = 64 * 1024;

/// Copies a volume, whatever it takes, and writes it through to the disk.
pub fn whole(from: &Path, to: &Path) -> Result<()> {
    let source = File::open(from).map_err(Error::io("open", from))?;
    if shared(&source, to)? {
        return Ok(());
    }
    sparse(&source, to)
}

/// Copies a volume by sharing its blocks. False, and nothing made, where the file system cannot.
pub fn shared(source: &File, to: &Path) -> Result<bool> {
    let target = new_file(to)?;
    let result = match rustix::fs::ioctl_ficlone(&target, source) {
        Ok(()) => target.sync_all().map(|()| true),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV | Errno::INVAL | Errno::NOSYS) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    };
    if !matches!(result, Ok(true)) {
        remove_all(to);
    }
    result.map_err(Error::io("copy to", to))
}

/// Copies what is not empty. Fails before it begins where the disk has no room.
pub fn sparse(source: &File, to: &Path) -> Result<()> {
    let dir = to.parent().unwrap_or(to);
    let needed_mib = (allocated(source) >> 20) + NEEDED_MIB;
    let free_mib = free_mib(dir)?;
    if free_mib < needed_mib {
        return Err(Error::Space {
            dir: dir.to_owned(),
            free_mib,
            needed_mib,
        });
    }
    let target = new_file(to)?;
    let copied = copy_data(source, &target).and_then(|()| target.sync_all());
    if copied.is_err() {
        remove_all(to);
    }
    copied.map_err(Error::io("copy to", to))
}

/// How many bytes of it lie on the disk.
pub fn allocated(file: &File) -> u64 {
    file.metadata()
        .map_or(0, |data| data.blocks().saturating_mul(512))
}

fn copy_data(source: &File, target: &File) -> std::io::Result<()> {
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < length {
        // Errors mean: no data after this place, or a file system without holes.
        let begin = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            Err(Errno::NXIO) => return Ok(()),
            Err(_) => at,
        };
        let end = rustix::fs::seek(source, SeekFrom::Hole(begin)).unwrap_or(length);
        at = begin;
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let Some(part) = buffer.get_mut(..most) else {
                break;
            };
            let count = source.read_at(part, at)?;
            if count == 0 {
                return Ok(());
            }
            let part = part.get(..count).unwrap_or_default();
            if part.iter().any(|&byte| byte != 0) {
                target.write_all_at(part, at)?;
            }
            at += count as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_copy_is_the_same_and_as_sparse() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let file = new_file(&from).unwrap();
        file.set_len(1 << 30).unwrap();
        let noise: Vec<u8> = (0..200_000u32).map(|i| (i * 31 % 251) as u8).collect();
        let places = [0, 12_345, 500 << 20, (1 << 30) - 200_000];
        for at in places {
            file.write_all_at(&noise, at).unwrap();
        }
        // Zeros that were written take no room in the copy.
        file.write_all_at(&vec![0; 4 << 20], 700 << 20).unwrap();
        file.sync_all().unwrap();
        sparse(&File::open(&from).unwrap(), &to).unwrap();
        let copy = File::open(&to).unwrap();
        assert_eq!(copy.metadata().unwrap().len(), 1 << 30);
        assert!(allocated(&copy) < 2 << 20, "{}", allocated(&copy));
        for at in places {
            let mut part = vec![0; 12_000];
            copy.read_exact_at(&mut part, at).unwrap();
            assert!(part == noise[..12_000], "at {at}");
        }
        fs::remove_file(&to).unwrap();
        whole(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().len(), 1 << 30);
        // An empty one.
        file.set_len(0).unwrap();
        file.set_len(5 << 20).unwrap();
        sparse(&File::open(&from).unwrap(), &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().len(), 5 << 20);
    }

    #[test]
    fn a_file_system_that_cannot_share_says_so_and_keeps_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let source = File::open("/proc/version").unwrap();
        let to = dir.path().join("to");
        assert!(!shared(&source, &to).unwrap());
        assert!(!to.exists());
    }
}
