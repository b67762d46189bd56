//! MSI-X of one function (PCI 3.0, 6.8.2): the table that the driver writes, and the KVM routes
//! that follow it.
//!
//! A masked vector's events stay in its eventfd, which is what the pending bit array shows;
//! connecting the eventfd again delivers them.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::irq::{MsiMessage, RouteError};

/// Bytes of one table entry.
pub const ENTRY_SIZE: u64 = 16;
const CONTROL_ENABLE: u16 = 1 << 15;
const CONTROL_FUNCTION_MASK: u16 = 1 << 14;
const ENTRY_MASKED: u32 = 1;

/// What carries interrupts to the guest: KVM, or a test.
pub trait MsiSink: Send + Sync {
    /// Lets events on `eventfd` deliver `message` as interrupt `gsi`.
    fn connect(&self, gsi: u32, message: MsiMessage, eventfd: &EventFd) -> Result<(), RouteError>;
    /// Stops that.
    fn disconnect(&self, gsi: u32, eventfd: &EventFd);
}

impl MsiSink for crate::irq::IrqRouter {
    fn connect(&self, gsi: u32, message: MsiMessage, eventfd: &EventFd) -> Result<(), RouteError> {
        Self::connect(self, gsi, message, eventfd)
    }
    fn disconnect(&self, gsi: u32, eventfd: &EventFd) {
        Self::disconnect(self, gsi, eventfd);
    }
}

struct Vector {
    gsi: u32,
    message: MsiMessage,
    control: u32,
    connected: Option<MsiMessage>,
}

/// The MSI-X state of a function.
pub struct Msix {
    sink: Arc<dyn MsiSink>,
    eventfds: Arc<[EventFd]>,
    vectors: Vec<Vector>,
    control: u16,
}

impl Msix {
    /// One vector per eventfd; `gsis` are their interrupt numbers.
    pub fn new(sink: Arc<dyn MsiSink>, eventfds: Arc<[EventFd]>, gsis: &[u32]) -> Self {
        let vectors = gsis
            .iter()
            .take(eventfds.len())
            .map(|gsi| Vector {
                gsi: *gsi,
                message: MsiMessage::default(),
                control: ENTRY_MASKED,
                connected: None,
            })
            .collect();
        Self {
            sink,
            eventfds,
            vectors,
            control: 0,
        }
    }

    /// The number of vectors.
    pub fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// The driver wrote the capability's control word.
    pub fn set_control(&mut self, untrusted_control: u16) {
        let control = untrusted_control & (CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
        if control != self.control {
            self.control = control;
            for index in 0..self.vectors.len() {
                self.follow(index);
            }
        }
    }

    /// Reads the table. Only naturally aligned accesses of 4 or 8 bytes are defined.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        if !is_aligned(offset, data.len()) {
            return;
        }
        for (index, chunk) in data.chunks_mut(4).enumerate() {
            let at = offset.wrapping_add(4 * index as u64);
            let value = match self.vectors.get((at / ENTRY_SIZE) as usize) {
                Some(vector) => match at % ENTRY_SIZE {
                    0 => vector.message.address_low,
                    4 => vector.message.address_high,
                    8 => vector.message.data,
                    _ => vector.control,
                },
                None => 0,
            };
            chunk.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Writes the table; writes that are not defined, or behind its end, are ignored.
    pub fn write_table(&mut self, offset: u64, untrusted_data: &[u8]) {
        if !is_aligned(offset, untrusted_data.len()) {
            return;
        }
        for (nth, chunk) in untrusted_data.chunks(4).enumerate() {
            let at = offset.wrapping_add(4 * nth as u64);
            let index = (at / ENTRY_SIZE) as usize;
            let (Some(vector), Ok(bytes)) = (self.vectors.get_mut(index), chunk.try_into()) else {
                return;
            };
            let value = u32::from_le_bytes(bytes);
            match at % ENTRY_SIZE {
                0 => vector.message.address_low = value & !3,
                4 => vector.message.address_high = value,
                8 => vector.message.data = value,
                _ => vector.control = value & ENTRY_MASKED,
            }
            // Software must mask an entry before it changes it; one that does not gets the
            // change when it writes the control word again.
            if at % ENTRY_SIZE == 12 {
                self.follow(index);
            }
        }
    }

    /// Reads the pending bit array.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            let at = offset.saturating_add(index as u64);
            *byte = (0..8).fold(0, |bits, bit| {
                let vector = usize::try_from(at.saturating_mul(8).saturating_add(bit));
                let pending = vector.is_ok_and(|vector| self.is_pending(vector));
                bits | u8::from(pending) << bit
            });
        }
    }

    /// Disconnects everything and forgets the table.
    pub fn reset(&mut self) {
        self.set_control(0);
        for vector in &mut self.vectors {
            vector.message = MsiMessage::default();
            vector.control = ENTRY_MASKED;
        }
    }

    fn is_pending(&self, index: usize) -> bool {
        let (Some(vector), Some(eventfd)) = (self.vectors.get(index), self.eventfds.get(index))
        else {
            return false;
        };
        vector.connected.is_none() && is_readable(eventfd)
    }

    /// Makes KVM's state follow the table's.
    fn follow(&mut self, index: usize) {
        let enabled = self.control & (CONTROL_ENABLE | CONTROL_FUNCTION_MASK) == CONTROL_ENABLE;
        let (Some(vector), Some(eventfd)) = (self.vectors.get_mut(index), self.eventfds.get(index))
        else {
            return;
        };
        let wanted = (enabled && vector.control & ENTRY_MASKED == 0).then_some(vector.message);
        if wanted == vector.connected {
            return;
        }
        if vector.connected.take().is_some() {
            self.sink.disconnect(vector.gsi, eventfd);
        }
        if let Some(message) = wanted {
            match self.sink.connect(vector.gsi, message, eventfd) {
                Ok(()) => vector.connected = Some(message),
                Err(error) => tracing::debug!("MSI-X vector {index}: {error}"),
            }
        }
    }
}

