//! The rings as a list, as two threads that sleep and wake each other, and with a hostile other side.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bulkhead_ring::memory::MEMORY_BYTES;
use bulkhead_ring::{Broken, Endpoint, MAX_PACKET_BYTES, Memory, RING_BYTES, Side, WAKE};
use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

fn attach(memory: &OwnedFd, side: Side) -> Result<Endpoint, Broken> {
    Endpoint::attach(Arc::new(Memory::map(memory).unwrap()), side)
}

fn ends() -> (OwnedFd, Endpoint, Endpoint) {
    let memory = Memory::create().unwrap();
    let card = attach(&memory, Side::Card).unwrap();
    let link = attach(&memory, Side::Link).unwrap();
    (memory, card, link)
}

/// A packet that is told from others.
fn packet(number: u64, length: usize) -> Vec<u8> {
    let byte = |at: usize| (at as u64).wrapping_mul(31).wrapping_add(number * 7) as u8;
    (0..length).map(byte).collect()
}

fn take(endpoint: &mut Endpoint) -> Result<Option<Vec<u8>>, Broken> {
    let Some(length) = endpoint.incoming.peek()? else {
        return Ok(None);
    };
    let mut bytes = vec![0; length];
    assert_eq!(endpoint.incoming.copy(0, &mut bytes), length);
    endpoint.incoming.drop_next();
    Ok(Some(bytes))
}

/// What nobody looks at goes from ring to ring, wherever in both it lies.
#[test]
fn packets_go_from_one_ring_to_the_other() {
    let (_memory, mut card, mut link) = ends();
    let (_other_memory, mut other_card, mut other_link) = ends();
    let mut random = Random(7);
    for number in 0..400 {
        let sent = packet(number, random.below(MAX_PACKET_BYTES));
        assert_eq!(card.outgoing.push(&sent, &[]), Ok(true));
        // So that both do not lie alike.
        other_link.outgoing.push(&[0; 100], &[]).unwrap();
        take(&mut other_card).unwrap().unwrap();
        let length = link.incoming.peek().unwrap().unwrap();
        let mut filling = other_link.outgoing.begin(length).unwrap().unwrap();
        let looked_at = random.below(200).min(length);
        filling.put(&sent[..looked_at]);
        filling.put_from(&link.incoming, looked_at, usize::MAX);
        filling.put_from(&link.incoming, length, 8);
        filling.finish();
        link.incoming.drop_next();
        assert_eq!(take(&mut other_card), Ok(Some(sent)));
    }
    // With nothing to take, nothing is appended; and a ring into itself does no harm.
    let mut filling = card.outgoing.begin(8).unwrap().unwrap();
    filling.put_from(&link.incoming, 0, 8);
    filling.finish();
    link.incoming.peek().unwrap();
    let mut filling = card.outgoing.begin(8).unwrap().unwrap();
    filling.put_from(&link.incoming, 0, 8);
    filling.put(b"end");
    filling.finish();
    assert_eq!(take(&mut link), Ok(Some(Vec::new())));
    assert_eq!(take(&mut link), Ok(Some(b"end".to_vec())));
}

struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % below.max(1)
    }
}

#[test]
fn packets_go_both_ways_and_can_be_read_in_parts() {
    let (_memory, mut card, mut link) = ends();
    assert_eq!(take(&mut link), Ok(None));
    for length in [0, 1, 26, MAX_PACKET_BYTES] {
        let sent = packet(1, length);
        assert_eq!(card.outgoing.push(&sent, &[]), Ok(true));
        assert_eq!(
            link.outgoing.push(&sent[..length / 3], &sent[length / 3..]),
            Ok(true)
        );
        assert_eq!(take(&mut link), Ok(Some(sent.clone())));
        assert_eq!(take(&mut card), Ok(Some(sent)));
    }
    card.outgoing.push(b"abcdef", &[]).unwrap();
    assert_eq!(link.incoming.peek(), Ok(Some(6)));
    let mut part = [0; 4];
    assert_eq!(link.incoming.copy(3, &mut part), 3);
    assert_eq!(&part, b"def\0");
    assert_eq!(link.incoming.copy(6, &mut part), 0);
    assert_eq!(link.incoming.copy(usize::MAX, &mut part), 0);
    link.incoming.drop_next();
    // What is not finished is not sent, and what there was no room asked for is left out.
    card.outgoing.begin(9).unwrap().unwrap().put(b"given up");
    let mut filling = card.outgoing.begin(3).unwrap().unwrap();
    filling.put(b"ab");
    filling.put(b"cd");
    filling.finish();
    assert_eq!(take(&mut link), Ok(Some(b"abc".to_vec())));
    assert_eq!(take(&mut link), Ok(None));
}

