//! What a guest needs where the processor below KVM is itself emulated, by QEMU's TCG.
//!
//! QEMU (7.2 to 10.0, the versions seen) breaks nested guests that run on two of its emulated
//! processors at once: page tables of a guest that are whole are walked as if they were not, or the
//! outer kernel's own registers are saved as the guest's, so that the guest, a program in it, or the
//! outer kernel ends. Two busy guests meet it within half a minute; where all guests' processors share
//! one emulated processor they do not. docs/testing.md has what was measured.

use std::arch::x86_64::__cpuid;
use std::sync::OnceLock;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where a hypervisor names itself (the kernel's Documentation/virt/kvm/x86/cpuid.rst).
const HYPERVISOR_LEAF: u32 = 0x4000_0000;
/// "Hypervisor present" in ECX of leaf 1.
const HYPERVISOR_PRESENT: u32 = 1 << 31;
/// What QEMU's TCG says there (QEMU's target/i386/cpu.c).
const TCG: &[u8; 12] = b"TCGTCGTCGTCG";

/// Where this process may run, as it was before the first processor's thread was bound.
static ALLOWED: OnceLock<CpuSet> = OnceLock::new();

/// For a thread that runs a processor of the guest: it stays on the last processor that this process
/// may use, as those of all other guests do, if that processor is emulated.
pub fn share_one_processor() {
    if !is_emulated() {
        return;
    }
    let bound = sched_getaffinity(None).and_then(|now| {
        let allowed = ALLOWED.get_or_init(|| now);
        match last_of(allowed) {
            Some(processor) => {
                let mut one = CpuSet::new();
                one.set(processor);
                sched_setaffinity(None, &one)
            }
            None => Ok(()),
        }
    });
    if let Err(error) = bound {
        tracing::warn!("an emulated processor cannot be chosen: {error}; the guest may crash");
    }
}

/// For a device's thread: a processor's thread started it and gave it its own place.
pub fn run_anywhere() {
    if let Some(allowed) = ALLOWED.get()
        && let Err(error) = sched_setaffinity(None, allowed)
    {
        tracing::warn!("a device's thread stays on one processor: {error}");
    }
}

fn is_emulated() -> bool {
    // Leaf 0x40000000 means nothing where no hypervisor is present.
    if __cpuid(1).ecx & HYPERVISOR_PRESENT == 0 {
        return false;
    }
    let leaf = __cpuid(HYPERVISOR_LEAF);
    let mut name = [0; 12];
    for (bytes, register) in name.chunks_mut(4).zip([leaf.ebx, leaf.ecx, leaf.edx]) {
        bytes.copy_from_slice(&register.to_le_bytes());
    }
    &name == TCG
}

fn last_of(allowed: &CpuSet) -> Option<usize> {
    (0..CpuSet::MAX_CPU)
        .rev()
        .find(|&processor| allowed.is_set(processor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_allowed_processor_is_taken() {
        let mut allowed = CpuSet::new();
        assert_eq!(last_of(&allowed), None);
        for processor in [1, 4] {
            allowed.set(processor);
        }
        assert_eq!(last_of(&allowed), Some(4));
    }

    #[test]
    fn only_emulated_processors_are_shared_and_devices_run_anywhere() {
        let count = || sched_getaffinity(None).unwrap().count();
        let before = count();
        let counts = std::thread::spawn(move || {
            share_one_processor();
            let bound = count();
            let device = std::thread::spawn(move || {
                run_anywhere();
                count()
            });
            (bound, device.join().unwrap())
        })
        .join()
        .unwrap();
        let bound = if is_emulated() { 1 } else { before };
        assert_eq!(counts, (bound, before));
    }
}
