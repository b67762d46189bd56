//! virtio-console (virtio 1.2, 5.3) with one port: the guest's `hvc0`.
//!
//! [`device`] moves bytes between the queues and an [`endpoint`], which is a stream, a pair of
//! descriptors, or a listening socket with one client at a time.

pub mod device;
pub mod endpoint;
pub mod terminal;

pub use device::Console;
pub use endpoint::Endpoint;
