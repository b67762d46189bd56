//! Devices that a guest sees.

pub mod power;
pub mod rtc;
pub mod serial;
pub mod virtio;
