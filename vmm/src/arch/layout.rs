//! Where things lie in the guest's physical address space and on its I/O ports.

/// `hvm_start_info` and the module list after it.
pub const START_INFO: u64 = 0x6000;
/// The list of modules (one: the initramfs).
pub const MODULE_LIST: u64 = 0x6100;
/// The memory map.
pub const MEMORY_MAP: u64 = 0x7000;
/// The kernel's command line.
pub const CMDLINE: u64 = 0x2_0000;
/// Room for the command line: Linux on x86 reads 2047 characters and a zero.
pub const CMDLINE_MAX: usize = 2048;
/// End of usable conventional memory.
pub const LOW_RAM_END: u64 = 0x9_f000;
/// ACPI tables, in the area that firmware uses for them.
pub const ACPI_TABLES: u64 = 0xe_0000;
/// End of the area of ACPI tables.
pub const ACPI_TABLES_END: u64 = 0x10_0000;
/// Memory above 1 MiB; kernels are linked to load above this.
pub const HIGH_RAM: u64 = 0x10_0000;
/// RAM ends here at the latest and goes on at 4 GiB: the hole is for devices.
pub const DEVICE_HOLE: u64 = 0xc000_0000;
/// End of the hole.
pub const DEVICE_HOLE_END: u64 = 0x1_0000_0000;
/// 32-bit BARs.
pub const PCI_MEMORY: u64 = 0xc000_0000;
/// Length of the range of 32-bit BARs.
pub const PCI_MEMORY_LEN: u64 = 0x2000_0000;
/// The ports of BARs.
pub const PCI_PORTS: u16 = 0xc000;
/// How many ports.
pub const PCI_PORTS_LEN: u16 = 0x2000;
/// PCI configuration space (one bus of 1 MiB).
pub const ECAM: u64 = 0xe000_0000;
/// Length of the configuration space of one bus.
pub const ECAM_LEN: u64 = 0x10_0000;
/// The I/O APIC.
pub const IO_APIC: u32 = 0xfec0_0000;
/// The local APICs.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Pages that KVM on Intel needs for real mode.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages that KVM on Intel needs for its task state segment.
pub const KVM_TSS: usize = 0xfffb_d000;

/// Serial port COM1.
pub const PORT_SERIAL: u16 = 0x3f8;
/// Interrupt of COM1.
pub const IRQ_SERIAL: u32 = 4;
/// Keyboard controller: only its reset line exists.
pub const PORT_I8042: u16 = 0x60;
/// CMOS index and data.
pub const PORT_CMOS: u16 = 0x70;
/// ACPI PM1a event block (4 bytes) and control block (2 bytes).
pub const PORT_PM1: u16 = 0x600;
/// ACPI's own interrupt.
pub const IRQ_SCI: u32 = 9;
/// First interrupt number after the pins of the I/O APIC.
pub const FIRST_MSI_GSI: u32 = 24;
