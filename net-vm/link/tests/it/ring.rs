//! What a VMM can do with the memory that it has with the link, and how they sleep and wake each other.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bulkhead_ring::memory::MEMORY_BYTES;
use bulkhead_ring::{MAX_PACKET_BYTES, RING_BYTES, WAKE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use crate::fixture::{Card, Link, client};
use crate::frames::*;

/// Where the words of the memory are: what each side has written and read.
const CARD_WROTE: usize = 0;
const LINK_READ: usize = 64;
const CARD_READ: usize = 5 * 64;
const CARD_SLEEPS: usize = 6 * 64;
const CARDS_RING: usize = 4096;

fn desk() -> (Link, Card, Card, Card) {
    let link = Link::start();
    let trunk = link.trunk("net", "02:00:00:00:00:01");
    let work = link.client("work", "net", 9);
    let other = link.client("other", "net", 10);
    for card in [&trunk, &work, &other] {
        card.expect_cable(true);
    }
    (link, trunk, work, other)
}

fn is_ready(card: &Card, milliseconds: i64) -> bool {
    let limit = Timespec {
        tv_sec: milliseconds / 1000,
        tv_nsec: milliseconds % 1000 * 1_000_000,
    };
    poll(
        &mut [PollFd::new(&card.socket, PollFlags::IN)],
        Some(&limit),
    )
    .unwrap()
        > 0
}

#[test]
fn a_broken_ring_ends_its_port_and_nothing_else() {
    let word = |value: usize| value.to_ne_bytes();
    type Breaks = fn(&Card, &dyn Fn(usize) -> [u8; 8]);
    let ways: [(&str, Breaks); 6] = [
        ("more than there is room for", |card, word| {
            card.scribble(CARD_WROTE, &word(RING_BYTES + 8));
        }),
        ("half a word", |card, word| {
            card.scribble(CARD_WROTE, &word(12))
        }),
        ("less than was read", |card, word| {
            card.scribble(CARD_WROTE, &word(0_usize.wrapping_sub(8)));
        }),
        ("a packet that is too long", |card, word| {
            card.scribble(CARDS_RING, &word(MAX_PACKET_BYTES + 1));
            card.scribble(CARD_WROTE, &word(MAX_PACKET_BYTES.next_multiple_of(8) + 16));
        }),
        (
            "a packet that is longer than what was written",
            |card, word| {
                card.scribble(CARDS_RING, &word(100));
                card.scribble(CARD_WROTE, &word(64));
            },
        ),
        ("a length that goes round", |card, word| {
            card.scribble(CARDS_RING, &word(usize::MAX - 3));
            card.scribble(CARD_WROTE, &word(64));
        }),
    ];
    for (name, breaks) in ways {
        let (link, trunk, work, other) = desk();
        breaks(&work, &word);
        work.say(&[WAKE]);
        link.wait_until("work", |port| port.is_null());
        other.send(&numbered(OTHER_CARD, OTHER_ADDRESS, 6, 4));
        assert_eq!(number(&trunk.receive(), 4), 6, "{name}");
        // A trunk's is no better.
        breaks(&trunk, &word);
        trunk.say(&[WAKE]);
        link.wait_until("net", |port| port.is_null());
        other.expect_cable(false);
        assert!(link.end().success(), "{name}");
    }
}

#[test]
fn a_card_that_has_read_what_was_not_written_loses_its_port() {
    let (link, trunk, work, other) = desk();
    work.scribble(CARD_READ, &(8_usize << 20).to_ne_bytes());
    // It is looked at when the ring seems full.
    let long = down_frame(CARD, ADDRESS, 1, 1400);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !link.port("work").is_null() {
        trunk.send(&packet(PLAIN, &tag(9, &long)));
        assert!(Instant::now() < deadline);
    }
    let frame = down_frame(OTHER_CARD, OTHER_ADDRESS, 2, 4);
    trunk.send(&packet(PLAIN, &tag(10, &frame)));
    assert_eq!(number(&other.receive(), 0), 2);
    assert!(link.end().success());
}

#[test]
fn who_says_anything_else_than_that_there_are_packets_is_no_port() {
    for said in [&[0][..], &[1], &[3], &[WAKE, 0], &up(1, 4)] {
        let (link, trunk, work, other) = desk();
        work.say(said);
        link.wait_until("work", |port| port.is_null());
        other.send(&numbered(OTHER_CARD, OTHER_ADDRESS, 6, 4));
        assert_eq!(number(&trunk.receive(), 4), 6);
        assert!(link.end().success());
    }
}

#[test]
fn a_flood_of_wakes_holds_nobody() {
    let (link, trunk, work, other) = desk();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                work.say(&[WAKE]);
            }
        });
        let start = Instant::now();
        for round in 0..2000 {
            other.send(&numbered(OTHER_CARD, OTHER_ADDRESS, round, 4));
            assert_eq!(number(&trunk.receive(), 4), round);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(start.elapsed() < Duration::from_secs(15));
    });
    // And who wants to be woken all the time, and never listens, is not told more than the socket holds.
    for round in 0..3000 {
        work.scribble(CARD_SLEEPS, &[1]);
        let frame = down_frame(CARD, ADDRESS, round, 4);
        trunk.send(&packet(PLAIN, &tag(9, &frame)));
        let frame = down_frame(OTHER_CARD, OTHER_ADDRESS, round, 4);
        trunk.send(&packet(PLAIN, &tag(10, &frame)));
        assert_eq!(number(&other.receive(), 0), round);
    }
    assert!(link.end().success());
}

