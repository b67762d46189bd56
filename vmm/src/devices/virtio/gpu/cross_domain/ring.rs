//! Rings: guest memory in which a context finds answers and messages.

use std::collections::HashSet;

use super::super::super::buffers;
use super::super::resources::Resources;
use super::command;
use super::{ContextError, Host};
use crate::memory::host_window::PAGE_SIZE;

/// The smallest ring.
pub const MIN_RING_BYTES: u64 = PAGE_SIZE;

/// Bytes of a ring, if the resource can be one.
pub fn ring_bytes(resources: &Resources, ring: u32) -> Option<u64> {
    resources.guest_ranges(ring).ok().map(buffers::total)
}

/// Whether both resources can be rings of the context that they are attached to.
pub fn check_rings(
    rings: [u32; 2],
    resources: &Resources,
    attached: &HashSet<u32>,
) -> Result<(), ContextError> {
    for ring in rings {
        let usable = attached.contains(&ring)
            && ring_bytes(resources, ring).is_some_and(|size| size >= MIN_RING_BYTES);
        if !usable {
            return Err(ContextError::Ring(ring));
        }
    }
    Ok(())
}

/// How many bytes of data fit behind a header in the ring and into the scratch buffer.
pub fn data_room(host: &Host<'_>, ring: u32, header: usize) -> Result<usize, ContextError> {
    let bytes = ring_bytes(host.resources, ring).ok_or(ContextError::Ring(ring))?;
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let room = bytes.checked_sub(header).filter(|room| *room > 0);
    room.map(|room| room.min(host.scratch.len()))
        .ok_or(ContextError::Ring(ring))
}

/// Writes a message at the start of a ring. The resource is looked up each time: the guest may
/// have removed it.
pub fn write_ring(ring: u32, parts: &[&[u8]], host: &Host<'_>) -> Result<(), ContextError> {
    let bad_ring = ContextError::Ring(ring);
    let Ok(ranges) = host.resources.guest_ranges(ring) else {
        return Err(bad_ring);
    };
    let mut offset = 0;
    for part in parts {
        if buffers::write_ranges(ranges, host.memory, offset, part).is_err() {
            return Err(bad_ring);
        }
        offset += part.len() as u64;
    }
    Ok(())
}

/// Tells the guest that nothing more will come.
pub fn write_end(ring: u32, host: &Host<'_>) -> Result<(), ContextError> {
    write_ring(ring, &[&command::receive_header(&[], 0)], host)
}
