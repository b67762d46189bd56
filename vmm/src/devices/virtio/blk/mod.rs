//! virtio-blk (virtio 1.2, 5.2): one raw image as a disk.
//!
//! [`device`] is the device with its worker, [`request`] reads what the driver asked for,
//! [`disk`] does it.

pub mod device;
pub mod disk;
pub mod request;

pub use device::Blk;
pub use disk::Disk;
