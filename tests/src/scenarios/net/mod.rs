//! The network: cards, and what passes between domains.

pub(super) mod nic;