#[test]
fn who_sleeps_is_woken_once() {
    let (link, trunk, work, _other) = desk();
    assert!(!work.wait_for_packets());
    for number in 0..10 {
        work_frame(&trunk, number);
    }
    assert!(is_ready(&work, 10_000));
    link.wait_for("net", 10);
    assert_eq!(work.try_hear(), Some(vec![WAKE]));
    assert_eq!(work.try_hear(), None, "once");
    for expected in 0..10 {
        assert_eq!(number(&work.receive(), 0), expected);
    }
    // Who does not sleep is not woken.
    work.ring().awake();
    work_frame(&trunk, 11);
    assert_eq!(number(&work.receive(), 0), 11);
    assert!(!is_ready(&work, 50));
    // Who waits for room is woken when there is some.
    let mut sent = 0;
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_millis(100) {
        if work.try_send(&up(sent, 1400)) {
            sent += 1;
            since = Instant::now();
        }
    }
    assert!(!work.ring().outgoing.wait_for_room(1500).unwrap());
    assert!(!is_ready(&work, 50), "the trunk is full");
    let mut came = 0;
    while !is_ready(&work, 0) {
        assert_eq!(number(&trunk.receive(), 4), came);
        came += 1;
    }
    assert_eq!(work.try_hear(), Some(vec![WAKE]));
    assert!(work.ring().outgoing.begin(1500).unwrap().is_some());
    while came < sent {
        assert_eq!(number(&trunk.receive(), 4), came);
        came += 1;
    }
}

fn work_frame(trunk: &Card, number: u32) {
    let frame = down_frame(CARD, ADDRESS, number, 40);
    trunk.send(&packet(PLAIN, &tag(9, &frame)));
}

#[test]
fn a_link_that_is_started_again_goes_on_where_the_old_one_stopped() {
    let (cards, cable) = crate::fixture::pair();
    let memory = bulkhead_ring::Memory::create().unwrap();
    let work = Card::new(cards, memory.try_clone().unwrap());
    let plug = |link: &Link| {
        let fds = [cable.as_fd(), memory.as_fd()];
        link.ask(client("work", "net", 9), &fds).unwrap();
    };
    let (mut sent, mut next) = (0, 0);
    for round in 0..20 {
        let link = Link::start();
        let trunk = link.trunk("net", "02:00:00:00:00:01");
        plug(&link);
        trunk.expect_cable(true);
        work.expect_cable(true);
        // What it has sent meanwhile goes first.
        let before = sent;
        for _ in 0..50 {
            work.send(&up(sent, 700));
            sent += 1;
        }
        while next < sent {
            let came = number(&trunk.receive(), 4);
            assert_eq!(came, next, "round {round}, {before} sent before");
            next += 1;
        }
        work_frame(&trunk, round);
        link.wait_until("work", |port| port["out"]["frames"] == json!(1));
        // What the old one has sent is still there, and nobody has to be woken for it.
        assert_eq!(link.port("work")["waiting"]["frames"], json!(0));
        drop(link);
        assert_eq!(number(&work.receive(), 0), round);
        for _ in 0..30 {
            work.send(&up(sent, 700));
            sent += 1;
        }
    }
    // Not where nobody can go on.
    work.scribble(LINK_READ, &[1]);
    let link = Link::start();
    let fds = [cable.as_fd(), memory.as_fd()];
    let error = link.ask(client("work", "net", 9), &fds).unwrap_err();
    assert!(error.contains("give the card a new cable"), "{error}");
    assert!(link.stats().is_empty());
}

/// Cards that scribble over their memory while they, and others, send and receive.
#[test]
fn scribbling_cards_disturb_nobody() {
    let link = Link::start();
    let trunk = link.trunk("net", "02:00:00:00:00:01");
    let other = link.client("other", "net", 10);
    trunk.expect_cable(true);
    other.expect_cable(true);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 11) as usize % below
    };
    let mut broken = 0;
    for round in 0..150 {
        // The port of the round before may not be gone yet.
        let _ = link.ask(json!({ "op": "remove", "name": "work" }), &[]);
        let work = link.client("work", "net", 9);
        for step in 0..40 {
            let place = match random(3) {
                0 => random(8) * 64,
                1 => CARDS_RING + random(200) * 8,
                _ => random(MEMORY_BYTES - 8),
            };
            let value = [random(RING_BYTES), random(64) * 8, random(1 << 40)][random(3)];
            if random(2) == 0 {
                work.scribble(place, &value.to_ne_bytes());
                let flags = rustix::net::SendFlags::NOSIGNAL;
                let _ = rustix::net::send(&work.socket, &[WAKE], flags);
                // It has seen this when it answers.
                link.stats();
            }
            let _ = work
                .ring()
                .outgoing
                .push(&up(step, 100 + random(1000)), &[]);
            let _ = rustix::net::send(&work.socket, &[WAKE], rustix::net::SendFlags::NOSIGNAL);
            work_frame(&trunk, step);
            if step % 8 == 0 {
                other.send(&numbered(OTHER_CARD, OTHER_ADDRESS, round * 100 + step, 4));
                // What the other one sends passes if it is good, and is not what this one sends.
                loop {
                    let packet = trunk.receive();
                    if packet[26..28] == [0, 10] {
                        assert_eq!(number(&packet, 4), round * 100 + step);
                        break;
                    }
                    let clients = [(9, CARD, ADDRESS)];
                    crate::checker::check(&packet, &crate::checker::To::Trunk(&clients)).unwrap();
                }
            }
        }
        broken += u32::from(link.port("work").is_null());
    }
    assert!(broken > 5, "{broken}");
    other.expect_nothing();
    assert!(link.end().success());
}
