//! Guest RAM and the window of host memory shown to the guest.

pub mod host_window;
pub mod reader;

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::arch::layout;

/// Guest RAM: private anonymous memory of this process. Cheap to clone.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// Allocates guest RAM: from address 0, with a hole for devices below 4 GiB.
pub fn allocate(bytes: u64) -> Result<GuestMemory, vm_memory::mmap::FromRangesError> {
    let low = bytes.min(layout::DEVICE_HOLE);
    let mut ranges = vec![(GuestAddress(0), low as usize)];
    if bytes > low {
        ranges.push((
            GuestAddress(layout::DEVICE_HOLE_END),
            (bytes - low) as usize,
        ));
    }
    let memory = GuestMemory::from_ranges(&ranges)?;
    for region in memory.iter() {
        if let Ok(address) = region.get_host_address(vm_memory::MemoryRegionAddress(0)) {
            // A core dump of the VMM must not hold the guest's memory. Failing is harmless.
            // SAFETY: advice about a mapping that is ours and stays mapped.
            unsafe { libc::madvise(address.cast(), region.len() as usize, libc::MADV_DONTDUMP) };
        }
    }
    Ok(memory)
}

/// The amount of guest RAM in bytes.
pub fn total_bytes(memory: &GuestMemory) -> u64 {
    memory.iter().map(|region| region.len()).sum()
}

/// The first address after all RAM (and after the hole for devices).
pub fn end_of_ram(memory: &GuestMemory) -> u64 {
    memory
        .iter()
        .map(|region| region.start_addr().0 + region.len())
        .max()
        .unwrap_or(0)
        .max(layout::DEVICE_HOLE_END)
}
