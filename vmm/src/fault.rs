//! What a processor was doing when KVM found no memory behind an address it touched.
//!
//! KVM says no more than `EFAULT` (kvm_handle_error_pfn), so the registers have to tell: nearly
//! every access is made through one of them. The answer is for the log and for whoever looks for the
//! cause; nothing is decided by it.

use std::fmt::Write as _;

use kvm_bindings::kvm_regs;
use kvm_ioctls::VcpuFd;

use crate::arch::layout::DEVICE_HOLE;

/// Says where the processor stands and which of its registers point behind the guest's low RAM, as
/// `register=virtual->physical`.
pub fn describe(vcpu: &VcpuFd) -> String {
    let Ok(regs) = vcpu.get_regs() else {
        return "its registers cannot be read".to_owned();
    };
    let user = vcpu.get_sregs().is_ok_and(|sregs| sregs.cs.dpl == 3);
    let ring = if user { "a program" } else { "the kernel" };
    let mut text = format!("{ring} at {:#x}", regs.rip);
    for (name, value) in named(&regs) {
        // Addresses of user programs and of the kernel; small numbers are no pointers.
        if value < 0x1_0000 {
            continue;
        }
        let Ok(translated) = vcpu.translate_gva(value) else {
            continue;
        };
        if translated.valid != 0 && translated.physical_address >= DEVICE_HOLE {
            let _ = write!(
                text,
                " {name}={value:#x}->{:#x}",
                translated.physical_address
            );
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
