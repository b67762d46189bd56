//! `bulkheadd`: Bulkhead's domain manager, one process per desktop user.
//!
//! It knows the domains (a TOML file and a home volume each), starts and stops a VMM process for
//! each running one, gives each its own Wayland socket, which it introduces to the compositor,
//! and carries commands' streams between its callers and the agents in the guests. Its one API is
//! D-Bus ([`dbus`]); the command line uses nothing else.
//!
//! It trusts its configuration, its images and its callers on the session bus (the same user). It
//! trusts no guest: what arrives over vsock is bounded and typed by `bulkhead-protocol`, text from
//! guests is cleaned before a person sees it, and which domain speaks is known from the socket
//! that was made for it. It must never look into a guest's filesystem, and never leave half a
//! domain behind when something fails.
//!
//! Start reading at [`manager`] (what can be asked), then [`lifecycle`] (one start) and
//! [`session`] (one command); [`apps`] and [`windows`] are what the desktop's menu and panel show;
//! [`rpc`] is how one domain's programs call services of another; [`net`] is how domains reach the
//! network through other domains.

pub mod apps;
mod autostart;
mod broker;
mod child;
pub mod compositor;
pub mod config;
pub mod dbus;
pub mod dirs;
pub mod disposable;
pub mod domain;
pub mod domains;
mod dragged;
pub mod error;
pub mod guest;
pub mod images;
pub mod lifecycle;
pub mod logs;
pub mod manager;
pub mod net;
mod packets;
mod paste;
pub mod pci;
mod pictures;
pub mod plan;
pub mod power;
pub mod rpc;
mod rules;
pub mod run;
pub mod session;
pub mod settings;
pub mod store;
pub mod tags;
pub mod templates;
pub mod vmm;
pub mod volumes;
pub mod windows;

pub use bulkhead_protocol::text;
pub use error::{Error, Result};
