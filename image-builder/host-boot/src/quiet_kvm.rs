//! One virtual machine that never runs, held as long as an emulated host lives: the test host, or
//! the disk image in QEMU without KVM.
//!
//! KVM patches its own code each time its first machine appears, its last one goes, or a virtual
//! APIC is switched on for the first time (static keys in `arch/x86/kvm/lapic.c` and
//! `kernel/sched/core.c`). An emulated host with two processors does not survive every such patch:
//! one processor now and then runs into the breakpoint that the other has already taken away again
//! ("Oops: int3"). While one machine exists whose APIC stays switched off, those keys do not turn,
//! and nothing is patched.

use std::{
    fs::File,
    io::Error,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

// linux/kvm.h: _IO(0xAE, n)
const KVM_CREATE_VM: libc::c_ulong = 0xAE01;
const KVM_CREATE_IRQCHIP: libc::c_ulong = 0xAE60;
const KVM_CREATE_VCPU: libc::c_ulong = 0xAE41;

/// Whether this machine is emulated in software, by what its processor says about itself.
#[must_use]
pub fn is_emulated() -> bool {
    let hypervisor = std::arch::x86_64::__cpuid(0x4000_0000);
    // "TCGTCGTCGTCG": QEMU's own emulation. Without a hypervisor the leaf is something else.
    let tcg = u32::from_le_bytes(*b"TCGT");
    let rest = [u32::from_le_bytes(*b"CGTC"), u32::from_le_bytes(*b"GTCG")];
    hypervisor.ebx == tcg && [hypervisor.ecx, hypervisor.edx] == rest
}

/// Makes the machine and keeps it until the process ends.
pub fn hold() -> Result<(), Error> {
    let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
    let machine = own(create(kvm.as_raw_fd(), KVM_CREATE_VM)?);
    create(machine.as_raw_fd(), KVM_CREATE_IRQCHIP)?;
    let processor = own(create(machine.as_raw_fd(), KVM_CREATE_VCPU)?);
    std::mem::forget((machine, processor));
    Ok(())
}

/// One of the three calls; each takes the number 0 and answers a descriptor or 0.
fn create(on: RawFd, request: libc::c_ulong) -> Result<RawFd, Error> {
    // SAFETY: none of the three requests takes a pointer; the descriptor is open.
    let answer = unsafe { libc::ioctl(on, request as _, 0) };
    if answer < 0 {
        return Err(Error::last_os_error());
    }
    Ok(answer)
}

fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: KVM has just made this descriptor for us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
