//! The PVH boot protocol: the initramfs in guest memory and the start information that tells the
//! kernel of it, of memory and of ACPI. The kernel itself is placed by [`super::elf`].

use std::fs::File;

use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::layout;
use crate::memory::reader::Piece;
use crate::memory::{self, GuestMemory};

const START_INFO_MAGIC: u32 = 0x336e_c578;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// Why a kernel or initramfs could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not an ELF file.
    #[error("is not an ELF file: give an uncompressed vmlinux, not a bzImage")]
    NotElf,
    /// No PVH entry point.
    #[error("has no PVH note: build the kernel with CONFIG_PVH=y")]
    NoPvhNote,
    /// The file ends too early.
    #[error("is truncated or damaged ({0}): copy or build it again")]
    Truncated(String),
    /// It does not fit into the guest's memory.
    #[error("does not fit into {memory_mib} MiB of guest memory: give the guest more memory")]
    TooBig {
        /// The guest's RAM.
        memory_mib: u64,
    },
    /// The command line is too long.
    #[error("the command line has {length} characters, Linux reads at most {max}: shorten it")]
    CmdlineTooLong {
        /// Its length.
        length: usize,
        /// The most that fits.
        max: usize,
    },
    /// Guest memory could not be written: a fault of the VMM's own layout.
    #[error("could not be placed in guest memory: {0}")]
    Memory(String),
}

/// A loaded kernel.
#[derive(Clone, Copy, Debug)]
pub struct LoadedKernel {
    /// Where it starts, in 32-bit protected mode.
    pub entry: u64,
    /// The first address after it.
    pub end: u64,
}

/// Where the initramfs lies.
#[derive(Clone, Copy, Debug)]
pub struct LoadedInitramfs {
    /// First address.
    pub address: u64,
    /// Length in bytes.
    pub length: u64,
}

/// Finds a place for the initramfs, as high as it fits below the device hole. What is to be read follows.
pub fn place_initramfs<'f>(
    memory: &GuestMemory,
    kernel: &LoadedKernel,
    file: &'f File,
    length: u64,
) -> Result<(LoadedInitramfs, Piece<'f>), LoadError> {
    let total = memory::total_bytes(memory);
    let too_big = || LoadError::TooBig {
        memory_mib: total >> 20,
    };
    let top = total.min(layout::DEVICE_HOLE);
    let address = top.checked_sub(length).ok_or_else(too_big)? & !0xfff;
    if address < kernel.end {
        return Err(too_big());
    }
    let piece = Piece {
        file,
        offset: 0,
        address,
        length,
    };
    Ok((LoadedInitramfs { address, length }, piece))
}

/// Writes command line, memory map and start information. `rsdp` is where ACPI begins.
pub fn write_start_info(
    memory: &GuestMemory,
    cmdline: &str,
    initramfs: Option<LoadedInitramfs>,
    rsdp: u64,
) -> Result<(), LoadError> {
    if cmdline.len() >= layout::CMDLINE_MAX {
        let max = layout::CMDLINE_MAX - 1;
        return Err(LoadError::CmdlineTooLong {
            length: cmdline.len(),
            max,
        });
    }
    let mut text = cmdline.as_bytes().to_vec();
    text.push(0);
    memory
        .write_slice(&text, GuestAddress(layout::CMDLINE))
        .map_err(|error| LoadError::Memory(error.to_string()))?;

    let mut map = vec![
        range(0, layout::LOW_RAM_END, E820_RAM),
        range(layout::ACPI_TABLES, layout::ACPI_TABLES_END, E820_RESERVED),
    ];
    for region in GuestMemoryBackend::iter(memory) {
        use vm_memory::GuestMemoryRegion;
        let start = region.start_addr().0.max(layout::HIGH_RAM);
        map.push(range(start, region.start_addr().0 + region.len(), E820_RAM));
    }
    map.push(range(
        layout::ECAM,
        layout::ECAM + layout::ECAM_LEN,
        E820_RESERVED,
    ));

    let start_info = hvm_start_info {
        magic: START_INFO_MAGIC,
        version: 1,
        cmdline_paddr: layout::CMDLINE,
        memmap_paddr: layout::MEMORY_MAP,
        memmap_entries: map.len() as u32,
        rsdp_paddr: rsdp,
        nr_modules: u32::from(initramfs.is_some()),
        modlist_paddr: if initramfs.is_some() {
            layout::MODULE_LIST
        } else {
            0
        },
        ..Default::default()
    };
    let mut params = BootParams::new(&start_info, GuestAddress(layout::START_INFO));
    params.set_sections(&map, GuestAddress(layout::MEMORY_MAP));
    if let Some(initramfs) = initramfs {
        let module = hvm_modlist_entry {
            paddr: initramfs.address,
            size: initramfs.length,
            ..Default::default()
        };
        params.set_modules(&[module], GuestAddress(layout::MODULE_LIST));
    }
    PvhBootConfigurator::write_bootparams(&params, memory)
        .map_err(|error| LoadError::Memory(error.to_string()))
}

fn range(start: u64, end: u64, type_: u32) -> hvm_memmap_table_entry {
    hvm_memmap_table_entry {
        addr: start,
        size: end - start,
        type_,
        reserved: 0,
    }
}
