//! Applications that break every rule: only they are disconnected.
#![allow(missing_docs)]

mod common;

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use common::client::RawClient;
use common::{Setup, eventually};
use proptest::prelude::*;
use wayland_server::protocol::__interfaces as core;

/// Another application lives through everything that a test does.
fn check_alive(witness: &mut RawClient) {
    let surface = witness.surface();
    witness.commit(surface);
    witness.request(surface, 0, |_| {});
    assert!(witness.roundtrip(), "another application was disconnected");
}

#[test]
fn dying_in_mid_message() {
    let setup = Setup::new();
    let mut witness = setup.client();
    for cut in 1..40 {
        let mut client = setup.client();
        let surface = client.surface();
        let (_, file) = client.pool(4096, false);
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&surface.to_ne_bytes());
        bytes.extend_from_slice(&(40u32 << 16 | 2).to_ne_bytes());
        bytes.resize(40, 7);
        client.send(&bytes[..cut], &[file.as_fd()]);
    }
    check_alive(&mut witness);
    eventually("all are gone from the host", || setup.host.clients() == 1);
}

#[test]
fn bad_messages_are_answered_with_errors() {
    let setup = Setup::new();
    let mut witness = setup.client();
    type Bad = fn(&mut RawClient);
    let cases: [(&str, u32, Bad); 14] = [
        ("unknown object", 0, |c| c.request(4000, 0, |_| {})),
        ("null object", 0, |c| c.request(0, 0, |_| {})),
        ("unknown request", 1, |c| c.request(1, 9, |_| {})),
        ("too short", 1, |c| c.request(1, 0, |_| {})),
        ("too long", 1, |c| {
            c.request(1, 0, |m| [77, 78].into_iter().for_each(|n| m.uint(n)))
        }),
        ("id with a gap", 0, |c| c.request(1, 0, |m| m.uint(5000))),
        ("id in use", 0, |c| c.request(1, 0, |m| m.uint(2))),
        ("id of the server's", 0, |c| {
            c.request(1, 0, |m| m.uint(0xff00_0000))
        }),
        ("size below the header", 1, |c| {
            drop(c.stream.write_all(&[1, 0, 0, 0, 0, 0, 4, 0]))
        }),
        ("odd size", 1, |c| {
            drop(c.stream.write_all(&[1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0]))
        }),
        ("not a buffer", 0, |c| {
            let surface = c.surface();
            c.attach(surface, 2);
        }),
        ("version too new", 1, |c| {
            let compositor = c.bind(&core::WL_COMPOSITOR_INTERFACE, 1);
            let surface = c.new_id(&core::WL_SURFACE_INTERFACE);
            c.request(compositor, 0, |m| m.uint(surface));
            c.damage_buffer(surface, [0, 0, 1, 1]);
        }),
        ("missing descriptor", 1, |c| {
            let shm = c.bind(&core::WL_SHM_INTERFACE, 1);
            c.request(shm, 0, |m| [9, 4096].into_iter().for_each(|n| m.uint(n)));
        }),
        ("destroyed object", 0, |c| {
            let surface = c.surface();
            c.request(surface, 0, |_| {});
            c.commit(surface);
        }),
    ];
    for (what, code, bad) in cases {
        let mut client = setup.client();
        bad(&mut client);
        let (object, got, text) = client.error();
        assert_eq!((object, got), (1, code), "{what}: {text}");
    }
    check_alive(&mut witness);
}

#[test]
fn bad_pools_and_buffers_are_answered_with_errors() {
    let setup = Setup::new();
    for size in [0, -1, i32::MIN] {
        let mut client = setup.client();
        let shm = client.bind(&core::WL_SHM_INTERFACE, 1);
        let pool = client.new_id(&core::WL_SHM_POOL_INTERFACE);
        let file = tempfile::tempfile().unwrap();
        client.request_fd(shm, 0, Some(file.as_fd()), |m| {
            m.uint(pool);
            m.int(size);
        });
        assert_eq!(client.error().0, shm);
    }
    for (offset, w, h, stride) in [
        (0, 0, 1, 4),
        (0, 1, 2000, 4),
        (4096, 1, 1, 4),
        (-4, 1, 1, 4),
    ] {
        let mut client = setup.client();
        let (pool, _file) = client.pool(4096, true);
        client.buffer(pool, offset, w, h, stride);
        assert_eq!(client.error().0, pool);
    }
    for size in [0, -1, 4095] {
        let mut client = setup.client();
        let (pool, _file) = client.pool(4096, true);
        client.request(pool, 2, |m| m.int(size));
        assert_eq!(client.error().0, pool);
    }
}

