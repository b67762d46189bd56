//! The network: domains reach each other only as they are told to, and a physical card.

pub(super) mod link;
pub(super) mod nic;
pub(super) mod outside;
