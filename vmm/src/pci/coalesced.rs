//! Writes to the address port of configuration space, which KVM collects instead of leaving the guest
//! for each: the address matters only when the data port is used. It halves the exits of a guest that
//! looks through its devices.

use std::os::fd::AsRawFd;

use kvm_ioctls::{IoEventAddress, VcpuFd, VmFd};

use crate::arch::layout::PORT_PCI;

/// At least as many as the ring's page holds.
const RING_WRITES: usize = 256;

/// `KVM_COALESCED_MMIO` for one port (Documentation/virt/kvm/api.rst, 4.116). There is one ring for all
/// processors, so whoever uses it must be the only one.
pub struct Coalesced {
    /// A second descriptor of a processor, which is never run by it: its pages have the ring.
    ring: VcpuFd,
}

impl Coalesced {
    /// Begins to collect. None where KVM cannot (Linux before 5.0); then each write is an exit.
    pub fn begin(vm: &VmFd, vcpu: &VcpuFd) -> Option<Self> {
        let begin = || -> Result<Self, kvm_ioctls::Error> {
            // SAFETY: the number is open; its copy is ours alone, and is checked.
            let copy = unsafe { libc::fcntl(vcpu.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 0) };
            if copy < 0 {
                return Err(kvm_ioctls::Error::last());
            }
            // SAFETY: it is a processor of this VM, and nobody else has this descriptor.
            let mut ring = unsafe { vm.create_vcpu_from_rawfd(copy) }?;
            ring.map_coalesced_mmio_ring()?;
            vm.register_coalesced_mmio(IoEventAddress::Pio(u64::from(PORT_PCI)), 4)?;
            Ok(Self { ring })
        };
        begin()
            .inspect_err(|error| tracing::debug!(%error, "KVM collects no writes to ports"))
            .ok()
    }

    /// The address that the guest wrote last since this was asked.
    pub fn last(&mut self) -> Option<u32> {
        let mut last = None;
        // What is there now; another processor of the guest may add to it meanwhile.
        for _ in 0..RING_WRITES {
            let Ok(Some(write)) = self.ring.coalesced_mmio_read() else {
                break;
            };
            if let ([a, b, c, d, ..], 4) = (write.data, write.len) {
                last = Some(u32::from_le_bytes([a, b, c, d]));
            }
        }
        last
    }
}