#[test]
fn wakes_are_asked_for_and_come_once() {
    let (_memory, mut card, mut link) = ends();
    // Each side thinks of the other one at first.
    assert_eq!(link.incoming.wait_for_packets(), Ok(false));
    assert!(card.must_wake() && !card.must_wake());
    card.outgoing.push(&[1], &[]).unwrap();
    assert!(!card.must_wake(), "nobody sleeps");
    assert_eq!(link.incoming.wait_for_packets(), Ok(true));
    card.outgoing.push(&[2], &[]).unwrap();
    assert!(!card.must_wake(), "it has not slept");
    while take(&mut link).unwrap().is_some() {}
    assert_eq!(link.incoming.wait_for_packets(), Ok(false));
    for _ in 0..3 {
        card.outgoing.push(&[3], &[]).unwrap();
    }
    assert!(card.must_wake() && !card.must_wake());
    card.outgoing.push(&[4], &[]).unwrap();
    assert!(!card.must_wake());
    link.awake();
    // Room: when half of the ring is free, and not before.
    let long = packet(5, MAX_PACKET_BYTES);
    while card.outgoing.push(&long, &[]).unwrap() {}
    assert_eq!(card.outgoing.wait_for_room(long.len()), Ok(false));
    let mut dropped = 0;
    while !link.must_wake() {
        take(&mut link).unwrap().unwrap();
        dropped += 1;
    }
    assert_eq!(dropped, 4 + 4, "four short ones, four of seven long ones");
    assert!(!link.must_wake());
    assert_eq!(card.outgoing.wait_for_room(long.len()), Ok(true));
    take(&mut link).unwrap().unwrap();
    assert!(!link.must_wake(), "it has not slept");
}

proptest! {
    #[test]
    fn a_ring_is_a_list(
        steps in proptest::collection::vec((0_usize..10, 0_usize..=MAX_PACKET_BYTES), 1..200)
    ) {
        let (memory, mut card, mut link) = ends();
        let mut list: VecDeque<Vec<u8>> = VecDeque::new();
        let mut bytes = 0;
        let cost = |length: usize| (8 + length).next_multiple_of(8);
        for (number, (step, length)) in steps.into_iter().enumerate() {
            match step {
                0..4 => {
                    prop_assert_eq!(take(&mut link), Ok(list.pop_front()).inspect(|packet| {
                        bytes -= packet.as_ref().map_or(0, |packet| cost(packet.len()));
                    }));
                }
                // Either side ends and begins anew where it was.
                4 => link = attach(&memory, Side::Link).unwrap(),
                5 => card = attach(&memory, Side::Card).unwrap(),
                _ => {
                    let length = if step == 9 { length } else { length % 1600 };
                    let sent = packet(number as u64, length);
                    let fits = bytes + cost(length) <= RING_BYTES;
                    prop_assert_eq!(card.outgoing.push(&sent, &[]), Ok(fits));
                    if fits {
                        bytes += cost(length);
                        list.push_back(sent);
                    }
                }
            }
        }
        for packet in list {
            prop_assert_eq!(take(&mut link), Ok(Some(packet)));
        }
        prop_assert_eq!(take(&mut link), Ok(None));
    }
}

/// Sleeps until the other side wakes this one; never for long, if it is not forgotten.
fn sleep(socket: &OwnedFd) {
    let limit = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let ready = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ready, 1, "nobody wakes this side");
    while recv(socket, &mut [0; 8], RecvFlags::DONTWAIT).is_ok() {}
}

