//! The state in which the first processor starts: 32-bit protected mode with flat segments and no
//! paging (the PVH boot ABI). The others wait for the first to start them.

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;

const CR0_PROTECTED: u64 = 1;
const CR0_EXTENSION_TYPE: u64 = 1 << 4;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
const MSR_MISC_ENABLE: u32 = 0x1a0;

fn flat_segment(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    }
}

/// Sets the first processor to begin at `entry` with `start_info` in EBX.
pub fn set_boot_state(vcpu: &VcpuFd, entry: u64, start_info: u64) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    sregs.cs = flat_segment(0x10, 0xb);
    let data = flat_segment(0x18, 0x3);
    sregs.ds = data;
    sregs.es = data;
    sregs.fs = data;
    sregs.gs = data;
    sregs.ss = data;
    sregs.tr = kvm_segment {
        limit: 0x67,
        s: 0,
        db: 0,
        g: 0,
        ..flat_segment(0x20, 0xb)
    };
    sregs.cr0 = CR0_PROTECTED | CR0_EXTENSION_TYPE;
    sregs.cr3 = 0;
    sregs.cr4 = 0;
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs {
        rip: entry,
        rbx: start_info,
        rflags: 2,
        ..Default::default()
    })
}

/// Gives model-specific registers the values that firmware would leave in them.
pub fn set_msrs(vcpu: &VcpuFd) {
    // Caching on, write-back by default: without it Linux turns off PAT. Fast string operations
    // are a bit of Intel's only. A host that rejects one of them does without.
    for (index, data) in [(MSR_MTRR_DEF_TYPE, 1 << 11 | 6), (MSR_MISC_ENABLE, 1)] {
        let entry = kvm_msr_entry {
            index,
            data,
            ..Default::default()
        };
        let Ok(msrs) = Msrs::from_entries(&[entry]) else {
            continue;
        };
        if !matches!(vcpu.set_msrs(&msrs), Ok(1)) {
            tracing::debug!("this host does not let MSR {index:#x} be set");
        }
    }
}
