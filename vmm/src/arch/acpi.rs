//! The ACPI tables: processors, interrupt controllers, PCI, and how to switch off.
//!
//! Fixed hardware (PM1 registers and the SCI) serves power button and S5; everything else that a
//! PC's tables usually hold is left out. References are to ACPI 6.5.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, Memory32Fixed, Name, Package, Path,
    ResourceTemplate, Scope,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::{GenericAddress, Sdt};
use acpi_tables::{Aml, facs::FACS};
use vm_memory::{Bytes, GuestAddress};

use super::layout;
use crate::memory::GuestMemory;

const OEM: [u8; 6] = *b"BLKHD ";
const OEM_TABLE: [u8; 8] = *b"BULKHEAD";
const REVISION: u32 = 1;
/// `SLP_TYP` for S5, named in the DSDT and understood by the power device.
pub const SLEEP_TYPE_S5: u8 = 5;
/// What the FADT tells the guest to write to port 0x64 to reset.
pub const RESET_VALUE: u8 = 0xfe;

/// The range of 64-bit BARs, when there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HighWindow {
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
}

/// Writes all tables and returns the address of the RSDP.
pub fn write_tables(
    memory: &GuestMemory,
    cpus: u8,
    high_window: Option<HighWindow>,
) -> Result<u64, vm_memory::GuestMemoryError> {
    let rsdp_address = layout::ACPI_TABLES;
    let mut next = rsdp_address + 0x40;
    let mut place = |table: &dyn Aml| -> Result<u64, vm_memory::GuestMemoryError> {
        let mut bytes = Vec::new();
        table.to_aml_bytes(&mut bytes);
        let address = next;
        memory.write_slice(&bytes, GuestAddress(address))?;
        // The FACS asks for 64 bytes of alignment.
        next = (address + bytes.len() as u64).next_multiple_of(64);
        Ok(address)
    };
    let facs = place(&FACS::new())?;
    let dsdt = place(&dsdt(high_window))?;
    let fadt = place(&fadt(facs, dsdt))?;
    let madt = place(&madt(cpus))?;
    let mcfg = place(&mcfg())?;
    let mut xsdt = table(b"XSDT", 36, 1);
    for address in [fadt, madt, mcfg] {
        xsdt.append(address);
    }
    xsdt.update_checksum();
    let xsdt = place(&xsdt)?;
    let mut rsdp = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    memory.write_slice(&rsdp, GuestAddress(rsdp_address))?;
    Ok(rsdp_address)
}

fn table(signature: &[u8; 4], length: u32, revision: u8) -> Sdt {
    Sdt::new(*signature, length, revision, OEM, OEM_TABLE, REVISION)
}

/// 5.2.9
fn fadt(facs: u64, dsdt: u64) -> Sdt {
    let pm1_event = layout::PORT_PM1;
    let pm1_control = layout::PORT_PM1 + 4;
    let mut fadt = table(b"FACP", 276, 6);
    fadt.write_u32(36, facs as u32);
    fadt.write_u32(40, dsdt as u32);
    fadt.write_u16(46, layout::IRQ_SCI as u16);
    fadt.write_u32(56, u32::from(pm1_event));
    fadt.write_u32(64, u32::from(pm1_control));
    fadt.write_u8(88, 4); // PM1_EVT_LEN
    fadt.write_u8(89, 2); // PM1_CNT_LEN
    fadt.write_u16(96, 101); // no C2
    fadt.write_u16(98, 1001); // no C3
    fadt.write_u8(108, crate::devices::rtc::CENTURY_REGISTER);
    fadt.write_u16(109, 1 << 2); // no VGA, no keyboard controller to probe
    // WBINVD, C1, no sleep button, no RTC wake-up, reset register. The power button is a fixed one.
    fadt.write_u32(112, 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 10);
    fadt.write(
        116,
        GenericAddress::io_port_address::<u8>(layout::PORT_I8042 + 4),
    );
    fadt.write_u8(128, RESET_VALUE);
    fadt.write_u8(131, 5); // minor version
    fadt.write_u64(140, dsdt);
    fadt.write(148, GenericAddress::io_port_address::<u32>(pm1_event));
    fadt.write(172, GenericAddress::io_port_address::<u16>(pm1_control));
    fadt.update_checksum();
    fadt
}

/// 5.2.12
fn madt(cpus: u8) -> Sdt {
    let mut madt = table(b"APIC", 44, 5);
    madt.write_u32(36, layout::LOCAL_APIC);
    madt.write_u32(40, 1); // a pair of 8259s is there as well
    for cpu in 0..cpus {
        madt.append_slice(&[0, 8, cpu, cpu]);
        madt.append(1u32);
    }
    madt.append_slice(&[1, 12, 0, 0]);
    madt.append(layout::IO_APIC);
    madt.append(0u32);
    // The SCI is level-triggered and active high.
    madt.append_slice(&[2, 10, 0, layout::IRQ_SCI as u8]);
    madt.append(layout::IRQ_SCI);
    madt.append(0x000d_u16);
    madt.update_checksum();
    madt
}

