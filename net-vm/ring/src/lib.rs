//! Packets between a card and the link through memory that both have: one ring in each direction, each
//! with one side that writes and one that reads. While both are busy nobody asks the kernel for anything.
//!
//! Neither side trusts the other, and whatever lies in the [`memory`] may change at any time. What a side
//! keeps for itself (how far it has come) is never read back from there. What the other side says is read
//! once, checked, and then used as it was read; where it cannot be, the ring is [`Broken`], and nothing
//! worse. What anybody looks at in a packet is copied out first; the rest may go from ring to ring.
//!
//! Beside the memory both have a socket, which says when one of them ends, and wakes who sleeps: see
//! [`endpoint`].

pub mod consumer;
pub mod endpoint;
pub mod memory;
pub mod producer;

pub use consumer::Consumer;
pub use endpoint::{Endpoint, Side};
pub use memory::{MapError, Memory};
pub use producer::{Filling, Producer};

/// The longest packet: a `virtio_net_hdr_v1`, and a frame of 65,535 bytes behind its addresses and type.
pub const MAX_PACKET_BYTES: usize = 12 + 14 + 65535;
/// What each ring has room for: seven of the longest packets.
pub const RING_BYTES: usize = 512 * 1024;
/// A packet of this one byte on the socket means: look at the rings.
pub const WAKE: u8 = 2;

/// Records begin at multiples of this, so that a length never lies on both ends of the ring.
const ALIGN: u64 = 8;
/// A record's length lies before it.
const LENGTH_BYTES: u64 = 8;
/// Who waits for room is woken when so much of the ring is free: each packet has room then, and there are
/// not as many wakes as packets.
const ROOM_BYTES: u64 = RING_BYTES as u64 / 2;

const _: () = assert!(RING_BYTES.is_power_of_two() && record_bytes(MAX_PACKET_BYTES) < ROOM_BYTES);

/// What the other side did to the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// More was written than there is room for, or more read than was written.
    #[error("the other side of the ring is at {theirs:#x} where this one is at {ours:#x}")]
    Index {
        /// Where this side is.
        ours: u64,
        /// Where the other side says that it is.
        theirs: u64,
    },
    /// A packet that is longer than any, or than what was written.
    #[error("a packet of {length} bytes in the ring, where there are {written}")]
    Length {
        /// Its length.
        length: u64,
        /// What was written, its length included.
        written: u64,
    },
}

/// What a packet takes in the ring.
const fn record_bytes(length: usize) -> u64 {
    (LENGTH_BYTES + length as u64).next_multiple_of(ALIGN)
}

/// How much lies between a reader and a writer.
fn between(ours: u64, read: u64, written: u64) -> Result<u64, Broken> {
    let waiting = written.wrapping_sub(read);
    if waiting <= RING_BYTES as u64 && waiting.is_multiple_of(ALIGN) {
        Ok(waiting)
    } else {
        let theirs = if ours == read { written } else { read };
        Err(Broken::Index { ours, theirs })
    }
}
