//! What should work.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use vm_memory::{Bytes, GuestAddress};

use super::driver::*;
use crate::devices::virtio::device::VirtioDevice;
use crate::devices::virtio::gpu::protocol::u32_at;

#[test]
fn the_device_introduces_itself() {
    let mut machine = machine();
    let mut config = [0; 16];
    machine.gpu.read_config(0, &mut config);
    assert_eq!(u32_at(&config, 8), Some(1), "one scanout");
    assert_eq!(u32_at(&config, 12), Some(1), "one capability set");
    let display = machine.call(&request(0x100, 0, None, &[]));
    assert_eq!(u32_at(&display, 0), Some(0x1101));
    assert_eq!(display.len(), 24 + 16 * 24);
    assert!(display[24..].iter().all(|byte| *byte == 0), "none enabled");
    let info = machine.call(&request(0x108, 0, None, &[0; 8]));
    assert_eq!(u32_at(&info, 24), Some(5));
    let capset = machine.call(&request(0x109, 0, None, &[5, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(u32_at(&capset, 0), Some(0x1103));
    assert_eq!(u32_at(&capset, 28), Some(2), "Wayland");
}

#[test]
fn messages_go_both_ways() {
    let mut machine = machine();
    let mut peer = machine.connect(1);
    machine.assert_works(1, &mut peer);
    // A poll that waits, and several commands in one buffer with the poll.
    let ticket = machine.poll(1);
    assert_eq!(machine.answer_within(ticket, MOMENT), None);
    peer.stream.write_all(b"later").unwrap();
    machine.answer(ticket);
    let mut commands = send(&[], b"one ");
    commands.extend(send(&[], b"two"));
    commands.extend(POLL);
    let ticket = machine.ask(&submit(1, Some(1), &commands));
    assert_eq!(peer.read(7), b"one two");
    peer.stream.write_all(b"answer").unwrap();
    let answer = machine.answer(ticket);
    assert_eq!(u32_at(&answer, 4), Some(3));
    assert_eq!(answer[8], 99, "the fence");
    assert!(matches!(machine.read_ring(1), Message::Receive { data, .. } if data == b"answer"));
    assert!(machine.stat("execbuffers") >= 4);
}

#[test]
fn large_messages_use_the_whole_ring() {
    let mut machine = machine();
    let mut peer = machine.connect_with_ring(1, 65536);
    let data: Vec<u8> = (0..60_000u32).map(|i| (i % 251) as u8).collect();
    assert_eq!(machine.submit(1, &send(&[], &data)), 0x1100);
    assert_eq!(peer.read(data.len()), data);
    peer.stream.write_all(&data).unwrap();
    let mut got = Vec::new();
    while got.len() < data.len() {
        match machine.message(1) {
            Message::Receive { data, .. } => got.extend(data),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, data);
}

#[test]
fn an_image_reaches_the_compositor() {
    let mut machine = machine();
    let mut peer = machine.connect(1);
    let (blob, size) = machine.image(1, 640, 480);
    assert_eq!(size, 640 * 480 * 4);
    assert_eq!(machine.image(1, 640, 480).0, blob, "the same again");
    machine.expect_ok(&create_blob(1, 7, 2, u64::from(blob), size));
    machine.expect_ok(&attach(1, 7));
    let answer = machine.call(&map_blob(7, 0x10000));
    assert_eq!(u32_at(&answer, 0), Some(0x1106));
    assert_eq!(u32_at(&answer, 24), Some(1));
    // The guest draws.
    let pixels = machine.window.host_address() + 0x10000;
    // SAFETY: mapped just now, and longer than 4 bytes.
    unsafe { (pixels as *mut [u8; 4]).write(*b"BGRX") };
    assert_eq!(machine.submit(1, &send(&[(7, 1)], b"pool")), 0x1100);
    let (data, mut descriptors) = peer.read_with_descriptors(4);
    assert_eq!(data, b"pool");
    let file = std::fs::File::from(descriptors.pop().unwrap());
    let mut seen = [0; 4];
    file.read_exact_at(&mut seen, 0).unwrap();
    assert_eq!(&seen, b"BGRX");
    assert_eq!(file.metadata().unwrap().len(), size);
    assert!(file.set_len(1).is_err(), "nobody can shrink it");
    machine.expect_ok(&request(0x209, 0, None, &[7, 0, 0, 0, 0, 0, 0, 0]));
    machine.expect_ok(&request(0x102, 0, None, &[7, 0, 0, 0, 0, 0, 0, 0]));
}

#[test]
fn a_keymap_reaches_the_guest() {
    let mut machine = machine();
    let mut peer = machine.connect(1);
    let mut keymap = tempfile::tempfile().unwrap();
    keymap.write_all(&[b'k'; 5000]).unwrap();
    peer.send_descriptors(b"keymap", &[keymap.as_fd()]);
    let Message::Receive { identifiers, data } = machine.message(1) else {
        panic!("no message");
    };
    assert_eq!(data, b"keymap");
    let [(number, 1, 5000)] = identifiers[..] else {
        panic!("{identifiers:?}");
    };
    machine.expect_ok(&create_blob(1, 8, 2, u64::from(number), 8192));
    assert_eq!(machine.status(&map_blob(8, 0)), 0x1106);
    // SAFETY: mapped just now, and longer than 8 bytes.
    let seen = unsafe { *(machine.window.host_address() as *const [u8; 8]) };
    assert_eq!(&seen, b"kkkkkkkk");
}

#[test]
fn pipes_carry_everything_in_both_directions() {
    let mut machine = machine();
    let mut peer = machine.connect(1);
    // The guest reads.
    assert_eq!(machine.submit(1, &send(&[(0x8000_0001, 3)], b"r")), 0x1100);
    let (_, mut descriptors) = peer.read_with_descriptors(1);
    let mut writer = std::fs::File::from(descriptors.pop().unwrap());
    let data: Vec<u8> = (0..300_000u32).map(|i| (i % 253) as u8).collect();
    let sent = data.clone();
    let thread = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut got = Vec::new();
    loop {
        match machine.message(1) {
            Message::Read {
                pipe: 0x8000_0001,
                hang_up,
                data,
            } => {
                assert_eq!(hang_up, data.is_empty());
                got.extend(data);
                if hang_up {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    thread.join().unwrap();
    assert!(got == data, "{} of {} bytes", got.len(), data.len());
    // The guest writes.
    let (mut reader, writer) = std::io::pipe().unwrap();
    peer.send_descriptors(b"w", &[writer.as_fd()]);
    drop(writer);
    let Message::Receive { identifiers, .. } = machine.message(1) else {
        panic!("no message");
    };
    let (pipe, 4, 0) = identifiers[0] else {
        panic!("{identifiers:?}");
    };
    let expected = data.clone();
    let thread = std::thread::spawn(move || {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        got == expected
    });
    for part in data.chunks(60_000) {
        // Each waits until the pipe took it.
        let ticket = machine.ask(&submit(1, Some(2), &write(pipe, false, part)));
        machine.answer(ticket);
    }
    machine.submit(1, &write(pipe, true, b""));
    assert!(thread.join().unwrap());
    // Writing to it again is not a mistake: it may have ended without the guest's knowing.
    assert_eq!(machine.submit(1, &write(pipe, false, b"more")), 0x1100);
    machine.assert_works(1, &mut peer);
}

/// An application that pastes its own clipboard: with rutabaga alone the WRITE that fills the pipe
/// blocks the thread that must take the POLL that would drain it.
#[test]
fn a_context_can_paste_a_mebibyte_into_itself() {
    let mut machine = machine();
    let mut peer = machine.connect(1);
    machine.submit(1, &send(&[(0x8000_0001, 3)], b"receive"));
    let (_, descriptors) = peer.read_with_descriptors(7);
    peer.send_descriptors(b"send", &[descriptors[0].as_fd()]);
    drop(descriptors);
    let Message::Receive { identifiers, .. } = machine.message(1) else {
        panic!("no message");
    };
    let pipe = identifiers[0].0;
    let data: Vec<u8> = (0..1u32 << 20).map(|i| (i % 241) as u8).collect();
    let mut parts = data.chunks(60_000).peekable();
    let mut got = Vec::new();
    let mut writing = None;
    loop {
        if writing.is_none()
            && let Some(part) = parts.next()
        {
            let last = parts.peek().is_none();
            let commands = write(pipe, last, part);
            writing = Some(machine.ask(&submit(1, Some(2), &commands)));
        }
        match machine.message(1) {
            Message::Read { hang_up: true, .. } => break,
            Message::Read { data, .. } => got.extend(data),
            other => panic!("{other:?}"),
        }
        if let Some(ticket) = writing
            && machine
                .answer_within(ticket, std::time::Duration::ZERO)
                .is_some()
        {
            writing = None;
        }
    }
    assert!(got == data, "{} of {} bytes", got.len(), data.len());
}

#[test]
fn the_compositors_end_is_seen() {
    let mut machine = machine();
    let mut peer = machine.connect(1);
    peer.stream.write_all(b"last words").unwrap();
    drop(peer);
    assert!(matches!(machine.message(1), Message::Receive { data, .. } if data == b"last words"));
    for _ in 0..3 {
        assert_eq!(machine.message(1), Message::end());
    }
    assert_eq!(machine.submit(1, &send(&[], b"into the void")), 0x1100);
}

#[test]
fn destroying_a_context_answers_its_polls_and_closes_its_connection() {
    let mut machine = machine();
    let mut peer = machine.connect(1);
    let ticket = machine.poll(1);
    machine.expect_ok(&request(0x201, 1, None, &[]));
    machine.answer(ticket);
    assert_eq!(peer.stream.read(&mut [0]).unwrap(), 0);
    assert_eq!(machine.status(&request(0x201, 1, None, &[])), 0x1204);
}

#[test]
fn after_a_reset_everything_is_new() {
    let mut machine = machine();
    let mut peer = machine.connect(1);
    let (blob, size) = machine.image(1, 16, 16);
    machine.expect_ok(&create_blob(1, 7, 2, u64::from(blob), size));
    assert_eq!(machine.status(&map_blob(7, 0)), 0x1106);
    machine.poll(1);
    machine.gpu.reset();
    assert_eq!(peer.stream.read(&mut [0]).unwrap(), 0);
    machine.activate();
    let mut peer = machine.connect(1);
    let (blob, size) = machine.image(1, 16, 16);
    machine.expect_ok(&create_blob(1, 7, 2, u64::from(blob), size));
    assert_eq!(machine.status(&map_blob(7, 0)), 0x1106, "nothing is mapped");
    machine.assert_works(1, &mut peer);
}

#[test]
fn rings_in_pieces_get_whole_messages() {
    let mut machine = machine();
    let mut peer = machine.connect(3);
    // Bytes of a pipe: rutabaga's messages from the compositor are never longer than a page.
    assert_eq!(machine.submit(3, &send(&[(0x8000_0001, 3)], b"r")), 0x1100);
    let (_, descriptors) = peer.read_with_descriptors(1);
    rustix::io::write(&descriptors[0], &[7; 10_000]).unwrap();
    assert!(matches!(machine.message(3), Message::Read { data, .. } if data.len() == 10_000));
    // The second page of the ring lies 8 KiB after the first.
    let second: u8 = machine
        .memory
        .read_obj(GuestAddress(ring_address(3, 1) + 8192))
        .unwrap();
    let between: u8 = machine
        .memory
        .read_obj(GuestAddress(ring_address(3, 1) + 4096))
        .unwrap();
    assert_eq!((second, between), (7, 0));
}
