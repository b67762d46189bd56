//! The device between a driver on real queues in real guest memory and a link's end of its cable, with rings
//! and without.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bulkhead_mac::Mac;
use bulkhead_ring::{Endpoint, Memory, Side, WAKE};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{MAX_FRAME_BYTES, Net, Port};
use crate::devices::virtio::device::{
    Activation, ActiveQueue, DeviceFault, Interrupt, VirtioDevice,
};
use crate::memory::GuestMemory;

mod hostile;

const SIZE: u16 = 256;
const RECEIVE: u64 = 0x1_0000;
const TRANSMIT: u64 = 0x2_0000;
/// Buffers of either queue, 4 KiB each.
const RECEIVE_BUFFERS: u64 = 0x10_0000;
const TRANSMIT_BUFFERS: u64 = 0x40_0000;
const BUFFER: u64 = 0x1000;
const EVENT_IDX: u64 = 1 << 29;
const MERGEABLE: u64 = 1 << 15;

/// How packets go between device and link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Ring,
    Socket,
}

const WAYS: [Way; 2] = [Way::Ring, Way::Socket];

struct Machine {
    net: Net,
    memory: GuestMemory,
    link: OwnedFd,
    /// The link's side of the rings, and their memory.
    ring: Option<(Endpoint, OwnedFd)>,
    kicks: [EventFd; 2],
    config: EventFd,
    faults: Arc<Mutex<Vec<String>>>,
    /// How many buffers of each queue were made available.
    given: [u16; 2],
    /// How many used ones of each queue were seen.
    seen: [u16; 2],
}

fn queue(base: u64) -> Queue {
    let mut queue = Queue::new(SIZE).unwrap();
    queue.set_size(SIZE);
    queue.set_desc_table_address(Some(base as u32), None);
    queue.set_avail_ring_address(Some(base as u32 + 0x2000), None);
    queue.set_used_ring_address(Some(base as u32 + 0x4000), None);
    queue.set_ready(true);
    queue
}

fn base(queue: usize) -> u64 {
    [RECEIVE, TRANSMIT][queue]
}

