//! The image behind a disk, read and written straight from and to guest memory.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use vm_memory::Permissions;

use super::request::{ID_BYTES, Request, SECTOR, Status, WRITE_DATA, parse, status_offset};
use crate::devices::virtio::buffers::{Buffers, Range};
use crate::memory::GuestMemory;

/// The kernel takes so many pieces in one call (`UIO_MAXIOV`).
const MAX_PIECES: usize = 1024;

/// A raw image.
#[derive(Debug)]
pub struct Disk {
    file: File,
    sectors: u64,
    read_only: bool,
    id: [u8; ID_BYTES],
}

/// Which way the bytes go.
#[derive(Clone, Copy)]
enum Direction {
    FromDisk,
    ToDisk,
}

impl Disk {
    /// `id` is cut off at 20 bytes; a last piece smaller than a sector is not shown.
    pub fn new(file: File, bytes: u64, read_only: bool, id: &str) -> Self {
        let mut padded = [0; ID_BYTES];
        for (to, from) in padded.iter_mut().zip(id.bytes()) {
            *to = from;
        }
        Self {
            file,
            sectors: bytes / SECTOR,
            read_only,
            id: padded,
        }
    }

    /// Size in sectors.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Another handle of the same image.
    pub fn try_clone(&self) -> io::Result<Self> {
        let Self {
            sectors,
            read_only,
            id,
            ..
        } = *self;
        Ok(Self {
            file: self.file.try_clone()?,
            sectors,
            read_only,
            id,
        })
    }

    /// Carries out a request and returns the number of bytes written into guest memory.
    pub fn answer(&self, buffers: &Buffers, memory: &GuestMemory) -> u32 {
        let Some(status_at) = status_offset(buffers) else {
            return 0; // no room for an answer
        };
        let result = parse(buffers, memory, self.sectors, self.read_only)
            .and_then(|request| self.carry_out(request, buffers, memory));
        let (status, data) = match result {
            Ok(data) => (Status::Ok, data),
            Err(status) => (status, 0),
        };
        match buffers.write(memory, status_at, &[status as u8]) {
            // All data was written before the status, which is the last byte.
            Ok(()) if data > 0 => data.saturating_add(1),
            Ok(()) => 1,
            Err(_) => 0,
        }
    }

    fn carry_out(
        &self,
        request: Request,
        buffers: &Buffers,
        memory: &GuestMemory,
    ) -> Result<u32, Status> {
        let io_error = |error: io::Error| {
            tracing::warn!(disk = %self.name(), "input/output error: {error}");
            Status::IoError
        };
        match request {
            Request::Read { offset, length } => {
                let ranges = buffers
                    .writable_ranges(0, length)
                    .map_err(|_| Status::IoError)?;
                self.transfer(memory, &ranges, offset, Direction::FromDisk)
                    .map_err(io_error)?;
                Ok(u32::try_from(length).unwrap_or(u32::MAX))
            }
            Request::Write { offset, length } => {
                let ranges = buffers
                    .readable_ranges(WRITE_DATA, length)
                    .map_err(|_| Status::IoError)?;
                self.transfer(memory, &ranges, offset, Direction::ToDisk)
                    .map_err(io_error)?;
                Ok(0)
            }
            Request::Flush => {
                if !self.read_only {
                    self.file.sync_data().map_err(io_error)?;
                }
                Ok(0)
            }
            Request::GetId => {
                buffers
                    .write(memory, 0, &self.id)
                    .map_err(|_| Status::IoError)?;
                Ok(ID_BYTES as u32)
            }
        }
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(&self.id)
            .trim_end_matches('\0')
            .to_owned()
    }

    /// Moves all bytes of `ranges`, a few pieces at a time.
    fn transfer(
        &self,
        memory: &GuestMemory,
        ranges: &[Range],
        mut offset: u64,
        direction: Direction,
    ) -> io::Result<()> {
        let mut pieces = Vec::with_capacity(ranges.len().min(MAX_PIECES));
        for range in ranges {
            let access = match direction {
                Direction::FromDisk => Permissions::Write,
                Direction::ToDisk => Permissions::Read,
            };
            let slices = vm_memory::GuestMemory::get_slices(
                memory,
                range.address,
                range.length as usize,
                access,
            )
            .map_err(io::Error::other)?;
            for slice in slices {
                let slice = slice.map_err(io::Error::other)?;
                let guard = slice.ptr_guard_mut();
                pieces.push(libc::iovec {
                    iov_base: guard.as_ptr().cast(),
                    iov_len: slice.len(),
                });
                if pieces.len() == MAX_PIECES {
                    offset = self.transfer_pieces(&mut pieces, offset, direction)?;
                }
            }
        }
        self.transfer_pieces(&mut pieces, offset, direction)?;
        Ok(())
    }

    /// Moves the bytes of all `pieces`, empties the list and returns the offset after them.
    fn transfer_pieces(
        &self,
        pieces: &mut Vec<libc::iovec>,
        mut offset: u64,
        direction: Direction,
    ) -> io::Result<u64> {
        let mut first = 0;
        while let Some(rest) = pieces.get_mut(first..).filter(|rest| !rest.is_empty()) {
            let fd = self.file.as_raw_fd();
            let count = rest.len() as libc::c_int;
            let at = libc::off_t::try_from(offset).map_err(io::Error::other)?;
            // SAFETY: the pieces are slices of guest memory, which stays mapped while `memory` is
            // borrowed by the caller; the guest may change them meanwhile, but no Rust reference
            // to them exists.
            let moved = unsafe {
                match direction {
                    Direction::FromDisk => libc::preadv(fd, rest.as_ptr(), count, at),
                    Direction::ToDisk => libc::pwritev(fd, rest.as_ptr(), count, at),
                }
            };
            let mut moved = match moved {
                // The image became shorter than it was, or every piece is empty.
                0 if rest.iter().all(|piece| piece.iov_len == 0) => break,
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count if count > 0 => count as usize,
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() == io::ErrorKind::Interrupted {
                        continue;
                    }
                    return Err(error);
                }
            };
            offset += moved as u64;
            for piece in rest {
                let part = moved.min(piece.iov_len);
                piece.iov_base = piece.iov_base.cast::<u8>().wrapping_add(part).cast();
                piece.iov_len -= part;
                moved -= part;
                if piece.iov_len > 0 {
                    break;
                }
                first += 1;
            }
        }
        pieces.clear();
        Ok(offset)
    }
}