fn wake(endpoint: &mut Endpoint, socket: &OwnedFd) {
    if endpoint.must_wake() {
        let _ = send(socket, &[WAKE], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

/// Sends and takes this many packets, both as one side does that sleeps whenever it can do nothing.
fn work(mut endpoint: Endpoint, socket: &OwnedFd, packets: u64, seed: u64) {
    let mut random = Random(seed);
    let (mut sent, mut came) = (0, 0);
    let mut next = None;
    while sent < packets || came < packets {
        let mut busy = false;
        for _ in 0..random.below(40) {
            if sent == packets {
                break;
            }
            let longest = [60, 1600, MAX_PACKET_BYTES][random.below(3)];
            let outgoing = next.get_or_insert_with(|| packet(sent, random.below(longest) + 8));
            if !endpoint.outgoing.push(outgoing, &[]).unwrap() {
                break;
            }
            next = None;
            sent += 1;
            busy = true;
        }
        for _ in 0..random.below(40) {
            let Some(incoming) = take(&mut endpoint).unwrap() else {
                break;
            };
            assert!(incoming == packet(came, incoming.len()), "packet {came}");
            came += 1;
            busy = true;
        }
        wake(&mut endpoint, socket);
        if busy || random.below(4) == 0 {
            if random.below(50) == 0 {
                std::thread::sleep(Duration::from_micros(random.below(300) as u64));
            }
            continue;
        }
        let room = next.as_ref().map(Vec::len);
        let has_room = match room {
            Some(length) => endpoint.outgoing.wait_for_room(length).unwrap(),
            // It has more to send, and only chance kept it from that.
            None => sent < packets,
        };
        let has_packets = came < packets && endpoint.incoming.wait_for_packets().unwrap();
        if !has_room && !has_packets && (sent < packets || came < packets) {
            sleep(socket);
        }
        endpoint.awake();
    }
    wake(&mut endpoint, socket);
}

#[test]
fn two_that_sleep_whenever_they_can_never_sleep_for_ever() {
    for round in 0..3 {
        let (_memory, card, link) = ends();
        let flags = SocketFlags::CLOEXEC;
        let (cards, links) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let packets = 6000;
        std::thread::scope(|scope| {
            scope.spawn(|| work(card, &cards, packets, 77 + round));
            scope.spawn(|| work(link, &links, packets, 0x9e37_79b9 + round));
        });
    }
}

/// Lets two threads begin each round at the same time, as nearly as can be.
struct Start(AtomicU64);

impl Start {
    fn wait(&self, round: u64) {
        self.0.fetch_add(1, Ordering::AcqRel);
        let mut spins = 0_u32;
        while self.0.load(Ordering::Acquire) < 2 * round {
            std::hint::spin_loop();
            spins += 1;
            if spins.is_multiple_of(1 << 12) {
                std::thread::yield_now();
            }
        }
    }
}

/// One side sends something and looks whether the other sleeps; the other one lies down and looks whether
/// there is something. At least one of them must see the other. (Without one of those fences they miss each
/// other a thousand times here, where the test is optimised and has two processors. For room it cannot be
/// seen: who makes room for a wake has read several packets, which takes too long.)
#[test]
fn neither_side_misses_the_other() {
    let (_memory, mut card, mut link) = ends();
    card.must_wake();
    link.must_wake();
    let rounds = 300_000;
    let (start, end) = (Start(AtomicU64::new(0)), Start(AtomicU64::new(0)));
    let (sees, wakes) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut missed = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=rounds {
                start.wait(round);
                let saw = card.incoming.wait_for_packets().unwrap();
                sees.store(saw, Ordering::Relaxed);
                end.wait(2 * round - 1);
                end.wait(2 * round);
                card.awake();
                assert_eq!(take(&mut card), Ok(Some(Vec::new())));
            }
        });
        for round in 1..=rounds {
            start.wait(round);
            link.outgoing.push(&[], &[]).unwrap();
            wakes.store(link.must_wake(), Ordering::Relaxed);
            end.wait(2 * round - 1);
            let is_seen = sees.load(Ordering::Relaxed) || wakes.load(Ordering::Relaxed);
            missed += u32::from(!is_seen);
            end.wait(2 * round);
        }
    });
    assert_eq!(missed, 0);
}

/// Uses an endpoint in every way; whatever it finds, nothing but errors may come of it.
fn use_it(endpoint: &mut Endpoint, random: &mut Random) -> Result<(), Broken> {
    let mut untrusted_bytes = [0; 3000];
    match random.below(6) {
        0 | 1 => {
            let longest = [200, MAX_PACKET_BYTES][random.below(2)];
            let length = random.below(longest);
            endpoint.outgoing.push(&packet(1, length), &[]).map(|_| ())
        }
        2 | 3 => {
            if endpoint.incoming.peek()?.is_some() {
                endpoint
                    .incoming
                    .copy(random.below(70_000), &mut untrusted_bytes);
                endpoint.incoming.drop_next();
            }
            Ok(())
        }
        4 => endpoint
            .outgoing
            .wait_for_room(MAX_PACKET_BYTES)
            .map(|_| ()),
        _ => endpoint.incoming.wait_for_packets().map(|_| ()),
    }?;
    endpoint.must_wake();
    Ok(())
}

