//! A passed-through device's interrupts: the device signals eventfds, which KVM turns into the
//! messages that the guest's driver asked for, as for the virtio devices ([`Msix`]).
//!
//! The device's own table is the host kernel's. The guest writes into ours, and all that reaches the
//! device is whether its interrupts are on at all: a masked vector's events wait in its eventfd.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::capabilities::Messages;
use super::kernel::{Device, MSI_INDEX, MSIX_INDEX};
use crate::pci::config_space::ConfigSpace;
use crate::pci::msix::{MsiSink, Msix};

const MSIX_ENABLE: u16 = 1 << 15;
const MSI_ENABLE: u16 = 1;

/// What signals the eventfds: a device, or a test.
pub trait InterruptSource: Send + Sync {
    /// Lets the interrupts of a kind signal these descriptors.
    fn connect(&self, index: u32, eventfds: &[RawFd]) -> io::Result<()>;
    /// Switches the interrupts of a kind off.
    fn disconnect(&self, index: u32) -> io::Result<()>;
}

impl InterruptSource for Device {
    fn connect(&self, index: u32, eventfds: &[RawFd]) -> io::Result<()> {
        self.connect_interrupts(index, eventfds)
    }
    fn disconnect(&self, index: u32) -> io::Result<()> {
        self.disconnect_interrupts(index)
    }
}

/// The interrupts of one device.
pub struct Interrupts {
    source: Arc<dyn InterruptSource>,
    /// MSI-X, or MSI as one vector of it.
    vectors: Msix,
    eventfds: Arc<[EventFd]>,
    messages: Messages,
    /// Offset of the capability in the guest's configuration space.
    capability: usize,
    /// Whether the device signals the eventfds.
    connected: bool,
    /// With MSI: address and data that KVM was told.
    message: [u32; 3],
}

impl Interrupts {
    /// How many interrupt numbers of KVM a device needs.
    pub fn count(messages: Messages) -> u16 {
        match messages {
            Messages::Msix(table) => table.vectors(),
            Messages::Msi => 1,
        }
    }

    /// Interrupts that are switched off; `gsis` has [`Interrupts::count`] numbers.
    pub fn new(
        source: Arc<dyn InterruptSource>,
        sink: Arc<dyn MsiSink>,
        gsis: &[u32],
        messages: Messages,
        capability: usize,
    ) -> io::Result<Self> {
        let eventfds = gsis
            .iter()
            .map(|_| EventFd::new(EFD_NONBLOCK))
            .collect::<io::Result<Vec<_>>>()?;
        let eventfds: Arc<[EventFd]> = Arc::from(eventfds);
        Ok(Self {
            source,
            vectors: Msix::new(sink, eventfds.clone(), gsis),
            eventfds,
            messages,
            capability,
            connected: false,
            message: [0; 3],
        })
    }

    /// Follows the guest's configuration space after a write to it.
    pub fn follow(&mut self, space: &ConfigSpace) {
        let control = (space.dword(self.capability) >> 16) as u16;
        let enabled = match self.messages {
            Messages::Msix(_) => control & MSIX_ENABLE != 0,
            Messages::Msi => control & MSI_ENABLE != 0,
        };
        // The device first: KVM's side may have events at once.
        if enabled != self.connected {
            self.switch(enabled);
        }
        match self.messages {
            Messages::Msix(_) => self.vectors.set_control(control),
            Messages::Msi => {
                let message = [
                    space.dword(self.capability + 4),
                    space.dword(self.capability + 8),
                    space.dword(self.capability + 12) & 0xffff,
                ];
                if message != self.message {
                    self.message = message;
                    for (register, value) in (0u64..).step_by(4).zip(message) {
                        self.vectors.write_table(register, &value.to_le_bytes());
                    }
                }
                // Unmasked, and with that KVM's route follows the message.
                self.vectors.write_table(12, &[0; 4]);
                self.vectors
                    .set_control(if enabled { MSIX_ENABLE } else { 0 });
            }
        }
    }

