//! The device as the transport sees it: features, configuration, start and stop.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use virtio_queue::QueueT;

use super::super::device::{ActivateError, Activation, VirtioDevice};
use super::super::worker::Worker as Thread;
use super::target::GuestTarget;
use super::worker::{Worker, WorkerParts};

const DEVICE_TYPE: u32 = 19;
/// To the guest, from the guest, events (of which there are none).
const QUEUE_SIZES: [u16; 3] = [256, 256, 16];
const FEATURE_INDIRECT: u64 = 1 << 28;
const FEATURE_EVENT_IDX: u64 = 1 << 29;

/// virtio-vsock.
pub struct Vsock {
    cid: u64,
    listener: Arc<UnixListener>,
    target: Arc<GuestTarget>,
    thread: Option<Thread>,
}

impl Vsock {
    /// A device for the guest with address `cid`. `listener` must be non-blocking.
    pub fn new(cid: u32, listener: UnixListener, target: GuestTarget) -> Self {
        Self {
            cid: u64::from(cid),
            listener: Arc::new(listener),
            target: Arc::new(target),
            thread: None,
        }
    }
}

impl VirtioDevice for Vsock {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        FEATURE_INDIRECT | FEATURE_EVENT_IDX
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = self.cid.to_le_bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(source) = config.get(start..) else {
            return;
        };
        let count = source.len().min(data.len());
        data[..count].copy_from_slice(&source[..count]);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.reset();
        let mut queues = activation.queues.into_iter().map(|mut active| {
            let event_idx = activation.features & FEATURE_EVENT_IDX != 0;
            active.queue.set_event_idx(event_idx);
            active
        });
        let (Some(receive), Some(transmit)) = (queues.next(), queues.next()) else {
            return Err(ActivateError::Driver("virtio-vsock needs its queues"));
        };
        let host = ActivateError::host;
        let worker = Worker::new(WorkerParts {
            memory: activation.memory,
            cid: self.cid,
            receive,
            transmit,
            listener: Arc::clone(&self.listener),
            target: Arc::clone(&self.target),
            fault: activation.fault,
        })
        .map_err(|error| host("virtio-vsock: waiting for events")(error.into()))?;
        let thread = Thread::spawn("vsock", move |stop| worker.run(&stop))
            .map_err(host("virtio-vsock: starting its thread"))?;
        self.thread = Some(thread);
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.stop();
        }
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        self.reset();
    }
}
