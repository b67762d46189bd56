//! Taking requests from a queue and giving them back, for devices that do it in order.

use std::sync::atomic::{Ordering, fence};

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

    /// Gives several requests back so that the guest sees all of them or none. Whoever does tells it
    /// with [`ActiveQueue::notify_since`]: the queue counts them as one.
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
        Ok(self.queue.add_used(memory, *last, *last_written)?)
    }

    /// Tells the guest about what was given back since the queue's `next_used` was `since`, if it
    /// wants to know.
    pub fn notify_since(&mut self, memory: &GuestMemory, since: u16) -> Result<(), QueueError> {
        let now = self.queue.next_used();
        if now != since && self.is_awaited(memory, since, now)? {
            self.interrupt.signal();
        }
        Ok(())
    }

    /// Whether the guest waits for one of the requests that were given back from `since` to before
    /// `now`.
    fn is_awaited(&self, memory: &GuestMemory, since: u16, now: u16) -> Result<bool, QueueError> {
        if !self.queue.event_idx_enabled() {
            return Ok(true);
        }
        // What was given back must be there before the guest's wish is read, or both miss each other.
        fence(Ordering::SeqCst);
        // struct virtq_avail: flags (2), idx (2), a ring of 2 bytes each, used_event (2). The
        // transport has checked that it lies in memory.
        let size = u64::from(self.queue.size());
        let place = GuestAddress(self.queue.avail_ring().saturating_add(4 + 2 * size));
        let awaited: u16 = memory
            .load(place, Ordering::Relaxed)
            .map_err(virtio_queue::Error::GuestMemory)?;
        // virtio 1.2, 2.7.7.2; numbers go round.
        let behind = now.wrapping_sub(u16::from_le(awaited)).wrapping_sub(1);
        Ok(behind < now.wrapping_sub(since))
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

#[cfg(test)]
mod tests {
    use virtio_queue::Queue;
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::*;
    use crate::devices::virtio::device::Interrupt;

    const AVAILABLE: u64 = 0x1000;
    const SIZE: u16 = 16;

    #[test]
    fn the_guest_is_told_of_what_it_waits_for() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
        let (interrupt, told) = Interrupt::for_test().unwrap();
        let mut queue = Queue::new(SIZE).unwrap();
        queue.set_avail_ring_address(Some(AVAILABLE as u32), None);
        queue.set_used_ring_address(Some(0x2000), None);
        queue.set_ready(true);
        let mut active = ActiveQueue {
            queue,
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            interrupt,
        };
        // More than the ring has, and past the end of the numbers.
        active.queue.set_next_used(u16::MAX - 3);
        let give = |active: &mut ActiveQueue, awaited: u16, several: usize| {
            let since = active.queue.next_used();
            let place = GuestAddress(AVAILABLE + 4 + 2 * u64::from(SIZE));
            let awaited = since.wrapping_add(awaited);
            memory.write_obj(awaited, place).unwrap();
            let used = vec![(1, 100); several];
            active.give_back_together(&memory, &used).unwrap();
            active.notify_since(&memory, since).unwrap();
            told.read().is_ok()
        };
        // Without the feature always, but for nothing.
        assert!(give(&mut active, 9, 2));
        assert!(!give(&mut active, 9, 0));
        active.queue.set_event_idx(true);
        for several in 1..6 {
            assert!(!give(&mut active, 0, 0));
            assert!(give(&mut active, 0, several));
            assert!(give(&mut active, several as u16 - 1, several));
            assert!(!give(&mut active, several as u16, several));
            assert!(!give(&mut active, u16::MAX, several));
        }
    }
}
