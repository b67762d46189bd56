//! What of a device's configuration space a guest sees: a copy, made before the guest starts.
//!
//! | shown | how |
//! | --- | --- |
//! | vendor, device, class, revision, subsystem | as they are |
//! | command | decoding of memory, INTx disable: the guest's own copy; bus mastering: reaches the device |
//! | BARs in memory | sizes as they are, addresses of ours, which a guest cannot change |
//! | MSI-X, or MSI where there is no MSI-X | emulated |
//! | PCI Express | read-only, as of a device without a link, without function-level reset |
//! | vendor-specific capabilities | read-only |
//!
//! Nothing else is: no I/O ports, no expansion ROM, no power management, no VPD, no extended
//! capabilities (SR-IOV, ATS, resizable BARs), and no registers of the device's own behind the header.

use crate::pci::config_space::{ConfigSpace, ConfigSpaceError, Identity, SIZE};

/// MSI.
pub const ID_MSI: u8 = 0x05;
/// Vendor-specific.
const ID_VENDOR: u8 = 0x09;
/// PCI Express.
const ID_EXPRESS: u8 = 0x10;
/// MSI-X.
pub const ID_MSIX: u8 = 0x11;

/// Most vectors of MSI-X that a guest sees; each costs descriptors and interrupts of the host.
pub const MAX_VECTORS: u16 = 64;
const VENDOR_VIRTIO: u16 = 0x1af4;
/// A window from configuration space into the BARs (virtio 1.2, 4.1.4.9): of no use as a copy.
const VIRTIO_PCI_CFG: u8 = 5;
const EXPRESS_V1_LENGTH: usize = 0x14;
const EXPRESS_V2_LENGTH: usize = 0x3c;
/// A root complex integrated endpoint (PCI Express 4.0, 7.5.3.2): a device with no link above it.
const EXPRESS_INTEGRATED: u8 = 9;

/// Where a device keeps its MSI-X table and pending bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixTable {
    /// Entries of the device's own table, 1 to 2048.
    pub entries: u16,
    /// BAR of the table.
    pub table_bar: usize,
    /// Offset of the table in it, in bytes.
    pub table_offset: u64,
    /// BAR of the pending bits.
    pub pending_bar: usize,
    /// Their offset in it, in bytes.
    pub pending_offset: u64,
}

impl MsixTable {
    /// How many vectors the guest sees.
    pub fn vectors(&self) -> u16 {
        self.entries.min(MAX_VECTORS)
    }

    /// Length of the device's table in bytes.
    pub fn table_length(&self) -> u64 {
        u64::from(self.entries) * 16
    }

    /// Length of the device's pending bits in bytes.
    pub fn pending_length(&self) -> u64 {
        u64::from(self.entries).div_ceil(64) * 8
    }
}

/// How the device sends interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Messages {
    /// By MSI-X.
    Msix(MsixTable),
    /// By MSI; one vector is offered.
    Msi,
}

/// What was read from a device's configuration space.
#[derive(Debug)]
pub struct Physical {
    bytes: [u8; SIZE],
    /// Offsets of its capabilities, in their order.
    capabilities: Vec<usize>,
}

impl Physical {
    /// Takes a copy of the first 256 bytes. The device's words are not believed: a list of
    /// capabilities that runs in a circle ends where it would begin again.
    pub fn new(bytes: [u8; SIZE]) -> Self {
        let mut physical = Self {
            bytes,
            capabilities: Vec::new(),
        };
        if physical.byte(0x06) & 1 << 4 != 0 {
            let mut at = usize::from(physical.byte(0x34) & !3);
            while at >= 0x40 && !physical.capabilities.contains(&at) {
                physical.capabilities.push(at);
                at = usize::from(physical.byte(at + 1) & !3);
            }
        }
        physical
    }

    /// Whether it is a device, and no bridge.
    pub fn is_endpoint(&self) -> bool {
        self.byte(0x0e) & 0x7f == 0
    }

    /// The six BAR registers.
    pub fn bar_registers(&self) -> [u32; 6] {
        std::array::from_fn(|index| self.dword(0x10 + 4 * index))
    }

