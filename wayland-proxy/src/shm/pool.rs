//! The application's shared memory.
//!
//! The application owns the file and may truncate it at any time. A mapping of it would kill the
//! proxy, so it is only mapped when it is sealed against shrinking; any other file is read with
//! `preadv`, which makes the same single copy and only comes back short.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::SealFlags;

use super::Layout;
use super::damage::Region;
use crate::memory::Mapping;

/// A `wl_shm_pool`. Buffers keep it alive.
#[derive(Debug)]
pub struct Pool {
    file: OwnedFd,
    size_bytes: RefCell<PoolSize>,
}

#[derive(Debug)]
struct PoolSize {
    untrusted_bytes: i32,
    /// The whole pool, when the file is sealed and really that large.
    mapping: Option<Mapping>,
}

/// Why a pool or buffer cannot be made. The application gets it as the `wl_shm` error.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PoolError {
    /// Pools have a positive size and never shrink.
    #[error("a pool cannot be resized from {from} to {to} bytes")]
    Size {
        /// What it was.
        from: i32,
        /// What was asked for.
        to: i32,
    },
    /// The buffer is not inside its pool or its rows overlap.
    #[error("a buffer of {width}x{height} with stride {stride} at {offset} is not inside its pool")]
    Buffer {
        /// Offset in the pool.
        offset: i32,
        /// Width in pixels.
        width: i32,
        /// Height in pixels.
        height: i32,
        /// Bytes from row to row.
        stride: i32,
    },
}

fn map_if_sealed(file: &OwnedFd, untrusted_bytes: i32) -> Option<Mapping> {
    let len = usize::try_from(untrusted_bytes).ok()?;
    // Seals first: after them the size can only grow.
    let seals = rustix::fs::fcntl_get_seals(file).ok()?;
    let real = u64::try_from(rustix::fs::fstat(file).ok()?.st_size).ok()?;
    if !seals.contains(SealFlags::SHRINK) || real < len as u64 {
        return None;
    }
    // SAFETY: the file is sealed against shrinking and at least this large.
    unsafe { Mapping::new(file, 0, len, false) }.ok()
}

impl Pool {
    /// Takes a client's file.
    pub fn new(file: OwnedFd, untrusted_bytes: i32) -> Result<Self, PoolError> {
        if untrusted_bytes <= 0 {
            return Err(PoolError::Size {
                from: 0,
                to: untrusted_bytes,
            });
        }
        let mapping = map_if_sealed(&file, untrusted_bytes);
        Ok(Self {
            file,
            size_bytes: RefCell::new(PoolSize {
                untrusted_bytes,
                mapping,
            }),
        })
    }

    /// The client says that its file has grown.
    pub fn resize(&self, untrusted_bytes: i32) -> Result<(), PoolError> {
        let from = self.size_bytes.borrow().untrusted_bytes;
        if untrusted_bytes < from {
            return Err(PoolError::Size {
                from,
                to: untrusted_bytes,
            });
        }
        let mapping = map_if_sealed(&self.file, untrusted_bytes);
        *self.size_bytes.borrow_mut() = PoolSize {
            untrusted_bytes,
            mapping,
        };
        Ok(())
    }
}

/// A `wl_buffer` in a pool.
#[derive(Debug)]
pub struct Buffer {
    pool: Rc<Pool>,
    offset: i32,
    /// How its pixels lie.
    pub layout: Layout,
}

impl Buffer {
    /// Checks that the buffer lies inside the pool.
    pub fn new(pool: Rc<Pool>, offset: i32, layout: Layout) -> Result<Self, PoolError> {
        let Layout {
            width,
            height,
            stride,
            pixel_bytes,
            ..
        } = layout;
        let refused = PoolError::Buffer {
            offset,
            width,
            height,
            stride,
        };
        let pool_bytes = i64::from(pool.size_bytes.borrow().untrusted_bytes);
        let row = i64::from(width) * i64::from(pixel_bytes);
        let end = i64::from(offset) + i64::from(stride) * i64::from(height);
        let inside = offset >= 0 && width > 0 && height > 0 && i64::from(stride) >= row;
        if !inside || end > pool_bytes {
            return Err(refused);
        }
        Ok(Self {
            pool,
            offset,
            layout,
        })
    }

