//! `bulkhead-net`: sets up a guest's network cards as the manager says.
//!
//! The manager runs it as root in the guest, once when the guest has come up and again whenever
//! something changes. It is told everything each time ([`config::Config`], as JSON on standard
//! input), makes what is missing, takes away what is too much ([`apply`]), and ends. It takes
//! nothing from the network and listens to nobody.
//!
//! It runs inside the guest and protects nobody from it: what a guest may send is decided by the
//! link (docs/net.md), whatever is set up here.

pub mod apply;
pub mod cards;
pub mod config;
pub mod routes;
pub mod sys;

pub use apply::{ApplyError, apply};
pub use config::{Config, ConfigError};
