//! What a hostile guest, or a compositor that misbehaves, tries. In each test another context of
//! the same guest goes on.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::driver::*;
use crate::devices::virtio::gpu::protocol::u32_at;

/// A bystander (context 9) and a connected context 1.
fn pair() -> (Machine, Peer, Peer) {
    let mut machine = machine();
    let bystander = machine.connect(9);
    let peer = machine.connect(1);
    (machine, bystander, peer)
}

/// Submits commands that must close context 1 and nothing else.
fn closes(commands: &[u8]) {
    let (mut machine, mut bystander, mut peer) = pair();
    let waiting = machine.poll(1);
    assert_eq!(machine.submit(1, commands), 0x1200);
    let answer = machine.answer(waiting);
    assert_eq!(u32_at(&answer, 0), Some(0x1200));
    assert_eq!(u32_at(&answer, 4), Some(3), "a waiting fence signals");
    assert_eq!(machine.read_ring(1), Message::end());
    machine.assert_dead(1);
    assert!(peer.read_with_descriptors(1).0.is_empty(), "closed");
    machine.assert_works(9, &mut bystander);
    assert_eq!(machine.stat("contexts_killed"), 1);
    assert!(machine.faults.lock().unwrap().is_empty());
}

#[test]
fn a_command_of_size_zero_is_not_an_endless_loop() {
    closes(&[3, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn sizes_that_do_not_fit_close_the_context() {
    for size in [1u16, 7, 9, 0xffff] {
        let [low, high] = size.to_le_bytes();
        closes(&[3, 0, low, high, 0, 0, 0, 0]);
    }
    // Cut short, and data that is longer than its command.
    closes(&send(&[], b"x")[..200]);
    let mut long = send(&[], b"abcd");
    long[12..16].copy_from_slice(&5u32.to_le_bytes());
    closes(&long);
    let mut huge = write(2, false, b"abcd");
    huge[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    closes(&huge);
}

#[test]
fn a_mistake_at_the_end_lets_nothing_of_the_buffer_run() {
    let (mut machine, mut bystander, mut peer) = pair();
    let mut commands = send(&[], b"must not arrive");
    commands.extend([4, 0, 9, 0, 0, 0, 0, 0]);
    assert_eq!(machine.submit(1, &commands), 0x1200);
    assert!(peer.read_with_descriptors(64).0.is_empty());
    machine.assert_works(9, &mut bystander);
}

#[test]
fn commands_that_are_not_offered_close_the_context() {
    for number in [0, 5, 6, 8, 9, 10, 11, 12, 13, 255] {
        closes(&command(number, &[0; 40]));
    }
}

#[test]
fn descriptors_that_guests_may_not_send_close_the_context() {
    for kind in [0, 2, 4, 5, 6, 7, u32::MAX] {
        closes(&send(&[(2, kind)], b"x"));
    }
    let mut many = send(&[], b"x");
    many[8] = 29;
    closes(&many);
    closes(&send(&[], b""));
}

#[test]
fn only_own_host_memory_can_be_sent() {
    // A ring has no descriptor, 12345 does not exist.
    closes(&send(&[(ring_id(1, 1), 1)], b"x"));
    closes(&send(&[(12345, 1)], b"x"));
    // A blob of another context.
    let (mut machine, mut bystander, _peer) = pair();
    let (blob, size) = machine.image(9, 16, 16);
    machine.expect_ok(&create_blob(9, 7, 2, u64::from(blob), size));
    machine.expect_ok(&attach(9, 7));
    assert_eq!(machine.submit(1, &send(&[(7, 1)], b"x")), 0x1200);
    machine.assert_dead(1);
    machine.assert_works(9, &mut bystander);
}

#[test]
fn a_wrong_pipe_number_closes_the_context_and_leaks_nothing() {
    for number in [0, 2, 0x8000_0000, 0x8000_0002, u32::MAX] {
        closes(&send(&[(number, 3)], b"x"));
    }
    // No more than so many pipes at a time.
    let (mut machine, mut bystander, mut peer) = pair();
    let mut opened = Vec::new();
    for number in 0x8000_0001u32..0x8000_0041 {
        assert_eq!(machine.submit(1, &send(&[(number, 3)], b"x")), 0x1100);
        opened.push(peer.read_with_descriptors(1));
    }
    assert_eq!(machine.submit(1, &send(&[(0x8000_0041, 3)], b"x")), 0x1200);
    machine.assert_works(9, &mut bystander);
    for (_, descriptors) in &opened {
        let written = rustix::io::write(&descriptors[0], b"x");
        assert_eq!(written, Err(rustix::io::Errno::PIPE), "our ends are closed");
    }
}

#[test]
fn writing_to_what_is_no_pipe_closes_the_context() {
    closes(&write(2, false, b"x"));
    closes(&write(0x8000_0001, true, b""));
    closes(&write(u32::MAX, false, b"x"));
}

#[test]
fn rings_must_have_memory() {
    let mut machine = machine();
    let mut bystander = machine.connect(9);
    machine.expect_ok(&create_context(1, 5));
    // Blobs of guest memory without memory, with too little, outside of memory.
    assert_eq!(machine.status(&create_guest_blob(50, 4096, &[])), 0x1205);
    assert_eq!(
        machine.status(&create_guest_blob(50, 8192, &[(0x1000, 4096)])),
        0x1205
    );
    for (address, length) in [(64 << 20, 4096), (u64::MAX - 100, 4096), (0x1000, 0)] {
        let request = create_guest_blob(50, 4096, &[(address, length)]);
        assert_eq!(machine.status(&request), 0x1205);
    }
    assert_eq!(
        machine.status(&create_guest_blob(50, 4096, &vec![(0x1000, 4096); 1025])),
        0x1205
    );
    // A ring whose memory was taken away.
    machine.expect_ok(&create_guest_blob(
        ring_id(1, 0),
        4096,
        &[(0x30_0000, 4096)],
    ));
    machine.expect_ok(&create_guest_blob(
        ring_id(1, 1),
        4096,
        &[(0x30_1000, 4096)],
    ));
    for ring in 0..2 {
        machine.expect_ok(&attach(1, ring_id(1, ring)));
    }
    let detach = request(0x107, 0, None, &ring_id(1, 1).to_le_bytes().repeat(2));
    machine.expect_ok(&detach);
    assert_eq!(machine.submit(1, &init(1)), 0x1200);
    // A ring that is not there, or not of this context.
    machine.expect_ok(&create_context(2, 5));
    assert_eq!(machine.submit(2, &init(2)), 0x1200);
    machine.expect_ok(&create_context(3, 5));
    assert_eq!(machine.submit(3, &init(9)), 0x1200);
    machine.assert_works(9, &mut bystander);
}

#[test]
fn a_ring_that_goes_away_closes_the_context() {
    let (mut machine, mut bystander, mut peer) = pair();
    let ticket = machine.poll(1);
    let unref = request(0x102, 0, None, &ring_id(1, 1).to_le_bytes().repeat(2));
    machine.expect_ok(&unref);
    peer.stream.write_all(b"to nowhere").unwrap();
    let answer = machine.answer(ticket);
    assert_eq!(u32_at(&answer, 0), Some(0x1200));
    machine.assert_works(9, &mut bystander);
}

#[test]
fn init_happens_once_and_first() {
    closes(&init(1));
    for commands in [
        send(&[], b"x"),
        image_requirements(1, 1, b"XR24"),
        write(2, false, b"x"),
    ] {
        let mut machine = machine();
        machine.expect_ok(&create_context(1, 5));
        assert_eq!(machine.submit(1, &commands), 0x1200);
    }
    let mut machine = machine();
    machine.expect_ok(&create_context(1, 5));
    let ticket = machine.poll(1);
    assert_eq!(u32_at(&machine.answer(ticket), 0), Some(0x1200));
}

#[test]
fn only_the_wayland_channel_is_offered() {
    let mut machine = machine();
    machine.expect_ok(&create_context(1, 5));
    for (index, channel) in [0u32, 2, 0x10, u32::MAX].into_iter().enumerate() {
        let id = 20 + index as u32;
        machine.expect_ok(&create_context(id, 5));
        let mut commands = init(id);
        commands[16..20].copy_from_slice(&channel.to_le_bytes());
        assert_eq!(machine.submit(id, &commands), 0x1200);
    }
}

/// Rutabaga's SEND blocks here.
#[test]
fn a_compositor_that_does_not_read_blocks_nobody_and_costs_little() {
    let (mut machine, mut bystander, _deaf) = pair();
    let start = Instant::now();
    let data = vec![0; 60_000];
    let mut sent = 0;
    while machine.submit(1, &send(&[], &data)) == 0x1100 {
        sent += data.len();
        assert!(sent < 8 << 20, "more waits than should");
        machine.assert_works(9, &mut bystander);
    }
    assert!(sent > 1 << 20, "a mebibyte may wait");
    machine.assert_dead(1);
    machine.assert_works(9, &mut bystander);
    assert!(start.elapsed() < WAIT);
}

/// Rutabaga's WRITE blocks here.
#[test]
fn a_pipe_that_nobody_drains_blocks_nobody() {
    let (mut machine, mut bystander, mut peer) = pair();
    let (reader, writer) = std::io::pipe().unwrap();
    peer.send_descriptors(b"w", &[writer.as_fd()]);
    let Message::Receive { identifiers, .. } = machine.message(1) else {
        panic!("no message");
    };
    let pipe = identifiers[0].0;
    // Two writes fill a pipe of 64 KiB: the second waits, the context and others do not.
    let first = machine.ask(&submit(1, Some(2), &write(pipe, false, &[1; 60_000])));
    let second = machine.ask(&submit(1, Some(2), &write(pipe, false, &[2; 60_000])));
    machine.answer(first);
    assert_eq!(machine.answer_within(second, MOMENT), None);
    machine.assert_works(1, &mut peer);
    machine.assert_works(9, &mut bystander);
    // Without waiting the guest soon has more under way than it may.
    let mut status = 0x1100;
    for _ in 0..10 {
        status = machine.submit(1, &write(pipe, false, &[3; 60_000]));
    }
    assert_eq!(status, 0x1200);
    assert_eq!(u32_at(&machine.answer(second), 0), Some(0x1200));
    machine.assert_works(9, &mut bystander);
    drop(reader);
}

#[test]
fn a_reader_that_leaves_lets_writes_finish() {
    let (mut machine, _bystander, mut peer) = pair();
    let (reader, writer) = std::io::pipe().unwrap();
    peer.send_descriptors(b"w", &[writer.as_fd()]);
    let Message::Receive { identifiers, .. } = machine.message(1) else {
        panic!("no message");
    };
    let pipe = identifiers[0].0;
    machine.ask(&submit(1, Some(2), &write(pipe, false, &[1; 60_000])));
    let second = machine.ask(&submit(1, Some(2), &write(pipe, false, &[2; 60_000])));
    drop(reader);
    machine.answer(second);
    assert_eq!(machine.submit(1, &write(pipe, false, b"more")), 0x1100);
    machine.assert_works(1, &mut peer);
}

#[test]
fn questions_about_images_have_limits() {
    closes(&image_requirements(1 << 30, 1 << 30, b"XR24"));
    closes(&image_requirements(16, 16, b"NV12"));
    closes(&image_requirements(0, 16, b"XR24"));
    // Each of these stays for ever in rutabaga; here the oldest are forgotten.
    let mut machine = machine();
    let mut peer = machine.connect(1);
    let first = machine.image(1, 1, 1);
    for height in 1..=100 {
        let commands: Vec<u8> = (2..=100)
            .flat_map(|width| image_requirements(width, height, b"XR24"))
            .collect();
        assert_eq!(machine.submit(1, &commands), 0x1100);
    }
    let (blob, size) = machine.image(1, 100, 100);
    machine.expect_ok(&create_blob(1, 7, 2, u64::from(blob), size));
    assert_eq!(
        machine.status(&create_blob(1, 8, 2, u64::from(first.0), first.1)),
        0x1205
    );
    machine.assert_works(1, &mut peer);
}

#[test]
fn blobs_have_quotas() {
    let mut machine = machine_with(|config| {
        config.max_blob_mib = 1;
        config.max_resources = 6;
        config.max_contexts = 2;
    });
    let mut peer = machine.connect(1);
    let (blob, size) = machine.image(1, 512, 256);
    assert_eq!(size, 512 << 10);
    for resource in [10, 11] {
        machine.expect_ok(&create_blob(1, resource, 2, u64::from(blob), size));
    }
    let third = create_blob(1, 12, 2, u64::from(blob), size);
    assert_eq!(machine.status(&third), 0x1201, "bytes");
    machine.expect_ok(&request(0x102, 0, None, &[10, 0, 0, 0, 0, 0, 0, 0]));
    machine.expect_ok(&third);
    machine.expect_ok(&create_guest_blob(13, 4096, &[(0x1000, 4096)]));
    machine.expect_ok(&create_guest_blob(14, 4096, &[(0x1000, 4096)]));
    let seventh = create_guest_blob(15, 4096, &[(0x1000, 4096)]);
    assert_eq!(machine.status(&seventh), 0x1201, "number");
    machine.expect_ok(&create_context(2, 5));
    assert_eq!(machine.status(&create_context(3, 5)), 0x1201, "contexts");
    machine.assert_works(1, &mut peer);
}

#[test]
fn wrong_sizes_of_blobs_are_refused() {
    let mut machine = machine();
    let mut peer = machine.connect(1);
    let (blob, size) = machine.image(1, 64, 64);
    for wrong in [0, 1, size - 1, size + 4096, size - 4096, u64::MAX, 1 << 63] {
        let request = create_blob(1, 7, 2, u64::from(blob), wrong);
        assert!(machine.status(&request) >= 0x1200, "{wrong}");
    }
    for wrong in [0, 1, u64::from(blob) + 1, u64::from(blob) | 1 << 32] {
        assert_eq!(machine.status(&create_blob(1, 7, 2, wrong, size)), 0x1205);
    }
    machine.assert_works(1, &mut peer);
}

/// Rutabaga maps 1 MiB of it, and the guest's access kills the VMM.
#[test]
fn a_short_memory_object_is_not_mapped_as_a_long_one() {
    let (mut machine, _bystander, mut peer) = pair();
    let file = tempfile::tempfile().unwrap();
    file.set_len(100).unwrap();
    peer.send_descriptors(b"short", &[file.as_fd()]);
    let Message::Receive { identifiers, .. } = machine.message(1) else {
        panic!("no message");
    };
    let (number, 1, 100) = identifiers[0] else {
        panic!("{identifiers:?}");
    };
    let number = u64::from(number);
    assert_eq!(
        machine.status(&create_blob(1, 7, 2, number, 1 << 20)),
        0x1205
    );
    assert_eq!(machine.status(&create_blob(1, 7, 2, number, 8192)), 0x1205);
    machine.expect_ok(&create_blob(1, 7, 2, number, 4096));
    // Its memory went away after the blob was made: looked at again when mapping.
    file.set_len(0).unwrap();
    assert_eq!(machine.status(&map_blob(7, 0)), 0x1205);
    file.set_len(100).unwrap();
    assert_eq!(machine.status(&map_blob(7, 0)), 0x1106);
    machine.assert_works(1, &mut peer);
}

#[test]
fn the_window_is_not_overwritten() {
    let mut machine = machine();
    let mut peer = machine.connect(1);
    let (blob, size) = machine.image(1, 64, 64);
    for resource in [10, 11] {
        machine.expect_ok(&create_blob(1, resource, 2, u64::from(blob), size));
    }
    assert_eq!(machine.status(&map_blob(10, 4096)), 0x1106);
    for offset in [4096, 0, 8192, 1, 64 << 20, u64::MAX - 4095] {
        assert_eq!(machine.status(&map_blob(11, offset)), 0x1205, "{offset}");
    }
    assert_eq!(machine.status(&map_blob(10, 1 << 20)), 0x1205, "twice");
    assert_eq!(machine.status(&map_blob(ring_id(1, 0), 1 << 20)), 0x1205);
    assert_eq!(machine.status(&map_blob(77, 0)), 0x1203);
    assert_eq!(machine.status(&map_blob(11, 1 << 20)), 0x1106);
    machine.assert_works(1, &mut peer);
}

/// Rutabaga's thread ends here, and fences never signal again.
#[test]
fn an_unsupported_descriptor_of_the_host_answers_the_poll() {
    let (socket, _other) = UnixStream::pair().unwrap();
    let folder = std::fs::File::open("/").unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    for descriptor in [socket.as_fd(), folder.as_fd(), pipe.as_fd()] {
        let (mut machine, mut bystander, mut peer) = pair();
        let ticket = machine.poll(1);
        assert_eq!(machine.answer_within(ticket, MOMENT), None);
        peer.send_descriptors(b"?", &[descriptor]);
        let answer = machine.answer(ticket);
        assert_eq!(u32_at(&answer, 0), Some(0x1200));
        assert_eq!(u32_at(&answer, 4), Some(3));
        assert_eq!(machine.read_ring(1), Message::end());
        machine.assert_dead(1);
        machine.assert_works(9, &mut bystander);
    }
}

#[test]
fn polls_do_not_pile_up() {
    let (mut machine, mut bystander, _peer) = pair();
    let tickets = [machine.poll(1), machine.poll(1), machine.poll(1)];
    for ticket in tickets {
        assert_eq!(u32_at(&machine.answer(ticket), 0), Some(0x1200));
    }
    machine.assert_works(9, &mut bystander);
}

#[test]
fn without_a_compositor_only_the_context_fails() {
    let mut machine = machine_with(|config| config.wayland = "/nonexistent/wayland".into());
    machine.expect_ok(&create_context(1, 5));
    for ring in 0..2 {
        let address = ring_address(1, u64::from(ring));
        machine.expect_ok(&create_guest_blob(
            ring_id(1, ring),
            4096,
            &[(address, 4096)],
        ));
        machine.expect_ok(&attach(1, ring_id(1, ring)));
    }
    assert_eq!(machine.submit(1, &init(1)), 0x1200);
    machine.assert_dead(1);
}

#[test]
fn other_requests_get_errors() {
    let mut machine = machine();
    for kind in [
        0x101, 0x103, 0x104, 0x105, 0x10a, 0x10b, 0x10d, 0x204, 0x205, 0x206, 0, 0x999,
    ] {
        assert_eq!(machine.status(&request(kind, 0, None, &[0; 64])), 0x1200);
    }
    assert_eq!(machine.status(&create_context(0, 5)), 0x1204);
    assert_eq!(machine.status(&create_context(1, 2)), 0x1205);
    assert_eq!(machine.status(&create_context(1, 0)), 0x1205);
    machine.expect_ok(&create_context(1, 5));
    assert_eq!(machine.status(&create_context(1, 5)), 0x1204);
    assert_eq!(machine.status(&attach(1, 5)), 0x1203);
    assert_eq!(machine.status(&attach(2, 5)), 0x1204);
    assert_eq!(machine.status(&submit(2, None, &POLL)), 0x1204);
    assert_eq!(machine.status(&[0; 10]), 0x1205);
    let mut lying = submit(1, Some(0), &POLL);
    lying[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(machine.status(&lying), 0x1200);
}

#[test]
fn a_broken_queue_ends_the_vm_not_the_host() {
    let mut machine = machine();
    machine.set_available(5000);
    let start = Instant::now();
    while machine.faults.lock().unwrap().is_empty() {
        assert!(start.elapsed() < WAIT);
        std::thread::yield_now();
    }
    // The device can be reset afterwards.
    machine.activate();
    machine.expect_ok(&create_context(1, 5));
}
