//! One card's rings and socket, with what waits for it.
//!
//! Packets go through the rings. The socket says when the card is there no more, tells it of its cable, and
//! wakes who sleeps.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use bulkhead_ring::{Broken, Endpoint, Memory, Side, WAKE};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::bucket::Bucket;
use crate::frame::{HEADROOM, LOOK_BYTES, MAX_PACKET_BYTES};
use crate::header::HEADER_BYTES;
use crate::passing::Passing;
use crate::queue::Queue;
use crate::reason::Reason;
use crate::stats::{Counter, Stats};

/// Packets that wait for a client that does not keep up.
const CLIENT_PACKETS: usize = 256;
/// Bytes that do: some frames that are to be segmented, of which losing one costs much.
const CLIENT_BYTES: usize = 1024 * 1024;

/// A card's cable: its rings, and one end of a connected `SOCK_SEQPACKET` socket.
#[derive(Debug)]
pub struct Cable {
    /// The socket.
    pub socket: OwnedFd,
    /// The link's side of the rings.
    pub ring: Endpoint,
}

/// A cable with what waits for its card.
#[derive(Debug)]
pub struct Port {
    cable: Cable,
    queue: Queue,
    /// Whether the other side is there, and what the card was told of it.
    plugged: bool,
    told: Option<bool>,
    send_rate: Option<Bucket>,
    receive_rate: Option<Bucket>,
    stats: Stats,
}

/// Why a port is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// Nobody is there any more.
    #[error("its other end is closed")]
    Closed,
    /// What the other side did to the rings makes no sense.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// It sends packets by the socket.
    #[error("its other end says something else than that there are packets")]
    Talks,
}

/// What a port waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Nothing: all has gone.
    Free,
    /// Room in its socket, for news of the cable.
    Untold,
    /// Room in its ring: its card says when there is some.
    Full,
    /// Its rate allows more then.
    Later(Instant),
    /// What it waited for before.
    AsBefore,
}

impl Port {
    /// A network domain's port. One packet may wait for it; then its clients are not read.
    pub fn trunk(cable: Cable) -> Self {
        // A trunk is always plugged in: its domain sets up a VLAN for each client as they come.
        Self::new(cable, Queue::new(1, MAX_PACKET_BYTES), true)
    }

    /// A client's port, with what it may send and be sent in a second. Nothing is plugged in yet.
    pub fn client(cable: Cable, rate: Option<u64>, now: Instant) -> Self {
        let bucket = || rate.map(|rate| Bucket::new(rate, now));
        Self {
            send_rate: bucket(),
            receive_rate: bucket(),
            ..Self::new(cable, Queue::new(CLIENT_PACKETS, CLIENT_BYTES), false)
        }
    }

    fn new(cable: Cable, queue: Queue, plugged: bool) -> Self {
        Self {
            cable,
            queue,
            plugged,
            told: None,
            send_rate: None,
            receive_rate: None,
            stats: Stats::default(),
        }
    }

    /// What was counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What waits now.
    pub fn waiting(&self) -> Counter {
        let headers = self.queue.len() * HEADER_BYTES;
        Counter {
            frames: self.queue.len() as u64,
            bytes: self.queue.bytes().saturating_sub(headers) as u64,
        }
    }

    /// Whether the other side is there.
    pub fn is_plugged(&self) -> bool {
        self.plugged
    }

    /// Says whether the other side is there; [`flush`](Self::flush) tells the card.
    pub fn plug(&mut self, plugged: bool) {
        self.plugged = plugged;
    }

    /// When the card may send more; none if now.
    pub fn may_receive(&mut self, now: Instant) -> Option<Instant> {
        self.receive_rate
            .as_mut()
            .and_then(|bucket| bucket.wait(now))
    }

    /// Takes one packet of the socket, which says only that there is something in the rings. Where there are
    /// more, the socket stays ready, and a card that sends no end of them holds nobody.
    pub fn listen(&mut self) -> Result<(), Gone> {
        self.cable.ring.incoming.awake();
        let mut untrusted_bytes = [0; 2];
        // Descriptors that come along are closed by the kernel: there is no room for them.
        match recv(
            &self.cable.socket,
            &mut untrusted_bytes,
            RecvFlags::DONTWAIT,
        ) {
            // An empty packet looks the same, and no card sends one.
            Ok((_, 0)) => Err(Gone::Closed),
            Ok((_, 1)) if untrusted_bytes == [WAKE, 0] => Ok(()),
            Ok(_) => Err(Gone::Talks),
            Err(Errno::INTR | Errno::AGAIN) => Ok(()),
            Err(_) => Err(Gone::Closed),
        }
    }

