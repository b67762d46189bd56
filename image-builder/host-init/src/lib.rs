//! PID 1 of the test host: the machine that QEMU emulates for tests, demos and benchmarks.
//!
//! It mounts the images that `bulkhead-image` built, makes the place look like a desktop user's
//! session, and then runs the commands that the test program outside sends through a virtio
//! console port. It is no part of the product: *it trusts* whoever is at the other end of that
//! port completely (that is its purpose), and *must never* be on a machine that is not emulated
//! for a test.
//!
//! Start reading at [`boot`] (what happens before the first command), then [`server`] (what a
//! command is). [`protocol`] is shared with the test library outside.

pub mod boot;
pub mod children;
pub mod protocol;
pub mod server;
pub mod session;
