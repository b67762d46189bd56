//! One socket with what waits for it.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};

use crate::bucket::Bucket;
use crate::frame::{HEADROOM, MAX_PACKET_BYTES};
use crate::header::HEADER_BYTES;
use crate::queue::Queue;
use crate::reason::Reason;
use crate::stats::{Counter, Stats};

/// Packets that wait for a client that does not keep up.
const CLIENT_PACKETS: usize = 256;
/// Bytes that do: some frames that are to be segmented, of which losing one costs much.
const CLIENT_BYTES: usize = 1024 * 1024;

/// One end of a connected `SOCK_SEQPACKET` socket.
#[derive(Debug)]
pub struct Port {
    socket: OwnedFd,
    queue: Queue,
    /// Whether the other side is there, and what the card was told of it.
    plugged: bool,
    told: Option<bool>,
    send_rate: Option<Bucket>,
    receive_rate: Option<Bucket>,
    stats: Stats,
}

/// What came from a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// A packet of so many bytes, which may be more than the buffer has.
    Packet(usize),
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    End,
}

/// What a port waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Nothing: all has gone.
    Free,
    /// Room in its socket.
    Full,
    /// Its rate allows more then.
    Later(Instant),
    /// What it waited for before.
    AsBefore,
    /// Its other end is closed.
    Gone,
}

enum Sent {
    Whole,
    Full,
    Lost,
    Gone,
}

impl Port {
    /// A network domain's port. One packet may wait for it; then its clients are not read.
    pub fn trunk(socket: OwnedFd) -> Self {
        // A trunk is always plugged in: its domain sets up a VLAN for each client as they come.
        Self::new(socket, Queue::new(1, MAX_PACKET_BYTES), true)
    }

    /// A client's port, with what it may send and be sent in a second. Nothing is plugged in yet.
    pub fn client(socket: OwnedFd, rate: Option<u64>, now: Instant) -> Self {
        let bucket = || rate.map(|rate| Bucket::new(rate, now));
        Self {
            send_rate: bucket(),
            receive_rate: bucket(),
            ..Self::new(socket, Queue::new(CLIENT_PACKETS, CLIENT_BYTES), false)
        }
    }

    fn new(socket: OwnedFd, queue: Queue, plugged: bool) -> Self {
        Self {
            socket,
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

    /// Takes one packet, without waiting, behind the headroom of `buffer`.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Received {
        let Some(room) = buffer.get_mut(HEADROOM..) else {
            return Received::Nothing;
        };
        // Descriptors that come with a packet are closed by the kernel: there is no room for them.
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        loop {
            return match recv(&self.socket, &mut *room, flags) {
                // An empty packet looks the same, and no card sends one.
                Ok((_, 0)) => Received::End,
                Ok((_, length)) => {
                    let frame = length.saturating_sub(HEADER_BYTES);
                    self.stats.received.add(frame);
                    Received::Packet(length)
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Received::Nothing,
                Err(_) => Received::End,
            };
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
    pub fn offer(&mut self, packet: &[u8], wire_bytes: usize, now: Instant) -> Flow {
        if self.is_blocked() {
            self.keep(packet, wire_bytes);
            return Flow::AsBefore;
        }
        if let Some(later) = self.may_send(now) {
            self.keep(packet, wire_bytes);
            return Flow::Later(later);
        }
        match send(&self.socket, packet, &[]) {
            Sent::Whole => self.sent(packet.len(), wire_bytes),
            Sent::Lost => self.stats.lose(Reason::NotTaken),
            Sent::Full => {
                self.keep(packet, wire_bytes);
                return Flow::Full;
            }
            Sent::Gone => return Flow::Gone,
        }
        Flow::Free
    }

    /// Sends what waits: first the news of the cable, then packets.
    pub fn flush(&mut self, now: Instant) -> Flow {
        if self.told != Some(self.plugged) {
            match send(&self.socket, &[u8::from(self.plugged)], &[]) {
                Sent::Whole => self.told = Some(self.plugged),
                Sent::Full | Sent::Lost => return Flow::Full,
                Sent::Gone => return Flow::Gone,
            }
        }
        // At most as many rounds as packets that wait.
        loop {
            if self.queue.is_empty() {
                return Flow::Free;
            }
            if let Some(later) = self.may_send(now) {
                return Flow::Later(later);
            }
            let Some(waiting) = self.queue.front() else {
                return Flow::Free;
            };
            let length = waiting.first.len() + waiting.second.len();
            let wire_bytes = waiting.wire_bytes;
            match send(&self.socket, waiting.first, waiting.second) {
                Sent::Whole => self.sent(length, wire_bytes),
                Sent::Lost => self.stats.lose(Reason::NotTaken),
                Sent::Full => return Flow::Full,
                Sent::Gone => return Flow::Gone,
            }
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

/// Sends one packet of two parts without waiting.
fn send(socket: &OwnedFd, first: &[u8], second: &[u8]) -> Sent {
    let parts = [IoSlice::new(first), IoSlice::new(second)];
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        return match sendmsg(socket, &parts, &mut SendAncillaryBuffer::default(), flags) {
            Ok(_) => Sent::Whole,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Sent::Full,
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::CONNREFUSED) => Sent::Gone,
            Err(_) => Sent::Lost,
        };
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
