//! Taking requests from a queue and giving them back, for devices that do it in order.

use std::sync::atomic::Ordering;

use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::buffers::Buffers;
use super::device::ActiveQueue;
use crate::memory::GuestMemory;

/// The guest broke the queue's rules: there is no way to go on with it.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The rings cannot be read or written, or an index is out of bounds.
    #[error("the queue is damaged: {0}")]
    Ring(#[from] virtio_queue::Error),
    /// The ring announces an entry that cannot be read.
    #[error("the queue is damaged: an announced entry is not there")]
    MissingEntry,
}

impl ActiveQueue {
    /// Takes the next request, if there is one.
    pub fn take(&mut self, memory: &GuestMemory) -> Result<Option<Buffers>, QueueError> {
        let available = self.queue.avail_idx(memory, Ordering::Acquire)?;
        if available.0 == self.queue.next_avail() {
            return Ok(None);
        }
        let chain = self
            .queue
            .iter(memory)?
            .next()
            .ok_or(QueueError::MissingEntry)?;
        Ok(Some(Buffers::collect(chain)))
    }

    /// Puts the last request that was taken back, to be taken again later.
    pub fn untake(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Gives a request back with the number of bytes written into it.
    pub fn give_back(
        &mut self,
        memory: &GuestMemory,
        head: u16,
        written: u32,
    ) -> Result<(), QueueError> {
        Ok(self.queue.add_used(memory, head, written)?)
    }

    /// Gives several requests back so that the guest sees all of them or none, and tells it.
    pub fn give_back_together(
        &mut self,
        memory: &GuestMemory,
        used: &[(u16, u32)],
    ) -> Result<(), QueueError> {
        let Some(((last, last_written), earlier)) = used.split_last() else {
            return Ok(());
        };
        let size = self.queue.size();
        let first = self.queue.next_used();
        for (at, (head, written)) in (first..=u16::MAX).chain(0..first).zip(earlier) {
            // struct virtq_used: flags (2), idx (2), then entries of id (4) and len (4). The size is
            // a power of two and the transport has checked that the ring lies in memory.
            let slot = u64::from(at & size.wrapping_sub(1));
            let entry = GuestAddress(self.queue.used_ring().saturating_add(4 + 8 * slot));
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&u32::from(*head).to_le_bytes());
            bytes[4..].copy_from_slice(&written.to_le_bytes());
            memory
                .write_slice(&bytes, entry)
                .map_err(virtio_queue::Error::GuestMemory)?;
        }
        let count = u16::try_from(earlier.len()).unwrap_or(u16::MAX);
        self.queue.set_next_used(first.wrapping_add(count));
        // Publishes the new index, and with it all of them.
        self.queue.add_used(memory, *last, *last_written)?;
        if !earlier.is_empty() {
            // The queue has counted only one: whether the guest wants to know is not known.
            self.interrupt.signal();
        }
        Ok(())
    }

    /// Tells the guest about requests given back, if it wants to know.
    pub fn notify(&mut self, memory: &GuestMemory) -> Result<(), QueueError> {
        if self.queue.needs_notification(memory)? {
            self.interrupt.signal();
        }
        Ok(())
    }

    /// Asks for a kick when requests are added. Returns whether some came in the meantime.
    pub fn rearm(&mut self, memory: &GuestMemory) -> Result<bool, QueueError> {
        Ok(self.queue.enable_notification(memory)?)
    }

    /// Answers up to one queue's worth of requests with `answer`, which returns the number of
    /// bytes that it wrote. Returns whether more are waiting: the caller looks at its other
    /// events first, so that a guest that never stops cannot keep a worker from being stopped.
    pub fn serve(
        &mut self,
        memory: &GuestMemory,
        mut answer: impl FnMut(&Buffers) -> u32,
    ) -> Result<bool, QueueError> {
        if !self.queue.ready() {
            return Ok(false);
        }
        self.queue.disable_notification(memory)?;
        let mut more = true;
        for _ in 0..self.queue.size() {
            let Some(buffers) = self.take(memory)? else {
                more = self.rearm(memory)?;
                break;
            };
            let written = answer(&buffers);
            self.give_back(memory, buffers.head, written)?;
        }
        self.notify(memory)?;
        Ok(more)
    }
}
