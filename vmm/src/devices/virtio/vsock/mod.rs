//! virtio-vsock: streams between programs of the guest and programs of the host, which see Unix
//! sockets.
//!
//! * Host to guest: connect to the configured socket, write `CONNECT <port>\n`, read `OK <n>\n`.
//!   A closed socket instead means that nobody in the guest listens on that port.
//! * Guest to host (address 2): as [`target::GuestTarget`] says.
//!
//! **Trusts** the programs on the host's sockets. **Does not trust** the guest: a packet that
//! cannot be resets what it was about, data beyond the guest's credit resets its connection, and
//! connections, buffers and waiting answers have limits. A guest that reads nothing stops the
//! programs that write to it; a program that reads nothing stops the guest's. The last byte of a
//! stream always arrives before its end, in both directions, and a half-closed stream stays open
//! the other way.
//!
//! Start reading at [`worker`], then [`connection`]. Everything is non-blocking on one thread.

pub mod connection;
pub mod device;
pub mod packet;
pub mod target;
pub mod worker;

#[cfg(test)]
mod tests;

pub use device::Vsock;
pub use target::GuestTarget;