/// PCI Firmware Specification 3.3, 4.1.2
fn mcfg() -> Sdt {
    let mut mcfg = table(b"MCFG", 44, 1);
    mcfg.append(layout::ECAM);
    mcfg.append(0u16); // segment
    mcfg.append_slice(&[0, 0]); // only bus 0
    mcfg.append(0u32);
    mcfg.update_checksum();
    mcfg
}

fn dsdt(high_window: Option<HighWindow>) -> Sdt {
    let bus = AddressSpace::new_bus_number(0u16, 0u16);
    let memory = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        layout::PCI_MEMORY as u32,
        (layout::PCI_MEMORY + layout::PCI_MEMORY_LEN - 1) as u32,
        None,
    );
    let ports = AddressSpace::new_io(
        layout::PCI_PORTS,
        layout::PCI_PORTS + (layout::PCI_PORTS_LEN - 1),
        None,
    );
    let high = high_window.map(|window| {
        AddressSpace::new_memory(
            AddressSpaceCacheable::Cacheable,
            true,
            window.start,
            window.start + (window.length - 1),
            None,
        )
    });
    let mut windows: Vec<&dyn Aml> = vec![&bus, &memory, &ports];
    if let Some(high) = &high {
        windows.push(high);
    }
    let hid = |id| Name::new(Path::new("_HID"), &EISAName::new(id));
    let mut bytes = Vec::new();
    Scope::new(
        Path::new("\\_SB_"),
        vec![
            &Device::new(
                Path::new("PCI0"),
                vec![
                    &hid("PNP0A08"),
                    &Name::new(Path::new("_CID"), &EISAName::new("PNP0A03")),
                    &Name::new(Path::new("_UID"), &0u8),
                    &Name::new(Path::new("_SEG"), &0u8),
                    &Name::new(Path::new("_BBN"), &0u8),
                    &Name::new(Path::new("_CRS"), &ResourceTemplate::new(windows)),
                ],
            ),
            // Reserves the configuration space, without which Linux does not use it.
            &Device::new(
                Path::new("MB0_"),
                vec![
                    &hid("PNP0C02"),
                    &Name::new(Path::new("_UID"), &0u8),
                    &Name::new(
                        Path::new("_CRS"),
                        &ResourceTemplate::new(vec![&Memory32Fixed::new(
                            true,
                            layout::ECAM as u32,
                            layout::ECAM_LEN as u32,
                        )]),
                    ),
                ],
            ),
        ],
    )
    .to_aml_bytes(&mut bytes);
    let s5: &dyn Aml = &SLEEP_TYPE_S5;
    Name::new(Path::new("_S5_"), &Package::new(vec![s5, s5, &0u8, &0u8])).to_aml_bytes(&mut bytes);
    let mut dsdt = table(b"DSDT", 36, 6);
    dsdt.append_slice(&bytes);
    dsdt.update_checksum();
    dsdt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    #[test]
    fn every_table_is_found_and_sums_to_zero() {
        let ram = memory::allocate(64 << 20).unwrap();
        let window = HighWindow {
            start: 1 << 32,
            length: 1 << 32,
        };
        let rsdp = write_tables(&ram, 2, Some(window)).unwrap();
        let read = |address: u64, length: usize| {
            let mut bytes = vec![0; length];
            ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
            bytes
        };
        let checked = |address: u64| {
            let length = u32::from_le_bytes(read(address + 4, 4).try_into().unwrap()) as usize;
            let bytes = read(address, length);
            assert_eq!(
                bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)),
                0
            );
            assert!(address + length as u64 <= layout::ACPI_TABLES_END);
            bytes
        };
        assert_eq!(&read(rsdp, 8), b"RSD PTR ");
        let xsdt = checked(u64::from_le_bytes(read(rsdp + 24, 8).try_into().unwrap()));
        let mut names = Vec::new();
        for entry in xsdt[36..].chunks(8) {
            let table = checked(u64::from_le_bytes(entry.try_into().unwrap()));
            names.push(String::from_utf8(table[..4].to_vec()).unwrap());
            if &table[..4] == b"FACP" {
                let dsdt = checked(u64::from_le_bytes(table[140..148].try_into().unwrap()));
                assert_eq!(&dsdt[..4], b"DSDT");
                assert!(dsdt.windows(4).any(|name| name == b"_S5_"));
            }
        }
        assert_eq!(names, ["FACP", "APIC", "MCFG"]);
    }
}
