//! The one PCI bus, reached by ECAM and by configuration mechanism 1.

use std::sync::{Arc, Mutex, PoisonError};

use super::coalesced::Coalesced;
use super::config_space::{ConfigSpace, Identity};
use crate::bus::BusDevice;

/// Most functions that fit on the bus: one per device number, all of them single-function.
pub const MAX_DEVICES: usize = 32;

/// A PCI function.
pub trait PciFunction: Send {
    /// Reads configuration space. Offsets are below 4096; `data` is filled with zeroes beforehand.
    fn read_config(&mut self, offset: usize, data: &mut [u8]);
    /// Writes configuration space; `data` is the guest's.
    fn write_config(&mut self, offset: usize, data: &[u8]);
}

/// The host bridge: an identity and nothing else.
pub struct HostBridge(ConfigSpace);

impl Default for HostBridge {
    fn default() -> Self {
        Self(ConfigSpace::new(Identity {
            vendor: 0x1b36, // a generic host bridge, known to guests from other machines
            device: 0x0008,
            revision: 0,
            class: 0x06_0000,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        }))
    }
}

impl PciFunction for HostBridge {
    fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        self.0.read(offset, data);
    }
    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.0.write(offset, data);
    }
}

/// The bus.
#[derive(Default)]
pub struct PciBus {
    functions: Vec<Arc<Mutex<dyn PciFunction>>>,
}

/// The bus has no free slot.
#[derive(Debug, thiserror::Error)]
#[error("more than {MAX_DEVICES} PCI devices: give the guest fewer disks")]
pub struct BusFull;

impl PciBus {
    /// Puts a function into the next slot.
    pub fn add(&mut self, function: Arc<Mutex<dyn PciFunction>>) -> Result<(), BusFull> {
        if self.functions.len() == MAX_DEVICES {
            return Err(BusFull);
        }
        self.functions.push(function);
        Ok(())
    }

    /// `untrusted_address` is an offset into the ECAM area: device and function in bits 15 to 19
    /// and 12 to 14, the register below.
    fn read(&self, untrusted_address: u64, data: &mut [u8]) {
        let Some((function, register)) = self.decode(untrusted_address, data.len()) else {
            data.fill(0xff);
            return;
        };
        data.fill(0);
        function
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read_config(register, data);
    }

    fn write(&self, untrusted_address: u64, data: &[u8]) {
        if let Some((function, register)) = self.decode(untrusted_address, data.len()) {
            function
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write_config(register, data);
        }
    }

    fn decode(
        &self,
        untrusted_address: u64,
        length: usize,
    ) -> Option<(&Arc<Mutex<dyn PciFunction>>, usize)> {
        let device = usize::try_from(untrusted_address >> 15).ok()?;
        let register = (untrusted_address & 0xfff) as usize;
        if untrusted_address >> 12 & 7 != 0 || register + length > 4096 {
            return None;
        }
        Some((self.functions.get(device)?, register))
    }
}

/// The memory-mapped way to configuration space.
pub struct Ecam(pub Arc<PciBus>);

impl BusDevice for Ecam {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.0.read(offset, data);
    }
    fn write(&mut self, offset: u64, data: &[u8]) {
        self.0.write(offset, data);
    }
}

/// The way through ports 0xcf8 (address) and 0xcfc (data).
pub struct ConfigPorts {
    bus: Arc<PciBus>,
    address: u32,
    coalesced: Option<Coalesced>,
}

impl ConfigPorts {
    /// Ports for `bus`.
    pub fn new(bus: Arc<PciBus>) -> Self {
        Self {
            bus,
            address: 0,
            coalesced: None,
        }
    }

    /// With writes to the address port that come another way.
    pub fn with_coalesced(self, coalesced: Option<Coalesced>) -> Self {
        Self { coalesced, ..self }
    }

    /// Takes in what was written to the address port before.
    fn catch_up(&mut self) {
        if let Some(address) = self.coalesced.as_mut().and_then(Coalesced::last) {
            self.address = address;
        }
    }

    /// Where an access to the data port goes: an address as ECAM would have it.
    fn target(&self, offset: u64) -> Option<u64> {
        let enabled = self.address >> 31 == 1;
        let bus = self.address >> 16 & 0xff;
        let slot = u64::from(self.address >> 8 & 0xff);
        let register = u64::from(self.address & 0xfc) + (offset & 3);
        (enabled && bus == 0).then_some(slot << 12 | register)
    }
}

impl BusDevice for ConfigPorts {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.catch_up();
        if offset < 4 {
            if offset == 0 && data.len() == 4 {
                data.copy_from_slice(&self.address.to_le_bytes());
            }
        } else if let Some(target) = self.target(offset) {
            self.bus.read(target, data);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.catch_up();
        if offset < 4 {
            if let (0, Ok(bytes)) = (offset, data.try_into()) {
                self.address = u32::from_le_bytes(bytes);
            }
        } else if let Some(target) = self.target(offset) {
            self.bus.write(target, data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_lead_to_the_same_function() {
        let mut bus = PciBus::default();
        bus.add(Arc::new(Mutex::new(HostBridge::default())))
            .unwrap();
        let bus = Arc::new(bus);
        let mut ecam = Ecam(bus.clone());
        let mut ports = ConfigPorts::new(bus);
        let mut by_ecam = [0; 4];
        ecam.read(8, &mut by_ecam);
        assert_eq!(by_ecam, [0, 0, 0, 6]);
        ports.write(0, &0x8000_0008u32.to_le_bytes());
        let mut by_port = [0; 1];
        ports.read(7, &mut by_port);
        assert_eq!(by_port, [6]);
        for absent in [0x8000u64, 0x1000, 0xf_8000, 0xffe] {
            let mut data = [0; 4];
            ecam.read(absent, &mut data);
            assert_eq!(data, [0xff; 4]);
            ecam.write(absent, &data);
        }
        for address in [0u32, 0x8001_0000, 0xffff_ffff] {
            ports.write(0, &address.to_le_bytes());
            let mut data = [0xff; 4];
            ports.read(4, &mut data);
            assert_eq!(data, [0xff; 4]);
        }
    }
}
