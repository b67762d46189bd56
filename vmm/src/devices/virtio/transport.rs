//! Virtio over PCI (virtio 1.2, 4.1): one function with its structures in BAR 0, its doorbells once more as
//! ports in BAR 1, and, where the device has a shared memory region, a window in BAR 2.
//!
//! A doorbell in memory is an access to a page that is not there: but for Intel's processors KVM has to walk the
//! guest's page tables and decode the instruction. A port is told by the processor.
//!
//! Everything that arrives here comes from the guest's driver. Queues are handed to the device
//! only after their addresses were checked to lie in guest memory.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::device::{
    ActivateError, Activation, ActiveQueue, DeviceFault, ISR_CONFIG, ISR_QUEUE, Interrupt,
    NO_VECTOR, VirtioDevice,
};
use crate::bus::BusDevice;
use crate::memory::GuestMemory;
use crate::memory::host_window::HostVisibleWindow;
use crate::pci::config_space::{BarKind, ConfigSpace, ConfigSpaceError, Identity};
use crate::pci::msix::{ENTRY_SIZE, MsiSink, Msix};
use crate::pci::root::PciFunction;

/// Size of BAR 0.
pub const BAR_SIZE: u64 = 0x8000;
/// The BAR of the doorbells as ports.
const PORTS_BAR: usize = 1;
/// Size of that BAR, for the most queues that a device may have.
pub const PORTS_SIZE: u64 = 0x100;
/// The BAR of a shared memory region.
const WINDOW_BAR: usize = 2;
const COMMON: u64 = 0;
const COMMON_LENGTH: u64 = 0x3c;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const DEVICE_LENGTH: u64 = 0x1000;
const NOTIFY: u64 = 0x3000;
const NOTIFY_STRIDE: u64 = 4;
const TABLE: u64 = 0x4000;
const PENDING: u64 = 0x5000;
/// Most queues of a device: their vectors and one more fit into the table's page.
pub const MAX_QUEUES: usize = 64;

const CAPABILITY_VENDOR: u8 = 9;
const CAPABILITY_MSIX: u8 = 0x11;
const CFG_COMMON: u8 = 1;
const CFG_NOTIFY: u8 = 2;
const CFG_ISR: u8 = 3;
const CFG_DEVICE: u8 = 4;
const CFG_PCI: u8 = 5;
const CFG_SHARED_MEMORY: u8 = 8;

/// Why a device could not be put on the bus.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// More queues than fit, or a queue size that is not a power of two.
    #[error("a virtio device of type {0} has impossible queues")]
    Queues(u32),
    /// The configuration space is full or a BAR misplaced.
    #[error(transparent)]
    ConfigSpace(#[from] ConfigSpaceError),
    /// No descriptors left, most likely.
    #[error("creating an eventfd: {0}")]
    EventFd(#[from] io::Error),
}

struct QueueSlot {
    queue: Queue,
    kick: EventFd,
    vector: Arc<AtomicU16>,
}

/// Where a function's BARs lie and which interrupts are its own.
pub struct Placement<'a> {
    /// Address of BAR 0.
    pub bar: u64,
    /// First port of BAR 1.
    pub ports: u16,
    /// Address of BAR 2 and what is behind it.
    pub window: Option<(u64, Arc<HostVisibleWindow>)>,
    /// One interrupt number per queue and one more.
    pub gsis: &'a [u32],
    /// What delivers them.
    pub sink: Arc<dyn MsiSink>,
}

/// A virtio device as a PCI function.
pub struct VirtioPci {
    name: String,
    device: Box<dyn VirtioDevice>,
    memory: GuestMemory,
    config: ConfigSpace,
    msix: Msix,
    msix_capability: usize,
    pci_capability: usize,
    vectors: Arc<[EventFd]>,
    queues: Vec<QueueSlot>,
    config_vector: Arc<AtomicU16>,
    isr: Arc<AtomicU8>,
    generation: Arc<AtomicU8>,
    status: u8,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    queue_select: u16,
    window: Option<Arc<HostVisibleWindow>>,
    fault: DeviceFault,
}

