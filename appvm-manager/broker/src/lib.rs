//! `bulkhead-broker`: keeps physical PCI devices for domains. It runs as root and is all that does for
//! them; the manager, an ordinary process of the user's, tells it which devices its domains have.
//!
//! A kept device has no driver of the host's but vfio-pci, and its group in `/dev/vfio` is the user's.
//! What is kept is written down and kept again before anyone uses it when the machine starts. A
//! device that is no longer asked for goes back to the host's driver.
//!
//! There is one request ([`request`]): all devices that are to be kept. Only network cards and USB
//! controllers can be: no request takes a disk away from a host that runs from it.

pub mod device;
pub mod kept;
pub mod request;
pub mod serve;
