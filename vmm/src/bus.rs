//! Which device answers at an address. The map is fixed before the guest starts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A device that answers reads and writes in a range of ports or addresses.
///
/// Offsets and lengths lie inside the range that it was inserted with; values come from the guest.
pub trait BusDevice: Send {
    /// Answers a read. `data` is filled with ones beforehand.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// Takes a write.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// A range that could not be given to a device.
#[derive(Debug, thiserror::Error)]
#[error("the range {start:#x}+{length:#x} is empty or taken")]
pub struct RangeTaken {
    start: u64,
    length: u64,
}

/// One address space.
#[derive(Default)]
pub struct Bus {
    /// Start → (length, device).
    ranges: BTreeMap<u64, (u64, Arc<Mutex<dyn BusDevice>>)>,
}

impl Bus {
    /// Gives a range to a device.
    pub fn insert(
        &mut self,
        start: u64,
        length: u64,
        device: Arc<Mutex<dyn BusDevice>>,
    ) -> Result<(), RangeTaken> {
        let taken = RangeTaken { start, length };
        let Some(last) = length
            .checked_sub(1)
            .and_then(|length| start.checked_add(length))
        else {
            return Err(taken);
        };
        if self.ranges.range(start..=last).next().is_some() || self.find(start, 1).is_some() {
            return Err(taken);
        }
        self.ranges.insert(start, (length, device));
        Ok(())
    }

    /// Reads; all ones where nothing answers.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((offset, device)) = self.find(address, data.len()) {
            device
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .read(offset, data);
        }
    }

    /// Writes; ignored where nothing answers.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((offset, device)) = self.find(address, data.len()) {
            device
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write(offset, data);
        }
    }

    fn find(&self, address: u64, length: usize) -> Option<(u64, &Arc<Mutex<dyn BusDevice>>)> {
        let (start, (size, device)) = self.ranges.range(..=address).next_back()?;
        let offset = address - start;
        let end = offset.checked_add(length as u64)?;
        (end <= *size).then_some((offset, device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo(Vec<(u64, Vec<u8>)>);
    impl BusDevice for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }
        fn write(&mut self, offset: u64, data: &[u8]) {
            self.0.push((offset, data.to_vec()));
        }
    }

    #[test]
    fn unknown_and_straddling_accesses_read_as_ones() {
        let mut bus = Bus::default();
        let echo = Arc::new(Mutex::new(Echo(Vec::new())));
        bus.insert(0x1000, 0x10, echo.clone()).unwrap();
        assert!(bus.insert(0x100f, 1, echo.clone()).is_err());
        assert!(bus.insert(0xff0, 0x20, echo.clone()).is_err());
        assert!(bus.insert(u64::MAX, 2, echo.clone()).is_err());
        assert!(bus.insert(0x2000, 0, echo.clone()).is_err());
        let read = |address| {
            let mut data = [0; 4];
            bus.read(address, &mut data);
            data
        };
        assert_eq!(read(0x1004), [4; 4]);
        assert_eq!(read(0x100c), [12; 4]);
        for address in [0, 0xffe, 0x100e, 0x1010, u64::MAX - 1] {
            assert_eq!(read(address), [0xff; 4]);
        }
        bus.write(0x100e, &[1, 2, 3, 4]);
        bus.write(0x1008, &[1]);
        assert_eq!(echo.lock().unwrap().0, [(8, vec![1])]);
    }
}