    /// Copies what is to be looked at of the next packet behind the headroom of `buffer`, and says how long the
    /// packet is; none where there is none now. Nobody else can change the copy. The packet stays the next one
    /// until it is [done](Self::done).
    pub fn look(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Broken> {
        let incoming = &mut self.cable.ring.incoming;
        let (Some(length), Some(room)) = (incoming.peek()?, buffer.get_mut(HEADROOM..)) else {
            return Ok(None);
        };
        // The buffer has room for all that a ring can have.
        let length = length.min(room.len());
        let seen = length.min(LOOK_BYTES);
        incoming.copy(0, room.get_mut(..seen).unwrap_or_default());
        Ok(Some(length))
    }

    /// The packet that was looked at, which goes on as what is at `place` in `buffer`.
    pub fn passing<'a>(&'a self, buffer: &'a mut [u8], place: Range<usize>) -> Passing<'a> {
        Passing::new(buffer, place, &self.cable.ring.incoming)
    }

    /// Goes on behind the packet that was looked at.
    pub fn done(&mut self, length: usize) {
        self.cable.ring.incoming.drop_next();
        self.stats.received.add(length.saturating_sub(HEADER_BYTES));
    }

    /// Whether there is a packet to take.
    pub fn has_packets(&mut self) -> Result<bool, Broken> {
        Ok(self.cable.ring.incoming.peek()?.is_some())
    }

    /// The loop is about to sleep: the card is to wake it when it sends something. True if it has already.
    pub fn wait_for_packets(&mut self) -> Result<bool, Broken> {
        self.cable.ring.incoming.wait_for_packets()
    }

    /// Wakes the card, if it sleeps and there is something for it.
    pub fn wake(&mut self) {
        if self.cable.ring.must_wake() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            // Where there is no room, wakes enough wait already; where nobody is, the loop is told so.
            let _ = send(&self.cable.socket, &[WAKE], flags);
        }
    }

    /// A packet of the card has cost so much.
    pub fn took(&mut self, wire_bytes: usize) {
        if let Some(bucket) = &mut self.receive_rate {
            bucket.take(wire_bytes);
        }
    }

    /// A packet of the card is not passed on.
    pub fn refuse(&mut self, reason: Reason) {
        self.stats.refuse(reason);
    }

    /// Whether something waits for the card.
    pub fn is_blocked(&self) -> bool {
        !self.queue.is_empty() || self.told != Some(self.plugged)
    }

    /// Sends a packet, or keeps it, or drops it where too much waits.
    pub fn offer(
        &mut self,
        mut packet: Passing<'_>,
        wire_bytes: usize,
        now: Instant,
    ) -> Result<Flow, Gone> {
        if self.is_blocked() {
            self.keep(packet.whole(), wire_bytes);
            return Ok(Flow::AsBefore);
        }
        if let Some(later) = self.may_send(now) {
            self.keep(packet.whole(), wire_bytes);
            return Ok(Flow::Later(later));
        }
        if packet.write(&mut self.cable.ring.outgoing)? {
            self.sent(packet.bytes(), wire_bytes);
            return Ok(Flow::Free);
        }
        self.keep(packet.whole(), wire_bytes);
        self.flush(now)
    }

    /// Sends what waits: first the news of the cable, then packets.
    pub fn flush(&mut self, now: Instant) -> Result<Flow, Gone> {
        if self.told != Some(self.plugged) {
            if !tell(&self.cable.socket, self.plugged)? {
                return Ok(Flow::Untold);
            }
            self.told = Some(self.plugged);
        }
        self.cable.ring.outgoing.awake();
        // At most as many rounds as packets that wait, and as often as there is room after all.
        loop {
            if self.queue.is_empty() {
                return Ok(Flow::Free);
            }
            if let Some(later) = self.may_send(now) {
                return Ok(Flow::Later(later));
            }
            let Some(waiting) = self.queue.front() else {
                return Ok(Flow::Free);
            };
            let length = waiting.first.len() + waiting.second.len();
            let wire_bytes = waiting.wire_bytes;
            let outgoing = &mut self.cable.ring.outgoing;
            if !outgoing.push(waiting.first, waiting.second)? {
                // A card that sleeps makes no room.
                self.wake();
                if self.cable.ring.outgoing.wait_for_room(length)? {
                    continue;
                }
                return Ok(Flow::Full);
            }
            self.sent(length, wire_bytes);
            self.queue.pop();
        }
    }

    fn may_send(&mut self, now: Instant) -> Option<Instant> {
        self.send_rate.as_mut().and_then(|bucket| bucket.wait(now))
    }

    fn sent(&mut self, length: usize, wire_bytes: usize) {
        self.stats.sent.add(length.saturating_sub(HEADER_BYTES));
        if let Some(bucket) = &mut self.send_rate {
            bucket.take(wire_bytes);
        }
    }

    fn keep(&mut self, packet: &[u8], wire_bytes: usize) {
        if self.queue.push(packet, wire_bytes).is_err() {
            self.stats.lose(Reason::QueueFull);
        }
    }
}

/// Tells a card of its cable. False where there is no room.
fn tell(socket: &OwnedFd, plugged: bool) -> Result<bool, Gone> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        return match send(socket, &[u8::from(plugged)], flags) {
            Ok(_) => Ok(true),
            Err(Errno::INTR) => continue,
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::CONNREFUSED) => {
                Err(Gone::Closed)
            }
            Err(_) => Ok(false),
        };
    }
}

impl Cable {
    /// Of what the manager has handed over.
    pub fn new(socket: OwnedFd, memory: Memory) -> Result<Self, Broken> {
        let ring = Endpoint::attach(Arc::new(memory), Side::Link)?;
        Ok(Self { socket, ring })
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.cable.socket.as_fd()
    }
}
