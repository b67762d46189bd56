//! The side of a ring that reads.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::memory::{Direction, Index, Memory, Wish};
use crate::{
    Broken, LENGTH_BYTES, MAX_PACKET_BYTES, RING_BYTES, ROOM_BYTES, between, record_bytes,
};

/// Reads packets.
#[derive(Debug)]
pub struct Consumer {
    memory: Arc<Memory>,
    direction: Direction,
    /// How much was ever read. What the memory says of it is for the other side alone.
    consumed: u64,
    /// How much the other side had written when it was last looked at; checked.
    produced: u64,
    /// The length of the packet that comes next, if it was looked at; checked.
    next: Option<usize>,
    /// Something was read since the other side was last thought of.
    news: bool,
    /// This side has said that it waits for packets.
    waits: bool,
}

impl Consumer {
    /// Goes on where whoever read before has stopped, if that can be.
    pub(crate) fn attach(memory: Arc<Memory>, direction: Direction) -> Result<Self, Broken> {
        let load = |index| memory.index(direction, index).load(Ordering::Acquire);
        let (produced, consumed) = (load(Index::Produced), load(Index::Consumed));
        between(consumed, consumed, produced)?;
        if !consumed.is_multiple_of(crate::ALIGN) {
            let (ours, theirs) = (consumed, produced);
            return Err(Broken::Index { ours, theirs });
        }
        Ok(Self {
            memory,
            direction,
            consumed,
            produced,
            next: None,
            // Whoever read before may have ended before it had woken anybody.
            news: true,
            waits: false,
        })
    }

    /// The length of the packet that comes next; none where there is none now. It stays the next one, and
    /// as long as this, until it is [dropped](Self::drop_next).
    pub fn peek(&mut self) -> Result<Option<usize>, Broken> {
        if self.next.is_some() || !self.has_more()? {
            return Ok(self.next);
        }
        let written = self.written();
        let length = self.memory.length(self.direction, self.consumed);
        let untrusted_length = length.load(Ordering::Relaxed);
        let length = usize::try_from(untrusted_length).unwrap_or(usize::MAX);
        if length > MAX_PACKET_BYTES || record_bytes(length) > written {
            return Err(Broken::Length {
                length: untrusted_length,
                written,
            });
        }
        self.next = Some(length);
        Ok(self.next)
    }

    /// Copies bytes of the next packet from `at` on, as many as there are, and says how many. They may be
    /// others each time.
    pub fn copy(&self, at: usize, untrusted_bytes: &mut [u8]) -> usize {
        let length = untrusted_bytes.len();
        // SAFETY: a slice that is borrowed for writing is writable; ours never lie in shared memory.
        unsafe { self.copy_raw(at, untrusted_bytes.as_mut_ptr(), length) }
    }

    /// Where bytes of the next packet lie from `at` on, as many of `length` as there are. They change
    /// whenever the other side likes.
    pub(crate) fn places(&self, at: usize, length: usize) -> [(*const u8, usize); 2] {
        let rest = self.next.unwrap_or(0).saturating_sub(at);
        let at = self.consumed.wrapping_add(LENGTH_BYTES + at as u64);
        self.memory.places(self.direction, at, length.min(rest))
    }

    /// Copies them to any place.
    ///
    /// # Safety
    ///
    /// `target` must be writable for `length` bytes, and not lie in the rings' own memory.
    pub unsafe fn copy_raw(&self, at: usize, target: *mut u8, length: usize) -> usize {
        let rest = self.next.unwrap_or(0).saturating_sub(at);
        let length = length.min(rest);
        if length > 0 {
            let at = self.consumed.wrapping_add(LENGTH_BYTES + at as u64);
            // SAFETY: the caller's promise.
            unsafe { self.memory.copy_out(self.direction, at, target, length) };
        }
        length
    }

    /// Goes on behind the packet that was last looked at.
    pub fn drop_next(&mut self) {
        let Some(length) = self.next.take() else {
            return;
        };
        self.consumed = self.consumed.wrapping_add(record_bytes(length));
        let index = self.memory.index(self.direction, Index::Consumed);
        // Whoever sees this may write there: all reads come before.
        index.store(self.consumed, Ordering::Release);
        self.news = true;
    }

    fn has_more(&mut self) -> Result<bool, Broken> {
        // What was written meanwhile is another processor's to tell, and is asked only where it matters.
        if self.written() == 0 {
            let index = self.memory.index(self.direction, Index::Produced);
            let untrusted_produced = index.load(Ordering::Acquire);
            between(self.consumed, self.consumed, untrusted_produced)?;
            self.produced = untrusted_produced;
        }
        Ok(self.written() > 0)
    }

    fn written(&self) -> u64 {
        self.produced.wrapping_sub(self.consumed)
    }

    /// Asks to be woken when there is a packet. True if there is one already; then nothing is asked.
    pub fn wait_for_packets(&mut self) -> Result<bool, Broken> {
        let wish = self.memory.wish(self.direction, Wish::Packets);
        wish.store(1, Ordering::Relaxed);
        self.waits = true;
        // See `Endpoint`: either this side sees what was written, or the other side sees this.
        fence(Ordering::SeqCst);
        let has_more = self.has_more()?;
        if has_more {
            self.awake();
        }
        Ok(has_more)
    }

    /// Takes back what [`wait_for_packets`](Self::wait_for_packets) asked for.
    pub fn awake(&mut self) {
        if std::mem::take(&mut self.waits) {
            let wish = self.memory.wish(self.direction, Wish::Packets);
            wish.store(0, Ordering::Relaxed);
        }
    }

    /// Something was read that the other side was not yet thought of for.
    pub(crate) fn has_news(&self) -> bool {
        self.news
    }

    /// Whether the other side asked to be woken when there is room, and there is. Its wish is fulfilled
    /// then.
    pub(crate) fn is_awaited(&mut self) -> bool {
        let wish = self.memory.wish(self.direction, Wish::Room);
        if wish.load(Ordering::Relaxed) == 0 {
            self.news = false;
            return false;
        }
        // It may say what it likes here: it would only be woken too early.
        let index = self.memory.index(self.direction, Index::Produced);
        let waiting = index.load(Ordering::Relaxed).wrapping_sub(self.consumed);
        if waiting > RING_BYTES as u64 - ROOM_BYTES {
            return false;
        }
        self.news = false;
        wish.swap(0, Ordering::Relaxed) != 0
    }
}
