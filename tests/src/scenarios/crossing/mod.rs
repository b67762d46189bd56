//! What goes from one domain to another, and the kinds of domains between which it goes.

pub(super) mod clipboard;
pub(super) mod connect;
pub(super) mod copy;
pub(super) mod disposables;
pub(super) mod drag;
pub(super) mod flood;
mod picture;
pub(super) mod power_cut;
mod scp;
pub(super) mod standalone;
mod throughput;
pub(super) mod volumes;
