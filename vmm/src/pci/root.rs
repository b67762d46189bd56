//! The one PCI bus, reached by ECAM: the older way through ports 0xcf8 and 0xcfc would be two exits for each
//! read, and guests that find ECAM need no other (QEMU's `microvm` has none either).

use std::sync::{Arc, Mutex, PoisonError};

use super::config_space::{ConfigSpace, Identity};
use super::shown::ConfigPage;
use crate::bus::BusDevice;

/// Most functions that fit on the bus: one per device number, all of them single-function.
pub const MAX_DEVICES: usize = 32;
/// Where an ECAM address has the device number (PCI Express 5.0, 7.2.2).
const DEVICE_SHIFT: u32 = 15;

/// A PCI function.
pub trait PciFunction: Send {
    /// Reads configuration space. Offsets are below 4096; `data` is filled with zeroes beforehand.
    fn read_config(&mut self, offset: usize, data: &mut [u8]);
    /// Writes configuration space; `data` is the guest's.
    fn write_config(&mut self, offset: usize, data: &[u8]);
    /// Whether a read has no effect, and its answer changes by [`PciFunction::write_config`] only.
    fn reads_only_tell(&self) -> bool {
        true
    }
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

struct Slot {
    function: Arc<Mutex<dyn PciFunction>>,
    /// What the guest reads without us. Locked after the function.
    page: Option<Mutex<ConfigPage>>,
}

/// The bus.
#[derive(Default)]
pub struct PciBus {
    slots: Vec<Slot>,
}

/// The bus has no free slot.
#[derive(Debug, thiserror::Error)]
#[error("more than {MAX_DEVICES} PCI devices: give the guest fewer disks")]
pub struct BusFull;

impl PciBus {
    /// Puts a function into the next slot.
    pub fn add(&mut self, function: Arc<Mutex<dyn PciFunction>>) -> Result<(), BusFull> {
        if self.slots.len() == MAX_DEVICES {
            return Err(BusFull);
        }
        self.slots.push(Slot {
            function,
            page: None,
        });
        Ok(())
    }

    /// Lets the guest read configuration space by itself: `show` gets each function's offset in the ECAM
    /// area and makes the page that the guest sees there. The page stays for as long as the bus.
    pub fn show<E>(&mut self, mut show: impl FnMut(u64) -> Result<ConfigPage, E>) -> Result<(), E> {
        for (device, slot) in self.slots.iter_mut().enumerate() {
            let mut page = show((device as u64) << DEVICE_SHIFT)?;
            let function = slot.function.lock();
            page.follow(&mut *function.unwrap_or_else(PoisonError::into_inner));
            slot.page = Some(Mutex::new(page));
        }
        Ok(())
    }

    /// `untrusted_address` is an offset into the ECAM area: device and function in bits 15 to 19
    /// and 12 to 14, the register below.
    fn read(&self, untrusted_address: u64, data: &mut [u8]) {
        let Some((slot, register)) = self.decode(untrusted_address, data.len()) else {
            data.fill(0xff);
            return;
        };
        data.fill(0);
        slot.function
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read_config(register, data);
    }

    fn write(&self, untrusted_address: u64, data: &[u8]) {
        let Some((slot, register)) = self.decode(untrusted_address, data.len()) else {
            return;
        };
        let function = slot.function.lock();
        let mut function = function.unwrap_or_else(PoisonError::into_inner);
        function.write_config(register, data);
        if let Some(page) = &slot.page {
            let mut page = page.lock().unwrap_or_else(PoisonError::into_inner);
            page.follow(&mut *function);
        }
    }

    fn decode(&self, untrusted_address: u64, length: usize) -> Option<(&Slot, usize)> {
        let device = usize::try_from(untrusted_address >> DEVICE_SHIFT).ok()?;
        let register = (untrusted_address & 0xfff) as usize;
        if untrusted_address >> 12 & 7 != 0 || register + length > 4096 {
            return None;
        }
        Some((self.slots.get(device)?, register))
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn bus() -> PciBus {
        let mut bus = PciBus::default();
        bus.add(Arc::new(Mutex::new(HostBridge::default())))
            .unwrap();
        bus
    }

    #[test]
    fn a_function_answers_at_its_address_and_nothing_elsewhere() {
        let mut ecam = Ecam(Arc::new(bus()));
        let mut class = [0; 4];
        ecam.read(8, &mut class);
        assert_eq!(class, [0, 0, 0, 6]);
        for absent in [0x8000u64, 0x1000, 0xf_8000, 0xffe] {
            let mut data = [0; 4];
            ecam.read(absent, &mut data);
            assert_eq!(data, [0xff; 4]);
            ecam.write(absent, &data);
        }
    }

    #[test]
    fn each_function_is_shown_at_its_address_as_it_is() {
        let mut bus = bus();
        bus.add(Arc::new(Mutex::new(HostBridge::default())))
            .unwrap();
        let mut shown = Vec::new();
        bus.show(|offset| {
            let page = ConfigPage::new()?;
            shown.push((offset, page.host_address()));
            Ok::<_, std::io::Error>(page)
        })
        .unwrap();
        assert_eq!(shown.len(), 2);
        assert_eq!((shown[0].0, shown[1].0), (0, 0x8000));
        let word = |offset: usize| {
            let address = shown[1].1 as usize + offset;
            // SAFETY: the page lives as long as the bus, and its words are only accessed atomically.
            unsafe { &*(address as *const AtomicU32) }.load(Ordering::Acquire)
        };
        assert_eq!(word(0), 0x0008_1b36);
        let before = word(4);
        let mut ecam = Ecam(Arc::new(bus));
        ecam.write(0x8004, &[0xff; 4]);
        assert_eq!(word(4), before | 0x0406);
        let mut by_exit = [0; 4];
        ecam.read(0x8004, &mut by_exit);
        assert_eq!(word(4), u32::from_le_bytes(by_exit));
    }
}