    /// How it sends interrupts, if it can without a wire. MSI-X is preferred.
    pub fn messages(&self) -> Option<Messages> {
        if let Some(at) = self.find(ID_MSIX) {
            let (table, pending) = (self.dword(at + 4), self.dword(at + 8));
            let table = MsixTable {
                entries: (self.word(at + 2) & 0x7ff) + 1,
                table_bar: (table & 7) as usize,
                table_offset: u64::from(table & !7),
                pending_bar: (pending & 7) as usize,
                pending_offset: u64::from(pending & !7),
            };
            return Some(Messages::Msix(table));
        }
        self.find(ID_MSI).map(|_| Messages::Msi)
    }

    /// The guest's configuration space, without BARs. The second answer is the offset of its
    /// capability for interrupts.
    pub fn filtered(&self, messages: Messages) -> Result<(ConfigSpace, usize), ConfigSpaceError> {
        let mut space = ConfigSpace::new(Identity {
            vendor: self.word(0x00),
            device: self.word(0x02),
            revision: self.byte(0x08),
            class: self.dword(0x08) >> 8,
            subsystem_vendor: self.word(0x2c),
            subsystem: self.word(0x2e),
        });
        let interrupts = match messages {
            Messages::Msix(table) => {
                let mut body = (table.vectors() - 1).to_le_bytes().to_vec();
                let place = |bar: usize, offset: u64| (bar as u32 | offset as u32).to_le_bytes();
                body.extend(place(table.table_bar, table.table_offset));
                body.extend(place(table.pending_bar, table.pending_offset));
                // Enable and function mask.
                space.add_capability(ID_MSIX, &body, &[0, 0xc0])?
            }
            // One vector, a 64-bit address, no masks: enable, address and data are the guest's.
            Messages::Msi => space.add_capability(
                ID_MSI,
                &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                &[
                    1, 0, 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                ],
            )?,
        };
        for at in &self.capabilities {
            let id = self.byte(*at);
            let body = match id {
                ID_EXPRESS => self.express(*at),
                ID_VENDOR => self.vendor_specific(*at),
                _ => None,
            };
            if let Some(body) = body {
                space.add_capability(id, &body, &[])?;
            }
        }
        Ok((space, interrupts))
    }

    /// The PCI Express capability (7.5.3) as of a device that sits on the root complex itself, which
    /// has no link: where ours is on the guest's bus.
    fn express(&self, at: usize) -> Option<Vec<u8>> {
        let version = self.byte(at + 2) & 0xf;
        let length = match version {
            1 => EXPRESS_V1_LENGTH,
            _ => EXPRESS_V2_LENGTH,
        };
        let mut bytes = self.bytes.get(at..at + length)?.to_vec();
        bytes[2] = version | EXPRESS_INTEGRATED << 4;
        bytes[3] = 0; // no slot
        bytes[7] &= !(1 << 4); // function-level reset is ours
        bytes[10..].fill(0); // device status, the link's registers, everything of version 2
        Some(bytes.split_off(2))
    }

    /// A vendor-specific capability; its third byte is its length.
    fn vendor_specific(&self, at: usize) -> Option<Vec<u8>> {
        let length = usize::from(self.byte(at + 2));
        if self.word(0) == VENDOR_VIRTIO && self.byte(at + 3) == VIRTIO_PCI_CFG {
            return None;
        }
        Some(self.bytes.get(at + 2..at + length)?.to_vec())
    }

    fn find(&self, id: u8) -> Option<usize> {
        let mut all = self.capabilities.iter().copied();
        all.find(|at| self.byte(*at) == id)
    }

    fn byte(&self, offset: usize) -> u8 {
        self.bytes.get(offset).copied().unwrap_or(0)
    }

