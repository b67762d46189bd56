//! The network: domains reach each other only as they are told to, and the outside through a network
//! domain with a physical card.

mod capture;
pub(super) mod gateway;
pub(super) mod host;
pub(super) mod lease;
pub(super) mod link;
pub(super) mod nic;
mod outer;
pub(super) mod outside;
pub(super) mod rules;
pub(super) mod throughput;
pub(super) mod tor;
pub(super) mod wifi;
