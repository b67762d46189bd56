//! One file's bytes, without its holes.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Stat, fstat, openat, seek};
use rustix::io::{Errno, pread, retry_on_intr};

use super::SendError;
use super::walk::{Place, special};
use crate::format::MAX_DATA;

/// Read into, again and again.
#[derive(Debug, Default)]
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    pub fn new() -> Self {
        Buffer(vec![0; MAX_DATA])
    }
}

/// An open file, and what it was when it was opened.
pub(super) struct Contents {
    file: OwnedFd,
    pub data: Stat,
}

/// A part of a file, in order.
pub(super) enum Piece<'a> {
    Data(&'a [u8]),
    Hole(u64),
}

impl Piece<'_> {
    pub fn length(&self) -> u64 {
        match self {
            Piece::Data(bytes) => bytes.len() as u64,
            Piece::Hole(length) => *length,
        }
    }
}

/// Opens it; what is no regular file any more is refused, and is not waited for.
pub(super) fn open(folder: BorrowedFd<'_>, place: &Place<'_>) -> Result<Contents, SendError> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = openat(folder, place.name, flags, Mode::empty())
        .map_err(|error| place.failed("opening it", error))?;
    let data = fstat(&file).map_err(|error| place.failed("looking at it", error))?;
    match FileType::from_raw_mode(data.st_mode) {
        FileType::RegularFile => Ok(Contents { file, data }),
        other => Err(SendError::Special {
            path: place.path(),
            what: special(other),
        }),
    }
}

/// A file's size in bytes.
pub(super) fn size(data: &Stat) -> u64 {
    u64::try_from(data.st_size).unwrap_or(0)
}

impl Contents {
    /// Gives its pieces, which together are as long as it was when it was opened.
    pub fn send(
        &self,
        place: &Place<'_>,
        buffer: &mut Buffer,
        mut give: impl FnMut(Piece<'_>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let size = size(&self.data);
        let mut position = 0;
        while position < size {
            let (data, end) = self
                .extent(position, size)
                .map_err(|error| place.failed("looking for holes", error))?;
            if data > position {
                give(Piece::Hole(data.saturating_sub(position)))?;
            }
            position = data;
            while position < end {
                let left = usize::try_from(end.saturating_sub(position)).unwrap_or(MAX_DATA);
                let most = left.min(MAX_DATA);
                let room = buffer.0.get_mut(..most).unwrap_or_default();
                let length = retry_on_intr(|| pread(&self.file, &mut *room, position))
                    .map_err(|error| place.failed("reading it", error))?;
                let bytes = buffer.0.get(..length).unwrap_or_default();
                if bytes.is_empty() {
                    return Err(SendError::Changed { path: place.path() });
                }
                give(Piece::Data(bytes))?;
                position = position.saturating_add(bytes.len() as u64);
            }
        }
        self.check_end(place, size)
    }

    /// Where the next data begins and ends; both the file's size, if only a hole is left.
    fn extent(&self, position: u64, size: u64) -> Result<(u64, u64), Errno> {
        let data = match seek(&self.file, SeekFrom::Data(position)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return Ok((size, size)),
            // This file system knows no holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((position, size)),
            Err(error) => return Err(error),
        };
        if data >= size {
            return Ok((size, size));
        }
        let end = match seek(&self.file, SeekFrom::Hole(data)) {
            Ok(end) => end.min(size),
            Err(Errno::NXIO | Errno::INVAL) => size,
            Err(error) => return Err(error),
        };
        Ok((data.max(position), end.max(data)))
    }

    /// It must end where it ended when it was opened. Files of the kernel say 0 and have more, so
    /// reading counts too.
    fn check_end(&self, place: &Place<'_>, size: u64) -> Result<(), SendError> {
        let failed = |error| place.failed("looking at it", error);
        let now = fstat(&self.file).map_err(failed)?;
        let mut byte = [0];
        let more = retry_on_intr(|| pread(&self.file, &mut byte, size)).map_err(failed)?;
        if more > 0 || self::size(&now) != size {
            return Err(SendError::Changed { path: place.path() });
        }
        Ok(())
    }
}