#[test]
fn one_that_floods_and_never_reads_holds_up_nobody() {
    let setup = Setup::new();
    let mut witness = setup.client();
    let mut client = setup.client();
    client.stream.set_nonblocking(true).unwrap();
    // Each request makes two events, which are never read.
    let mut requests = Vec::new();
    for id in 3..20_003u32 {
        for word in [1, 12 << 16, id] {
            requests.extend_from_slice(&word.to_ne_bytes());
        }
    }
    let mut sent = 0;
    let end = std::time::Instant::now() + std::time::Duration::from_secs(1);
    while sent < requests.len() && std::time::Instant::now() < end {
        match client.stream.write(&requests[sent..]) {
            Ok(n) => sent += n,
            Err(_) => check_alive(&mut witness),
        }
    }
    assert!(sent > 50_000, "only {sent} bytes were taken");
    for _ in 0..20 {
        check_alive(&mut witness);
    }
}

#[test]
fn descriptors_that_nobody_asked_for_do_not_pile_up() {
    let setup = Setup::new();
    let mut client = setup.client();
    let file = tempfile::tempfile().unwrap();
    let fds = vec![file.as_fd(); 20];
    for _ in 0..50 {
        let id = client.new_id(&core::WL_CALLBACK_INTERFACE);
        let mut bytes = Vec::new();
        for word in [1, 12 << 16, id] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        if !client.send(&bytes, &fds) {
            break;
        }
    }
    assert_eq!(client.error().1, 2);
}

#[test]
fn a_host_that_stops_reading_does_not_stop_the_rest() {
    let setup = Setup::new();
    let mut client = setup.client();
    let surface = client.surface();
    client.roundtrip();
    setup.host.frozen.store(true, Ordering::Relaxed);
    client.stream.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    for word in [surface, 8 << 16 | 6] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let mut sent = 0;
    while let Ok(n) = client.stream.write(&bytes.repeat(100)) {
        sent += n;
        assert!(sent < 64 << 20, "the proxy takes everything");
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    setup.host.frozen.store(false, Ordering::Relaxed);
    client.stream.set_nonblocking(false).unwrap();
    // Whatever part of a message was left unsent.
    let rest = bytes.repeat(2)[sent % 8..8].to_vec();
    if sent % 8 != 0 {
        client.send(&rest, &[]);
    }
    assert!(client.roundtrip());
    eventually("everything arrives", || {
        let commits = setup.host.with(|state, _| state.log.len());
        commits == sent.div_ceil(8)
    });
}

#[test]
fn applications_that_come_and_go_while_the_host_hangs_are_forgotten() {
    let setup = Setup::new();
    setup.host.frozen.store(true, Ordering::Relaxed);
    for _ in 0..10 {
        drop(std::os::unix::net::UnixStream::connect(&setup.socket).unwrap());
    }
    eventually("they came", || setup.stat("clients") >= 10);
    std::thread::sleep(std::time::Duration::from_millis(50));
    setup.host.frozen.store(false, Ordering::Relaxed);
    // They are gone for the host too, and a new one is served.
    let mut client = setup.client();
    assert!(client.roundtrip());
    eventually("they are gone", || setup.host.clients() == 1);
}

fn shared() -> &'static Setup {
    static SETUP: OnceLock<Setup> = OnceLock::new();
    SETUP.get_or_init(Setup::new)
}

/// A message that is nearly right: real objects, real requests, any arguments.
fn message() -> impl Strategy<Value = (u32, u16, Vec<u32>, bool)> {
    let word = prop_oneof![
        6 => 0u32..24,
        1 => Just(0xff00_0000u32),
        1 => any::<u32>(),
        1 => Just(u32::MAX),
        2 => 0u32..5000,
    ];
    (
        1u32..24,
        0u16..12,
        prop::collection::vec(word, 0..8),
        prop::bool::weighted(0.1),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any bytes, any messages: the proxy lives, and so do the others.
    #[test]
    fn any_session(
        messages in prop::collection::vec(message(), 0..60),
        tail in prop::collection::vec(any::<u8>(), 0..64),
        prologue in any::<bool>(),
    ) {
        let setup = shared();
        let mut client = setup.client();
        let mut files = Vec::new();
        if prologue {
            let surface = client.surface();
            let (pool, file) = client.pool(4096, false);
            let buffer = client.buffer(pool, 0, 16, 16, 64);
            client.attach(surface, buffer);
            let seat = client.bind(&core::WL_SEAT_INTERFACE, 9);
            let manager = client.bind(&core::WL_DATA_DEVICE_MANAGER_INTERFACE, 3);
            let device = client.new_id(&core::WL_DATA_DEVICE_INTERFACE);
            client.request(manager, 1, |m| [device, seat].into_iter().for_each(|n| m.uint(n)));
            files.push(file);
        }
        let file = tempfile::tempfile().unwrap();
        for (object, opcode, words, with_fd) in messages {
            let size = 8 + 4 * words.len() as u32;
            let mut bytes = Vec::new();
            for word in [object, size << 16 | u32::from(opcode)].into_iter().chain(words) {
                bytes.extend_from_slice(&word.to_ne_bytes());
            }
            let fds = [file.as_fd()];
            if !client.send(&bytes, if with_fd { &fds } else { &[] }) {
                break;
            }
        }
        client.send(&tail, &[]);
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        while client.read_event().is_some() {}
        check_alive(&mut setup.client());
    }
}
