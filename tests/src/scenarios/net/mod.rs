//! Domains reach each other over the network only as they are told to.

pub(super) mod link;
