//! The 256 bytes of configuration space of one function, and which of its bits a guest may write.

/// Size of the configuration space that functions have here.
pub const SIZE: usize = 256;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BAR0: usize = 0x10;
const CAPABILITY_POINTER: usize = 0x34;
const FIRST_CAPABILITY: usize = 0x40;
/// Memory decoding, bus mastering, INTx disable.
const COMMAND_WRITABLE: u16 = 1 << 1 | 1 << 2 | 1 << 10;
const COMMAND_IO: u16 = 1 << 0;
const BAR_IO: u32 = 1 << 0;
const BAR_64BIT: u32 = 1 << 2;
const BAR_PREFETCHABLE: u32 = 1 << 3;

/// What a function is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class, subclass and programming interface, as in the register.
    pub class: u32,
    /// Subsystem vendor.
    pub subsystem_vendor: u16,
    /// Subsystem.
    pub subsystem: u16,
}

/// What a BAR's addresses are (PCI Local Bus 3.0, 6.2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Memory below 4 GiB.
    Low,
    /// Memory anywhere, which may be prefetched; it takes the next register as well.
    High,
    /// Ports.
    Ports,
}

impl BarKind {
    fn flags(self) -> u32 {
        match self {
            BarKind::Low => 0,
            BarKind::High => BAR_64BIT | BAR_PREFETCHABLE,
            BarKind::Ports => BAR_IO,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Bar {
    address: u64,
    size: u64,
    kind: BarKind,
    /// The halves that the guest is sizing at the moment.
    sizing: [bool; 2],
}

/// What does not fit into a configuration space: an error of the VMM's own construction.
#[derive(Debug, thiserror::Error)]
pub enum ConfigSpaceError {
    /// No room for another capability.
    #[error("no room for another capability")]
    Full,
    /// A BAR that does not exist, is taken, is not a power of two or not aligned.
    #[error("BAR {0} cannot be used so")]
    Bar(usize),
}

/// A configuration space.
#[derive(Debug)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    bars: [Option<Bar>; 6],
    next_capability: usize,
    last_link: usize,
}

impl ConfigSpace {
    /// A function with header type 0 and nothing but its identity.
    pub fn new(identity: Identity) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            bars: [None; 6],
            next_capability: FIRST_CAPABILITY,
            last_link: CAPABILITY_POINTER,
        };
        space.set(0x00, &identity.vendor.to_le_bytes());
        space.set(0x02, &identity.device.to_le_bytes());
        space.set(
            0x08,
            &(identity.class << 8 | u32::from(identity.revision)).to_le_bytes(),
        );
        space.set(0x2c, &identity.subsystem_vendor.to_le_bytes());
        space.set(0x2e, &identity.subsystem.to_le_bytes());
        // Memory decoding is on from the start, as firmware would leave it.
        space.set(COMMAND, &(1u16 << 1).to_le_bytes());
        space.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        space.allow(0x3c, &[0xff]); // interrupt line: a note for software
        space
    }

