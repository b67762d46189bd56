//! `bulkhead-uplink`: what leads from a network domain to the host's own network, where no physical
//! card belongs to it.
//!
//! On one side is the VMM of that domain, whose packets are a header of virtio and a frame, as those
//! for the link; on the other passt, whose stream has a length before each frame. Nothing of a frame
//! is looked at but its length: passt makes the guest's connections its own, as a process of the user.
//! The card offers its guest no checksums and no segmentation to be left to others, since passt does
//! not take those.

mod relay;
mod stream;

pub use relay::{Relay, RelayError};
