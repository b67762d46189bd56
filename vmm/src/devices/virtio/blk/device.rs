//! The device: its configuration and the thread that serves its one queue.

use vmm_sys_util::eventfd::EventFd;

use super::disk::Disk;
use crate::devices::virtio::device::{ActivateError, Activation, VirtioDevice};
use crate::devices::virtio::worker::{Worker, readable, wait};

const TYPE_BLOCK: u32 = 2;
const QUEUE_SIZE: u16 = 256;
/// Pieces of one request: the queue's size without header and status.
const MAX_SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;
const F_SEG_MAX: u64 = 1 << 2;
const F_READ_ONLY: u64 = 1 << 5;
const F_FLUSH: u64 = 1 << 9;
const F_INDIRECT: u64 = 1 << 28;
const F_EVENT_IDX: u64 = 1 << 29;

/// A disk as a virtio device.
pub struct Blk {
    disk: Disk,
    worker: Option<Worker>,
}

impl Blk {
    /// A device for `disk`.
    pub fn new(disk: Disk) -> Self {
        Self { disk, worker: None }
    }
}

impl VirtioDevice for Blk {
    fn device_type(&self) -> u32 {
        TYPE_BLOCK
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        let read_only = if self.disk.is_read_only() {
            F_READ_ONLY
        } else {
            0
        };
        F_SEG_MAX | F_FLUSH | F_INDIRECT | F_EVENT_IDX | read_only
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // capacity (8), size_max (4, not offered), seg_max (4)
        let mut config = [0; 16];
        config[..8].copy_from_slice(&self.disk.sectors().to_le_bytes());
        config[12..].copy_from_slice(&MAX_SEGMENTS.to_le_bytes());
        for (byte, value) in data.iter_mut().zip(config.iter().skip(offset as usize)) {
            *byte = *value;
        }
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let disk = self
            .disk
            .try_clone()
            .map_err(ActivateError::host("copying the disk"))?;
        let worker = Worker::spawn("blk", move |stop| serve(&disk, activation, &stop))
            .map_err(ActivateError::host("starting the disk's thread"))?;
        self.worker = Some(worker);
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.stop();
        }
    }
}

fn serve(disk: &Disk, activation: Activation, stop: &EventFd) {
    let Activation {
        memory,
        mut queues,
        fault,
        ..
    } = activation;
    let Some(queue) = queues.first_mut() else {
        return;
    };
    let mut more = true;
    loop {
        let timeout_ms = more.then_some(0);
        match wait([readable(stop), readable(&queue.kick)], timeout_ms) {
            Ok([true, _]) => return,
            Ok([_, kicked]) => {
                if kicked {
                    let _ = queue.kick.read();
                }
            }
            Err(error) => return fault.report(format!("disk: waiting: {error}")),
        }
        match queue.serve(&memory, |buffers| disk.answer(buffers, &memory)) {
            Ok(waiting) => more = waiting,
            Err(error) => return fault.report(format!("disk: {error}")),
        }
    }
}
