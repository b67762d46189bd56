//! The compositor: windows of all domains on one desktop, each with a border in its domain's
//! colour.
//!
//! It trusts the manager, which hands it one listening socket per domain, and the user's input. It
//! trusts nothing that arrives through a domain's socket: requests pass [`guard`] before smithay's
//! handlers see them, text is cleaned before it is drawn, and every domain has a quota.
//!
//! It must never take a client's word (an application name, a title, a serial) for who the client
//! is, show one domain's clipboard or drag to another unless the user moves it, or let a client draw
//! outside its border.
//!
//! Start reading at [`server`] (the event loop), then [`state`], [`shell`] (windows appear),
//! [`layout`] (where they are), [`render`] (what is seen) and [`input`].

pub mod backend;
pub mod control;
pub mod domain;
mod guard;
mod handlers;
pub mod input;
pub mod layout;
mod listen;
mod notice;
mod protocols;
pub mod render;
mod selection;
pub mod server;
pub mod shell;
mod signals;
pub mod state;
#[cfg(test)]
mod tests;

pub use selection::CrossingLimits;
pub use server::{BackendKind, Options, Server, StartError, Stopper};
