//! The side of a ring that writes.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::memory::{Direction, Index, Memory, Wish};
use crate::{Broken, Consumer, LENGTH_BYTES, MAX_PACKET_BYTES, RING_BYTES, between, record_bytes};

/// Writes packets.
#[derive(Debug)]
pub struct Producer {
    memory: Arc<Memory>,
    direction: Direction,
    /// How much was ever written. What the memory says of it is for the other side alone.
    produced: u64,
    /// How much the other side had read when it was last looked at; checked.
    consumed: u64,
    /// Something was written since the other side was last thought of.
    news: bool,
    /// This side has said that it waits for room.
    waits: bool,
}

/// A packet that is being written: it is sent by [`finish`](Filling::finish), or not at all.
#[derive(Debug)]
pub struct Filling<'a> {
    producer: &'a mut Producer,
    room: usize,
    filled: usize,
}

impl Producer {
    /// Goes on where whoever wrote before has stopped, if that can be.
    pub(crate) fn attach(memory: Arc<Memory>, direction: Direction) -> Result<Self, Broken> {
        let load = |index| memory.index(direction, index).load(Ordering::Acquire);
        let (produced, consumed) = (load(Index::Produced), load(Index::Consumed));
        between(produced, consumed, produced)?;
        if !produced.is_multiple_of(crate::ALIGN) {
            let (ours, theirs) = (produced, consumed);
            return Err(Broken::Index { ours, theirs });
        }
        Ok(Self {
            memory,
            direction,
            produced,
            consumed,
            // Whoever wrote before may have ended before it had woken anybody.
            news: true,
            waits: false,
        })
    }

    /// Begins a packet of at most so many bytes; none where there is no room now.
    pub fn begin(&mut self, length: usize) -> Result<Option<Filling<'_>>, Broken> {
        let room = length.min(MAX_PACKET_BYTES);
        if !self.has_room(room)? {
            return Ok(None);
        }
        Ok(Some(Filling {
            producer: self,
            room,
            filled: 0,
        }))
    }

    /// Writes a packet that lies in two parts. False where there is no room now.
    pub fn push(&mut self, first: &[u8], second: &[u8]) -> Result<bool, Broken> {
        let Some(mut filling) = self.begin(first.len() + second.len())? else {
            return Ok(false);
        };
        filling.put(first);
        filling.put(second);
        filling.finish();
        Ok(true)
    }

    fn has_room(&mut self, length: usize) -> Result<bool, Broken> {
        let needed = record_bytes(length);
        // What was read meanwhile is another processor's to tell, and is asked only where it matters.
        if self.free() < needed {
            let index = self.memory.index(self.direction, Index::Consumed);
            let untrusted_consumed = index.load(Ordering::Acquire);
            between(self.produced, untrusted_consumed, self.produced)?;
            self.consumed = untrusted_consumed;
        }
        Ok(self.free() >= needed)
    }

    fn free(&self) -> u64 {
        RING_BYTES as u64 - self.produced.wrapping_sub(self.consumed)
    }

    /// Asks to be woken when there is room. True if there is some already for a packet of this length;
    /// then nothing is asked.
    pub fn wait_for_room(&mut self, length: usize) -> Result<bool, Broken> {
        let wish = self.memory.wish(self.direction, Wish::Room);
        wish.store(1, Ordering::Relaxed);
        self.waits = true;
        // See `Endpoint`: either this side sees what was read, or the other side sees this.
        fence(Ordering::SeqCst);
        let has_room = self.has_room(length.min(MAX_PACKET_BYTES))?;
        if has_room {
            self.awake();
        }
        Ok(has_room)
    }

    /// Takes back what [`wait_for_room`](Self::wait_for_room) asked for.
    pub fn awake(&mut self) {
        if std::mem::take(&mut self.waits) {
            let wish = self.memory.wish(self.direction, Wish::Room);
            wish.store(0, Ordering::Relaxed);
        }
    }

    /// Something was written that the other side was not yet thought of for.
    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Whether the other side asked to be woken when there is something. Its wish is fulfilled then.
    pub(crate) fn is_awaited(&self) -> bool {
        let wish = self.memory.wish(self.direction, Wish::Packets);
        wish.load(Ordering::Relaxed) != 0 && wish.swap(0, Ordering::Relaxed) != 0
    }
}

impl Filling<'_> {
    /// Appends bytes; what there was no room asked for is left out.
    pub fn put(&mut self, bytes: &[u8]) {
        // SAFETY: a slice is readable; ours never lie in shared memory.
        unsafe { self.put_raw(bytes.as_ptr(), bytes.len()) }
    }

    /// Appends bytes of another ring's next packet from `at` on, as many of `length` as there are. Nobody here
    /// has looked at them.
    pub fn put_from(&mut self, from: &Consumer, at: usize, length: usize) {
        for (source, length) in from.places(at, length) {
            // SAFETY: the other ring is mapped for as long as `from` is borrowed.
            unsafe { self.put_raw(source, length) };
        }
    }

    /// Appends bytes that lie anywhere, and may change meanwhile.
    ///
    /// # Safety
    ///
    /// `source` must be readable for `length` bytes.
    pub unsafe fn put_raw(&mut self, source: *const u8, length: usize) {
        let length = length.min(self.room - self.filled);
        let Producer {
            memory,
            direction,
            produced,
            ..
        } = &*self.producer;
        let at = produced.wrapping_add(LENGTH_BYTES + self.filled as u64);
        // SAFETY: the caller's promise.
        unsafe { memory.copy_in(*direction, at, source, length) };
        self.filled += length;
    }

    /// Sends it.
    pub fn finish(self) {
        let producer = self.producer;
        let (memory, direction) = (&producer.memory, producer.direction);
        let length = memory.length(direction, producer.produced);
        length.store(self.filled as u64, Ordering::Relaxed);
        producer.produced = producer.produced.wrapping_add(record_bytes(self.filled));
        let index = memory.index(direction, Index::Produced);
        // Whoever sees this sees the bytes too.
        index.store(producer.produced, Ordering::Release);
        producer.news = true;
    }
}
