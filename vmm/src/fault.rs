//! What a processor was doing when KVM found no memory behind an address it touched.
//!
//! KVM says no more than `EFAULT` (`kvm_handle_error_pfn`), so the registers have to tell: nearly
//! every access is made through one of them. The answer is for the log and for whoever looks for the
//! cause; nothing is decided by it.

use std::fmt::Write as _;

use kvm_bindings::kvm_regs;
use kvm_ioctls::VcpuFd;
use vm_memory::{GuestAddress, GuestMemoryBackend as _};

use crate::arch::layout::DEVICE_HOLE;
use crate::memory::GuestMemory;

/// Bits of CR3 that are the address of the page table (AMD64 manual, volume 2, 5.2.1).
const CR3_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Says where the processor stands and which of its registers point behind the guest's low RAM, as
/// `register=virtual->physical`.
pub fn describe(vcpu: &VcpuFd, memory: &GuestMemory) -> String {
    let (Ok(regs), Ok(sregs)) = (vcpu.get_regs(), vcpu.get_sregs()) else {
        return "its registers cannot be read".to_owned();
    };
    let ring = if sregs.cs.dpl == 3 {
        "a program"
    } else {
        "the kernel"
    };
    let mut text = format!("{ring} at {:#x}", regs.rip);
    let table = sregs.cr3 & CR3_ADDRESS;
    if !memory.address_in_range(GuestAddress(table)) {
        // Only a guest's kernel could have set this, and none of ours does. What does happen is that
        // QEMU's emulation of SVM (seen with 7.2 and two processors in a guest) saves the *host's*
        // registers as the guest's: RIP is then that of the VMRUN instruction in the host's
        // kvm_amd, RAX the VMCB's address and CR3 the host's own.
        let _ = write!(
            text,
            "; its page tables lie outside of its memory (cr3 {table:#x}), so these are hardly its \
             own registers: a fault of an emulated host"
        );
        return text;
    }
    for (name, value) in named(&regs) {
        // Small numbers are no pointers.
        if value < 0x1_0000 {
            continue;
        }
        let Ok(translated) = vcpu.translate_gva(value) else {
            continue;
        };
        if translated.valid != 0 && translated.physical_address >= DEVICE_HOLE {
            let physical = translated.physical_address;
            let _ = write!(text, " {name}={value:#x}->{physical:#x}");
        }
    }
    text
}

fn named(regs: &kvm_regs) -> [(&'static str, u64); 17] {
    [
        ("rip", regs.rip),
        ("rax", regs.rax),
        ("rbx", regs.rbx),
        ("rcx", regs.rcx),
        ("rdx", regs.rdx),
        ("rsi", regs.rsi),
        ("rdi", regs.rdi),
        ("rbp", regs.rbp),
        ("rsp", regs.rsp),
        ("r8", regs.r8),
        ("r9", regs.r9),
        ("r10", regs.r10),
        ("r11", regs.r11),
        ("r12", regs.r12),
        ("r13", regs.r13),
        ("r14", regs.r14),
        ("r15", regs.r15),
    ]
}
