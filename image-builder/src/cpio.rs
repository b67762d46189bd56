//! Writes initramfs archives: the "newc" format of `Documentation/driver-api/early-userspace/
//! buffer-format.rst`, with fixed owners and times so that the same input gives the same bytes.

use std::{collections::BTreeSet, io::Write};

const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_LINK: u32 = 0o120_000;
const TYPE_CHARACTER: u32 = 0o020_000;

/// An archive that is being written.
pub struct CpioWriter<W: Write> {
    sink: W,
    position: u64,
    next_inode: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> CpioWriter<W> {
    /// Starts an archive.
    pub fn new(sink: W) -> Self {
        Self {
            sink,
            position: 0,
            next_inode: 1,
            directories: BTreeSet::new(),
        }
    }

    /// Adds a folder and the folders above it, once.
    pub fn directory(&mut self, path: &str) -> std::io::Result<()> {
        let path = path.trim_matches('/');
        if path.is_empty() || self.directories.contains(path) {
            return Ok(());
        }
        self.parents(path)?;
        self.directories.insert(path.to_owned());
        self.entry(path, TYPE_DIRECTORY | 0o755, 2, (0, 0), &[])
    }

    /// Adds a file, and the folders above it where they are missing.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> std::io::Result<()> {
        self.parents(path)?;
        self.entry(path, TYPE_FILE | mode, 1, (0, 0), content)
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> std::io::Result<()> {
        self.parents(path)?;
        self.entry(path, TYPE_LINK | 0o777, 1, (0, 0), target.as_bytes())
    }

    /// Adds a character device.
    pub fn character_device(
        &mut self,
        path: &str,
        mode: u32,
        major: u32,
        minor: u32,
    ) -> std::io::Result<()> {
        self.parents(path)?;
        self.entry(path, TYPE_CHARACTER | mode, 1, (major, minor), &[])
    }

    /// Writes the trailer, pads to a whole sector, and gives the sink back.
    pub fn finish(mut self) -> std::io::Result<W> {
        self.next_inode = 0;
        self.entry("TRAILER!!!", 0, 1, (0, 0), &[])?;
        self.pad(512)?;
        self.sink.flush()?;
        Ok(self.sink)
    }

    fn parents(&mut self, path: &str) -> std::io::Result<()> {
        match path.trim_matches('/').rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        links: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> std::io::Result<()> {
        let name = path.trim_matches('/');
        let too_long = |what| std::io::Error::new(std::io::ErrorKind::InvalidInput, what);
        let size = u32::try_from(content.len()).map_err(|_| too_long("file over 4 GiB"))?;
        let name_size = u32::try_from(name.len() + 1).map_err(|_| too_long("name too long"))?;
        let fields = [
            self.next_inode,
            mode,
            0, // owner: root
            0, // group: root
            links,
            0, // modified: the epoch, for reproducible archives
            size,
            0, // device of the archive's own file system: none
            0,
            device.0,
            device.1,
            name_size,
            0, // checksum, unused in this format
        ];
        self.next_inode = self.next_inode.wrapping_add(1);
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.write(header.as_bytes())?;
        self.write(name.as_bytes())?;
        self.write(&[0])?;
        self.pad(4)?;
        self.write(content)?;
        self.pad(4)
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.sink.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self, to: u64) -> std::io::Result<()> {
        while !self.position.is_multiple_of(to) {
            self.write(&[0])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut archive = CpioWriter::new(Vec::new());
        archive.file("/usr/bin/hello", 0o755, b"hello").unwrap();
        archive.symlink("bin", "usr/bin").unwrap();
        archive
            .character_device("dev/console", 0o600, 5, 1)
            .unwrap();
        archive.directory("usr/bin").unwrap();
        archive.finish().unwrap()
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        assert_eq!(sample(), sample());
        assert_eq!(sample().len() % 512, 0);
    }

    #[test]
    fn parents_come_once_and_first() {
        let text = String::from_utf8_lossy(&sample()).into_owned();
        let places: Vec<usize> = ["usr\0", "usr/bin\0", "usr/bin/hello\0", "TRAILER!!!"]
            .iter()
            .map(|name| text.find(name).unwrap())
            .collect();
        assert!(places.is_sorted());
        assert_eq!(text.matches("070701").count(), 7);
    }

    /// The system's own cpio agrees with us, where there is one.
    #[test]
    fn other_readers_understand_it() {
        let Some(cpio) = crate::command::find_program("cpio") else {
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.cpio");
        std::fs::write(&file, sample()).unwrap();
        let output = std::process::Command::new(cpio)
            .args(["-t", "-v", "--quiet"])
            .stdin(std::fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        let listing = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{listing}");
        assert!(
            listing.contains("-rwxr-xr-x") && listing.contains("usr/bin/hello"),
            "{listing}"
        );
        assert!(
            listing.contains("bin -> usr/bin") && listing.contains("5,   1"),
            "{listing}"
        );
    }
}
