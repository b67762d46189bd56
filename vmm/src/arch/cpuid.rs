//! What the guest's processors say about themselves: the host's answers as KVM supports them,
//! with the guest's own topology (one package, one thread per core).

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, MsrList, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

const MSR_ARCH_CAPABILITIES: u32 = 0x10a;

/// Asks KVM what it supports and prepares the part that all processors share.
pub fn host_cpuid(kvm: &Kvm, cpus: u8) -> Result<Vec<kvm_cpuid_entry2>, kvm_ioctls::Error> {
    let mut entries = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?
        .as_slice()
        .to_vec();
    // Some hosts report the feature without the MSR; a guest that then reads it crashes.
    let features = kvm.get_msr_feature_index_list().ok();
    let arch_capabilities =
        features.is_some_and(|list: MsrList| list.as_slice().contains(&MSR_ARCH_CAPABILITIES));
    adapt(
        &mut entries,
        cpus,
        arch_capabilities,
        kvm.check_extension(Cap::TscDeadlineTimer),
    );
    Ok(entries)
}

/// The answers of one processor.
pub fn cpu_cpuid(
    shared: &[kvm_cpuid_entry2],
    apic_id: u8,
) -> Result<CpuId, vmm_sys_util::fam::Error> {
    let mut entries = shared.to_vec();
    let id = u32::from(apic_id);
    for entry in &mut entries {
        match entry.function {
            1 => entry.ebx = (entry.ebx & 0x00ff_ffff) | (id << 24),
            0xb => entry.edx = id,
            0x8000_001e => {
                entry.eax = id;
                entry.ebx = id;
            }
            _ => {}
        }
    }
    CpuId::from_entries(&entries)
}

/// The width in bits of guest-physical addresses.
pub fn physical_address_bits(entries: &[kvm_cpuid_entry2]) -> u32 {
    entries
        .iter()
        .find(|entry| entry.function == 0x8000_0008)
        .map_or(36, |entry| entry.eax & 0xff)
}

fn adapt(
    entries: &mut Vec<kvm_cpuid_entry2>,
    cpus: u8,
    arch_capabilities: bool,
    tsc_deadline: bool,
) {
    let cpus = u32::from(cpus.max(1));
    // Bits of an APIC identifier that number the cores of a package.
    let core_bits = cpus.next_power_of_two().trailing_zeros();
    let largest = entries
        .iter()
        .find(|entry| entry.function == 0)
        .map_or(0, |entry| entry.eax);
    entries.retain(|entry| !matches!(entry.function, 0xb | 0x1d | 0x1e | 0x1f));
    for entry in entries.iter_mut() {
        match entry.function {
            1 => {
                entry.ebx = (entry.ebx & 0xff00_ffff) | (cpus << 16);
                entry.ecx |= 1 << 31; // runs under a hypervisor
                if tsc_deadline {
                    entry.ecx |= 1 << 24;
                }
                entry.edx &= !(1 << 28);
                if cpus > 1 {
                    entry.edx |= 1 << 28; // several logical processors
                }
            }
            4 | 0x8000_001d => {
                let level = (entry.eax >> 5) & 7;
                let sharing = if level >= 3 { cpus - 1 } else { 0 };
                entry.eax = (entry.eax & !(0xfff << 14)) | (sharing << 14);
                if entry.function == 4 {
                    entry.eax = (entry.eax & 0x03ff_ffff) | ((cpus - 1).min(63) << 26);
                }
            }
            7 if entry.index == 0 => {
                if !arch_capabilities {
                    entry.edx &= !(1 << 29);
                }
                // AMX state needs a permission that this process does not ask for.
                entry.edx &= !(1 << 22 | 1 << 24 | 1 << 25);
            }
            0x8000_0001 => {
                entry.ecx &= !(1 << 1);
                if cpus > 1 {
                    entry.ecx |= 1 << 1;
                }
            }
            0x8000_0008 => {
                entry.ecx = (entry.ecx & !0xf0ff) | (cpus - 1) | (core_bits << 12);
            }
            // One thread per core, one node.
            0x8000_001e => entry.ecx = 0,
            _ => {}
        }
    }
    if largest >= 0xb {
        let level = |index: u32, shift: u32, count: u32, kind: u32| kvm_cpuid_entry2 {
            function: 0xb,
            index,
            flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax: shift,
            ebx: count,
            ecx: index | (kind << 8),
            ..Default::default()
        };
        entries.push(level(0, 0, 1, 1));
        entries.push(level(1, core_bits, cpus, 2));
        entries.push(level(2, 0, 0, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            ..Default::default()
        }
    }

    #[test]
    fn topology_is_one_package() {
        let mut entries = vec![
            kvm_cpuid_entry2 {
                eax: 0x1f,
                ..leaf(0)
            },
            leaf(1),
            kvm_cpuid_entry2 {
                edx: u32::MAX,
                ..leaf(7)
            },
            kvm_cpuid_entry2 {
                eax: 40,
                ..leaf(0x8000_0008)
            },
            leaf(0x8000_001e),
            leaf(0x1f),
        ];
        adapt(&mut entries, 3, false, true);
        assert!(entries.iter().all(|entry| entry.function != 0x1f));
        assert_eq!(entries[1].ebx, 3 << 16);
        assert_eq!(entries[2].edx & (1 << 29), 0);
        assert_eq!(entries[3].ecx, 2 | (2 << 12));
        assert_eq!(physical_address_bits(&entries), 40);
        let cpu = cpu_cpuid(&entries, 2).unwrap();
        let cores = cpu
            .as_slice()
            .iter()
            .find(|e| e.function == 0xb && e.index == 1)
            .unwrap();
        assert_eq!((cores.eax, cores.ebx, cores.edx), (2, 3, 2));
        assert_eq!(cpu.as_slice()[1].ebx >> 24, 2);
    }
}
