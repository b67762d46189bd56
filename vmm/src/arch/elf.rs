//! Places an ELF kernel in guest memory and finds its PVH entry point.
//!
//! Segments are read straight into guest memory ([`crate::memory::reader`]). Mapping the file instead was
//! tried under nested emulation: loading took 0.02 s instead of 0.4 s or more, but the guest then faulted
//! in thousands of small pages where it has huge ones now, and the whole start was not faster.

use std::fs::File;
use std::os::unix::fs::FileExt;

use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::layout;
use super::pvh::{LoadError, LoadedKernel};
use crate::memory::reader::Piece;
use crate::memory::{self, GuestMemory};

const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;
/// Kernels have about five.
const MAX_SEGMENTS: u16 = 64;
/// Kernels' notes have a few hundred bytes.
const MAX_NOTE_BYTES: u64 = 64 << 10;
const TYPE_LOAD: u32 = 1;
const TYPE_NOTE: u32 = 4;
const MACHINE_X86_64: u16 = 62;
/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const NOTE_PVH_ENTRY: u32 = 18;

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
}

fn truncated(why: &str) -> LoadError {
    LoadError::Truncated(why.to_owned())
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Finds a kernel's place. What is to be read follows in pieces.
pub fn place<'f>(
    memory: &GuestMemory,
    file: &'f File,
) -> Result<(LoadedKernel, Vec<Piece<'f>>), LoadError> {
    let mut entry = None;
    let mut pieces = Vec::new();
    let mut end = layout::HIGH_RAM;
    for segment in segments(file)? {
        match segment.kind {
            TYPE_LOAD => {
                pieces.push(place_segment(memory, file, &segment)?);
                end = end.max(segment.address + segment.memory_bytes);
            }
            TYPE_NOTE => entry = entry.or(pvh_entry(file, &segment)?),
            _ => {}
        }
    }
    let entry = u64::from(entry.ok_or(LoadError::NoPvhNote)?);
    if !(layout::HIGH_RAM..end).contains(&entry) {
        return Err(truncated("its entry point lies outside of it"));
    }
    if overlap(&mut pieces) {
        return Err(truncated("its segments overlap"));
    }
    Ok((LoadedKernel { entry, end }, pieces))
}

fn segments(file: &File) -> Result<Vec<Segment>, LoadError> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0)
        .map_err(|_| LoadError::NotElf)?;
    let is_64bit_little_endian = header.starts_with(b"\x7fELF\x02\x01");
    if !is_64bit_little_endian || half(&header, 18) != Some(MACHINE_X86_64) {
        return Err(LoadError::NotElf);
    }
    let (Some(table), Some(size), Some(count)) =
        (long(&header, 32), half(&header, 54), half(&header, 56))
    else {
        return Err(LoadError::NotElf);
    };
    if usize::from(size) != SEGMENT_BYTES || count == 0 || count > MAX_SEGMENTS {
        return Err(truncated("its program headers make no sense"));
    }
    let mut bytes = vec![0; SEGMENT_BYTES * usize::from(count)];
    file.read_exact_at(&mut bytes, table)
        .map_err(|_| truncated("program headers are missing"))?;
    let parse = |bytes: &[u8]| {
        Some(Segment {
            kind: word(bytes, 0)?,
            offset: long(bytes, 8)?,
            address: long(bytes, 24)?,
            file_bytes: long(bytes, 32)?,
            memory_bytes: long(bytes, 40)?,
        })
    };
    bytes
        .chunks(SEGMENT_BYTES)
        .map(|bytes| parse(bytes).ok_or_else(|| truncated("program headers are missing")))
        .collect()
}

/// Sorts pieces by their place, without those that the file has nothing of, and says whether two share a
/// byte: what is there then would depend on which is read last.
fn overlap(pieces: &mut Vec<Piece<'_>>) -> bool {
    pieces.retain(|piece| piece.length > 0);
    pieces.sort_by_key(|piece| piece.address);
    pieces.windows(2).any(|two| match two {
        [first, second] => first.address + first.length > second.address,
        _ => false,
    })
}

fn place_segment<'f>(
    memory: &GuestMemory,
    file: &'f File,
    segment: &Segment,
) -> Result<Piece<'f>, LoadError> {
    let Segment {
        offset,
        address,
        file_bytes,
        memory_bytes,
        ..
    } = *segment;
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    if offset
        .checked_add(file_bytes)
        .is_none_or(|end| end > length)
    {
        return Err(truncated("a segment ends behind the end of the file"));
    }
    if file_bytes > memory_bytes || address < layout::HIGH_RAM {
        return Err(truncated("a segment makes no sense"));
    }
    let size = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
    let region_end = memory
        .find_region(GuestAddress(address))
        .map(|region| vm_memory::GuestMemoryRegion::last_addr(region).0);
    let fits = address
        .checked_add(memory_bytes)
        .is_some_and(|end| region_end.is_some_and(|last| end - 1 <= last));
    if !fits || size == 0 {
        return Err(LoadError::TooBig {
            memory_mib: memory::total_bytes(memory) >> 20,
        });
    }
    Ok(Piece {
        file,
        offset,
        address,
        length: file_bytes,
    })
}

/// Finds the entry point among the notes of a segment.
fn pvh_entry(file: &File, segment: &Segment) -> Result<Option<u32>, LoadError> {
    let length = segment.file_bytes.min(MAX_NOTE_BYTES) as usize;
    let mut notes = vec![0; length];
    file.read_exact_at(&mut notes, segment.offset)
        .map_err(|_| truncated("notes are missing"))?;
    let mut at = 0usize;
    while let (Some(name), Some(description), Some(kind)) =
        (word(&notes, at), word(&notes, at + 4), word(&notes, at + 8))
    {
        let name_at = at + 12;
        let padded = |size: u32| (size as usize).next_multiple_of(4);
        let description_at = name_at.saturating_add(padded(name));
        if kind == NOTE_PVH_ENTRY && notes.get(name_at..name_at + 4) == Some(b"Xen\0") {
            return Ok(word(&notes, description_at));
        }
        at = description_at
            .saturating_add(padded(description))
            .min(length);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_that_share_a_byte_are_found() {
        let file = tempfile::tempfile().unwrap();
        let piece = |address, length| Piece {
            file: &file,
            offset: 0,
            address,
            length,
        };
        assert!(!overlap(&mut vec![piece(20, 5), piece(10, 10)]));
        assert!(overlap(&mut vec![piece(20, 5), piece(10, 11)]));
        assert!(overlap(&mut vec![piece(20, 5), piece(20, 5)]));
        // One of zeroes only has nothing in the file.
        assert!(!overlap(&mut vec![piece(20, 5), piece(20, 0)]));
    }
}
