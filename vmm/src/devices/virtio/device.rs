//! What a virtio device is to the transport, and what the transport hands it.
//!
//! A device sees the guest only through [`Activation`]: guest memory, its queues (each validated
//! by the transport before activation) and its interrupts. Everything that it reads from guest
//! memory afterwards is hostile.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use virtio_queue::Queue;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::memory::GuestMemory;
use crate::memory::host_window::HostVisibleWindow;

/// The vector number that means "none" (virtio 1.2, 4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;
/// Bit of the interrupt status that tells of a used buffer.
pub const ISR_QUEUE: u8 = 1;
/// Bit of the interrupt status that tells of a configuration change.
pub const ISR_CONFIG: u8 = 2;

/// A shared memory region that a device offers (virtio 1.2, 2.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedMemoryRegion {
    /// The region's identifier, defined by the device type.
    pub id: u8,
    /// Its length in bytes: a power of two and at least a page.
    pub length: u64,
}

/// Why a device could not start working.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The host would not give the device what it needs.
    #[error("{what}: {source}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The driver set the device up in a way that it cannot work with.
    #[error("{0}")]
    Driver(&'static str),
}

impl ActivateError {
    /// For `map_err`: a host failure while doing `what`.
    pub fn host(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { what, source }
    }
}

/// A virtio device behind a transport.
///
/// The transport calls from vCPU threads with the device locked, so every method must return
/// quickly; work on queues belongs on a thread (or event loop) that [`activate`] starts.
///
/// [`activate`]: VirtioDevice::activate
pub trait VirtioDevice: Send {
    /// The device type (virtio 1.2, chapter 5).
    fn device_type(&self) -> u32;

    /// The largest size of each queue, all powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// The features offered. The transport adds `VIRTIO_F_VERSION_1`, which drivers must accept.
    fn features(&self) -> u64;

    /// Reads the device-specific configuration. Bytes outside of it are left as they are (the
    /// transport fills `data` with zeroes first).
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes the device-specific configuration; what the device does not know it ignores.
    fn write_config(&mut self, offset: u64, data: &[u8]);

    /// Host memory shown to the guest in a window of its own.
    fn shared_memory(&self) -> Option<SharedMemoryRegion> {
        None
    }

    /// The driver is ready: start working.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;

    /// Stops all work. The device must be able to activate again afterwards. Called also when the
    /// VMM ends, and possibly when the device was never activated.
    fn reset(&mut self);
}

/// What a device works with between activation and reset.
pub struct Activation {
    /// Guest RAM; cheap to clone.
    pub memory: GuestMemory,
    /// The features that driver and device agreed on.
    pub features: u64,
    /// One per entry of `queue_sizes`, in order.
    pub queues: Vec<ActiveQueue>,
    /// Tells the driver that the configuration changed.
    pub config_interrupt: Interrupt,
    /// The window behind `shared_memory`.
    pub window: Option<Arc<HostVisibleWindow>>,
    /// How to give up on the guest.
    pub fault: DeviceFault,
}

/// A queue in use.
pub struct ActiveQueue {
    /// The queue. Not ready (`queue.ready()`) when the driver left it unused.
    pub queue: Queue,
    /// Readable after the driver added buffers.
    pub kick: EventFd,
    /// Tells the driver that buffers were used.
    pub interrupt: Interrupt,
}

/// One interrupt source of a device, routed to the MSI-X vector that the driver chose.
#[derive(Clone)]
pub struct Interrupt {
    vectors: Arc<[EventFd]>,
    vector: Arc<AtomicU16>,
    status: Arc<AtomicU8>,
    bit: u8,
    generation: Option<Arc<AtomicU8>>,
}

impl Interrupt {
    /// An interrupt that raises `bit` in `status` and triggers `vectors[vector]`.
    pub(crate) fn new(
        vectors: Arc<[EventFd]>,
        vector: Arc<AtomicU16>,
        status: Arc<AtomicU8>,
        bit: u8,
        generation: Option<Arc<AtomicU8>>,
    ) -> Self {
        Self {
            vectors,
            vector,
            status,
            bit,
            generation,
        }
    }

    /// Triggers the interrupt. Never blocks; a masked vector keeps it pending.
    pub fn signal(&self) {
        if let Some(generation) = &self.generation {
            generation.fetch_add(1, Ordering::AcqRel);
        }
        self.status.fetch_or(self.bit, Ordering::AcqRel);
        let untrusted_vector = usize::from(self.vector.load(Ordering::Acquire));
        if let Some(eventfd) = self.vectors.get(untrusted_vector) {
            // The only failure is a full counter, and then the event is pending anyway.
            let _ = eventfd.write(1);
        }
    }

    /// An interrupt for a device's tests, with the descriptor that becomes readable.
    pub fn for_test() -> io::Result<(Self, EventFd)> {
        let eventfd = EventFd::new(EFD_NONBLOCK)?;
        let seen = eventfd.try_clone()?;
        let interrupt = Self::new(
            Arc::from([eventfd]),
            Arc::new(AtomicU16::new(0)),
            Arc::new(AtomicU8::new(0)),
            ISR_QUEUE,
            None,
        );
        Ok((interrupt, seen))
    }
}

/// Ends the VM with [`DeviceFault`](bulkhead_vmm_api::ExitStatus::DeviceFault): for a guest that
/// broke a device's rules so badly that going on is not safe. Ordinary mistakes are answered with
/// an error status instead.
#[derive(Clone)]
pub struct DeviceFault {
    report: Arc<dyn Fn(String) + Send + Sync>,
}

impl DeviceFault {
    /// Calls `report` with the reason; it must not block.
    pub fn new(report: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self {
            report: Arc::new(report),
        }
    }

    /// Ends the VM. Returns at once; the caller stops working on its queues.
    pub fn report(&self, reason: impl Into<String>) {
        (self.report)(reason.into());
    }
}