impl Drop for Msix {
    fn drop(&mut self) {
        self.reset();
    }
}

fn is_aligned(offset: u64, length: usize) -> bool {
    matches!(length, 4 | 8) && offset.is_multiple_of(length as u64)
}

fn is_readable(eventfd: &EventFd) -> bool {
    use std::os::fd::AsRawFd;
    let mut poll = libc::pollfd {
        fd: eventfd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd, for the time of the call.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 && poll.revents & libc::POLLIN != 0 }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);
    impl MsiSink for Log {
        fn connect(&self, gsi: u32, message: MsiMessage, _: &EventFd) -> Result<(), RouteError> {
            self.0
                .lock()
                .unwrap()
                .push(format!("+{gsi}:{:x}", message.data));
            Ok(())
        }
        fn disconnect(&self, gsi: u32, _: &EventFd) {
            self.0.lock().unwrap().push(format!("-{gsi}"));
        }
    }

    fn msix() -> (Arc<Log>, Msix) {
        let log = Arc::new(Log::default());
        let eventfds: Vec<EventFd> = (0..3)
            .map(|_| EventFd::new(EFD_NONBLOCK).unwrap())
            .collect();
        let msix = Msix::new(log.clone(), Arc::from(eventfds), &[24, 25, 26]);
        (log, msix)
    }

    fn taken(log: &Log) -> Vec<String> {
        std::mem::take(&mut *log.0.lock().unwrap())
    }

    #[test]
    fn kvm_follows_masks() {
        let (log, mut msix) = msix();
        msix.write_table(16, &0xfee0_0000u64.to_le_bytes());
        msix.write_table(24, &0x41u64.to_le_bytes());
        assert!(taken(&log).is_empty());
        msix.set_control(CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
        assert!(taken(&log).is_empty());
        msix.set_control(CONTROL_ENABLE);
        assert_eq!(taken(&log), ["+25:41"]);
        msix.write_table(28, &1u32.to_le_bytes());
        assert_eq!(taken(&log), ["-25"]);
        msix.eventfds[1].write(1).unwrap();
        let mut pending = [0; 8];
        msix.read_pending(0, &mut pending);
        assert_eq!(pending, [2, 0, 0, 0, 0, 0, 0, 0]);
        msix.write_table(24, &0x42u64.to_le_bytes());
        assert_eq!(taken(&log), ["+25:42"]);
        msix.reset();
        assert_eq!(taken(&log), ["-25"]);
    }

    #[test]
    fn undefined_accesses_change_nothing() {
        let (log, mut msix) = msix();
        msix.set_control(0xffff);
        for offset in [1, 2, 3, 44, 48, 4096, u64::MAX - 7, u64::MAX] {
            for length in [0, 1, 2, 3, 5, 7] {
                msix.write_table(offset, &vec![0; length]);
                msix.read_table(offset, &mut vec![0; length]);
            }
        }
        msix.write_table(48, &[0; 8]);
        msix.write_table(u64::MAX - 7, &[0; 8]);
        let mut beyond = [0xaa; 8];
        msix.read_table(48, &mut beyond);
        assert_eq!(beyond, [0; 8]);
        msix.read_pending(u64::MAX - 3, &mut [0; 8]);
        assert!(taken(&log).is_empty());
    }
}
