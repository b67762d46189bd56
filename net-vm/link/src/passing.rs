//! A packet between two ports: its beginning lies in the link's buffer, the rest still in the ring by which it
//! has come.
//!
//! Whoever sent it may change what lies in the ring. So nothing there is ever looked at: all that the rules
//! read was copied first, and goes on as it was read. The rest is only bytes.

use std::ops::Range;

use bulkhead_ring::{Broken, Consumer, Producer};

use crate::frame::{HEADROOM, LOOK_BYTES};

/// A packet that may pass.
#[derive(Debug)]
pub struct Passing<'a> {
    buffer: &'a mut [u8],
    place: Range<usize>,
    from: &'a Consumer,
}

impl<'a> Passing<'a> {
    /// The next packet of `from`, of which at least [`LOOK_BYTES`] (or all of it) lie behind the headroom of
    /// `buffer`. It goes on as what is at `place` there.
    pub fn new(buffer: &'a mut [u8], place: Range<usize>, from: &'a Consumer) -> Self {
        Self {
            buffer,
            place,
            from,
        }
    }

    /// How long it is.
    pub fn bytes(&self) -> usize {
        self.place.len()
    }

    /// Where in the buffer that ends which was copied.
    fn seen(&self) -> usize {
        (HEADROOM + LOOK_BYTES).min(self.place.end)
    }

    /// Writes it into a ring. False where there is no room now.
    pub fn write(&self, to: &mut Producer) -> Result<bool, Broken> {
        let Some(mut filling) = to.begin(self.bytes())? else {
            return Ok(false);
        };
        let seen = self.seen();
        filling.put(self.buffer.get(self.place.start..seen).unwrap_or_default());
        filling.put_from(
            self.from,
            seen.saturating_sub(HEADROOM),
            self.place.end.saturating_sub(seen),
        );
        filling.finish();
        Ok(true)
    }

    /// All of it, copied into the buffer.
    pub fn whole(&mut self) -> &[u8] {
        let seen = self.seen();
        let rest = self.buffer.get_mut(seen..self.place.end);
        self.from
            .copy(seen.saturating_sub(HEADROOM), rest.unwrap_or_default());
        self.buffer.get(self.place.clone()).unwrap_or_default()
    }
}