    /// Reads the MSI-X table.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        self.vectors.read_table(offset, data);
    }

    /// Writes the MSI-X table.
    pub fn write_table(&mut self, offset: u64, untrusted_data: &[u8]) {
        self.vectors.write_table(offset, untrusted_data);
    }

    /// Reads the pending bits.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        self.vectors.read_pending(offset, data);
    }

    /// Switches everything off.
    pub fn stop(&mut self) {
        if self.connected {
            self.switch(false);
        }
        self.vectors.reset();
    }

    fn switch(&mut self, on: bool) {
        let index = match self.messages {
            Messages::Msix(_) => MSIX_INDEX,
            Messages::Msi => MSI_INDEX,
        };
        let result = if on {
            // Events that nobody took belong to an earlier driver.
            for eventfd in self.eventfds.iter() {
                let _ = eventfd.read();
            }
            let fds: Vec<RawFd> = self.eventfds.iter().map(AsRawFd::as_raw_fd).collect();
            self.source.connect(index, &fds)
        } else {
            self.source.disconnect(index)
        };
        // A guest can cause as many of these as it likes: not for the log as it usually is.
        match result {
            Ok(()) => self.connected = on,
            Err(error) => tracing::debug!("switching a device's interrupts: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use proptest::prelude::*;

    use super::super::capabilities::{MsixTable, Physical};
    use super::*;
    use crate::irq::{MsiMessage, RouteError};

    /// What was told to the device and to KVM, in order.
    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);

    impl Log {
        fn add(&self, text: String) {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(text);
        }
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }

    impl InterruptSource for Log {
        fn connect(&self, index: u32, eventfds: &[RawFd]) -> io::Result<()> {
            self.add(format!("device {index} on, {}", eventfds.len()));
            Ok(())
        }
        fn disconnect(&self, index: u32) -> io::Result<()> {
            self.add(format!("device {index} off"));
            Ok(())
        }
    }

    impl MsiSink for Log {
        fn connect(&self, gsi: u32, message: MsiMessage, _: &EventFd) -> Result<(), RouteError> {
            self.add(format!("+{gsi}:{:x}", message.data));
            Ok(())
        }
        fn disconnect(&self, gsi: u32, _: &EventFd) {
            self.add(format!("-{gsi}"));
        }
    }

    fn make(messages: Messages) -> (Arc<Log>, ConfigSpace, Interrupts, usize) {
        let log = Arc::new(Log::default());
        let physical = Physical::new([0; crate::pci::config_space::SIZE]);
        let (space, at) = physical.filtered(messages).unwrap();
        let gsis: Vec<u32> = (0..u32::from(Interrupts::count(messages)))
            .map(|nth| 24 + nth)
            .collect();
        let interrupts = Interrupts::new(log.clone(), log.clone(), &gsis, messages, at).unwrap();
        (log, space, interrupts, at)
    }

    fn msix(entries: u16) -> Messages {
        Messages::Msix(MsixTable {
            entries,
            table_bar: 0,
            table_offset: 0,
            pending_bar: 0,
            pending_offset: 0x1000,
        })
    }

    #[test]
    fn the_device_is_told_of_the_switch_and_kvm_of_messages() {
        let (log, mut space, mut interrupts, at) = make(msix(3));
        interrupts.write_table(16, &0xfee0_0000u64.to_le_bytes());
        interrupts.write_table(24, &0x41u64.to_le_bytes());
        assert!(log.take().is_empty());
        space.write(at + 2, &0x8000u16.to_le_bytes());
        interrupts.follow(&space);
        assert_eq!(log.take(), ["device 2 on, 3", "+25:41"]);
        interrupts.follow(&space);
        assert!(log.take().is_empty());
        interrupts.stop();
        assert_eq!(log.take(), ["device 2 off", "-25"]);
        interrupts.stop();
        assert!(log.take().is_empty());
    }

    #[test]
    fn msi_is_one_vector() {
        let (log, mut space, mut interrupts, at) = make(Messages::Msi);
        space.write(at + 4, &0xfee0_1000u32.to_le_bytes());
        space.write(at + 12, &0x33u16.to_le_bytes());
        interrupts.follow(&space);
        assert!(log.take().is_empty());
        space.write(at + 2, &[0xff, 0xff]);
        interrupts.follow(&space);
        assert_eq!(log.take(), ["device 1 on, 1", "+24:33"]);
        space.write(at + 12, &0x34u16.to_le_bytes());
        interrupts.follow(&space);
        assert_eq!(log.take(), ["-24", "+24:34"]);
        space.write(at + 2, &[0, 0]);
        interrupts.follow(&space);
        assert_eq!(log.take(), ["device 1 off", "-24"]);
    }

    #[test]
    fn a_large_table_is_shown_in_part() {
        let (log, mut space, mut interrupts, at) = make(msix(2048));
        assert_eq!(space.dword(at) >> 16 & 0x7ff, 63);
        space.write(at + 2, &[0xff, 0xff]);
        interrupts.follow(&space);
        assert_eq!(log.take(), ["device 2 on, 64"]);
    }

    proptest! {
        /// Whatever a guest writes where, KVM and the device get pairs of on and off.
        #[test]
        fn every_connection_has_its_end(
            writes in prop::collection::vec(
                (any::<bool>(), 0u64..128, prop::collection::vec(any::<u8>(), 1..9)), 0..64),
            by_msix in any::<bool>(),
        ) {
            let messages = if by_msix { msix(4) } else { Messages::Msi };
            let (log, mut space, mut interrupts, at) = make(messages);
            for (to_table, offset, data) in &writes {
                if *to_table {
                    interrupts.write_table(*offset, data);
                } else {
                    space.write(at + (*offset % 16) as usize, data);
                    interrupts.follow(&space);
                }
            }
            interrupts.stop();
            let told = log.take();
            let count = |what: fn(&String) -> bool| told.iter().filter(|line| what(line)).count();
            prop_assert_eq!(
                count(|line| line.starts_with('+')), count(|line| line.starts_with('-')));
            prop_assert_eq!(
                count(|line| line.contains(" on, ")), count(|line| line.ends_with(" off")));
        }
    }
}
