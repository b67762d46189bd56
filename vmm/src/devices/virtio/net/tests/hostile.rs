//! A link that does not do as it should with the memory that it has with the device.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bulkhead_ring::{RING_BYTES, WAKE};
use rustix::net::{SendFlags, send};

use super::{MAX_FRAME_BYTES, Machine, SIZE, Way, packet};
use crate::devices::virtio::device::VirtioDevice;

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_link_that_breaks_the_rings_pulls_the_cable_out() {
    // What the link says that it has written, what it says that it has read, and a length.
    let ways: [&[(u64, u64)]; 5] = [
        &[(4 * 64, RING_BYTES as u64 + 8)],
        &[(4 * 64, 4)],
        &[(64, 16 << 20)],
        &[(4096 + RING_BYTES as u64, 65_562), (4 * 64, 70_000)],
        &[(4096 + RING_BYTES as u64, u64::MAX), (4 * 64, 64)],
    ];
    for breaks in ways {
        let mut machine = Machine::new(Way::Ring);
        machine.link_says(&[1]);
        wait_until("plugged in", || machine.plugged());
        for (at, value) in breaks {
            machine.scribble(*at, *value);
        }
        machine.link_says(&[WAKE]);
        // What was read is looked at when the ring seems full. The guest goes on, and its frames are lost.
        for _ in 0..20 {
            machine.send(&packet(MAX_FRAME_BYTES));
            machine.used(1, 1);
        }
        wait_until("pulled out", || !machine.plugged());
        // The link is told so: the socket has ended.
        while machine.said_to_link().unwrap() == [WAKE] {}
        machine.end();
    }
}

#[test]
fn a_link_that_scribbles_harms_no_guest() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 11) as usize % below
    };
    for _ in 0..40 {
        let mut machine = Machine::new(Way::Ring);
        for _ in 0..60 {
            let place = match random(3) {
                0 => random(8) * 64,
                1 => 4096 + RING_BYTES + random(300) * 8,
                _ => random(2 * RING_BYTES),
            };
            let value = [random(RING_BYTES), random(64) * 8, random(1 << 50)][random(3)];
            machine.scribble(place as u64, value as u64);
            if let Some((ring, _)) = &mut machine.ring {
                let _ = ring.outgoing.push(&packet(100 + random(5000)), &[]);
                let _ = ring.incoming.peek().map(|_| ring.incoming.drop_next());
            }
            let _ = send(&machine.link, &[WAKE], SendFlags::NOSIGNAL);
            if machine.given[1].wrapping_sub(machine.seen[1]) < 60 {
                machine.send(&packet(1000));
            }
            if machine.given[0] < SIZE - 8 {
                machine.room(2, 2048);
            }
        }
        // Nothing else is asked than that it ends when it is told to, and has not given up on its guest.
        machine.end();
    }
}

#[test]
fn a_link_that_sends_without_end_does_not_hold_the_thread() {
    let mut machine = Machine::new(Way::Ring);
    let link = machine.link.try_clone().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = send(&link, &[WAKE], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
            }
        });
        for round in 0..200_usize {
            machine.send(&packet(500 + round));
            assert_eq!(machine.at_link().unwrap(), packet(500 + round));
        }
        // Ends, although it never stops.
        machine.net.reset();
        stop.store(true, Ordering::Relaxed);
    });
}
