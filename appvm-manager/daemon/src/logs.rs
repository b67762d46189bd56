//! Each domain's logs: what its guest said on the serial port, and what its VMM said.
//!
//! A guest may write without end; a log keeps at most two files of [`MAX_BYTES`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

/// The length at which a log is set aside and a new one begun.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// Which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// The guest's serial port. Every byte is the guest's choice.
    Serial,
    /// The VMM's messages.
    Vmm,
}

impl Log {
    /// The file, in the domain's folder of logs.
    pub fn file(self, dir: &Path) -> PathBuf {
        dir.join(match self {
            Log::Serial => "serial.log",
            Log::Vmm => "vmm.log",
        })
    }
}

fn set_aside(file: &Path) {
    let _ = fs::rename(file, file.with_extension("log.1"));
}

fn begin(file: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(file)
}

/// Writes what comes out of `source` to `file` until it ends, on a thread. The log of the run
/// before is set aside.
pub fn record(mut source: PipeReader, file: PathBuf) -> io::Result<JoinHandle<()>> {
    set_aside(&file);
    let mut log = Some(begin(&file)?);
    thread::Builder::new().name("log".into()).spawn(move || {
        let mut length = 0;
        let mut buffer = [0; 16 * 1024];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            if length >= MAX_BYTES {
                set_aside(&file);
                log = begin(&file).ok();
                length = 0;
            }
            // A full disk must not stop the guest: what cannot be kept is dropped.
            if let Some(log) = &mut log {
                let _ = log.write_all(&buffer[..count]);
            }
            length += count as u64;
        }
    })
}

/// The last line of a log that says something, for error messages.
pub fn last_line(file: &Path) -> Option<String> {
    let bytes = fs::read(file).ok()?;
    let tail = bytes.get(bytes.len().saturating_sub(4096)..)?;
    let text = String::from_utf8_lossy(tail).into_owned();
    let line = text
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())?;
    Some(crate::text::clean(line, 300))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_bounded_and_the_run_before_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = Log::Serial.file(dir.path());
        fs::write(&file, "before").unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let thread = record(reader, file.clone()).unwrap();
        writer.write_all(b"now\n\x1b[2Jlast\n \n").unwrap();
        drop(writer);
        thread.join().unwrap();
        assert_eq!(last_line(&file).unwrap(), "[2Jlast");
        assert_eq!(
            fs::read_to_string(dir.path().join("serial.log.1")).unwrap(),
            "before"
        );

        let (reader, mut writer) = io::pipe().unwrap();
        let thread = record(reader, file.clone()).unwrap();
        for _ in 0..50 {
            writer.write_all(&[b'x'; 100_000]).unwrap();
        }
        drop(writer);
        thread.join().unwrap();
        let total: u64 = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(total <= 2 * MAX_BYTES + 100_000, "{total}");
    }
}
