//! Virtio devices and the PCI transport that carries them. Start at [`device`].

pub mod device;
pub mod buffers;
pub mod gpu;
pub mod poller;
