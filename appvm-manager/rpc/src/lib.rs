//! The programs of a guest that call other domains, and that answer their calls.
//!
//! One executable under several names (see [`program`]): `bulkhead-rpc` calls any service;
//! `bulkhead-copy`, `bulkhead-move`, `bulkhead-open` and `bulkhead-notify` call the usual ones,
//! `bulkhead-connect` makes a TCP port of another domain reachable; and `bulkhead-rpc --serve` is what
//! the manager runs in the domain that is called.
//!
//! It trusts the guest that it runs in, as whose user it runs, and the manager, over the guest's
//! vsock. It believes nothing that comes from the other domain: what it shows is cleaned, and what it
//! opens is a web address that was checked, or a file that `bulkhead-transfer` received. It must never
//! run what was received. Pictures are decoded by [`picture`], which the host asks of disposables only.
//!
//! Start reading at [`call`] (the caller's side) and [`serve`] (the other one).

pub mod call;
pub mod connect;
pub mod copy;
pub mod help;
pub mod open;
pub mod picture;
pub mod program;
pub mod serve;
pub mod services;
pub mod tcp;
pub mod url;

/// Where what is wrong is told to whom.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// One line for a person.
    pub message: String,
    /// The program's exit status.
    pub status: u8,
}

impl Failure {
    /// With a status.
    pub fn new(status: u8, message: impl Into<String>) -> Self {
        Failure {
            message: message.into(),
            status,
        }
    }

    /// The arguments are wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Failure::new(2, format!("{}; see --help", message.into()))
    }
}

/// The exit status of a call that the manager refused.
pub const REFUSED: u8 = 126;
/// The exit status of a call that broke.
pub const BROKEN: u8 = 125;
