//! The device's thread: frames from the guest to the link and back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use virtio_queue::QueueT;
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use super::device::{F_MERGEABLE, OFFLOADS};
use super::pieces::Pieces;
use super::port::{self, Port, Received, Sent};
use super::{HEADER_BYTES, MAX_PACKET_BYTES, is_packet};
use crate::devices::virtio::buffers::{BadBuffer, Buffers, Range};
use crate::devices::virtio::device::{Activation, ActiveQueue, Interrupt};
use crate::devices::virtio::queue::QueueError;
use crate::devices::virtio::worker::{readable, wait, when};
use crate::memory::GuestMemory;

/// Packets of the link taken before the thread looks at the guest's again.
const AT_ONCE: usize = 64;
/// Buffers for a packet of this length are taken from the guest before it comes; for a longer one
/// where the last one was longer.
const LEAST_EXPECTED: usize = 2048;
/// Where `num_buffers` lies in the header.
const NUM_BUFFERS_AT: usize = 10;

/// What the thread works on.
pub struct Parts {
    memory: GuestMemory,
    receive: ActiveQueue,
    transmit: ActiveQueue,
    port: Port,
    plugged: Arc<AtomicBool>,
    config_interrupt: Interrupt,
    /// A packet may fill several of the guest's buffers.
    mergeable: bool,
    /// The guest takes frames whose checksums and segments are left to its card.
    offloads: bool,
    /// The guest's buffers for what comes next, taken already, and their bytes.
    room: VecDeque<Buffers>,
    room_bytes: u64,
    /// Packets were lately about as long as this.
    expected: usize,
    /// What was filled last, to be given back.
    used: Vec<(u16, u32)>,
    /// A packet of the link that could not go straight into the guest's buffers, and its length.
    packet: Box<[u8]>,
    waiting: Option<usize>,
    /// One of the guest's that cannot go straight out of them.
    outgoing: Box<[u8]>,
    /// The link takes no more for now.
    blocked: bool,
    /// The link has closed its end.
    ended: bool,
    lost: u64,
}

/// Whether to go on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Yes,
    No,
}

impl Parts {
    /// None where the driver has set up no pair of queues.
    pub fn new(port: Port, activation: Activation, plugged: Arc<AtomicBool>) -> Option<Self> {
        let Activation {
            memory,
            features,
            queues,
            config_interrupt,
            ..
        } = activation;
        let [receive, transmit] = <[ActiveQueue; 2]>::try_from(queues).ok()?;
        if !receive.queue.ready() || !transmit.queue.ready() {
            return None;
        }
        let packet = || vec![0; MAX_PACKET_BYTES].into_boxed_slice();
        Some(Self {
            memory,
            receive,
            transmit,
            port,
            plugged,
            config_interrupt,
            mergeable: features & F_MERGEABLE != 0,
            offloads: features & OFFLOADS == OFFLOADS,
            room: VecDeque::new(),
            room_bytes: 0,
            expected: LEAST_EXPECTED,
            used: Vec::new(),
            packet: packet(),
            waiting: None,
            outgoing: packet(),
            blocked: false,
            ended: false,
            lost: 0,
        })
    }
}

/// Works until `stop` is readable.
pub fn run(mut parts: Parts, stop: &EventFd) -> Result<(), QueueError> {
    let (mut sending, mut receiving) = (More::Yes, More::Yes);
    loop {
        let mut events = 0;
        if parts.waiting.is_none() && !parts.ended {
            events |= libc::POLLIN;
        }
        if parts.blocked {
            events |= libc::POLLOUT;
        }
        let at_once = sending == More::Yes || receiving == More::Yes;
        let ready = wait(
            [
                readable(stop),
                readable(&parts.transmit.kick),
                readable(&parts.receive.kick),
                when(&parts.port, events != 0, events),
            ],
            at_once.then_some(0),
        );
        let Ok([stopped, sent, room, link]) = ready else {
            tracing::error!("net: cannot wait for events");
            return Ok(());
        };
        if stopped {
            if parts.lost > 0 {
                tracing::info!(frames = parts.lost, "net: not passed on");
            }
            return Ok(());
        }
        if sent {
            let _ = parts.transmit.kick.read();
        }
        if room {
            let _ = parts.receive.kick.read();
        }
        // While the link takes nothing, more of the guest's frames change nothing.
        let may_send = if parts.blocked { link } else { sent };
        if may_send || sending == More::Yes {
            sending = parts.send_all()?;
        }
        let may_receive = link || (room && parts.waiting.is_some());
        if may_receive || receiving == More::Yes {
            receiving = parts.receive_some()?;
        }
    }
}

impl Parts {
    /// Passes on what the guest sends, at most one queue's worth.
    fn send_all(&mut self) -> Result<More, QueueError> {
        self.blocked = false;
        self.transmit.queue.disable_notification(&self.memory)?;
        let mut more = More::Yes;
        for _ in 0..self.transmit.queue.size() {
            let Some(buffers) = self.transmit.take(&self.memory)? else {
                if !self.transmit.rearm(&self.memory)? {
                    more = More::No;
                }
                break;
            };
            if self.send(&buffers) == Sent::Full {
                self.transmit.untake();
                self.blocked = true;
                more = More::No;
                break;
            }
            self.transmit.give_back(&self.memory, buffers.head, 0)?;
        }
        self.transmit.notify(&self.memory)?;
        Ok(more)
    }