    /// Copies a region, which is inside the picture, to memory of the same layout at offset 0.
    /// Returns the bytes copied; a file that is shorter than its pool gives fewer.
    pub fn copy_to(&self, target: &Mapping, region: &Region) -> u64 {
        let Layout {
            stride,
            pixel_bytes,
            width,
            ..
        } = self.layout;
        let size = self.pool.size_bytes.borrow();
        let source = size.mapping.as_ref();
        let mut copied = 0;
        for rect in region.rects() {
            let row_bytes = (rect.x1 - rect.x0) as usize * pixel_bytes as usize;
            let rows = (rect.y1 - rect.y0) as usize;
            let first =
                rect.y0 as usize * stride as usize + rect.x0 as usize * pixel_bytes as usize;
            // Whole rows without padding are one piece.
            let solid = rect.x1 - rect.x0 == width && width * pixel_bytes == stride;
            let (pieces, piece_bytes) = if solid {
                (1, rows * stride as usize)
            } else {
                (rows, row_bytes)
            };
            for piece in 0..pieces {
                let at = first + piece * stride as usize;
                let from = self.offset as usize + at;
                let done = match source {
                    Some(source) => {
                        if target.copy_from(at, source, from, piece_bytes) {
                            piece_bytes
                        } else {
                            0
                        }
                    }
                    None => target
                        .read_file(at, piece_bytes, &self.pool.file, from as u64)
                        .unwrap_or(0),
                };
                copied += done as u64;
            }
        }
        copied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::damage::Rect;
    use proptest::prelude::*;
    use rustix::fs::MemfdFlags;

    fn file(len: u64, seal: bool) -> OwnedFd {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("test", flags).unwrap();
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
        rustix::io::pwrite(&file, &bytes, 0).unwrap();
        if seal {
            rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        }
        file
    }

    fn target(len: usize) -> Mapping {
        let file = file(len as u64, true);
        // SAFETY: the file is sealed against shrinking.
        let mapping = unsafe { Mapping::new(&file, 0, len, true) }.unwrap();
        assert!(mapping.write(0, &vec![0; len]));
        mapping
    }

    fn layout(width: i32, height: i32, stride: i32) -> Layout {
        Layout {
            width,
            height,
            stride,
            format: 0,
            pixel_bytes: 4,
        }
    }

    #[test]
    fn a_truncated_pool_only_comes_back_short() {
        let shrinking = file(4096 * 4, false);
        let pool = Rc::new(Pool::new(shrinking.try_clone().unwrap(), 4096 * 4).unwrap());
        let buffer = Buffer::new(pool, 0, layout(64, 64, 256)).unwrap();
        rustix::fs::ftruncate(&shrinking, 100).unwrap();
        let to = target(4096 * 4);
        assert_eq!(buffer.copy_to(&to, &Region::of(Rect::whole(64, 64))), 100);
    }

    #[test]
    fn a_sealed_file_that_is_too_short_is_not_mapped() {
        let pool = Pool::new(file(100, true), 1 << 20).unwrap();
        assert!(pool.size_bytes.borrow().mapping.is_none());
        let buffer = Buffer::new(Rc::new(pool), 0, layout(64, 64, 256)).unwrap();
        let to = target(4096 * 4);
        assert_eq!(buffer.copy_to(&to, &Region::of(Rect::whole(64, 64))), 100);
    }

    #[test]
    fn buffers_stay_inside_their_pool() {
        let pool = Rc::new(Pool::new(file(4096, true), 4096).unwrap());
        let bad = [
            (0, 33, 32, 128),
            (1, 32, 32, 128),
            (-1, 1, 1, 4),
            (0, i32::MAX, 1, i32::MAX),
            (0, 1, i32::MAX, i32::MAX),
            (i32::MAX, 1, 1, 4),
            (0, 0, 1, 4),
            (0, 1, -1, 4),
            (0, 4, 4, -16),
        ];
        for (offset, width, height, stride) in bad {
            assert!(Buffer::new(pool.clone(), offset, layout(width, height, stride)).is_err());
        }
        assert!(Buffer::new(pool, 0, layout(32, 32, 128)).is_ok());
        assert!(Pool::new(file(1, false), 0).is_err());
        assert!(Pool::new(file(1, false), 8).unwrap().resize(4).is_err());
    }

    /// Not a test of anything: prints what the two ways of copying cost.
    #[test]
    #[ignore = "a measurement"]
    fn cost_of_copies() {
        let (width, height) = (1000, 1000);
        let stride = width * 4;
        let len = (stride * height) as usize;
        let to = target(len);
        for sealed in [true, false] {
            let pool = Rc::new(Pool::new(file(len as u64, sealed), len as i32).unwrap());
            let buffer = Buffer::new(pool, 0, layout(width, height, stride)).unwrap();
            for part in [1, 10, 100, 999, 1000] {
                let region = Region::of(Rect::whole(part, height));
                let start = std::time::Instant::now();
                for _ in 0..20 {
                    buffer.copy_to(&to, &region);
                }
                let us = start.elapsed().as_micros() / 20;
                println!("mapped {sealed}: {part} of {width} columns, {height} rows: {us} us");
            }
        }
    }

    proptest! {
        /// A region is copied exactly, from sealed and from other files, with and without padding.
        #[test]
        fn copies_the_region(
            sealed in any::<bool>(),
            padding in 0i32..3,
            rects in prop::collection::vec((0i32..16, 0i32..16, 0i32..16, 0i32..16), 1..5),
        ) {
            let stride = 64 + 4 * padding;
            let len = stride as usize * 16 + 12;
            let pool = Rc::new(Pool::new(file(len as u64, sealed), len as i32).unwrap());
            prop_assert_eq!(pool.size_bytes.borrow().mapping.is_some(), sealed);
            let buffer = Buffer::new(pool, 12, layout(16, 16, stride)).unwrap();
            let to = target(len);
            let mut region = Region::default();
            for (x, y, w, h) in rects {
                region.add(Rect::from_untrusted(x, y, w, h).clip(&Rect::whole(16, 16)));
            }
            prop_assert_eq!(buffer.copy_to(&to, &region), region.area() * 4);
            let mut got = vec![0; stride as usize * 16];
            prop_assert!(to.read(0, &mut got));
            for y in 0..16 {
                for x in 0..16 {
                    let inside = region.rects().iter()
                        .any(|r| x >= r.x0 && x < r.x1 && y >= r.y0 && y < r.y1);
                    let at = (y * stride + x * 4) as usize;
                    for (i, byte) in got[at..at + 4].iter().enumerate() {
                        let pattern = ((at + i + 12) as u64 * 7 % 251) as u8;
                        prop_assert_eq!(*byte, if inside { pattern } else { 0 });
                    }
                }
            }
        }
    }
}