impl VirtioPci {
    /// Makes a PCI function of `device`; `name` is for logs.
    pub fn new(
        name: String,
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        placement: Placement<'_>,
        fault: DeviceFault,
    ) -> Result<Self, TransportError> {
        let device_type = device.device_type();
        let sizes = device.queue_sizes();
        let impossible = || TransportError::Queues(device_type);
        if sizes.len() > MAX_QUEUES || placement.gsis.len() != sizes.len() + 1 {
            return Err(impossible());
        }
        let queues = sizes
            .iter()
            .map(|size| {
                Ok(QueueSlot {
                    queue: Queue::new(*size).map_err(|_| impossible())?,
                    kick: EventFd::new(EFD_NONBLOCK)?,
                    vector: Arc::new(AtomicU16::new(NO_VECTOR)),
                })
            })
            .collect::<Result<Vec<_>, TransportError>>()?;
        let vectors = placement
            .gsis
            .iter()
            .map(|_| EventFd::new(EFD_NONBLOCK))
            .collect::<io::Result<Vec<_>>>()?;
        let vectors: Arc<[EventFd]> = Arc::from(vectors);
        let msix = Msix::new(placement.sink, vectors.clone(), placement.gsis);

        let mut config = ConfigSpace::new(Identity {
            vendor: 0x1af4,
            device: 0x1040 + device_type as u16,
            revision: 1,
            class: pci_class(device_type),
            subsystem_vendor: 0x1af4,
            subsystem: 0x40 + device_type as u16,
        });
        config.add_bar(0, placement.bar, BAR_SIZE, BarKind::Low)?;
        let ports = u64::from(placement.ports);
        config.add_bar(PORTS_BAR, ports, PORTS_SIZE, BarKind::Ports)?;
        let capability = |kind, bar: usize, id: u8, offset: u64, length: u64| {
            let mut body = vec![16u8, kind, bar as u8, id, 0, 0];
            body.extend((offset as u32).to_le_bytes());
            body.extend((length as u32).to_le_bytes());
            body
        };
        let notify_length = NOTIFY_STRIDE * queues.len() as u64;
        let notify = |bar, offset| {
            let mut body = capability(CFG_NOTIFY, bar, 0, offset, notify_length);
            body[0] = 20;
            body.extend((NOTIFY_STRIDE as u32).to_le_bytes());
            body
        };
        for body in [
            capability(CFG_COMMON, 0, 0, COMMON, COMMON_LENGTH),
            // A driver takes the first that it can use (4.1.4.1).
            notify(PORTS_BAR, 0),
            notify(0, NOTIFY),
            capability(CFG_ISR, 0, 0, ISR, 1),
            capability(CFG_DEVICE, 0, 0, DEVICE, DEVICE_LENGTH),
        ] {
            config.add_capability(CAPABILITY_VENDOR, &body, &[])?;
        }
        let mut access = capability(CFG_PCI, 0, 0, 0, 0);
        access[0] = 20;
        access.extend([0; 4]);
        let mut writable = vec![0u8; access.len()];
        for (index, bits) in writable.iter_mut().enumerate() {
            // BAR, offset and length; the data field is handled apart.
            *bits = if index == 2 || (6..14).contains(&index) {
                0xff
            } else {
                0
            };
        }
        let pci_capability = config.add_capability(CAPABILITY_VENDOR, &access, &writable)?;
        let mut table = ((vectors.len() as u16) - 1).to_le_bytes().to_vec();
        table.extend((TABLE as u32).to_le_bytes());
        table.extend((PENDING as u32).to_le_bytes());
        let msix_capability = config.add_capability(CAPABILITY_MSIX, &table, &[0, 0xc0])?;
        let mut window = None;
        if let (Some(region), Some((address, memory))) = (device.shared_memory(), placement.window)
        {
            config.add_bar(WINDOW_BAR, address, region.length, BarKind::High)?;
            // The 64-bit form (4.1.4.7): upper halves of offset and length follow.
            let mut body = capability(CFG_SHARED_MEMORY, WINDOW_BAR, region.id, 0, region.length);
            body[0] = 24;
            body.extend(0u32.to_le_bytes());
            body.extend(((region.length >> 32) as u32).to_le_bytes());
            config.add_capability(CAPABILITY_VENDOR, &body, &[])?;
            window = Some(memory);
        }
        Ok(Self {
            name,
            device,
            memory,
            config,
            msix,
            msix_capability,
            pci_capability,
            vectors,
            queues,
            config_vector: Arc::new(AtomicU16::new(NO_VECTOR)),
            isr: Arc::new(AtomicU8::new(0)),
            generation: Arc::new(AtomicU8::new(0)),
            status: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            queue_select: 0,
            window,
            fault,
        })
    }