    fn send(&mut self, buffers: &Buffers) -> Sent {
        let sent = if is_packet(buffers.readable_len()) {
            match outgoing(&self.memory, buffers, &mut self.outgoing) {
                Ok(mut pieces) => self.port.send(&mut pieces),
                Err(BadBuffer) => Sent::Lost,
            }
        } else {
            Sent::Lost
        };
        if sent == Sent::Lost {
            self.lose();
        }
        sent
    }

    fn lose(&mut self) {
        self.lost = self.lost.saturating_add(1);
    }

    /// Passes on what the link sends, a number of packets at a time.
    fn receive_some(&mut self) -> Result<More, QueueError> {
        let mut more = More::Yes;
        let since = self.receive.queue.next_used();
        for _ in 0..AT_ONCE {
            if let Some(length) = self.waiting {
                if self.give(length)? {
                    self.waiting = None;
                } else {
                    if !self.receive.rearm(&self.memory)? {
                        more = More::No;
                    }
                    break;
                }
            } else if self.ended {
                more = More::No;
                break;
            } else {
                match self.receive_one()? {
                    Received::Packet(_) => {}
                    Received::Nothing => {
                        more = More::No;
                        break;
                    }
                    Received::End => {
                        self.ended = true;
                        self.cable(false);
                        more = More::No;
                        break;
                    }
                }
            }
        }
        self.receive.notify_since(&self.memory, since)?;
        Ok(more)
    }

    /// Takes one packet straight into the guest's buffers, as far as there are any.
    fn receive_one(&mut self) -> Result<Received, QueueError> {
        if self.mergeable {
            self.take_room(self.expected as u64)?;
        }
        let mut head = [0; HEADER_BYTES];
        let straight = incoming(&self.memory, &self.room, &mut head, &mut self.packet)
            .filter(|_| self.mergeable);
        let (received, room) = match straight {
            Some((mut pieces, room)) => (self.port.receive(&mut pieces), room),
            None => {
                let mut pieces = Pieces::with_capacity(1);
                pieces.add_own(&mut self.packet);
                let received = self.port.receive(&mut pieces);
                head.copy_from_slice(
                    self.packet
                        .get(..HEADER_BYTES)
                        .unwrap_or(&[0; HEADER_BYTES]),
                );
                (received, 0)
            }
        };
        let Received::Packet(length) = received else {
            return Ok(received);
        };
        if length == 1 {
            if let Some(plugged) = port::cable(head[0]) {
                self.cable(plugged);
            }
            return Ok(received);
        }
        // A short one between long ones changes little.
        let expected = length.max(self.expected - self.expected / 4);
        self.expected = expected.clamp(LEAST_EXPECTED, MAX_PACKET_BYTES);
        if length > room {
            self.collect(&head, room);
            self.waiting = Some(length);
        } else if self.is_wanted(&head, length) {
            let count = self.fitting(length as u64);
            head[NUM_BUFFERS_AT..].copy_from_slice(&(count as u16).to_le_bytes());
            if let Some(first) = self.room.front() {
                // It was long enough; memory that is not there is the guest's own loss.
                let _ = first.write(&self.memory, 0, &head);
            }
            self.give_back(count, length)?;
        } else {
            self.lose();
        }
        Ok(received)
    }

    /// Brings a packet together of which only the part after `room` bytes is where it should be: the
    /// guest's buffers have the rest, and may have changed it, which is the guest's own loss.
    fn collect(&mut self, head: &[u8], room: usize) {
        let Some(mut rest) = self.packet.get_mut(..room) else {
            return;
        };
        if room == 0 {
            return;
        }
        let mut skip = HEADER_BYTES;
        let (first, later) = rest.split_at_mut(HEADER_BYTES.min(room));
        first.copy_from_slice(head.get(..first.len()).unwrap_or_default());
        rest = later;
        for buffer in &self.room {
            let length = usize::try_from(buffer.writable_len()).unwrap_or(usize::MAX);
            let length = length.saturating_sub(skip).min(rest.len());
            let (part, later) = rest.split_at_mut(length);
            let _ = buffer.read_back(&self.memory, skip as u64, part);
            rest = later;
            skip = 0;
        }
    }

    fn cable(&mut self, plugged: bool) {
        if self.plugged.swap(plugged, Ordering::AcqRel) != plugged {
            self.config_interrupt.signal();
        }
    }

    /// Whether a packet can be one, and the guest can make sense of it.
    fn is_wanted(&self, head: &[u8], length: usize) -> bool {
        // flags and gso_type
        let offloaded = head.first() != Some(&0) || head.get(1) != Some(&0);
        is_packet(length as u64) && (self.offloads || !offloaded)
    }

