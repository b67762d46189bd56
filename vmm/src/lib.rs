//! `bulkhead-vmm`: boots and runs one guest on KVM.
//!
//! **Trusts** its configuration ([`bulkhead_vmm_api::VmConfig`]), the files that it names, and
//! whoever holds its control socket. **Does not trust** anything that comes out of the guest:
//! port and memory accesses, PCI configuration, queues, descriptors, requests. Values from the
//! guest are called `untrusted_…` until they are checked; nothing that a guest does may panic,
//! block or grow this process without bounds.
//!
//! **Must never** open a path that a guest named, reach the network, D-Bus or another domain.
//! Everything it needs can be handed over as open descriptors, so that a jail can close around it.
//!
//! **Where to start reading**: [`vm::run`] is the whole story in ten lines. [`config`] opens and
//! checks files, [`vm`] builds the machine ([`arch`] says what makes it a PC, [`vm::devices`] which
//! devices it has), [`vcpu`] runs it, [`devices::virtio`] holds the devices behind the trait in
//! [`devices::virtio::device`], and [`exit`] is how any part ends it.

pub mod arch;
pub mod bus;
pub mod config;
pub mod control;
pub mod devices;
mod emulated;
pub mod exit;
mod fault;
pub mod irq;
pub mod memory;
pub mod pci;
pub mod vcpu;
pub mod vm;
