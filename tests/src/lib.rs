//! How we know that Bulkhead keeps its promises: end-to-end tests against a real host with real
//! guests.
//!
//! * [`hostile`]: programs that run inside guests and break every rule.
//!
//! Nothing here is mocked: what cannot run on this machine runs in the emulated host.

pub mod hostile;
