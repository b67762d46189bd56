//! The window through which a guest sees memory objects of the host.
//!
//! It is one reserved range of address space behind one KVM memory slot. Objects are mapped into
//! it and removed again; everything else in it is `PROT_NONE`, so that a guest that touches it
//! stops itself and reads nothing. No range is ever mapped over another.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Mutex;

/// Size of a guest page; everything in the window is a multiple of it.
pub const PAGE_SIZE: u64 = 4096;

/// Why a mapping was refused.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// Offset or length is zero, or not a multiple of the page size.
    #[error("offset {offset:#x} and length {length:#x} must be non-empty multiples of a page")]
    Unaligned {
        /// The offset asked for.
        offset: u64,
        /// The length asked for.
        length: u64,
    },
    /// The range does not lie inside the window.
    #[error("offset {offset:#x} and length {length:#x} leave the window")]
    OutOfBounds {
        /// The offset asked for.
        offset: u64,
        /// The length asked for.
        length: u64,
    },
    /// Something is mapped there already.
    #[error("offset {offset:#x} and length {length:#x} overlap a mapping")]
    Overlap {
        /// The offset asked for.
        offset: u64,
        /// The length asked for.
        length: u64,
    },
    /// No mapping with exactly this offset and length.
    #[error("nothing is mapped at offset {offset:#x} with length {length:#x}")]
    NotMapped {
        /// The offset asked for.
        offset: u64,
        /// The length asked for.
        length: u64,
    },
    /// The object is shorter than what was to be mapped: touching its missing pages would be a
    /// fault.
    #[error("the object has {size} bytes, less than the {wanted} to be mapped")]
    TooShort {
        /// The size of the object.
        size: u64,
        /// The end of the range to be mapped.
        wanted: u64,
    },
    /// The kernel refused.
    #[error("mapping into the window: {0}")]
    Host(#[from] io::Error),
}

/// A reserved address range with tracked mappings.
#[derive(Debug)]
pub struct HostVisibleWindow {
    base: usize,
    length: u64,
    /// Offset → length of each mapping.
    mappings: Mutex<BTreeMap<u64, u64>>,
}

