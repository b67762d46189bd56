//! Mapped memory, and the only place where its bytes are touched.

use std::ffi::c_void;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// A shared mapping of a file or of a blob. Its bytes may change at any time by the other side's
/// hand, so they are never borrowed: only copied.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes at `offset` of `file`.
    ///
    /// # Safety
    ///
    /// The file must keep these bytes for as long as the mapping lives: sealed against shrinking,
    /// or owned by the host. Touching a mapping beyond its file's end kills the process.
    pub unsafe fn new(
        file: impl AsFd,
        offset: u64,
        len: usize,
        writable: bool,
    ) -> rustix::io::Result<Self> {
        let access = if writable {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // SAFETY: a new mapping at an address that the kernel chooses disturbs nothing.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                access,
                MapFlags::SHARED,
                file,
                offset,
            )?
        };
        let start = NonNull::new(start.cast::<u8>()).ok_or(rustix::io::Errno::INVAL)?;
        Ok(Self { start, len })
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn holds(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// Copies bytes out. `false` when they are not all inside.
    #[must_use]
    pub fn read(&self, offset: usize, to: &mut [u8]) -> bool {
        if !self.holds(offset, to.len()) {
            return false;
        }
        // SAFETY: the source was just checked to be inside the mapping, the target is borrowed.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.start.as_ptr().add(offset),
                to.as_mut_ptr(),
                to.len(),
            );
        }
        true
    }

    /// Copies bytes in. The mapping must be writable. `false` when they do not fit.
    #[must_use]
    pub fn write(&self, offset: usize, from: &[u8]) -> bool {
        if !self.holds(offset, from.len()) {
            return false;
        }
        // SAFETY: the target was just checked to be inside the mapping, the source is borrowed.
        unsafe {
            std::ptr::copy_nonoverlapping(
                from.as_ptr(),
                self.start.as_ptr().add(offset),
                from.len(),
            );
        }
        true
    }

    /// Copies bytes from another mapping. `false` when they are not inside both.
    #[must_use]
    pub fn copy_from(&self, offset: usize, from: &Mapping, from_offset: usize, len: usize) -> bool {
        if !self.holds(offset, len) || !from.holds(from_offset, len) {
            return false;
        }
        // SAFETY: both ranges were just checked; two mappings are two address ranges, so they do
        // not overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(
                from.start.as_ptr().add(from_offset),
                self.start.as_ptr().add(offset),
                len,
            );
        }
        true
    }

    /// Reads bytes of a file straight into the mapping: one copy, made by the kernel, which
    /// cannot fault when the file is shorter than was said. Returns how many bytes there were.
    pub fn read_file(
        &self,
        offset: usize,
        len: usize,
        file: impl AsFd,
        file_offset: u64,
    ) -> io::Result<usize> {
        if !self.holds(offset, len) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the range was just checked to be inside the mapping. The slice lives for this
        // call only and nobody else in this process touches these bytes meanwhile; the kernel
        // writes them and nothing here reads them through the slice.
        let slice = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(offset), len) };
        let mut done = 0;
        while let Some(rest) = slice.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::preadv(
                &file,
                &mut [IoSliceMut::new(rest)],
                file_offset.saturating_add(done as u64),
            ) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(done)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, is unmapped only here, and no borrow of it
        // outlives a method call.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast::<c_void>(), self.len) };
    }
}

/// A memfd that holds exactly these bytes and that nobody can change any more.
pub fn sealed_memfd(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pwrite(&file, rest, written as u64) {
            Ok(n) => written += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
    )?;
    Ok(file)
}
