//! How we know that Bulkhead keeps its promises: end-to-end tests against a real host with real
//! guests.
//!
//! * [`machine`]: the test host, a whole machine in QEMU.
//! * [`e2e`]: what a scenario is and how it drives the host's desktop.
//! * [`scenarios`]: the promises, one a file.
//! * [`hostile`]: programs that run inside guests and break every rule.
//! * [`demo`]: the README's first command.
//! * [`net_bench`]: the network between guests beside that of others, measured in the test host.
//!
//! Nothing here is mocked: what cannot run on this machine runs in the test host. Start reading at
//! `scenarios/boot.rs`.

pub mod demo;
pub mod e2e;
pub mod hostile;
pub mod machine;
pub mod net_bench;
pub mod scenarios;
