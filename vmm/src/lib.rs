//! `bulkhead-vmm`: runs one guest on KVM.
//!
//! **Trusts** its configuration ([`bulkhead_vmm_api::VmConfig`]) and whoever holds its control
//! socket. **Does not trust** anything that comes out of the guest: registers, guest memory,
//! queues, configuration space, device requests.

pub mod devices;
pub mod memory;
