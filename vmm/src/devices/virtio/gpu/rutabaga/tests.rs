//! What only rutabaga does: threads that stall, workers that die.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use bulkhead_vmm_api::GpuBackend;

use super::super::protocol::u32_at;
use super::super::tests::driver::*;

/// The thread sleeps before it sends this.
pub const STALL: &[u8] = b"the thread shall stall here";
/// With this from the compositor rutabaga gets descriptors that nobody has looked at.
pub const UNCHECKED: &[u8] = b"these descriptors are not checked";

fn short_watchdog() -> Machine {
    machine_with(|config| {
        config.backend = GpuBackend::Rutabaga;
        config.watchdog_ms = 300;
    })
}

#[test]
fn a_thread_that_does_not_come_back_costs_its_context_only() {
    let mut machine = short_watchdog();
    let mut bystander = machine.connect(9);
    let _peer = machine.connect(1);
    let poll = machine.poll(1);
    assert_eq!(machine.submit(1, &send(&[], STALL)), 0x1100);
    machine.assert_works(9, &mut bystander);
    let answer = machine.answer(poll);
    assert_eq!(u32_at(&answer, 0), Some(0x1200));
    assert_eq!(u32_at(&answer, 4), Some(3), "with its fence");
    machine.assert_dead(1);
    machine.assert_works(9, &mut bystander);
}

/// Rutabaga's own thread ends here without completing the fence.
#[test]
fn a_dead_worker_is_noticed_and_fences_complete() {
    let mut machine = short_watchdog();
    let mut bystander = machine.connect(9);
    let mut peer = machine.connect(1);
    let poll = machine.poll(1);
    let (pipe, _writer) = std::io::pipe().unwrap();
    peer.send_descriptors(UNCHECKED, &[pipe.as_fd()]);
    let answer = machine.answer(poll);
    assert_eq!(u32_at(&answer, 0), Some(0x1200));
    machine.assert_dead(1);
    machine.assert_works(9, &mut bystander);
}

#[test]
fn a_silent_compositor_is_not_a_stall() {
    let mut machine = short_watchdog();
    let mut peer = machine.connect(1);
    machine.assert_works(1, &mut peer);
    let poll = machine.poll(1);
    assert_eq!(machine.answer_within(poll, 10 * MOMENT), None);
    assert_eq!(machine.stat("contexts_killed"), 0);
    machine.expect_ok(&request(0x201, 1, None, &[]));
    assert_eq!(u32_at(&machine.answer(poll), 0), Some(0x1100));
}

#[test]
fn several_pipes_go_in_one_message() {
    let mut machine = short_watchdog();
    let mut peer = machine.connect(1);
    let pipes = [(0x8000_0001, 3), (0x8000_0002, 3), (0x8000_0003, 3)];
    assert_eq!(machine.submit(1, &send(&pipes, b"three")), 0x1100);
    let (mut data, mut descriptors) = (Vec::new(), Vec::new());
    while data.len() < 5 {
        let (part, more) = peer.read_with_descriptors(5);
        data.extend(part);
        descriptors.extend(more);
    }
    assert_eq!((data.as_slice(), descriptors.len()), (&b"three"[..], 3));
    rustix::io::write(&descriptors[1], b"second").unwrap();
    assert_eq!(
        machine.message(1),
        Message::Read {
            pipe: 0x8000_0002,
            hang_up: false,
            data: b"second".to_vec()
        }
    );
}

#[test]
fn threads_that_do_not_end_have_a_limit() {
    let mut machine = machine_with(|config| {
        config.backend = GpuBackend::Rutabaga;
        config.max_contexts = 1;
    });
    for context in [1, 2] {
        let mut peer = machine.connect(context);
        // Rutabaga has connected; otherwise it would end with its context.
        machine.assert_works(context, &mut peer);
        assert_eq!(machine.submit(context, &send(&[], STALL)), 0x1100);
        machine.expect_ok(&request(0x201, context, None, &[]));
    }
    machine.expect_ok(&create_context(3, 5));
    for ring in 0..2 {
        let address = ring_address(3, u64::from(ring));
        machine.expect_ok(&create_guest_blob(
            ring_id(3, ring),
            4096,
            &[(address, 4096)],
        ));
        machine.expect_ok(&attach(3, ring_id(3, ring)));
    }
    assert_eq!(machine.submit(3, &init(3)), 0x1200);
}

/// With two threads at most, twenty contexts only work if each one's thread ends.
#[test]
fn threads_of_closed_contexts_end_whatever_they_were_doing() {
    let mut machine = machine_with(|config| {
        config.backend = GpuBackend::Rutabaga;
        config.max_contexts = 1;
    });
    for context in 1..=20 {
        let mut peer = machine.connect(context);
        let (_reader, writer) = std::io::pipe().unwrap();
        peer.send_descriptors(b"w", &[writer.as_fd()]);
        let Message::Receive { identifiers, .. } = machine.message(context) else {
            panic!("no message");
        };
        // A pipe that is full, a compositor that does not read, a poll that waits.
        for _ in 0..3 {
            let commands = write(identifiers[0].0, false, &[1; 60_000]);
            assert_eq!(machine.submit(context, &commands), 0x1100);
        }
        for _ in 0..10 {
            assert_eq!(machine.submit(context, &send(&[], &[2; 60_000])), 0x1100);
        }
        let poll = machine.poll(context);
        machine.expect_ok(&request(0x201, context, None, &[]));
        machine.answer(poll);
        for ring in 0..2 {
            let number = ring_id(context, ring).to_le_bytes();
            machine.expect_ok(&request(0x102, 0, None, &number.repeat(2)));
        }
        // It may take a moment.
        std::thread::sleep(MOMENT / 4);
    }
}

#[test]
fn nothing_is_left_beside_the_compositors_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wayland.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let private = super::socket::PrivateSocket::beside(&path).unwrap();
    assert!(private.accept().is_none());
    let stream = UnixStream::connect(private.path()).unwrap();
    assert!(private.accept().is_some());
    drop((private, stream, listener));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
