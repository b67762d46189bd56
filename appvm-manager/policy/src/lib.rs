//! Which domain may call which service of which other domain.
//!
//! Guests ask for services of other domains: to take a file, to open a link, to paste. This crate
//! reads the user's policy, in the syntax that Qubes OS 4 has for it, and says of one call: allow,
//! ask, or deny; where to; and which line decided. What users may write is in `docs/policy.md`.
//!
//! It trusts the policy files, within limits of size. It trusts nothing in a call but the caller's
//! name, which the manager knows by the connection: everything else comes in through
//! [`Call::parse`]. It must never run anything, ask anyone, or allow a call because something could
//! not be read: what no rule allows is denied, and a policy with one wrong line is no policy.
//!
//! Start reading at [`policy`] (load and evaluate), then [`token`] (the words), [`rule`] (one line),
//! `matching` (which rule speaks of a call) and `targets` (what a question offers).
//!
//! The rules are those of Qubes' `qubes-core-qrexec` (`qrexec/policy/parser.py`, `doc/`); comments
//! name the place there.

pub mod call;
pub mod domain;
pub mod error;
pub mod folder;
mod include;
pub mod limits;
mod matching;
pub mod name;
mod parser;
pub mod policy;
pub mod rule;
pub mod service;
mod targets;
pub mod token;
pub mod verdict;

pub use call::{Call, CallError, IntendedTarget};
pub use domain::{Domain, Kind, Snapshot, SnapshotError};
pub use error::{FileProblem, LoadError, Problem, Warning};
pub use folder::{DEFAULT_POLICY, DEFAULT_POLICY_FILE, Folder};
pub use name::{Name, Tag, WordError};
pub use policy::Policy;
pub use rule::{Action, Place, Rule, UserName};
pub use service::{Argument, ServiceName};
pub use token::{Redirect, Token, TokenError};
pub use verdict::{Allow, Ask, Deny, Destination, Reason, Verdict};
