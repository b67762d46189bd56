//! A driver on real queues in real guest memory, and a link's end of the cable.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bulkhead_ring::{Endpoint, Memory, Side, WAKE};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::super::{MAX_FRAME_BYTES, Net, Port};
use crate::devices::virtio::device::{
    Activation, ActiveQueue, DeviceFault, Interrupt, VirtioDevice,
};
use crate::memory::GuestMemory;

pub(super) const SIZE: u16 = 256;
pub(super) const RECEIVE: u64 = 0x1_0000;
pub(super) const TRANSMIT: u64 = 0x2_0000;
/// Buffers of either queue, 4 KiB each.
pub(super) const RECEIVE_BUFFERS: u64 = 0x10_0000;
pub(super) const TRANSMIT_BUFFERS: u64 = 0x40_0000;
pub(super) const BUFFER: u64 = 0x1000;
pub(super) const EVENT_IDX: u64 = 1 << 29;
pub(super) const MERGEABLE: u64 = 1 << 15;

/// How packets go between device and link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Ring,
    Socket,
}

pub(super) const WAYS: [Way; 2] = [Way::Ring, Way::Socket];

pub(super) struct Machine {
    pub(super) net: Net,
    pub(super) memory: GuestMemory,
    pub(super) link: OwnedFd,
    /// The link's side of the rings, and their memory.
    pub(super) ring: Option<(Endpoint, OwnedFd)>,
    pub(super) kicks: [EventFd; 2],
    pub(super) config: EventFd,
    pub(super) faults: Arc<Mutex<Vec<String>>>,
    /// How many buffers of each queue were made available.
    pub(super) given: [u16; 2],
    /// How many used ones of each queue were seen.
    pub(super) seen: [u16; 2],
}

pub(super) fn queue(base: u64) -> Queue {
    let mut queue = Queue::new(SIZE).unwrap();
    queue.set_size(SIZE);
    queue.set_desc_table_address(Some(base as u32), None);
    queue.set_avail_ring_address(Some(base as u32 + 0x2000), None);
    queue.set_used_ring_address(Some(base as u32 + 0x4000), None);
    queue.set_ready(true);
    queue
}

pub(super) fn base(queue: usize) -> u64 {
    [RECEIVE, TRANSMIT][queue]
}

impl Machine {
    pub(super) fn without(features: u64, way: Way) -> Self {
        let (link, socket) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let mac = "02:00:00:00:00:05".parse().unwrap();
        let ring = (way == Way::Ring).then(|| Memory::create().unwrap());
        let map = |memory: &OwnedFd| Memory::map(memory).unwrap();
        let port = match &ring {
            Some(memory) => Port::with_ring(socket, map(memory)),
            None => Port::new(socket),
        };
        let ring = ring.map(|memory| {
            let endpoint = Endpoint::attach(Arc::new(map(&memory)), Side::Link);
            (endpoint.unwrap(), memory)
        });
        let net = Net::new(port, mac, 1500);
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
        let kicks = [(); 2].map(|()| EventFd::new(EFD_NONBLOCK).unwrap());
        let (_, config) = Interrupt::for_test().unwrap();
        let mut machine = Machine {
            net,
            memory,
            link,
            ring,
            kicks,
            config,
            faults: Arc::default(),
            given: [0; 2],
            seen: [0; 2],
        };
        machine.activate(features);
        machine
    }

    pub(super) fn new(way: Way) -> Self {
        Machine::without(0, way)
    }

    /// The driver sets the device up, without these features.
    pub(super) fn activate(&mut self, without: u64) {
        let told = self.faults.clone();
        let active = |index: usize| ActiveQueue {
            queue: queue(base(index)),
            kick: self.kicks[index].try_clone().unwrap(),
            interrupt: Interrupt::for_test().unwrap().0,
        };
        let queues = vec![active(0), active(1)];
        let (config_interrupt, config) = Interrupt::for_test().unwrap();
        self.config = config;
        self.net
            .activate(Activation {
                memory: self.memory.clone(),
                features: self.net.features() & !EVENT_IDX & !without,
                queues,
                config_interrupt,
                window: None,
                fault: DeviceFault::new(move |reason| told.lock().unwrap().push(reason)),
            })
            .unwrap();
    }

    /// Makes one buffer available, without a kick.
    pub(super) fn offer(&mut self, queue: usize, address: u64, length: u32, writable: bool) {
        let index = self.given[queue] % SIZE;
        let mut descriptor = [0; 16];
        descriptor[..8].copy_from_slice(&address.to_le_bytes());
        descriptor[8..12].copy_from_slice(&length.to_le_bytes());
        descriptor[12] = if writable { 2 } else { 0 };
        let write = |at: u64, bytes: &[u8]| {
            self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
        };
        write(base(queue) + u64::from(index) * 16, &descriptor);
        let ring = base(queue) + 0x2000;
        write(ring + 4 + u64::from(index) * 2, &index.to_le_bytes());
        self.given[queue] = self.given[queue].wrapping_add(1);
        write(ring + 2, &self.given[queue].to_le_bytes());
    }

    pub(super) fn kick(&self, queue: usize) {
        self.kicks[queue].write(1).unwrap();
    }

    /// Room for received packets: so many buffers of this size.
    pub(super) fn room(&mut self, buffers: u16, bytes: u32) {
        for _ in 0..buffers {
            let slot = u64::from(self.given[0] % SIZE);
            self.offer(0, RECEIVE_BUFFERS + slot * BUFFER, bytes, true);
        }
        self.kick(0);
    }