impl Machine {
    fn without(features: u64, way: Way) -> Self {
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

    fn new(way: Way) -> Self {
        Machine::without(0, way)
    }

    /// The driver sets the device up, without these features.
    fn activate(&mut self, without: u64) {
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
    fn offer(&mut self, queue: usize, address: u64, length: u32, writable: bool) {
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

    fn kick(&self, queue: usize) {
        self.kicks[queue].write(1).unwrap();
    }

    /// Room for received packets: so many buffers of this size.
    fn room(&mut self, buffers: u16, bytes: u32) {
        for _ in 0..buffers {
            let slot = u64::from(self.given[0] % SIZE);
            self.offer(0, RECEIVE_BUFFERS + slot * BUFFER, bytes, true);
        }
        self.kick(0);
    }

    fn send(&mut self, packet: &[u8]) {
        let slot = u64::from(self.given[1] % SIZE) % 64;
        let at = TRANSMIT_BUFFERS + slot * 0x2_0000;
        self.memory.write_slice(packet, GuestAddress(at)).unwrap();
        self.offer(1, at, packet.len() as u32, false);
        self.kick(1);
    }

    /// Waits until the device has used so many more buffers; the first descriptor's and the
    /// lengths of each.
    fn used(&mut self, queue: usize, count: u16) -> Vec<(u32, u32)> {
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
    fn received(&mut self) -> (u16, Vec<u8>) {
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
    fn link_says(&self, packet: &[u8]) {
        send(&self.link, packet, SendFlags::empty()).unwrap();
    }

    fn link_sends(&mut self, packet: &[u8]) {
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
    fn said_to_link(&self) -> io::Result<Vec<u8>> {
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
    fn at_link(&mut self) -> io::Result<Vec<u8>> {
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
    fn scribble(&self, at: u64, value: u64) {
        let (_, memory) = self.ring.as_ref().unwrap();
        rustix::io::pwrite(memory, &value.to_ne_bytes(), at).unwrap();
    }

    fn plugged(&self) -> bool {
        let mut status = [0; 2];
        self.net.read_config(6, &mut status);
        status == [1, 0]
    }

    fn end(mut self) {
        self.net.reset();
        assert_eq!(*self.faults.lock().unwrap(), [""; 0]);
    }
}

/// A packet with a plain header; its frame is `length` bytes of a pattern.
fn packet(length: usize) -> Vec<u8> {
    let mut packet = vec![0; 12];
    packet.extend((0..length).map(|at| (at * 7 % 251) as u8));
    packet
}

#[test]
fn frames_go_out_as_they_are_and_what_is_none_goes_nowhere() {
    for way in WAYS {
        let mut machine = Machine::new(way);
        for length in [14, 60, 1514, 4000, MAX_FRAME_BYTES] {
            machine.send(&packet(length));
            assert_eq!(machine.at_link().unwrap(), packet(length), "{length}");
            assert_eq!(machine.used(1, 1)[0].1, 0);
        }
        for length in [0, 1, 13] {
            machine.send(&packet(length));
            machine.used(1, 1);
        }
        // Outside of its memory, and longer than any frame.
        machine.offer(1, 1 << 40, 100, false);
        machine.offer(1, TRANSMIT_BUFFERS, 0x2_0000, false);
        machine.offer(1, TRANSMIT_BUFFERS, u32::MAX, false);
        machine.kick(1);
        machine.used(1, 3);
        machine.send(&packet(99));
        assert_eq!(machine.at_link().unwrap(), packet(99));
        machine.end();
    }
}

#[test]
fn a_link_that_is_full_loses_nothing() {
    for way in WAYS {
        let mut machine = Machine::new(way);
        for round in 0..200_usize {
            machine.send(&packet(1000 + round));
        }
        // Long enough that the socket is full and the device waits.
        std::thread::sleep(Duration::from_millis(100));
        for round in 0..200 {
            assert_eq!(machine.at_link().unwrap(), packet(1000 + round));
        }
        machine.used(1, 200);
        machine.end();
    }
}

#[test]
fn packets_come_in_whole_over_several_buffers() {
    for way in WAYS {
        let mut machine = Machine::new(way);
        // Before there is room, too.
        machine.link_sends(&packet(50));
        std::thread::sleep(Duration::from_millis(20));
        machine.room(70, 2048);
        assert_eq!(machine.received(), (1, with_count(packet(50), 1)));
        machine.link_sends(&packet(4084));
        assert_eq!(machine.received(), (2, with_count(packet(4084), 2)));
        machine.link_sends(&packet(4085));
        assert_eq!(machine.received(), (3, with_count(packet(4085), 3)));
        let longest = packet(MAX_FRAME_BYTES);
        machine.link_sends(&longest);
        assert_eq!(machine.received(), (33, with_count(longest, 33)));
        // Too few buffers: it waits for more, and none is lost meanwhile.
        let left = machine.given[0] - machine.seen[0];
        let longer = packet(usize::from(left) * 2048 + 5);
        machine.link_sends(&longer);
        std::thread::sleep(Duration::from_millis(20));
        machine.room(1, 2048);
        assert_eq!(machine.received(), (left + 1, with_count(longer, left + 1)));
        machine.end();
    }
}

fn with_count(mut packet: Vec<u8>, count: u16) -> Vec<u8> {
    packet[10..12].copy_from_slice(&count.to_le_bytes());
    packet
}

#[test]
fn the_ring_goes_round() {
    for way in WAYS {
        let mut machine = Machine::new(way);
        for round in 0..400_usize {
            machine.room(3, 2048);
            let sent = packet(1000 + round * 7);
            machine.link_sends(&sent);
            let (count, packet) = machine.received();
            assert_eq!(packet, with_count(sent, count), "{round}");
            // What was too much room is used by the next ones.
            let spare = machine.given[0].wrapping_sub(machine.seen[0]);
            for _ in 0..spare {
                machine.link_sends(&super::tests::packet(20));
                machine.received();
            }
        }
        machine.end();
    }
}

#[test]
fn a_guest_that_merges_no_buffers_gets_what_fits_into_one() {
    for way in WAYS {
        let mut machine = Machine::without(MERGEABLE, way);
        machine.room(3, 2048);
        machine.link_sends(&packet(3000));
        assert_eq!(machine.used(0, 1), [(0, 0)]);
        machine.link_sends(&packet(2036));
        assert_eq!(machine.received().1, with_count(packet(2036), 1));
        machine.end();
    }
}

#[test]
fn a_guest_without_offloads_gets_no_frames_that_need_them() {
    for way in WAYS {
        let mut machine = Machine::without(1 << 7, way);
        machine.room(3, 2048);
        let mut needs = packet(500);
        needs[0] = 1;
        machine.link_sends(&needs);
        let mut segments = packet(501);
        segments[1] = 1;
        machine.link_sends(&segments);
        machine.link_sends(&packet(502));
        assert_eq!(machine.received().1, with_count(packet(502), 1));
        machine.end();
        let mut machine = Machine::new(way);
        machine.room(1, 2048);
        machine.link_sends(&needs);
        assert_eq!(machine.received().1, with_count(needs, 1));
        machine.end();
    }
}

#[test]
fn buffers_without_room_do_not_hold_the_thread() {
    for way in WAYS {
        let mut machine = Machine::new(way);
        for _ in 0..SIZE {
            machine.offer(0, RECEIVE_BUFFERS, 0, true);
        }
        machine.kick(0);
        machine.link_sends(&packet(500));
        // The whole queue was too small for it: it is lost, and the guest may try again.
        machine.used(0, SIZE);
        machine.room(1, 2048);
        machine.link_sends(&packet(501));
        assert_eq!(machine.received().1, with_count(packet(501), 1));
        machine.end();
    }
}

#[test]
fn buffers_that_the_kernel_cannot_fill_are_filled_all_the_same() {
    for way in WAYS {
        let mut machine = Machine::new(way);
        // The header lies in three of them.
        machine.room(20, 5);
        machine.link_sends(&packet(60));
        assert_eq!(machine.used(0, 15).len(), 15);
        machine.link_sends(&packet(14));
        // 26 bytes do not fit into what is left.
        machine.room(1, 5);
        assert_eq!(machine.used(0, 6).len(), 6);
        // Outside of its memory: the packet is gone, the next one is not.
        machine.offer(0, 1 << 40, 2048, true);
        machine.offer(0, u64::MAX - 5, 2048, true);
        machine.kick(0);
        machine.link_sends(&packet(61));
        assert_eq!(machine.used(0, 1)[0].1, 73);
        machine.link_sends(&packet(62));
        assert_eq!(machine.used(0, 1)[0].1, 74);
        machine.room(2, 2048);
        machine.link_sends(&packet(63));
        assert_eq!(machine.received().1, with_count(packet(63), 1));
        machine.end();
    }
}

#[test]
fn long_and_short_packets_come_in_whole_in_any_order() {
    for way in WAYS {
        let mut machine = Machine::new(way);
        for round in 0..60_usize {
            let sent =
                packet([20, 9000, MAX_FRAME_BYTES, 1500, 30_000][round * 7 % 5] + round % 3 * 7);
            // What is longer than any packet does not come.
            let comes = sent.len() <= MAX_FRAME_BYTES + 12;
            machine.room(33, 2048);
            machine.link_sends(&sent);
            if comes {
                let (count, got) = machine.received();
                assert_eq!(count, sent.len().div_ceil(2048) as u16, "{round}");
                assert_eq!(got, with_count(sent, count), "{round}");
            }
            // Never more than the queue has.
            while machine.given[0].wrapping_sub(machine.seen[0]) > SIZE - 33 {
                machine.link_sends(&packet(20));
                machine.received();
            }
        }
        machine.end();
    }
}

#[test]
fn the_cable_is_plugged_in_and_out() {
    for way in WAYS {
        let mut machine = Machine::new(way);
        assert!(!machine.plugged());
        let wait = |machine: &Machine, plugged: bool| {
            let deadline = Instant::now() + Duration::from_secs(10);
            while machine.plugged() != plugged || machine.config.read().is_err() {
                assert!(Instant::now() < deadline);
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        machine.link_says(&[1]);
        wait(&machine, true);
        machine.link_says(&[0]);
        wait(&machine, false);
        machine.link_says(&[1]);
        wait(&machine, true);
        // Neither this nor an empty frame means anything.
        machine.link_says(&[7]);
        machine.link_sends(&packet(3));
        std::thread::sleep(Duration::from_millis(20));
        assert!(machine.plugged());
        let (other, _) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        drop(std::mem::replace(&mut machine.link, other));
        let deadline = Instant::now() + Duration::from_secs(10);
        while machine.plugged() {
            assert!(
                Instant::now() < deadline,
                "the end of the link is a cable pulled out"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        machine.end();
    }
}

#[test]
fn a_device_that_is_set_up_again_goes_on_where_it_was() {
    for way in WAYS {
        let mut machine = Machine::new(way);
        for round in 0..20_usize {
            machine.room(2, 2048);
            machine.link_sends(&packet(100 + round));
            assert_eq!(machine.received().1, with_count(packet(100 + round), 1));
            machine.send(&packet(200 + round));
            machine.used(1, 1);
            machine.net.reset();
            // Meanwhile nobody takes it.
            machine.link_sends(&packet(300 + round));
            for queue in 0..2 {
                (machine.given[queue], machine.seen[queue]) = (0, 0);
                for ring in [0x2002, 0x4002] {
                    let index = GuestAddress(base(queue) + ring);
                    machine.memory.write_obj(0_u16, index).unwrap();
                }
            }
            machine.activate(0);
            machine.room(1, 2048);
            assert_eq!(machine.received().1, with_count(packet(300 + round), 1));
            assert_eq!(machine.at_link().unwrap(), packet(200 + round));
        }
        machine.end();
    }
}

#[test]
fn addresses_are_those_of_one_card() {
    for text in [
        "02:00:00:00:00:01",
        "00:16:3e:5e:6c:ff",
        "fe:ff:ff:ff:ff:ff",
    ] {
        assert_eq!(text.parse::<Mac>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "02:00:00:00:00",
        "02:00:00:00:00:01:02",
        "2:0:0:0:0:1",
        "01:00:00:00:00:01",
        "00:00:00:00:00:00",
        "02-00-00-00-00-01",
        "02:00:00:00:00:0g",
        "+2:00:00:00:00:01",
    ] {
        assert!(text.parse::<Mac>().is_err(), "{text}");
    }
}
