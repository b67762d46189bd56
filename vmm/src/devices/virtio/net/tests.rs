//! The device between a driver on real queues in real guest memory and a link's end of its cable, with rings
//! and without.

use std::time::{Duration, Instant};

use bulkhead_mac::Mac;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use vm_memory::{Bytes, GuestAddress};

use super::MAX_FRAME_BYTES;
use crate::devices::virtio::device::VirtioDevice;

mod hostile;
mod machine;

use machine::*;

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
