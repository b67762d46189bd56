//! The device's thread: frames from the guest to the link and back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use virtio_queue::QueueT;
use vm_memory::GuestMemoryBackend;
use vmm_sys_util::eventfd::EventFd;

use super::device::{F_MERGEABLE, OFFLOADS};
use super::port::{Channel, Next, Sent, Wants};
use super::{HEADER_BYTES, is_packet};
use crate::devices::virtio::buffers::Buffers;
use crate::devices::virtio::device::{Activation, ActiveQueue, Interrupt};
use crate::devices::virtio::queue::QueueError;
use crate::devices::virtio::worker::{readable, wait};
use crate::memory::GuestMemory;

/// Packets of the link taken before the thread looks at the guest's again.
const AT_ONCE: usize = 64;
/// Turns of both directions before the thread looks whether it is to end.
const TURNS: usize = 16;
/// Where `num_buffers` lies in the header.
const NUM_BUFFERS_AT: usize = 10;

/// What the thread works on.
pub struct Parts {
    memory: GuestMemory,
    receive: ActiveQueue,
    transmit: ActiveQueue,
    channel: Box<dyn Channel>,
    plugged: Arc<AtomicBool>,
    config_interrupt: Interrupt,
    /// A packet may fill several of the guest's buffers.
    mergeable: bool,
    /// The guest takes frames whose checksums and segments are left to its card.
    offloads: bool,
    /// The guest's buffers for what comes next, taken already, and their bytes.
    room: VecDeque<Buffers>,
    room_bytes: u64,
    /// What was filled last, to be given back.
    used: Vec<(u16, u32)>,
    /// The length of the guest's next packet, for which the link has no room now.
    blocked: Option<usize>,
    /// A packet of the link's waits for buffers of the guest's.
    starved: bool,
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
    pub fn new(
        channel: Box<dyn Channel>,
        activation: Activation,
        plugged: Arc<AtomicBool>,
    ) -> Option<Self> {
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
        Some(Self {
            memory,
            receive,
            transmit,
            channel,
            plugged,
            config_interrupt,
            mergeable: features & F_MERGEABLE != 0,
            offloads: features & OFFLOADS == OFFLOADS,
            room: VecDeque::new(),
            room_bytes: 0,
            used: Vec::new(),
            blocked: None,
            starved: false,
            ended: false,
            lost: 0,
        })
    }
}

/// Works until `stop` is readable.
pub fn run(mut parts: Parts, stop: &EventFd) -> Result<(), QueueError> {
    let (mut sending, mut receiving) = (More::Yes, More::Yes);
    loop {
        for _ in 0..TURNS {
            if sending == More::Yes {
                sending = parts.send_all()?;
            }
            if receiving == More::Yes {
                receiving = parts.receive_some()?;
            }
            parts.channel.wake();
            if parts.ended && parts.blocked.is_some() {
                // Nobody will make room: what the guest sends is lost.
                sending = More::Yes;
            }
            if sending == More::No && receiving == More::No {
                break;
            }
        }
        let wants = Wants {
            packets: !parts.starved && !parts.ended,
            room: parts.blocked.filter(|_| !parts.ended),
        };
        if sending == More::No && receiving == More::No {
            let found = parts.channel.ask(wants);
            if found.packets {
                receiving = More::Yes;
            }
            if found.room {
                sending = More::Yes;
            }
        }
        let at_once = sending == More::Yes || receiving == More::Yes;
        let (link, events) = parts.channel.events(wants);
        let ready = wait(
            [
                readable(stop),
                readable(&parts.transmit.kick),
                readable(&parts.receive.kick),
                (link, if parts.ended { 0 } else { events }),
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
        parts.channel.awake(link);
        if sent {
            let _ = parts.transmit.kick.read();
        }
        if room {
            let _ = parts.receive.kick.read();
        }
        // While the link takes nothing, more of the guest's frames change nothing.
        if parts.blocked.map_or(sent, |_| link) {
            sending = More::Yes;
        }
        if link || (room && parts.starved) {
            receiving = More::Yes;
        }
    }
}

impl Parts {
    /// Passes on what the guest sends, at most one queue's worth.
    fn send_all(&mut self) -> Result<More, QueueError> {
        self.blocked = None;
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
                self.blocked = usize::try_from(buffers.readable_len()).ok();
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
            self.channel.send(&self.memory, buffers)
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
        self.starved = false;
        let since = self.receive.queue.next_used();
        for _ in 0..AT_ONCE {
            match self.channel.next() {
                Next::Packet(length) => {
                    if self.give(length)? {
                        self.channel.drop_next();
                    } else if !self.receive.rearm(&self.memory)? {
                        self.starved = true;
                        more = More::No;
                        break;
                    }
                }
                Next::Cable(plugged) => self.cable(plugged),
                Next::Nothing => {
                    more = More::No;
                    break;
                }
                Next::End => {
                    self.ended = true;
                    self.cable(false);
                    more = More::No;
                    break;
                }
            }
        }
        self.receive.notify_since(&self.memory, since)?;
        Ok(more)
    }

    fn cable(&mut self, plugged: bool) {
        if self.plugged.swap(plugged, Ordering::AcqRel) != plugged {
            self.config_interrupt.signal();
        }
    }

    /// Whether a packet can be one, and the guest can make sense of it.
    fn is_wanted(&self, head: [u8; HEADER_BYTES], length: usize) -> bool {
        let [flags, gso_type, ..] = head;
        is_packet(length as u64) && (self.offloads || (flags == 0 && gso_type == 0))
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

    /// Puts the next packet into the guest's buffers, or loses it. False where there are too few of them
    /// now.
    fn give(&mut self, length: usize) -> Result<bool, QueueError> {
        // A guest that merges none wants one buffer a packet.
        let wanted = if self.mergeable { length as u64 } else { 1 };
        let mut head = self.channel.head();
        if !self.is_wanted(head, length) {
            self.lose();
            return Ok(true);
        }
        if !self.take_room(wanted)? {
            return Ok(false);
        }
        let count = self.fitting(wanted);
        let buffers = self.room.iter().take(count);
        let fits = buffers.map(Buffers::writable_len).sum::<u64>() >= length as u64;
        let filled = if fits { length } else { 0 };
        if fits {
            head[NUM_BUFFERS_AT..].copy_from_slice(&(count as u16).to_le_bytes());
            self.fill(count, &head, length);
        } else {
            // Not even all buffers that the guest can offer hold it.
            self.lose();
        }
        self.give_back(count, filled)?;
        Ok(true)
    }

    /// Copies the next packet behind this header into the first buffers. What lies outside of the guest's
    /// memory is its own loss.
    fn fill(&self, count: usize, head: &[u8; HEADER_BYTES], length: usize) {
        let buffers = self.room.iter().take(count);
        let mut at = 0;
        for range in buffers.flat_map(Buffers::writable) {
            let here = (range.length as usize).min(length - at);
            let mut from = at;
            for slice in self.memory.get_slices(range.address, here) {
                let Ok(slice) = slice else { break };
                let of_head = head.get(from..).unwrap_or_default();
                slice.copy_from(of_head);
                let of_head = of_head.len().min(slice.len());
                if let Ok(rest) = slice.offset(of_head) {
                    self.channel.copy(from + of_head, &rest);
                }
                from += slice.len();
            }
            at += here;
        }
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
