//! Reading a folder that strangers filled: no link is followed, no name leads out of it, and
//! nothing that blocks is opened.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, RawDir, fstat, open, openat};

use crate::desktop::is_file_name;

/// More names than that are not even looked at.
pub const MAX_NAMES: usize = 16 * 1024;

/// An open folder.
#[derive(Debug)]
pub struct Folder(OwnedFd);

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Folder {
    /// The folder of a trusted path.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Folder(open(path, FOLDER, Mode::empty())?))
    }

    /// A folder in this one.
    pub fn folder(&self, name: &str) -> io::Result<Self> {
        Ok(Folder(openat(
            &self.0,
            checked(name)?,
            FOLDER,
            Mode::empty(),
        )?))
    }

    /// Names in it that end so and are safe as such, in order; and whether there were more than
    /// [`MAX_NAMES`] entries.
    pub fn names(&self, ending: &str) -> io::Result<(Vec<String>, bool)> {
        let mut names = Vec::new();
        let mut seen = 0;
        let mut buffer = Vec::with_capacity(32 * 1024);
        // A descriptor of its own, so that the position is the beginning.
        let own = openat(&self.0, ".", FOLDER, Mode::empty())?;
        let mut entries = RawDir::new(own.as_fd(), buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            seen += 1;
            if seen > MAX_NAMES {
                break;
            }
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name.ends_with(ending) && is_file_name(name) {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok((names, seen > MAX_NAMES))
    }

    /// A regular file's content, if it is at most so long.
    pub fn read(&self, name: &str, most: usize) -> io::Result<Vec<u8>> {
        // NONBLOCK: opening a FIFO must not wait for a writer.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(openat(&self.0, checked(name)?, flags, Mode::empty())?);
        let data = fstat(&file)?;
        if FileType::from_raw_mode(data.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is no regular file"));
        }
        let too_long = || io::Error::other(format!("it is longer than {most} bytes"));
        if u64::try_from(data.st_size).map_or(true, |size| size > most as u64) {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        // It may grow while it is read.
        file.take(most as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > most {
            return Err(too_long());
        }
        Ok(bytes)
    }
}

fn checked(name: &str) -> io::Result<&str> {
    if is_file_name(name) {
        Ok(name)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no name for a file here",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_outside_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("in");
        fs::create_dir(&inside).unwrap();
        fs::write(dir.path().join("secret"), "s").unwrap();
        symlink(dir.path().join("secret"), inside.join("link.desktop")).unwrap();
        symlink(dir.path(), inside.join("up")).unwrap();
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            inside.join("fifo.desktop"),
            Mode::RUSR | Mode::WUSR,
        )
        .unwrap();
        fs::create_dir(inside.join("folder.desktop")).unwrap();
        fs::write(inside.join("long.desktop"), [b'x'; 100]).unwrap();
        fs::write(inside.join("good.desktop"), "x").unwrap();
        let folder = Folder::open(&inside).unwrap();
        for bad in [
            "link.desktop",
            "fifo.desktop",
            "folder.desktop",
            "../secret",
            "/etc/passwd",
        ] {
            assert!(folder.read(bad, 10).is_err(), "{bad}");
        }
        assert!(folder.read("long.desktop", 99).is_err());
        assert_eq!(folder.read("long.desktop", 100).unwrap().len(), 100);
        assert_eq!(folder.read("good.desktop", 10).unwrap(), b"x");
        assert!(folder.folder("up").is_err());
        assert!(folder.folder("..").is_err());
        assert!(Folder::open(&inside.join("up")).is_err());
        assert_eq!(folder.names(".desktop").unwrap().0.len(), 5);
    }
}