    /// The doorbells: offset in BAR 0, offset in BAR 1, and eventfd of each queue.
    pub fn doorbells(&self) -> impl Iterator<Item = (u64, u64, &EventFd)> {
        let offsets = (0..).step_by(NOTIFY_STRIDE as usize);
        let kicks = self.queues.iter().map(|slot| &slot.kick);
        offsets
            .zip(kicks)
            .map(|(offset, kick)| (NOTIFY + offset, offset, kick))
    }

    /// Stops the device.
    pub fn stop(&mut self) {
        self.device.reset();
    }

    fn offered_features(&self) -> u64 {
        self.device.features() | 1 << VIRTIO_F_VERSION_1
    }

    fn has(&self, status: u32) -> bool {
        u32::from(self.status) & status != 0
    }

    fn reset(&mut self) {
        tracing::debug!(device = %self.name, "reset by the driver");
        self.device.reset();
        for slot in &mut self.queues {
            slot.queue.reset();
            slot.vector.store(NO_VECTOR, Ordering::Release);
            // A kick that nobody took belongs to the past.
            let _ = slot.kick.read();
        }
        self.config_vector.store(NO_VECTOR, Ordering::Release);
        self.isr.store(0, Ordering::Release);
        self.status = 0;
        self.driver_features = 0;
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.queue_select = 0;
    }

    fn write_status(&mut self, untrusted_status: u8) {
        if untrusted_status == 0 {
            self.reset();
            return;
        }
        let new = u32::from(untrusted_status & !self.status);
        let mut accepted = new & !VIRTIO_CONFIG_S_NEEDS_RESET;
        if new & VIRTIO_CONFIG_S_FEATURES_OK != 0 {
            let known = self.driver_features & !self.offered_features() == 0;
            // 6.1: a driver that does not speak version 1 is turned away.
            let modern = self.driver_features >> VIRTIO_F_VERSION_1 & 1 == 1;
            if !(known && modern) {
                accepted &= !VIRTIO_CONFIG_S_FEATURES_OK;
            }
        }
        let starting = accepted & VIRTIO_CONFIG_S_DRIVER_OK != 0;
        self.status |= accepted as u8;
        if starting {
            let result = if self.has(VIRTIO_CONFIG_S_FEATURES_OK) {
                self.activate()
            } else {
                Err(ActivateError::Driver(
                    "started without agreeing on features",
                ))
            };
            if let Err(error) = result {
                tracing::warn!(device = %self.name, "not started: {error}");
                self.status |= VIRTIO_CONFIG_S_NEEDS_RESET as u8;
                self.interrupt(&self.config_vector, ISR_CONFIG).signal();
            }
        }
    }

    fn interrupt(&self, vector: &Arc<AtomicU16>, bit: u8) -> Interrupt {
        let generation = (bit == ISR_CONFIG).then(|| self.generation.clone());
        Interrupt::new(
            self.vectors.clone(),
            vector.clone(),
            self.isr.clone(),
            bit,
            generation,
        )
    }

    fn activate(&mut self) -> Result<(), ActivateError> {
        let event_idx = self.driver_features >> VIRTIO_RING_F_EVENT_IDX & 1 == 1;
        let mut queues = Vec::with_capacity(self.queues.len());
        for slot in &self.queues {
            if slot.queue.ready() && !slot.queue.is_valid(&self.memory) {
                return Err(ActivateError::Driver(
                    "a queue lies outside of guest memory",
                ));
            }
            let mut queue = Queue::try_from(slot.queue.state())
                .map_err(|_| ActivateError::Driver("a queue is malformed"))?;
            queue.set_event_idx(event_idx);
            let kick = slot
                .kick
                .try_clone()
                .map_err(ActivateError::host("copying an eventfd"))?;
            let interrupt = self.interrupt(&slot.vector, ISR_QUEUE);
            queues.push(ActiveQueue {
                queue,
                kick,
                interrupt,
            });
        }
        tracing::debug!(device = %self.name, features = self.driver_features, "activated");
        self.device.activate(Activation {
            memory: self.memory.clone(),
            features: self.driver_features,
            queues,
            config_interrupt: self.interrupt(&self.config_vector, ISR_CONFIG),
            window: self.window.clone(),
            fault: self.fault.clone(),
        })
    }

