//! virtio-net (virtio 1.2, 5.1) with one pair of queues.
//!
//! Frames leave and come by a [`port`], which leads to the link, which connects domains: by memory that
//! the link has too, or by a `SOCK_SEQPACKET` socket. Each packet is a `virtio_net_hdr_v1` and a frame,
//! as in the queues, so that what one guest leaves to its card (checksums, segmentation) can be left to
//! the next card too. The device checks sizes; what is in header and frame is checked by the link, which
//! trusts no VMM either.

pub mod device;
mod packets;
pub mod port;
mod ring;
#[cfg(test)]
mod tests;
mod worker;

pub use device::Net;
pub use port::Port;

/// `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6).
const HEADER_BYTES: usize = 12;
/// The shortest frame: two addresses and a type.
const MIN_FRAME_BYTES: usize = 14;
/// The longest frame: one that is to be segmented, of 65,535 bytes after its addresses.
const MAX_FRAME_BYTES: usize = MIN_FRAME_BYTES + 65535;
/// The longest packet.
const MAX_PACKET_BYTES: usize = HEADER_BYTES + MAX_FRAME_BYTES;
const _: () = assert!(MAX_PACKET_BYTES == bulkhead_ring::MAX_PACKET_BYTES);

/// Whether a packet can be header and frame.
fn is_packet(length: u64) -> bool {
    ((HEADER_BYTES + MIN_FRAME_BYTES) as u64..=MAX_PACKET_BYTES as u64).contains(&length)
}