    pub(super) fn send(&mut self, packet: &[u8]) {
        let slot = u64::from(self.given[1] % SIZE) % 64;
        let at = TRANSMIT_BUFFERS + slot * 0x2_0000;
        self.memory.write_slice(packet, GuestAddress(at)).unwrap();
        self.offer(1, at, packet.len() as u32, false);
        self.kick(1);
    }

    /// Waits until the device has used so many more buffers; the first descriptor's and the
    /// lengths of each.
    pub(super) fn used(&mut self, queue: usize, count: u16) -> Vec<(u32, u32)> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let ring = base(queue) + 0x4000;
        loop {
            let index: u16 = self.memory.read_obj(GuestAddress(ring + 2)).unwrap();
            if index.wrapping_sub(self.seen[queue]) >= count {
                break;
            }
            assert!(Instant::now() < deadline, "the device uses no buffer");
            std::thread::sleep(Duration::from_millis(1));
        }
        let entries = (0..count).map(|step| {
            let slot = u64::from(self.seen[queue].wrapping_add(step) % SIZE);
            let at = ring + 4 + slot * 8;
            let id: u32 = self.memory.read_obj(GuestAddress(at)).unwrap();
            let length: u32 = self.memory.read_obj(GuestAddress(at + 4)).unwrap();
            (id, length)
        });
        let entries = entries.collect();
        self.seen[queue] = self.seen[queue].wrapping_add(count);
        entries
    }

    /// The next packet that the guest receives: how many buffers it fills, and its bytes.
    pub(super) fn received(&mut self) -> (u16, Vec<u8>) {
        let mut used = self.used(0, 1);
        let at = |id: u32| GuestAddress(RECEIVE_BUFFERS + u64::from(id) * BUFFER);
        let count: u16 = self
            .memory
            .read_obj(GuestAddress(at(used[0].0).0 + 10))
            .unwrap();
        let later = count.saturating_sub(1);
        // They are there already: no waiting.
        let index: u16 = self
            .memory
            .read_obj(GuestAddress(RECEIVE + 0x4002))
            .unwrap();
        assert!(
            index.wrapping_sub(self.seen[0]) >= later,
            "{count} buffers, not all used"
        );
        used.extend(self.used(0, later));
        let mut packet = Vec::new();
        for (id, length) in used {
            let mut part = vec![0; length as usize];
            self.memory.read_slice(&mut part, at(id)).unwrap();
            packet.extend(part);
        }
        (count, packet)
    }

    /// By the socket, whatever else there is.
    pub(super) fn link_says(&self, packet: &[u8]) {
        send(&self.link, packet, SendFlags::empty()).unwrap();
    }

    pub(super) fn link_sends(&mut self, packet: &[u8]) {
        let Some((ring, _)) = &mut self.ring else {
            return self.link_says(packet);
        };
        // What is longer than any packet a ring does not carry.
        if packet.len() > MAX_FRAME_BYTES + 12 {
            return;
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !ring.outgoing.push(packet, &[]).unwrap() {
            assert!(Instant::now() < deadline, "no room");
        }
        if ring.must_wake() {
            self.link_says(&[WAKE]);
        }
    }

    /// The next packet of the socket.
    pub(super) fn said_to_link(&self) -> io::Result<Vec<u8>> {
        rustix::net::sockopt::set_socket_timeout(
            &self.link,
            rustix::net::sockopt::Timeout::Recv,
            Some(Duration::from_secs(10)),
        )?;
        let mut packet = vec![0; 80_000];
        let (_, length) = recv(&self.link, &mut packet[..], RecvFlags::empty())?;
        packet.truncate(length);
        Ok(packet)
    }

    /// The next packet that reaches the link, which sleeps where there is none.
    pub(super) fn at_link(&mut self) -> io::Result<Vec<u8>> {
        if self.ring.is_none() {
            return self.said_to_link();
        }
        loop {
            if let Some((ring, _)) = &mut self.ring
                && let Some(length) = ring.incoming.peek().unwrap()
            {
                let mut packet = vec![0; length];
                ring.incoming.copy(0, &mut packet);
                ring.incoming.drop_next();
                if ring.must_wake() {
                    self.link_says(&[WAKE]);
                }
                return Ok(packet);
            }
            let sleeps = self
                .ring
                .as_mut()
                .map(|(ring, _)| ring.incoming.wait_for_packets());
            if sleeps == Some(Ok(false)) {
                assert_eq!(self.said_to_link()?, [WAKE]);
            }
        }
    }

    /// Writes over the memory of the rings.
    pub(super) fn scribble(&self, at: u64, value: u64) {
        let (_, memory) = self.ring.as_ref().unwrap();
        rustix::io::pwrite(memory, &value.to_ne_bytes(), at).unwrap();
    }

    pub(super) fn plugged(&self) -> bool {
        let mut status = [0; 2];
        self.net.read_config(6, &mut status);
        status == [1, 0]
    }

    pub(super) fn end(mut self) {
        self.net.reset();
        assert_eq!(*self.faults.lock().unwrap(), [""; 0]);
    }
}

/// A packet with a plain header; its frame is `length` bytes of a pattern.
pub(super) fn packet(length: usize) -> Vec<u8> {
    let mut packet = vec![0; 12];
    packet.extend((0..length).map(|at| (at * 7 % 251) as u8));
    packet
}