    /// Adds a BAR at an address that stays.
    pub fn add_bar(
        &mut self,
        index: usize,
        address: u64,
        size: u64,
        kind: BarKind,
    ) -> Result<(), ConfigSpaceError> {
        let error = ConfigSpaceError::Bar(index);
        let is_64bit = kind == BarKind::High;
        let limit = match kind {
            BarKind::Low => 1 << 32,
            BarKind::High => u64::MAX,
            BarKind::Ports => 1 << 16,
        };
        let end = address.checked_add(size);
        let fits = end.is_some_and(|end| end <= limit);
        if !size.is_power_of_two() || size < 16 || !address.is_multiple_of(size) || !fits {
            return Err(error);
        }
        if is_64bit && self.bars.get(index + 1).is_none_or(Option::is_some) {
            return Err(error);
        }
        match self.bars.get_mut(index) {
            Some(slot @ None) => {
                *slot = Some(Bar {
                    address,
                    size,
                    kind,
                    sizing: [false; 2],
                });
                if kind == BarKind::Ports {
                    // On from the start, as that of memory.
                    self.bytes[COMMAND] |= COMMAND_IO as u8;
                    self.writable[COMMAND] |= COMMAND_IO as u8;
                }
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Adds a capability (without its two bytes of header) and returns its offset. `writable` has
    /// the bits that a guest may change.
    pub fn add_capability(
        &mut self,
        id: u8,
        body: &[u8],
        writable: &[u8],
    ) -> Result<usize, ConfigSpaceError> {
        let offset = self.next_capability;
        let end = offset + 2 + body.len();
        if end > SIZE {
            return Err(ConfigSpaceError::Full);
        }
        self.set(offset, &[id, 0]);
        self.set(offset + 2, body);
        self.allow(offset + 2, writable);
        self.set(self.last_link, &[offset as u8]);
        self.last_link = offset + 1;
        self.next_capability = end.next_multiple_of(4);
        self.bytes[STATUS] |= 1 << 4; // has capabilities
        Ok(offset)
    }

    /// Reads. Bytes outside of the space are left as they are.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            if let Some(value) = self.read_byte(offset.saturating_add(index)) {
                *byte = value;
            }
        }
    }

