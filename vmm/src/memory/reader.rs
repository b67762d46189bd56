//! Reads files into guest memory, before the guest runs.
//!
//! The memory is touched for the first time, so most of the work is the host kernel's: finding pages and
//! emptying them. Several processors share it. (A thread that gives the guest its next pages while it
//! already runs was tried as well: in the emulated host the start took no less time, and often more.)

use std::fs::File;
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, thread};

use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::GuestMemory;

/// What one thread reads at a time: whole huge pages, and enough of them that nobody waits long for the
/// last one.
const PART: u64 = 4 << 20;
/// More do not help: pages are emptied no faster than memory takes it.
const MAX_THREADS: usize = 4;

/// A range of a file and its place.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'f> {
    /// From where.
    pub file: &'f File,
    /// The first byte of it.
    pub offset: u64,
    /// Where it goes. A range that is not guest memory is an error.
    pub address: u64,
    /// How much.
    pub length: u64,
}

/// Why a file is not in memory.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file ends too early.
    #[error("it ends before byte {0}")]
    End(u64),
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The place is not guest memory.
    #[error("{0}")]
    Memory(vm_memory::GuestMemoryError),
}

/// A piece that could not be read.
#[derive(Debug)]
pub struct Failed {
    /// Its number among the pieces.
    pub piece: usize,
    /// Why.
    pub why: ReadError,
}

/// Reads all pieces. They must not overlap in memory. The first that fails ends the rest.
pub fn read(memory: &GuestMemory, pieces: &[Piece<'_>]) -> Result<(), Failed> {
    let numbered = pieces.iter().enumerate();
    let parts: Vec<_> = numbered
        .flat_map(|(number, piece)| parts(piece).map(move |part| (number, part)))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), Failed> {
        while let Some((piece, part)) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(why) = read_part(memory, part) {
                next.store(parts.len(), Ordering::Relaxed);
                return Err(Failed { piece: *piece, why });
            }
        }
        Ok(())
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let helpers = processors.min(MAX_THREADS).min(parts.len()).max(1) - 1;
    thread::scope(|scope| {
        let helpers: Vec<_> = (0..helpers)
            // A thread that cannot be had is no loss but of time.
            .filter_map(|_| {
                thread::Builder::new()
                    .name("loader".into())
                    .spawn_scoped(scope, work)
                    .ok()
            })
            .collect();
        let own = work();
        helpers.into_iter().fold(own, |result, helper| {
            result.and(helper.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    })
}

/// A piece in parts that end where one of [`PART`] bytes would, so that no two share a huge page.
fn parts<'f>(piece: &Piece<'f>) -> impl Iterator<Item = Piece<'f>> + use<'f> {
    let piece = *piece;
    let mut done = 0;
    std::iter::from_fn(move || {
        let left = piece.length.checked_sub(done).filter(|left| *left > 0)?;
        let address = piece.address.saturating_add(done);
        let length = left.min(PART - address % PART);
        let offset = piece.offset.saturating_add(done);
        done += length;
        Some(Piece {
            offset,
            address,
            length,
            ..piece
        })
    })
}

fn read_part(memory: &GuestMemory, part: &Piece<'_>) -> Result<(), ReadError> {
    let end = || ReadError::End(part.offset.saturating_add(part.length));
    let length = usize::try_from(part.length).map_err(|_| end())?;
    let place = memory
        .get_slice(GuestAddress(part.address), length)
        .map_err(ReadError::Memory)?;
    let guard = place.ptr_guard_mut();
    let mut done = 0;
    while done < length {
        let offset = i64::try_from(part.offset + done as u64).map_err(|_| end())?;
        // SAFETY: the slice is `length` bytes of guest memory, which stay mapped while `guard` lives, and
        // no reference to them exists.
        let count = unsafe {
            libc::pread(
                part.file.as_raw_fd(),
                guard.as_ptr().add(done).cast(),
                length - done,
                offset,
            )
        };
        match usize::try_from(count) {
            Ok(0) => return Err(end()),
            Ok(count) => done += count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error.into());
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vm_memory::Bytes;

    use super::*;

    fn file(bytes: usize) -> File {
        let mut file = tempfile::tempfile().unwrap();
        let pattern: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
        file.write_all(&pattern).unwrap();
        file
    }

    #[test]
    fn pieces_are_where_they_belong() {
        let memory = super::super::allocate(32 << 20).unwrap();
        let (a, b) = (file(9 << 20), file(1000));
        let pieces = [
            Piece {
                file: &a,
                offset: 5,
                address: (4 << 20) - 3,
                length: (9 << 20) - 5,
            },
            Piece {
                file: &b,
                offset: 0,
                address: 24 << 20,
                length: 1000,
            },
        ];
        read(&memory, &pieces).unwrap();
        let mut found = vec![0; (9 << 20) - 5];
        memory
            .read_slice(&mut found, GuestAddress((4 << 20) - 3))
            .unwrap();
        assert!((0..found.len()).all(|i| usize::from(found[i]) == (i + 5) % 251));
        let around: [u8; 2] = memory.read_obj(GuestAddress((4 << 20) - 5)).unwrap();
        assert_eq!(around, [0, 0]);
        let last: [u8; 2] = memory.read_obj(GuestAddress((24 << 20) + 999)).unwrap();
        assert_eq!(last, [(999 % 251) as u8, 0]);
    }

    #[test]
    fn parts_do_not_share_huge_pages() {
        let file = file(1);
        let piece = |address, length| Piece {
            file: &file,
            offset: 7,
            address,
            length,
        };
        let lengths = |address, length| {
            parts(&piece(address, length))
                .map(|part| part.length)
                .collect::<Vec<_>>()
        };
        assert_eq!(lengths(PART - 1, 2 * PART), [1, PART, PART - 1]);
        assert_eq!(lengths(0, 0), [] as [u64; 0]);
        assert_eq!(lengths(0, 1), [1]);
        let offsets: Vec<_> = parts(&piece(PART - 1, 3)).map(|part| part.offset).collect();
        assert_eq!(offsets, [7, 8]);
    }

    #[test]
    fn what_is_missing_is_told() {
        let memory = super::super::allocate(16 << 20).unwrap();
        let short = file(10);
        let piece = |address, length| Piece {
            file: &short,
            offset: 0,
            address,
            length,
        };
        let failure = |pieces: &[Piece<'_>]| read(&memory, pieces).unwrap_err();
        let ends = failure(&[piece(100, 10), piece(0, 11)]);
        assert!(matches!(ends.why, ReadError::End(11)), "{ends:?}");
        assert_eq!(ends.piece, 1);
        let outside = failure(&[piece((16 << 20) - 5, 10)]);
        assert!(matches!(outside.why, ReadError::Memory(_)), "{outside:?}");
        let pipe = rustix::pipe::pipe().unwrap();
        let not_a_file = File::from(pipe.0);
        let piece = Piece {
            file: &not_a_file,
            ..piece(0, 1)
        };
        assert!(matches!(failure(&[piece]).why, ReadError::Io(_)));
    }
}
