//! The memory: a file without a name, of one size for ever.
//!
//! A page with what both sides say of themselves, and behind it the two rings. All of it is hostile.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use crate::RING_BYTES;

/// Of the whole file.
pub const MEMORY_BYTES: usize = WORDS_BYTES + 2 * RING_BYTES;
/// Of the page before the rings.
const WORDS_BYTES: usize = 4096;
/// Each word has a line of the processor's cache for itself.
const LINE_BYTES: usize = 64;
/// Nobody makes it shorter (which would kill who reads it) or longer, or forbids anything else.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// Why a descriptor is no ring.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// It is no memfd, or may still change its size.
    #[error("the descriptor is no ring: its size is not sealed")]
    NotSealed,
    /// Of another version, or something else.
    #[error("the descriptor is no ring: it has {0} bytes, not {MEMORY_BYTES}")]
    Size(i64),
    /// The kernel does not map it.
    #[error("the ring cannot be mapped: {0}")]
    Map(io::Error),
}

/// Which of the two rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What a card sends.
    FromCard,
    /// What it receives.
    ToCard,
}

/// What the sides of a ring say of themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Index {
    /// How much was ever written.
    Produced,
    /// How much was ever read.
    Consumed,
}

/// What they ask for: not 0 where they do. Who answers puts the 0 back.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wish {
    /// The reader sleeps: it is to be woken when there is something.
    Packets,
    /// The writer sleeps: it is to be woken when there is room.
    Room,
}

/// A mapping of it.
#[derive(Debug)]
pub struct Memory(NonNull<u8>);

