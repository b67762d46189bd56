//! A physical PCI device, given to the guest by VFIO (the kernel's `Documentation/driver-api/vfio.rst`).
//!
//! The guest drives the device itself: its registers are mapped into the guest and the device reads
//! and writes guest memory, and, by the IOMMU, nothing else. What stays ours is what belongs to the
//! host: configuration space is a filtered copy ([`capabilities`]) of which no write of a guest reaches
//! the device but "may master the bus"; BARs lie where we put them ([`layout`]); the MSI-X table is
//! emulated, so that a device can only send interrupts that KVM was told of ([`interrupts`]).
//!
//! **Trusts** the kernel's VFIO and the IOMMU. **Does not trust** the guest, and the device no more
//! than the guest: whatever a device answers has the bounds checked that it is used with.
//!
//! **Where to start reading**: [`host`] says which devices are refused and opens them, [`function`] is
//! the device on the guest's bus, [`kernel`] is the little of the kernel's interface that is used, and
//! holds all `unsafe`.
//!
//! Interrupts by wire (INTx) are not offered: a device without MSI-X and MSI is refused.

pub mod capabilities;
pub mod error;
pub mod function;
pub mod host;
pub mod interrupts;
pub mod kernel;
pub mod layout;
pub mod registers;

pub use error::VfioError;
