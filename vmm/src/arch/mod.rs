//! What makes a pile of KVM objects a PC: address layout, CPUID, registers, PVH, ACPI.

pub mod acpi;
pub mod cpuid;
pub mod elf;
pub mod layout;
pub mod pvh;
pub mod registers;
