//! `bulkhead-net`: sets up a guest's network cards as the manager says.
//!
//! The manager runs it as root in the guest, once when the guest has come up and again whenever
//! something changes. It is told everything each time ([`config::Config`], as JSON on standard
//! input), makes what is missing, takes away what is too much ([`apply`]), and ends.
//!
//! In a network domain it also loads the [`firewall`], and the template's services run it to become
//! the programs that such a domain needs: the DHCP client of the physical card ([`lease`]) and the
//! DNS forwarder ([`dns`]), and where the card is wireless iwd ([`wifi`]). In a [`gateway`] they become the tunnel's programs.
//!
//! It runs inside the guest and protects nobody from it: what a guest may send is decided by the
//! link (docs/net.md), whatever is set up here. The firewall protects a network domain from its
//! clients, and them from each other.

pub mod address;
pub mod apply;
pub mod cards;
pub mod config;
pub mod connections;
pub mod dns;
pub mod firewall;
pub mod fixed;
pub mod gateway;
pub mod lease;
pub mod names;
pub mod nft;
pub mod problem;
pub mod routes;
pub mod rules;
pub mod run;
pub mod settings;
pub mod state;
pub mod sys;
pub mod wifi;

pub use apply::{ApplyError, apply};
pub use config::{Config, ConfigError};
