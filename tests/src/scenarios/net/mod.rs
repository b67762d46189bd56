//! The network: domains reach each other only as they are told to, and the outside through a network
//! domain with a physical card.

pub(super) mod lease;
pub(super) mod link;
pub(super) mod nic;
mod outer;
pub(super) mod outside;
pub(super) mod throughput;