    /// Takes a guest's write: only the bits that are writable change.
    pub fn write(&mut self, offset: usize, untrusted_data: &[u8]) {
        if let (true, Some(bar)) = (
            offset.is_multiple_of(4) && untrusted_data.len() == 4,
            offset
                .checked_sub(BAR0)
                .map(|offset| offset / 4)
                .filter(|bar| *bar < 6),
        ) {
            self.write_bar(bar, untrusted_data == [0xff; 4]);
            return;
        }
        for (index, value) in untrusted_data.iter().enumerate() {
            let at = offset.saturating_add(index);
            if let (Some(byte), Some(mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *byte = (*byte & !mask) | (value & mask);
            }
        }
    }

    /// One of the space's own bytes, for capabilities whose registers the guest sets.
    pub fn byte(&self, offset: usize) -> u8 {
        self.bytes.get(offset).copied().unwrap_or(0xff)
    }

    /// A register of four bytes.
    pub fn dword(&self, offset: usize) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|index| self.byte(offset + index)))
    }

    fn set(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn allow(&mut self, offset: usize, bits: &[u8]) {
        self.writable[offset..offset + bits.len()].copy_from_slice(bits);
    }

    /// The BAR that a register belongs to, and whether the register is its upper half.
    fn bar_of(&mut self, register: usize) -> Option<(&mut Bar, usize)> {
        let is_upper = register > 0
            && self.bars[register].is_none()
            && self.bars[register - 1].is_some_and(|bar| bar.kind == BarKind::High);
        let index = if is_upper { register - 1 } else { register };
        self.bars[index]
            .as_mut()
            .map(|bar| (bar, usize::from(is_upper)))
    }

    fn write_bar(&mut self, register: usize, all_ones: bool) {
        // All ones asks for the size until the next write. Any other value restores the address:
        // it is the one that was read before, or an attempt to move the BAR, which is refused.
        if let Some((bar, half)) = self.bar_of(register) {
            bar.sizing[half] = all_ones;
        }
    }

    fn bar_register(&self, register: usize) -> u32 {
        let upper = register > 0 && self.bars[register].is_none();
        let index = if upper { register - 1 } else { register };
        let Some(bar) = self.bars[index].filter(|bar| !upper || bar.kind == BarKind::High) else {
            return 0;
        };
        let value = if bar.sizing[usize::from(upper)] {
            !(bar.size - 1)
        } else {
            bar.address
        };
        if upper {
            (value >> 32) as u32
        } else {
            value as u32 | bar.kind.flags()
        }
    }

    fn read_byte(&self, offset: usize) -> Option<u8> {
        if (BAR0..BAR0 + 24).contains(&offset) {
            let register = (offset - BAR0) / 4;
            return Some(self.bar_register(register).to_le_bytes()[offset % 4]);
        }
        self.bytes.get(offset).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        let mut space = ConfigSpace::new(Identity {
            vendor: 0x1af4,
            device: 0x1042,
            revision: 1,
            class: 0x018000,
            subsystem_vendor: 0x1af4,
            subsystem: 0x40,
        });
        space.add_bar(0, 0xc000_0000, 0x8000, BarKind::Low).unwrap();
        space
            .add_bar(2, 0x2_0000_0000, 1 << 32, BarKind::High)
            .unwrap();
        space
    }

    fn dword(space: &ConfigSpace, offset: usize) -> u32 {
        let mut data = [0; 4];
        space.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn bars_can_be_sized_but_not_moved() {
        let mut space = space();
        for (register, address, size) in [
            (0x10, 0xc000_0000, 0xffff_8000),
            (0x18, 0xc, 0xc),
            (0x1c, 0x2, 0xffff_ffff),
            (0x14, 0, 0),
            (0x24, 0, 0),
        ] {
            assert_eq!(dword(&space, register), address);
            space.write(register, &[0xff; 4]);
            assert_eq!(dword(&space, register), size);
            space.write(register, &0xdead_0000u32.to_le_bytes());
            assert_eq!(dword(&space, register), address);
        }
    }

    #[test]
    fn ports_are_told_as_such() {
        let mut space = space();
        assert_eq!(dword(&space, 4) & 0xffff, 2);
        space.add_bar(1, 0xc100, 0x100, BarKind::Ports).unwrap();
        assert_eq!(dword(&space, 4) & 0xffff, 3);
        assert_eq!(dword(&space, 0x14), 0xc101);
        space.write(0x14, &[0xff; 4]);
        assert_eq!(dword(&space, 0x14), 0xffff_ff01);
        space.write(0x14, &[0; 4]);
        assert_eq!(dword(&space, 0x14), 0xc101);
        space.write(4, &[0; 2]);
        assert_eq!(dword(&space, 4) & 0xffff, 0);
        assert!(space.add_bar(4, 0xff80, 0x100, BarKind::Ports).is_err());
        assert!(space.add_bar(4, 0x1_0000, 0x100, BarKind::Ports).is_err());
    }

    #[test]
    fn only_writable_bits_change() {
        let mut space = space();
        let before: Vec<u8> = (0..SIZE).map(|offset| space.byte(offset)).collect();
        for offset in 0..SIZE + 16 {
            space.write(offset, &[0xff]);
            space.write(offset, &[0xff; 2]);
        }
        space.write(usize::MAX, &[0xff; 4]);
        assert_eq!(dword(&space, 0x04) & 0xffff, 0x0406);
        for offset in (0..SIZE).filter(|offset| !matches!(offset, 4 | 5 | 0x10..0x28 | 0x3c)) {
            assert_eq!(space.byte(offset), before[offset], "{offset:#x}");
        }
    }

    #[test]
    fn capabilities_are_linked() {
        let mut space = space();
        let first = space.add_capability(9, &[1, 2, 3], &[]).unwrap();
        let second = space.add_capability(0x11, &[0; 10], &[0, 0xc0]).unwrap();
        assert_eq!(usize::from(space.byte(0x34)), first);
        assert_eq!(usize::from(space.byte(first + 1)), second);
        assert_eq!(space.byte(second + 1), 0);
        space.write(second + 2, &[0xff, 0xff]);
        assert_eq!(space.byte(second + 3), 0xc0);
        assert!(space.add_capability(9, &[0; 200], &[]).is_err());
    }

    #[test]
    fn impossible_bars_are_refused() {
        let mut space = space();
        assert!(space.add_bar(0, 0, 16, BarKind::Low).is_err());
        assert!(space.add_bar(5, 0, 1 << 32, BarKind::High).is_err());
        assert!(space.add_bar(1, 0x10, 0x20, BarKind::Low).is_err());
        assert!(space.add_bar(9, 0, 16, BarKind::Low).is_err());
        assert!(space.add_bar(4, 0xffff_fff0, 0x20, BarKind::Low).is_err());
    }
}
