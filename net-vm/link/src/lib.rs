//! The link carries frames between the network cards of domains, without the host's IP stack. It
//! owns nothing but Unix sockets that it was handed, and rings in memory that it shares with VMMs.
//!
//! A network domain has a **trunk**; each of its clients has a port with a VLAN of its own. On the
//! trunk each frame has exactly one 802.1Q tag, on the clients' ports none: the link pushes it on
//! the way to the trunk and pops it on the way back. No client reaches another.
//!
//! Both ends are hostile, the VMMs included: [`switch`] says what may pass, and it is pure, without
//! a socket. [`link`] moves packets by it.

pub mod arp;
pub mod bucket;
pub mod control;
pub mod frame;
pub mod header;
pub mod ipv4;
pub mod link;
mod packets;
pub mod passing;
pub mod port;
pub mod ports;
pub mod queue;
pub mod reason;
pub mod sandbox;
pub mod stats;
pub mod switch;
mod turns;
mod wire;
