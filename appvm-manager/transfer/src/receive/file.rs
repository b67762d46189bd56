//! The bytes of one file, and the space that they need.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Timespec, Timestamps, fstatvfs, ftruncate, futimens};
use rustix::io::{Errno, pwrite, retry_on_intr};

use super::ReceiveError;
use crate::format::Meta;

/// After so many bytes the disk's free space is looked at again.
const LOOK_AT_SPACE: u64 = 16 * 1024 * 1024;
/// What the smallest piece of a file costs on the disk; as much is counted for an entry.
const BLOCK: u64 = 4096;

/// A modification time; the time of access is the same, because the true one is nobody's business.
pub(super) fn times(meta: Meta) -> Timestamps {
    let time = Timespec {
        tv_sec: meta.seconds,
        tv_nsec: meta.nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// A file that is being received.
#[derive(Debug)]
pub(super) struct OpenFile<'t> {
    file: OwnedFd,
    name: String,
    position: u64,
    written: u64,
    size: u64,
    space: &'t mut Space,
}

impl<'t> OpenFile<'t> {
    /// A new file of this size.
    pub fn new(file: OwnedFd, name: String, size: u64, space: &'t mut Space) -> Self {
        OpenFile {
            file,
            name,
            position: 0,
            written: 0,
            size,
            space,
        }
    }

    /// Its name, as it is stored.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes are to come.
    pub fn left(&self) -> u64 {
        self.size.saturating_sub(self.position)
    }

    /// Whether so many more belong to it.
    pub fn room_for(&self, untrusted_length: u64) -> Result<(), ReceiveError> {
        if untrusted_length > self.left() {
            return Err(ReceiveError::Untrue {
                what: "a file is longer than it was said to be",
            });
        }
        Ok(())
    }

    pub fn data(&mut self, bytes: &[u8]) -> Result<(), ReceiveError> {
        self.room_for(bytes.len() as u64)?;
        self.space.take(self.file.as_fd(), bytes.len() as u64)?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = retry_on_intr(|| pwrite(&self.file, rest, self.position))
                .map_err(|error| self.failed(error))?;
            if length == 0 {
                return Err(self.failed(Errno::IO));
            }
            rest = rest.get(length..).unwrap_or_default();
            self.position = self.position.saturating_add(length as u64);
            self.written = self.position;
        }
        Ok(())
    }

    pub fn hole(&mut self, untrusted_length: u64) -> Result<(), ReceiveError> {
        self.room_for(untrusted_length)?;
        self.position = self.position.saturating_add(untrusted_length);
        Ok(())
    }

    /// It is complete.
    pub fn finish(self, meta: Meta) -> Result<(), ReceiveError> {
        if self.written < self.size {
            ftruncate(&self.file, self.size).map_err(|error| self.failed(error))?;
        }
        futimens(&self.file, &times(meta)).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: Errno) -> ReceiveError {
        ReceiveError::io("writing", format!("`{}`", self.name), error)
    }
}

/// Keeps some of the disk free.
#[derive(Debug)]
pub(super) struct Space {
    keep: u64,
    /// Since it was looked at last.
    written: u64,
}

impl Space {
    /// Fails if less than `keep` is free already.
    pub fn new(on: BorrowedFd<'_>, keep: u64) -> Result<Self, ReceiveError> {
        let mut space = Space {
            keep,
            written: LOOK_AT_SPACE,
        };
        space.take(on, 0)?;
        Ok(space)
    }

    /// So many bytes are written.
    pub fn take(&mut self, on: BorrowedFd<'_>, bytes: u64) -> Result<(), ReceiveError> {
        self.written = self.written.saturating_add(bytes.max(BLOCK));
        if self.written < LOOK_AT_SPACE || self.keep == 0 {
            return Ok(());
        }
        self.written = 0;
        let disk = fstatvfs(on)
            .map_err(|error| ReceiveError::io("looking at", "the free space", error))?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < self.keep {
            return Err(ReceiveError::NoSpace);
        }
        Ok(())
    }
}
