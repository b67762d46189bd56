//! What each client may reach, in the words of Qubes' firewall (docs/firewall.md).

pub mod chain;
pub mod host;
pub mod policy;
pub mod rule;

pub use policy::{Dns, Log, MAX_RULES, Policy};
pub use rule::{Action, Destination, Rule, RuleError};
