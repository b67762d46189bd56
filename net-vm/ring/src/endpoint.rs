//! Both rings as one side has them, and whom it has to wake.
//!
//! Who finds nothing to do says so in the memory, looks once more, and sleeps. Who has done something looks
//! whether the other side has said so, and wakes it by the socket. Neither may miss the other:
//!
//! ```text
//! sleeps:  wish = 1        wakes:  index = further
//!          fence                   fence
//!          look at index           look at wish
//! ```
//!
//! The fences are sequentially consistent, since a release and an acquire do not keep a store before a later
//! load of something else: without them both sides could look before the other one's store is there, one
//! would sleep, and the other would not wake it. With them the fences have an order. The side whose fence
//! comes second sees what the other one stored before its own: either the one that is about to sleep sees
//! the index, or the other one sees the wish.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::memory::Direction;
use crate::{Broken, Consumer, Memory, Producer};

/// Who has an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A VMM.
    Card,
    /// The link.
    Link,
}

/// Both rings of one side.
#[derive(Debug)]
pub struct Endpoint {
    /// What it sends.
    pub outgoing: Producer,
    /// What it receives.
    pub incoming: Consumer,
}

impl Endpoint {
    /// Goes on where this side has stopped before: a link that was started again, a device that was reset.
    /// Nobody else may be this side meanwhile.
    pub fn attach(memory: Arc<Memory>, side: Side) -> Result<Self, Broken> {
        let (outgoing, incoming) = match side {
            Side::Card => (Direction::FromCard, Direction::ToCard),
            Side::Link => (Direction::ToCard, Direction::FromCard),
        };
        Ok(Self {
            outgoing: Producer::attach(memory.clone(), outgoing)?,
            incoming: Consumer::attach(memory, incoming)?,
        })
    }

    /// Whether the other side sleeps and what was done since this was last asked is worth waking it. To be
    /// asked once for a number of packets, and at the latest before this side sleeps.
    pub fn must_wake(&mut self) -> bool {
        let sent = self.outgoing.take_news();
        if !sent && !self.incoming.has_news() {
            return false;
        }
        // See above.
        fence(Ordering::SeqCst);
        let by_packets = sent && self.outgoing.is_awaited();
        let by_room = self.incoming.has_news() && self.incoming.is_awaited();
        by_packets || by_room
    }

    /// This side is awake: it needs no wake until it asks for one again.
    pub fn awake(&mut self) {
        self.outgoing.awake();
        self.incoming.awake();
    }
}