    /// Takes buffers of the guest's for so many bytes. False where there are too few of them now.
    fn take_room(&mut self, bytes: u64) -> Result<bool, QueueError> {
        // More than one queue's worth is more than the guest has: some are there twice.
        while self.room_bytes < bytes && self.room.len() < usize::from(self.receive.queue.size()) {
            let Some(buffers) = self.receive.take(&self.memory)? else {
                return Ok(false);
            };
            self.room_bytes = self.room_bytes.saturating_add(buffers.writable_len());
            self.room.push_back(buffers);
        }
        Ok(true)
    }

    /// How many buffers a packet fills.
    fn fitting(&self, length: u64) -> usize {
        let mut bytes = 0;
        let enough = self.room.iter().position(|buffers| {
            bytes += buffers.writable_len();
            bytes >= length
        });
        enough.map_or(self.room.len(), |last| last + 1)
    }

    /// Puts the packet that waits into the guest's buffers. False where there are too few of them now.
    fn give(&mut self, length: usize) -> Result<bool, QueueError> {
        if !self.is_wanted(&self.packet, length) {
            self.lose();
            return Ok(true);
        }
        // A guest that merges none wants one buffer a packet.
        let wanted = if self.mergeable { length } else { 1 };
        if !self.take_room(wanted as u64)? {
            return Ok(false);
        }
        let count = self.fitting(wanted as u64);
        let buffers = || self.room.iter().take(count);
        let fits = buffers().map(Buffers::writable_len).sum::<u64>() >= length as u64;
        let filled = if fits { length } else { 0 };
        if let Some(field) = self.packet.get_mut(NUM_BUFFERS_AT..HEADER_BYTES) {
            field.copy_from_slice(&(count as u16).to_le_bytes());
        }
        let mut rest = self.packet.get(..filled).unwrap_or_default();
        for buffer in buffers() {
            let room = usize::try_from(buffer.writable_len()).unwrap_or(usize::MAX);
            let (part, later) = rest.split_at(rest.len().min(room));
            rest = later;
            // A buffer outside of its memory is the guest's own loss.
            let _ = buffer.write(&self.memory, 0, part);
        }
        if !fits {
            // Not even all buffers that the guest can offer hold it.
            self.lose();
        }
        self.give_back(count, filled)?;
        Ok(true)
    }

    /// Gives back the first buffers, filled with so many bytes, all at once: a driver that sees the
    /// first must see the others (virtio 1.2, 5.1.6.4).
    fn give_back(&mut self, count: usize, length: usize) -> Result<(), QueueError> {
        let mut rest = length as u64;
        self.used.clear();
        for buffers in self.room.drain(..count) {
            let room = buffers.writable_len();
            let filled = rest.min(room);
            rest -= filled;
            self.room_bytes = self.room_bytes.saturating_sub(room);
            self.used
                .push((buffers.head, u32::try_from(filled).unwrap_or(u32::MAX)));
        }
        self.receive.give_back_together(&self.memory, &self.used)
    }
}

/// Where a packet of the guest's lies: in its own buffers, or where those cannot be given to the
/// kernel, in a copy.
fn outgoing<'a>(
    memory: &'a GuestMemory,
    buffers: &Buffers,
    copy: &'a mut [u8],
) -> Result<Pieces<'a>, BadBuffer> {
    let mut pieces = Pieces::with_capacity(buffers.readable().len());
    let added = buffers
        .readable()
        .iter()
        .try_for_each(|range| pieces.add_guest(memory, *range));
    if added == Ok(()) {
        return Ok(pieces);
    }
    let length = usize::try_from(buffers.readable_len()).map_err(|_| BadBuffer)?;
    let copy = copy.get_mut(..length).ok_or(BadBuffer)?;
    buffers.read(memory, 0, copy)?;
    let mut pieces = Pieces::with_capacity(1);
    pieces.add_own(copy);
    Ok(pieces)
}

/// Where a packet of the link's goes: its header to `head`, then as much as they hold to the guest's
/// buffers, and what is longer into `packet`, where it would lie had all of it gone there. The second
/// answer is how many bytes do not go there. None where the buffers cannot be given to the kernel.
fn incoming<'a>(
    memory: &'a GuestMemory,
    room: &VecDeque<Buffers>,
    head: &'a mut [u8; HEADER_BYTES],
    packet: &'a mut [u8],
) -> Option<(Pieces<'a>, usize)> {
    if room.front()?.writable_len() < HEADER_BYTES as u64 {
        return None;
    }
    let mut pieces = Pieces::with_capacity(room.len() + 2);
    pieces.add_own(head);
    let mut skip = HEADER_BYTES as u32;
    let mut total = 0;
    for range in room.iter().flat_map(Buffers::writable) {
        let skipped = skip.min(range.length);
        skip -= skipped;
        total += range.length as usize;
        let rest = Range {
            address: GuestAddress(range.address.0.checked_add(skipped.into())?),
            length: range.length - skipped,
        };
        pieces.add_guest(memory, rest).ok()?;
    }
    if let Some(longer) = packet.get_mut(total..).filter(|longer| !longer.is_empty()) {
        pieces.add_own(longer);
    }
    Some((pieces, total))
}