#[test]
fn who_scribbles_over_the_memory_breaks_the_ring_and_nothing_else() {
    let memory = Memory::create().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(5);
            while !stop.load(Ordering::Relaxed) {
                // The words of both rings, or where lengths may be.
                let (at, width) = match random.below(3) {
                    0 => (random.below(8) * 64, 8),
                    1 => (4096 + random.below(2 * RING_BYTES / 8) * 8, 8),
                    _ => (random.below(MEMORY_BYTES), 4),
                };
                // Nearly right is worse than wrong.
                let value = match random.below(3) {
                    0 => random.below(RING_BYTES + 64) as u64,
                    1 => (random.below(RING_BYTES / 8) * 8) as u64,
                    _ => (random.below(1 << 30) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                };
                let _ = rustix::io::pwrite(&memory, &value.to_ne_bytes()[..width], at as u64);
            }
        });
        let mut random = Random(9);
        let (mut broken, mut worked, mut refused) = (0_u32, 0_u32, 0_u32);
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut round = 0_u32;
        // All of it happens, and often, whenever the other thread is let run.
        let mut is_enough = false;
        while !is_enough && Instant::now() < deadline {
            is_enough = round >= 4000 && broken >= 50 && refused >= 50 && worked >= 1000;
            round += 1;
            if round.is_multiple_of(64) {
                rustix::io::pwrite(&memory, &[0; 512], 0).unwrap();
            }
            let side = [Side::Card, Side::Link][random.below(2)];
            let Ok(mut endpoint) = attach(&memory, side) else {
                refused += 1;
                continue;
            };
            for _ in 0..200 {
                match use_it(&mut endpoint, &mut random) {
                    Ok(()) => worked += 1,
                    Err(_) => {
                        broken += 1;
                        break;
                    }
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(is_enough, "{broken} {refused} {worked}");
    });
}

#[test]
fn each_mistake_of_the_other_side_is_told_from_others() {
    let write = |memory: &OwnedFd, line: u64, value: u64| {
        rustix::io::pwrite(memory, &value.to_ne_bytes(), line * 64).unwrap();
    };
    for wrong in [1, 8 + 4, RING_BYTES as u64 + 8, u64::MAX, 1 << 63] {
        // What the card says that it has written, and what it says that it has read.
        let (memory, _, mut link) = ends();
        write(&memory, 0, wrong);
        let expected = Broken::Index {
            ours: 0,
            theirs: wrong,
        };
        assert_eq!(link.incoming.peek(), Err(expected));
        assert_eq!(link.incoming.wait_for_packets(), Err(expected));
        assert_eq!(attach(&memory, Side::Link).unwrap_err(), expected);
        let (memory, _, mut link) = ends();
        write(&memory, 5, wrong);
        assert_eq!(
            link.outgoing.wait_for_room(1),
            Ok(true),
            "nothing has to be read for that"
        );
        let mut result = Ok(true);
        while result == Ok(true) {
            result = link.outgoing.push(&[0; MAX_PACKET_BYTES], &[]);
        }
        assert!(matches!(result, Err(Broken::Index { theirs, .. }) if theirs == wrong));
        // And of what this side said itself.
        let (memory, ..) = ends();
        write(&memory, 1, wrong);
        assert!(attach(&memory, Side::Link).is_err(), "{wrong}");
    }
    for (length, written) in [
        (0, 0),
        (17, 24),
        (MAX_PACKET_BYTES as u64 + 1, RING_BYTES as u64),
        (u64::MAX, 64),
        (u64::MAX - 7, 64),
    ] {
        let (memory, _, mut link) = ends();
        rustix::io::pwrite(&memory, &length.to_ne_bytes(), 4096).unwrap();
        write(&memory, 0, written);
        let result = link.incoming.peek();
        if written == 0 {
            assert_eq!(result, Ok(None));
        } else {
            assert_eq!(result, Err(Broken::Length { length, written }));
        }
    }
}
