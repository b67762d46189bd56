//! Copies a disk image and keeps its holes, so that gigabytes of nothing take no time and no room.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// Copies the first `bytes` of `from` to the new file `to`, which then has exactly that length.
pub fn sparse(from: &Path, to: &Path, bytes: u64) -> io::Result<()> {
    let partial = to.with_extension("partial");
    let mut source = File::open(from)?;
    let mut target = File::create(&partial)?;
    target.set_len(bytes)?;
    let mut at = 0;
    while let Some(start) = next(&source, rustix::fs::SeekFrom::Data(at))?
        && start < bytes
    {
        let end = next(&source, rustix::fs::SeekFrom::Hole(start))?.unwrap_or(bytes);
        source.seek(SeekFrom::Start(start))?;
        target.seek(SeekFrom::Start(start))?;
        let length = end.min(bytes) - start;
        io::copy(&mut Read::by_ref(&mut source).take(length), &mut target)?;
        at = end;
    }
    std::fs::rename(&partial, to)
}

/// Where the next data or the next hole is; nothing behind the end.
fn next(file: &File, place: rustix::fs::SeekFrom) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, place) {
        Ok(at) => Ok(Some(at)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    #[test]
    fn holes_stay_holes_and_bytes_stay_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        for place in [0, 5 << 20, (64 << 20) - 3] {
            file.write_all_at(b"abc", place).unwrap();
        }
        sparse(&from, &to, 100 << 20).unwrap();
        let copy = File::open(&to).unwrap();
        let metadata = copy.metadata().unwrap();
        assert_eq!(metadata.len(), 100 << 20);
        assert!(metadata.blocks() * 512 < 4 << 20, "not sparse");
        let mut bytes = [0; 3];
        for place in [0, 5 << 20, (64 << 20) - 3] {
            copy.read_exact_at(&mut bytes, place).unwrap();
            assert_eq!(&bytes, b"abc");
        }
        // A disk that is too small: its end is missing, and that is all.
        sparse(&from, &to, (5 << 20) + 1).unwrap();
        let small = std::fs::read(&to).unwrap();
        assert_eq!((small.len(), small[5 << 20]), ((5 << 20) + 1, b'a'));
    }
}
