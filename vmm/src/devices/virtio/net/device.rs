//! The device: its configuration, and the thread that it starts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bulkhead_mac::Mac;

use super::port::Port;
use super::worker::{self, Parts};
use crate::devices::virtio::device::{ActivateError, Activation, VirtioDevice};
use crate::devices::virtio::worker::Worker;

const TYPE_NET: u32 = 1;
pub(super) const QUEUE_SIZE: u16 = 256;
const F_CSUM: u64 = 1 << 0;
const F_GUEST_CSUM: u64 = 1 << 1;
const F_MTU: u64 = 1 << 3;
const F_MAC: u64 = 1 << 5;
const F_GUEST_TSO4: u64 = 1 << 7;
const F_GUEST_TSO6: u64 = 1 << 8;
const F_HOST_TSO4: u64 = 1 << 11;
const F_HOST_TSO6: u64 = 1 << 12;
pub(super) const F_MERGEABLE: u64 = 1 << 15;
const F_STATUS: u64 = 1 << 16;
const F_INDIRECT: u64 = 1 << 28;
const F_EVENT_IDX: u64 = 1 << 29;
/// What a peer may send us must be what our guest takes: all or none.
pub(super) const OFFLOADS: u64 = F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6;
/// Status bit: the cable is plugged in (virtio 1.2, 5.1.4).
const LINK_UP: u16 = 1;

/// A network card as a virtio device.
pub struct Net {
    port: Port,
    mac: Mac,
    mtu: u16,
    plugged: Arc<AtomicBool>,
    offloads: bool,
    worker: Option<Worker>,
}

impl Net {
    /// A card whose cable leads to `port`. `mtu` is the longest packet of its network, in bytes.
    pub fn new(port: Port, mac: Mac, mtu: u16) -> Self {
        Self {
            port,
            mac,
            mtu,
            plugged: Arc::default(),
            offloads: true,
            worker: None,
        }
    }

    /// Whether the other end of the cable takes frames whose checksum or segmentation is left to it.
    pub fn with_offloads(self, offloads: bool) -> Self {
        Net { offloads, ..self }
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("port", &self.port)
            .field("mac", &self.mac)
            .finish_non_exhaustive()
    }
}

impl VirtioDevice for Net {
    fn device_type(&self) -> u32 {
        TYPE_NET
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        let left_to_others = match self.offloads {
            true => F_CSUM | OFFLOADS | F_HOST_TSO4 | F_HOST_TSO6,
            false => 0,
        };
        left_to_others | F_MTU | F_MAC | F_MERGEABLE | F_STATUS | F_INDIRECT | F_EVENT_IDX
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // mac (6), status (2), max_virtqueue_pairs (2, not offered), mtu (2)
        let mut config = [0; 12];
        let status = if self.plugged.load(Ordering::Acquire) {
            LINK_UP
        } else {
            0
        };
        config[..6].copy_from_slice(&self.mac.0);
        config[6..8].copy_from_slice(&status.to_le_bytes());
        config[10..].copy_from_slice(&self.mtu.to_le_bytes());
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        for (byte, value) in data.iter_mut().zip(config.iter().skip(offset)) {
            *byte = *value;
        }
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let channel = self
            .port
            .channel()
            .map_err(ActivateError::host("copying the network's socket"))?;
        let plugged = self.plugged.clone();
        let fault = activation.fault.clone();
        let parts = Parts::new(channel, activation, plugged)
            .ok_or(ActivateError::Driver("the card needs both of its queues"))?;
        let worker = Worker::spawn("net", move |stop| {
            if let Err(error) = worker::run(parts, &stop) {
                fault.report(format!("net: {error}"));
            }
        })
        .map_err(ActivateError::host("starting the network's thread"))?;
        self.worker = Some(worker);
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.stop();
        }
    }
}
