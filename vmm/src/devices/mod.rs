//! Devices that a guest sees.

pub mod virtio;