// SAFETY: it is plain memory, which another process changes anyhow: all access is by atomics and copies.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// New memory, to be handed to both sides.
    pub fn create() -> io::Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create("bulkhead-ring", flags)?;
        rustix::fs::ftruncate(&memory, MEMORY_BYTES as u64)?;
        rustix::fs::fcntl_add_seals(&memory, SEALS)?;
        Ok(memory)
    }

    /// Maps memory that somebody handed over.
    pub fn map(memory: impl AsFd) -> Result<Self, MapError> {
        let failed = |error: Errno| MapError::Map(error.into());
        let seals = match rustix::fs::fcntl_get_seals(&memory) {
            Ok(seals) => seals,
            // What has no seals at all.
            Err(Errno::INVAL) => SealFlags::empty(),
            Err(error) => return Err(failed(error)),
        };
        if !seals.contains(SEALS) {
            return Err(MapError::NotSealed);
        }
        let bytes = rustix::fs::fstat(&memory).map_err(failed)?.st_size;
        if bytes != MEMORY_BYTES as i64 {
            return Err(MapError::Size(bytes));
        }
        // SAFETY: the kernel chooses a free place, so that nothing else is mapped over; the file is as long
        // as the mapping, and stays so.
        let place = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                MEMORY_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                memory,
                0,
            )
        };
        let place = place.map_err(failed)?;
        let nowhere = || MapError::Map(io::ErrorKind::OutOfMemory.into());
        NonNull::new(place.cast()).map(Memory).ok_or_else(nowhere)
    }

    fn line(&self, direction: Direction, number: usize) -> NonNull<u8> {
        let line = direction as usize * 4 + number;
        // SAFETY: eight lines lie within the page before the rings, which is mapped.
        unsafe { self.0.add(line * LINE_BYTES) }
    }

    pub(crate) fn index(&self, direction: Direction, index: Index) -> &AtomicU64 {
        let place = self.line(direction, index as usize).cast();
        // SAFETY: a word at the beginning of a line is aligned, and mapped for as long as `self` is there;
        // every value is valid, and nobody in this process reaches it but by atomics.
        unsafe { place.as_ref() }
    }

    pub(crate) fn wish(&self, direction: Direction, wish: Wish) -> &AtomicU32 {
        let place = self.line(direction, 2 + wish as usize).cast();
        // SAFETY: as in `index`.
        unsafe { place.as_ref() }
    }

    /// The length before a record.
    pub(crate) fn length(&self, direction: Direction, at: u64) -> &AtomicU64 {
        let offset = place(at) & !(align_of::<AtomicU64>() - 1);
        // SAFETY: within the ring, and aligned, as rings begin at a page; otherwise as in `index`. Records
        // are copied as bytes, by whoever was told by a release and an acquire that this one is theirs; a
        // hostile process that changes them meanwhile changes what is in them and nothing else.
        unsafe { self.ring(direction).add(offset).cast().as_ref() }
    }

    fn ring(&self, direction: Direction) -> NonNull<u8> {
        // SAFETY: the two rings lie behind the page, and are mapped.
        unsafe { self.0.add(WORDS_BYTES + direction as usize * RING_BYTES) }
    }

    /// Where so many bytes of a ring lie from `at` on: up to its end, and from its beginning on.
    pub(crate) fn places(
        &self,
        direction: Direction,
        at: u64,
        length: usize,
    ) -> [(*const u8, usize); 2] {
        assert!(length <= RING_BYTES);
        let first = length.min(RING_BYTES - place(at));
        let ring = self.ring(direction).as_ptr();
        // SAFETY: `place(at) + first` is at most the ring's size.
        let begin = unsafe { ring.add(place(at)) };
        [
            (begin.cast_const(), first),
            (ring.cast_const(), length - first),
        ]
    }

    /// Copies into a ring from `at` on, and round its end.
    ///
    /// # Safety
    ///
    /// `source` must be readable for `length` bytes. It may lie in this memory too.
    pub(crate) unsafe fn copy_in(
        &self,
        direction: Direction,
        at: u64,
        source: *const u8,
        length: usize,
    ) {
        assert!(length <= RING_BYTES);
        let first = length.min(RING_BYTES - place(at));
        let ring = self.ring(direction).as_ptr();
        // SAFETY: `place(at) + first` and `length - first` are at most the ring's size; the source is the
        // caller's promise. Nobody in this process has a reference to these bytes.
        unsafe {
            std::ptr::copy(source, ring.add(place(at)), first);
            std::ptr::copy(source.add(first), ring, length - first);
        }
    }

    /// Copies out of a ring from `at` on, and round its end.
    ///
    /// # Safety
    ///
    /// `target` must be writable for `length` bytes, and not lie in this memory.
    pub(crate) unsafe fn copy_out(
        &self,
        direction: Direction,
        at: u64,
        target: *mut u8,
        length: usize,
    ) {
        assert!(length <= RING_BYTES);
        let first = length.min(RING_BYTES - place(at));
        let ring = self.ring(direction).as_ptr();
        // SAFETY: as in `copy_in`. The other process may change the bytes meanwhile: whatever is copied is
        // only bytes, and nothing was concluded from them before.
        unsafe {
            std::ptr::copy_nonoverlapping(ring.add(place(at)), target, first);
            std::ptr::copy_nonoverlapping(ring, target.add(first), length - first);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this size, and nothing borrows from it any more.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), MEMORY_BYTES) };
    }
}

/// Where in a ring.
fn place(at: u64) -> usize {
    (at % RING_BYTES as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sealed_memory_of_the_right_size_is_a_ring() {
        Memory::map(Memory::create().unwrap()).unwrap();
        let file = |bytes: usize, seals: SealFlags| {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let file = rustix::fs::memfd_create("other", flags).unwrap();
            rustix::fs::ftruncate(&file, bytes as u64).unwrap();
            rustix::fs::fcntl_add_seals(&file, seals).unwrap();
            Memory::map(file)
        };
        for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::SEAL] {
            let error = file(MEMORY_BYTES, SEALS.difference(missing)).unwrap_err();
            assert!(matches!(error, MapError::NotSealed), "{error}");
        }
        for bytes in [0, MEMORY_BYTES - 1, MEMORY_BYTES + 4096] {
            let error = file(bytes, SEALS).unwrap_err();
            assert!(
                matches!(error, MapError::Size(size) if size == bytes as i64),
                "{error}"
            );
        }
        // Never to be written: who sleeps could not say so.
        let error = file(MEMORY_BYTES, SEALS | SealFlags::WRITE).unwrap_err();
        assert!(matches!(error, MapError::Map(_)), "{error}");
        let error = Memory::map(std::fs::File::open("/dev/null").unwrap()).unwrap_err();
        assert!(matches!(error, MapError::NotSealed), "{error}");
    }
}