    /// The common configuration as the driver would read it (4.1.4.3).
    fn common(&self) -> [u8; COMMON_LENGTH as usize] {
        let mut bytes = [0; COMMON_LENGTH as usize];
        let mut set = |offset: usize, value: &[u8]| {
            if let Some(field) = bytes.get_mut(offset..offset + value.len()) {
                field.copy_from_slice(value);
            }
        };
        let half = |features: u64, select: u32| match select {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        };
        set(0, &self.device_feature_select.to_le_bytes());
        set(
            4,
            &half(self.offered_features(), self.device_feature_select).to_le_bytes(),
        );
        set(8, &self.driver_feature_select.to_le_bytes());
        set(
            12,
            &half(self.driver_features, self.driver_feature_select).to_le_bytes(),
        );
        set(
            16,
            &self.config_vector.load(Ordering::Acquire).to_le_bytes(),
        );
        set(18, &(self.queues.len() as u16).to_le_bytes());
        set(20, &[self.status, self.generation.load(Ordering::Acquire)]);
        set(22, &self.queue_select.to_le_bytes());
        if let Some(slot) = self.queues.get(usize::from(self.queue_select)) {
            set(24, &slot.queue.size().to_le_bytes());
            set(26, &slot.vector.load(Ordering::Acquire).to_le_bytes());
            set(28, &u16::from(slot.queue.ready()).to_le_bytes());
            set(30, &self.queue_select.to_le_bytes());
            set(32, &slot.queue.desc_table().to_le_bytes());
            set(40, &slot.queue.avail_ring().to_le_bytes());
            set(48, &slot.queue.used_ring().to_le_bytes());
        }
        bytes
    }