    fn word(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.byte(offset), self.byte(offset + 1)])
    }

    fn dword(&self, offset: usize) -> u32 {
        u32::from(self.word(offset)) | u32::from(self.word(offset + 2)) << 16
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A card with power management, MSI, MSI-X, PCI Express and a vendor-specific capability.
    fn card() -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..4].copy_from_slice(&[0x86, 0x80, 0xd3, 0x10]);
        bytes[4..8].copy_from_slice(&[0x06, 0x04, 0x10, 0x00]);
        bytes[8..12].copy_from_slice(&[3, 0, 0, 2]);
        bytes[0x30..0x34].copy_from_slice(&[1, 0, 0xc0, 0xfe]); // an expansion ROM
        bytes[0x34] = 0x40;
        bytes[0x40..0x44].copy_from_slice(&[0x01, 0x50, 0x23, 0xc8]);
        bytes[0x50..0x54].copy_from_slice(&[ID_MSI, 0x60, 0x80, 0]);
        bytes[0x60..0x6c].copy_from_slice(&[ID_MSIX, 0x70, 4, 0x80, 3, 0, 0, 0, 3, 0x20, 0, 0]);
        bytes[0x70..0x7c]
            .copy_from_slice(&[ID_EXPRESS, 0xb0, 2, 0, 1, 0, 0, 0x10, 0x10, 0x28, 3, 0]);
        bytes[0x7c] = 0x11; // link capabilities
        bytes[0xb0..0xb4].copy_from_slice(&[ID_VENDOR, 0, 6, 0xaa]);
        bytes
    }

    fn listed(space: &ConfigSpace) -> Vec<(u8, usize)> {
        let mut at = usize::from(space.byte(0x34));
        let mut all = Vec::new();
        while at != 0 {
            all.push((space.byte(at), at));
            at = usize::from(space.byte(at + 1));
        }
        all
    }

    #[test]
    fn a_guest_sees_the_card_and_what_we_support() {
        let physical = Physical::new(card());
        let messages = physical.messages().unwrap();
        let table = MsixTable {
            entries: 5,
            table_bar: 3,
            table_offset: 0,
            pending_bar: 3,
            pending_offset: 0x2000,
        };
        assert_eq!(messages, Messages::Msix(table));
        let (space, at) = physical.filtered(messages).unwrap();
        assert_eq!(space.dword(0), 0x10d3_8086);
        assert_eq!(space.dword(8), 0x0200_0003);
        assert_eq!(space.dword(0x30), 0);
        let ids: Vec<u8> = listed(&space).iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [ID_MSIX, ID_EXPRESS, ID_VENDOR]);
        // Not enabled, whatever the device's own state is.
        assert_eq!(space.dword(at) >> 16, 4);
        let express = listed(&space)[1].1;
        assert_eq!(space.dword(express) >> 16, 0x92);
        assert_eq!(space.dword(express + 4), 1);
        assert_eq!(space.dword(express + 0xc), 0);
    }

    #[test]
    fn a_card_with_msi_alone_gets_one_vector() {
        let mut bytes = card();
        bytes[0x51] = 0x70;
        let physical = Physical::new(bytes);
        assert_eq!(physical.messages(), Some(Messages::Msi));
        let (mut space, at) = physical.filtered(Messages::Msi).unwrap();
        assert_eq!(space.dword(at) >> 16, 0x80);
        space.write(at + 2, &[0xff, 0xff]);
        assert_eq!(space.dword(at) >> 16, 0x81);
        bytes[0x41] = 0;
        assert_eq!(Physical::new(bytes).messages(), None);
        bytes[6] = 0;
        assert_eq!(Physical::new(bytes).messages(), None);
    }

    proptest! {
        /// No device makes us stumble, and no write of a guest changes more than it may.
        #[test]
        fn neither_device_nor_guest_is_believed(
            random in prop::collection::vec(any::<u8>(), SIZE - 0x34),
            writes in prop::collection::vec(
                (any::<u16>(), prop::collection::vec(any::<u8>(), 1..9)), 0..64),
        ) {
            let mut bytes = card();
            bytes[0x34..].copy_from_slice(&random);
            let physical = Physical::new(bytes);
            let Some(messages) = physical.messages() else { return Ok(()) };
            let Ok((mut space, at)) = physical.filtered(messages) else { return Ok(()) };
            let before: Vec<u8> = (0..SIZE).map(|offset| space.byte(offset)).collect();
            for (offset, data) in &writes {
                space.write(usize::from(*offset), data);
            }
            let own = match messages {
                Messages::Msix(_) => at + 3..at + 4,
                Messages::Msi => at + 2..at + 14,
            };
            for (offset, value) in before.iter().enumerate() {
                if !matches!(offset, 4 | 5 | 0x3c) && !own.contains(&offset) {
                    prop_assert_eq!(space.byte(offset), *value, "{:#x}", offset);
                }
            }
            prop_assert_eq!(space.byte(4) & !7, 0);
            prop_assert_eq!(space.byte(5) & !4, 0);
        }
    }
}