impl HostVisibleWindow {
    /// Reserves `length` bytes of address space, none of it accessible.
    pub fn new(length: u64) -> Result<Self, WindowError> {
        if length == 0 || !length.is_multiple_of(PAGE_SIZE) {
            return Err(WindowError::Unaligned { offset: 0, length });
        }
        let size =
            usize::try_from(length).map_err(|_| WindowError::OutOfBounds { offset: 0, length })?;
        // SAFETY: a fresh mapping at an address that the kernel chooses; nothing is replaced.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().into());
        }
        Ok(Self {
            base: base as usize,
            length,
            mappings: Mutex::new(BTreeMap::new()),
        })
    }

    /// The window's length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The host address of the window's start, for the KVM memory slot.
    pub(crate) fn host_address(&self) -> u64 {
        self.base as u64
    }

    /// Maps `length` bytes of `fd` from `fd_offset` at `offset`.
    ///
    /// The descriptor may be closed afterwards. A regular file or memfd must be long enough now;
    /// whether it can shrink later is the caller's to find out (seals).
    pub fn map_fd(
        &self,
        offset: u64,
        fd: BorrowedFd<'_>,
        fd_offset: u64,
        length: u64,
        writable: bool,
    ) -> Result<(), WindowError> {
        let address = self.check(offset, length)?;
        if !fd_offset.is_multiple_of(PAGE_SIZE) {
            return Err(WindowError::Unaligned {
                offset: fd_offset,
                length,
            });
        }
        let out_of_bounds = || WindowError::OutOfBounds {
            offset: fd_offset,
            length,
        };
        let wanted = fd_offset.checked_add(length).ok_or_else(out_of_bounds)?;
        let file_offset = libc::off_t::try_from(fd_offset).map_err(|_| out_of_bounds())?;
        if let Some(size) = file_size(fd)?
            && size.div_ceil(PAGE_SIZE).saturating_mul(PAGE_SIZE) < wanted
        {
            return Err(WindowError::TooShort { size, wanted });
        }
        let mut mappings = self.lock();
        let before = mappings.range(..=offset).next_back();
        let after = mappings.range(offset..).next();
        if before.is_some_and(|(start, len)| start + len > offset)
            || after.is_some_and(|(start, _)| *start < offset + length)
        {
            return Err(WindowError::Overlap { offset, length });
        }
        let access = if writable {
            libc::PROT_READ | libc::PROT_WRITE
        } else {
            libc::PROT_READ
        };
        // SAFETY: `check` proved that the range lies inside our own reservation, which no Rust
        // object lives in; it is replaced there and nowhere else.
        let mapped = unsafe {
            libc::mmap(
                address as *mut libc::c_void,
                length as usize,
                access,
                libc::MAP_SHARED | libc::MAP_FIXED,
                fd.as_raw_fd(),
                file_offset,
            )
        };
        if mapped == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            // A failed MAP_FIXED may have removed what was there: put the reservation back.
            self.reserve(address, length)?;
            return Err(error.into());
        }
        mappings.insert(offset, length);
        Ok(())
    }

    /// Removes the mapping of exactly this range.
    pub fn unmap(&self, offset: u64, length: u64) -> Result<(), WindowError> {
        let address = self.check(offset, length)?;
        let mut mappings = self.lock();
        if mappings.get(&offset) != Some(&length) {
            return Err(WindowError::NotMapped { offset, length });
        }
        self.reserve(address, length)?;
        mappings.remove(&offset);
        Ok(())
    }

    /// Removes every mapping.
    pub fn unmap_all(&self) -> Result<(), WindowError> {
        let mut mappings = self.lock();
        self.reserve(self.base, self.length)?;
        mappings.clear();
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, u64>> {
        self.mappings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The host address of a range that lies inside the window.
    fn check(&self, offset: u64, length: u64) -> Result<usize, WindowError> {
        if length == 0 || !length.is_multiple_of(PAGE_SIZE) || !offset.is_multiple_of(PAGE_SIZE) {
            return Err(WindowError::Unaligned { offset, length });
        }
        match offset.checked_add(length) {
            // Inside the reservation, so the sum with its base cannot overflow.
            Some(end) if end <= self.length => Ok(self.base + offset as usize),
            _ => Err(WindowError::OutOfBounds { offset, length }),
        }
    }

    /// Makes a range of the reservation inaccessible again.
    fn reserve(&self, address: usize, length: u64) -> Result<(), WindowError> {
        // SAFETY: callers pass a range inside our own reservation, which no Rust object lives in.
        let mapped = unsafe {
            libc::mmap(
                address as *mut libc::c_void,
                length as usize,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            Err(io::Error::last_os_error().into())
        } else {
            Ok(())
        }
    }
}

impl Drop for HostVisibleWindow {
    fn drop(&mut self) {
        // SAFETY: the range is ours alone and nothing refers to it any more: the VM holds an
        // `Arc` of the window for as long as KVM has the memory slot.
        unsafe { libc::munmap(self.base as *mut libc::c_void, self.length as usize) };
    }
}

/// The size of a regular file (memfds are regular files), `None` for other objects (dma-bufs).
fn file_size(fd: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `fd` is open and `stat` has room for the answer.
    if unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fstat succeeded and filled it.
    let stat = unsafe { stat.assume_init() };
    let regular = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
    Ok(regular.then(|| u64::try_from(stat.st_size).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    fn file(bytes: usize) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; bytes]).unwrap();
        file
    }

    #[test]
    fn objects_come_and_go() {
        let window = HostVisibleWindow::new(16 * PAGE_SIZE).unwrap();
        let file = file(8192);
        window.map_fd(4096, file.as_fd(), 0, 8192, true).unwrap();
        // SAFETY: mapped just now, and the test does not unmap it before the read.
        let byte = unsafe { *((window.host_address() + 4096) as *const u8) };
        assert_eq!(byte, 7);
        window.unmap(4096, 8192).unwrap();
        assert!(matches!(
            window.unmap(4096, 8192),
            Err(WindowError::NotMapped { .. })
        ));
        window
            .map_fd(8192, file.as_fd(), 4096, 4096, false)
            .unwrap();
        window.unmap_all().unwrap();
        window.map_fd(0, file.as_fd(), 0, 8192, false).unwrap();
    }

    #[test]
    fn hostile_ranges_are_refused() {
        let window = HostVisibleWindow::new(16 * PAGE_SIZE).unwrap();
        let file = file(16 * 4096);
        let map = |offset, fd_offset, length| {
            window.map_fd(offset, file.as_fd(), fd_offset, length, true)
        };
        assert!(matches!(map(0, 0, 0), Err(WindowError::Unaligned { .. })));
        assert!(matches!(
            map(1, 0, 4096),
            Err(WindowError::Unaligned { .. })
        ));
        assert!(matches!(
            map(0, 1, 4096),
            Err(WindowError::Unaligned { .. })
        ));
        assert!(matches!(
            map(0, 0, 17 * 4096),
            Err(WindowError::OutOfBounds { .. })
        ));
        assert!(matches!(
            map(u64::MAX - 4095, 0, 4096),
            Err(WindowError::OutOfBounds { .. })
        ));
        assert!(matches!(
            map(0, u64::MAX - 4095, 8192),
            Err(WindowError::OutOfBounds { .. })
        ));
        map(4096, 0, 8192).unwrap();
        for (offset, length) in [
            (0, 8192),
            (4096, 4096),
            (8192, 4096),
            (0, 65536),
            (8192, 8192),
        ] {
            assert!(matches!(
                map(offset, 0, length),
                Err(WindowError::Overlap { .. })
            ));
        }
        map(0, 0, 4096).unwrap();
        map(12288, 0, 4096).unwrap();
        assert!(matches!(
            window.unmap(4096, 4096),
            Err(WindowError::NotMapped { .. })
        ));
    }

    #[test]
    fn a_short_object_is_refused() {
        let window = HostVisibleWindow::new(512 * PAGE_SIZE).unwrap();
        let file = file(100);
        window.map_fd(0, file.as_fd(), 0, 4096, true).unwrap();
        assert!(matches!(
            window.map_fd(8192, file.as_fd(), 0, 1 << 20, true),
            Err(WindowError::TooShort { size: 100, .. })
        ));
    }
}
