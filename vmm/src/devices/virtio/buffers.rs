//! One descriptor chain as two lists of guest memory ranges, kept until its answer is written.
//!
//! Nothing here holds a reference into guest memory: ranges are looked up again, with bounds, at
//! each access, so that an answer may come long after the request.

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress};

use crate::memory::GuestMemory;

/// A chain longer than this is cut off: it stops a guest from making us keep 65,535 ranges for
/// each request that waits. Linux never sends more than 64 for our devices' requests.
const MAX_RANGES: usize = 4096;

/// A range of guest memory, not yet checked against what exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where it starts.
    pub address: GuestAddress,
    /// How many bytes.
    pub length: u32,
}

/// The buffers of one request.
#[derive(Clone, Debug, Default)]
pub struct Buffers {
    /// The chain's head, to be returned through the used ring.
    pub head: u16,
    readable: Vec<Range>,
    writable: Vec<Range>,
}

/// Guest memory that a guest named does not exist, or is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a buffer of the guest is too small or lies outside of its memory")]
pub struct BadBuffer;

impl Buffers {
    /// Walks `chain` once.
    pub fn collect(chain: DescriptorChain<&GuestMemory>) -> Self {
        let mut buffers = Self {
            head: chain.head_index(),
            ..Self::default()
        };
        for descriptor in chain.take(MAX_RANGES) {
            let range = Range {
                address: descriptor.addr(),
                length: descriptor.len(),
            };
            if descriptor.is_write_only() {
                buffers.writable.push(range);
            } else {
                buffers.readable.push(range);
            }
        }
        buffers
    }

    /// What the device may read.
    pub fn readable(&self) -> &[Range] {
        &self.readable
    }

    /// What the device may write.
    pub fn writable(&self) -> &[Range] {
        &self.writable
    }

    /// How many bytes the device may read.
    pub fn readable_len(&self) -> u64 {
        total(&self.readable)
    }

    /// How many bytes the device may write.
    pub fn writable_len(&self) -> u64 {
        total(&self.writable)
    }

    /// Copies the readable bytes from `offset` into all of `target`.
    pub fn read(
        &self,
        memory: &GuestMemory,
        offset: u64,
        target: &mut [u8],
    ) -> Result<(), BadBuffer> {
        read_ranges(&self.readable, memory, offset, target)
    }

    /// Copies what was written from `offset` back into all of `target`, as the guest has it now.
    pub fn read_back(
        &self,
        memory: &GuestMemory,
        offset: u64,
        target: &mut [u8],
    ) -> Result<(), BadBuffer> {
        read_ranges(&self.writable, memory, offset, target)
    }

    /// Copies all of `source` into the writable bytes from `offset`.
    pub fn write(&self, memory: &GuestMemory, offset: u64, source: &[u8]) -> Result<(), BadBuffer> {
        write_ranges(&self.writable, memory, offset, source)
    }

    /// The parts of guest memory that make up `length` readable bytes from `offset`.
    pub fn readable_ranges(&self, offset: u64, length: usize) -> Result<Vec<Range>, BadBuffer> {
        slice_ranges(&self.readable, offset, length)
    }

    /// The parts of guest memory that make up `length` writable bytes from `offset`.
    pub fn writable_ranges(&self, offset: u64, length: usize) -> Result<Vec<Range>, BadBuffer> {
        slice_ranges(&self.writable, offset, length)
    }
}

/// The bytes in `ranges` together.
pub fn total(ranges: &[Range]) -> u64 {
    ranges.iter().map(|range| u64::from(range.length)).sum()
}

fn read_ranges(
    ranges: &[Range],
    memory: &GuestMemory,
    offset: u64,
    target: &mut [u8],
) -> Result<(), BadBuffer> {
    let mut filled = 0;
    walk(ranges, offset, target.len(), |address, length| {
        let part = target.get_mut(filled..filled + length).ok_or(BadBuffer)?;
        filled += length;
        memory.read_slice(part, address).map_err(|_| BadBuffer)
    })
}

/// Copies all of `source` into `ranges` from `offset`.
pub fn write_ranges(
    ranges: &[Range],
    memory: &GuestMemory,
    offset: u64,
    source: &[u8],
) -> Result<(), BadBuffer> {
    let mut taken = 0;
    walk(ranges, offset, source.len(), |address, length| {
        let part = source.get(taken..taken + length).ok_or(BadBuffer)?;
        taken += length;
        memory.write_slice(part, address).map_err(|_| BadBuffer)
    })
}

fn slice_ranges(ranges: &[Range], offset: u64, length: usize) -> Result<Vec<Range>, BadBuffer> {
    let mut parts = Vec::new();
    walk(ranges, offset, length, |address, length| {
        parts.push(Range {
            address,
            // `walk` passes no more than a range's own length, which is a u32.
            length: u32::try_from(length).map_err(|_| BadBuffer)?,
        });
        Ok(())
    })?;
    Ok(parts)
}

/// Calls `visit` for each contiguous part of `length` bytes from `offset`.
fn walk(
    ranges: &[Range],
    offset: u64,
    length: usize,
    mut visit: impl FnMut(GuestAddress, usize) -> Result<(), BadBuffer>,
) -> Result<(), BadBuffer> {
    let mut skip = offset;
    let mut left = length;
    for range in ranges {
        if left == 0 {
            break;
        }
        let range_length = u64::from(range.length);
        if skip >= range_length {
            skip -= range_length;
            continue;
        }
        let address = range.address.0.checked_add(skip).ok_or(BadBuffer)?;
        let here = usize::try_from(range_length - skip)
            .unwrap_or(usize::MAX)
            .min(left);
        visit(GuestAddress(address), here)?;
        left -= here;
        skip = 0;
    }
    if left == 0 { Ok(()) } else { Err(BadBuffer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap()
    }

    fn ranges(list: &[(u64, u32)]) -> Vec<Range> {
        list.iter()
            .map(|&(address, length)| Range {
                address: GuestAddress(address),
                length,
            })
            .collect()
    }

    #[test]
    fn scattered_bytes_come_together() {
        let memory = memory();
        let buffers = Buffers {
            head: 0,
            readable: ranges(&[(0x100, 3), (0x200, 0), (0x300, 5)]),
            writable: ranges(&[(0x100, 3), (0x300, 5)]),
        };
        buffers.write(&memory, 0, b"abcdefgh").unwrap();
        let mut read = [0; 4];
        buffers.read(&memory, 2, &mut read).unwrap();
        assert_eq!(&read, b"cdef");
        assert_eq!(buffers.readable_len(), 8);
        assert_eq!(
            buffers.readable_ranges(2, 4).unwrap(),
            ranges(&[(0x102, 1), (0x300, 3)])
        );
    }

    #[test]
    fn what_does_not_exist_is_an_error() {
        let memory = memory();
        for list in [
            ranges(&[(0xffff, 2)]),
            ranges(&[(u64::MAX, 2)]),
            ranges(&[(0, 1)]),
            ranges(&[]),
        ] {
            assert_eq!(write_ranges(&list, &memory, 0, b"ab"), Err(BadBuffer));
        }
        let far = ranges(&[(u64::MAX - 1, u32::MAX)]);
        assert_eq!(write_ranges(&far, &memory, 5, b"a"), Err(BadBuffer));
        assert_eq!(
            write_ranges(&ranges(&[(0, 4)]), &memory, u64::MAX, b"a"),
            Err(BadBuffer)
        );
    }
}
