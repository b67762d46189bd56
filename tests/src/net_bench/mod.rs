//! How much the network between guests carries, how fast, and for how much of the processor, beside
//! other ways to connect guests: QEMU with TAPs on a Linux bridge, with the kernel's vhost or without,
//! and QEMU with `passt`.
//!
//! All guests boot the same kernel and the same initramfs, in which this program is the first process
//! ([`guest`]), and are set up by `bulkhead-net`, as domains are. They stand in a row:
//!
//! ```text
//! client ═ forwarder (the template `net`: firewall, masquerading) ═ server
//! ```
//!
//! [`host`] starts a row of each kind, all at once, and lets one after another do the same things, in
//! turns. A guest does what it is told on its console; who waits for a word there runs nothing.

pub mod cable;
pub mod guest;
pub mod host;
pub mod machine;
pub mod traffic;

use std::io;

/// Any failure, in words.
pub(crate) fn fail(text: impl Into<String>) -> io::Error {
    io::Error::other(text.into())
}
