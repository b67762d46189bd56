//! The device's thread: frames from the guest to the link and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use virtio_queue::QueueT;
use vmm_sys_util::eventfd::EventFd;

use super::device::{F_MERGEABLE, OFFLOADS};
use super::port::{Port, Received, Sent};
use super::{HEADER_BYTES, MAX_PACKET_BYTES, is_packet};
use crate::devices::virtio::buffers::Buffers;
use crate::devices::virtio::device::{Activation, ActiveQueue, Interrupt};
use crate::devices::virtio::queue::QueueError;
use crate::devices::virtio::worker::{readable, wait, when};
use crate::memory::GuestMemory;

/// Packets of the link taken before the thread looks at the guest's again.
const AT_ONCE: usize = 64;
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
    /// A packet of the link for which the guest had no room, and its length.
    packet: Box<[u8]>,
    waiting: Option<usize>,
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
        if !parts.blocked || link {
            sending = parts.send_all()?;
        }
        receiving = parts.receive_some()?;
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
        let untrusted_length = buffers.readable_len();
        let packet = usize::try_from(untrusted_length)
            .ok()
            .filter(|_| is_packet(untrusted_length))
            .and_then(|length| self.outgoing.get_mut(..length));
        let sent = match packet {
            Some(packet) => match buffers.read(&self.memory, 0, packet) {
                Ok(()) => self.port.send(packet),
                Err(_) => Sent::Lost,
            },
            None => Sent::Lost,
        };
        if sent == Sent::Lost {
            self.lost = self.lost.saturating_add(1);
        }
        sent
    }

    /// Passes on what the link sends, a number of packets at a time.
    fn receive_some(&mut self) -> Result<More, QueueError> {
        let mut more = More::Yes;
        for _ in 0..AT_ONCE {
            let length = match self.waiting.take() {
                Some(length) => length,
                None if self.ended => {
                    more = More::No;
                    break;
                }
                None => match self.port.receive(&mut self.packet) {
                    Received::Packet(length) => length,
                    Received::Cable(plugged) => {
                        self.cable(plugged);
                        continue;
                    }
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
                },
            };
            if !self.give(length)? {
                self.waiting = Some(length);
                if !self.receive.rearm(&self.memory)? {
                    more = More::No;
                }
                break;
            }
        }
        self.receive.notify(&self.memory)?;
        Ok(more)
    }

    fn cable(&mut self, plugged: bool) {
        if self.plugged.swap(plugged, Ordering::AcqRel) != plugged {
            self.config_interrupt.signal();
        }
    }

    /// Puts a packet into the guest's buffers. False where there are too few of them now.
    fn give(&mut self, length: usize) -> Result<bool, QueueError> {
        // gso_type and flags: what a guest without offloads cannot make sense of.
        let offloaded = self.packet.first() != Some(&0) || self.packet.get(1) != Some(&0);
        if !is_packet(length as u64) || (offloaded && !self.offloads) {
            self.lost = self.lost.saturating_add(1);
            return Ok(true);
        }
        let mut taken: Vec<Buffers> = Vec::new();
        let mut room = 0;
        while room < length as u64 {
            let enough = !self.mergeable && !taken.is_empty();
            if enough || taken.len() >= usize::from(self.receive.queue.size()) {
                // Not even all buffers that the guest can offer hold it.
                break;
            }
            let Some(buffers) = self.receive.take(&self.memory)? else {
                for _ in taken {
                    self.receive.untake();
                }
                return Ok(false);
            };
            room += buffers.writable_len();
            taken.push(buffers);
        }
        let count = u16::try_from(taken.len()).unwrap_or(u16::MAX);
        let fits = room >= length as u64;
        if let Some(field) = self
            .packet
            .get_mut(NUM_BUFFERS_AT..HEADER_BYTES)
            .filter(|_| fits)
        {
            field.copy_from_slice(&count.to_le_bytes());
        }
        let packet = self
            .packet
            .get(..length)
            .filter(|_| fits)
            .unwrap_or_default();
        self.lost = self.lost.saturating_add(u64::from(!fits));
        fill(&mut self.receive, &self.memory, &taken, packet)?;
        Ok(true)
    }
}

/// Writes a packet into buffers one after another, and gives them back all at once: a driver that
/// sees the first must see the others (virtio 1.2, 5.1.6.4).
fn fill(
    queue: &mut ActiveQueue,
    memory: &GuestMemory,
    buffers: &[Buffers],
    packet: &[u8],
) -> Result<(), QueueError> {
    let mut rest = packet;
    let mut used = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        let room = usize::try_from(buffer.writable_len()).unwrap_or(usize::MAX);
        let (part, later) = rest.split_at(rest.len().min(room));
        rest = later;
        // A buffer outside of its memory is the guest's own loss.
        let _ = buffer.write(memory, 0, part);
        used.push((buffer.head, u32::try_from(part.len()).unwrap_or(u32::MAX)));
    }
    queue.give_back_together(memory, &used)
}