    fn write_common(&mut self, offset: u64, untrusted_data: &[u8]) {
        match *untrusted_data {
            [value] if offset == 20 => self.write_status(value),
            [a, b] => self.write_common_u16(offset, u16::from_le_bytes([a, b])),
            [a, b, c, d] => self.write_common_u32(offset, u32::from_le_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => {
                self.write_common_u32(offset, u32::from_le_bytes([a, b, c, d]));
                self.write_common_u32(offset + 4, u32::from_le_bytes([e, f, g, h]));
            }
            _ => {}
        }
    }

    /// A vector that exists, or none (4.1.4.3.1).
    fn known_vector(&self, untrusted_vector: u16) -> u16 {
        if usize::from(untrusted_vector) < self.msix.len() {
            untrusted_vector
        } else {
            NO_VECTOR
        }
    }

    fn write_common_u16(&mut self, offset: u64, value: u16) {
        let vector = self.known_vector(value);
        let running = self.has(VIRTIO_CONFIG_S_DRIVER_OK);
        match offset {
            16 => self.config_vector.store(vector, Ordering::Release),
            22 => self.queue_select = value,
            _ => {}
        }
        let Some(slot) = self.queues.get_mut(usize::from(self.queue_select)) else {
            return;
        };
        match offset {
            26 => slot.vector.store(vector, Ordering::Release),
            // A queue in use stays as it is until the device is reset.
            24 if !running => slot.queue.set_size(value),
            28 if !running && value == 1 => slot.queue.set_ready(true),
            _ => {}
        }
    }

    fn write_common_u32(&mut self, offset: u64, value: u32) {
        match offset {
            0 => self.device_feature_select = value,
            8 => self.driver_feature_select = value,
            12 if !self.has(VIRTIO_CONFIG_S_FEATURES_OK) => {
                let value = u64::from(value);
                match self.driver_feature_select {
                    0 => self.driver_features = self.driver_features >> 32 << 32 | value,
                    1 => {
                        self.driver_features = self.driver_features & 0xffff_ffff | value << 32;
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        let running = self.has(VIRTIO_CONFIG_S_DRIVER_OK);
        let Some(slot) = self.queues.get_mut(usize::from(self.queue_select)) else {
            return;
        };
        if running || slot.queue.ready() {
            return;
        }
        match offset {
            32 => slot.queue.set_desc_table_address(Some(value), None),
            36 => slot.queue.set_desc_table_address(None, Some(value)),
            40 => slot.queue.set_avail_ring_address(Some(value), None),
            44 => slot.queue.set_avail_ring_address(None, Some(value)),
            48 => slot.queue.set_used_ring_address(Some(value), None),
            52 => slot.queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn read_bar(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match offset {
            COMMON..ISR => {
                let common = self.common();
                for (byte, value) in data.iter_mut().zip(common.iter().skip(offset as usize)) {
                    *byte = *value;
                }
            }
            ISR => {
                if let Some(byte) = data.first_mut() {
                    *byte = self.isr.swap(0, Ordering::AcqRel);
                }
            }
            DEVICE..NOTIFY => self.device.read_config(offset - DEVICE, data),
            TABLE..PENDING => self.msix.read_table(offset - TABLE, data),
            PENDING.. => self.msix.read_pending(offset - PENDING, data),
            _ => {}
        }
    }

    fn write_bar(&mut self, offset: u64, untrusted_data: &[u8]) {
        match offset {
            COMMON..ISR => self.write_common(offset, untrusted_data),
            DEVICE..NOTIFY => self.device.write_config(offset - DEVICE, untrusted_data),
            // Doorbells usually ring in KVM; this is the way through the configuration access
            // capability.
            NOTIFY..TABLE => {
                let index = (offset - NOTIFY) / NOTIFY_STRIDE;
                if let Some(slot) = self.queues.get(index as usize) {
                    // A full counter means that the device knows already.
                    let _ = slot.kick.write(1);
                }
            }
            TABLE..PENDING => self.msix.write_table(offset - TABLE, untrusted_data),
            _ => {}
        }
    }

    /// The target of the configuration access capability (4.1.4.9), if its registers make sense.
    fn pci_access(&self, offset: usize) -> Option<(u64, usize)> {
        if offset != self.pci_capability + 16 {
            return None;
        }
        let bar = self.config.byte(self.pci_capability + 4);
        let target = u64::from(self.config.dword(self.pci_capability + 8));
        let length = self.config.dword(self.pci_capability + 12);
        let (begin, size) = match usize::from(bar) {
            0 => (0, BAR_SIZE),
            PORTS_BAR => (NOTIFY, PORTS_SIZE),
            _ => return None,
        };
        let is_valid = matches!(length, 1 | 2 | 4)
            && target.is_multiple_of(u64::from(length))
            && target < size;
        is_valid.then_some((begin + target, length as usize))
    }
}

impl PciFunction for VirtioPci {
    fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        self.config.read(offset, data);
        if let Some((target, length)) = self.pci_access(offset)
            && let Some(data) = data.get_mut(..length)
        {
            self.read_bar(target, data);
        }
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        if let Some((target, length)) = self.pci_access(offset)
            && let Some(data) = data.get(..length)
        {
            self.write_bar(target, data);
            return;
        }
        self.config.write(offset, data);
        let control = self.config.dword(self.msix_capability) >> 16;
        self.msix.set_control(control as u16);
    }

    fn reads_only_tell(&self) -> bool {
        self.pci_access(self.pci_capability + 16).is_none()
    }
}

impl BusDevice for VirtioPci {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.read_bar(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.write_bar(offset, data);
    }
}

impl Drop for VirtioPci {
    fn drop(&mut self) {
        self.device.reset();
    }
}

const _: () = assert!((MAX_QUEUES as u64 + 1) * ENTRY_SIZE <= PENDING - TABLE);
const _: () = assert!(MAX_QUEUES as u64 * NOTIFY_STRIDE <= PORTS_SIZE);

/// The PCI class under which guests list the device; drivers do not look at it.
fn pci_class(device_type: u32) -> u32 {
    match device_type {
        2 => 0x01_8000,  // storage
        3 => 0x07_8000,  // communication
        16 => 0x03_8000, // display
        _ => 0xff_0000,
    }
}
