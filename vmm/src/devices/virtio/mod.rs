//! Virtio devices and the PCI transport that carries them. Start at [`device`].

pub mod blk;
pub mod buffers;
pub mod console;
pub mod device;
pub mod gpu;
pub mod net;
pub mod poller;
pub mod queue;
pub mod rng;
pub mod transport;
pub mod vsock;
pub mod worker;

#[cfg(test)]
mod transport_tests;
