//! The whole device, driven through its queues, with real sockets on the host.

mod guest;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use guest::*;

use super::super::device::VirtioDevice;
use super::GuestTarget;
use super::packet::{Ports, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 % 251) as u8).collect()
}

const PORTS: Ports = Ports {
    guest: 1000,
    host: 50,
};

#[test]
fn the_guest_knows_its_address() {
    let guest = guest();
    let mut config = [0; 8];
    guest.device.read_config(0, &mut config);
    assert_eq!(u64::from_le_bytes(config), CID);
}

#[test]
fn a_program_of_the_host_reaches_the_guest() {
    let mut guest = guest();
    let (mut stream, ports) = guest.connect_from_host(80);
    stream.write_all(b"to the guest").unwrap();
    let packet = guest.receive();
    assert_eq!((packet.operation, packet.ports), (DATA, ports));
    assert_eq!(packet.data, b"to the guest");
    guest.assert_works();
}

#[test]
fn what_follows_the_greeting_is_not_lost() {
    let mut guest = guest();
    let mut stream = UnixStream::connect(guest.folder.path().join("host")).unwrap();
    stream.write_all(b"CONNECT 80\nearly").unwrap();
    let request = guest.receive();
    guest.send(request.ports, RESPONSE, 0, &[]);
    assert_eq!(guest.receive_kind(DATA).data, b"early");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert!(line.starts_with("OK "));
}

#[test]
fn a_port_that_nobody_listens_on_closes_the_socket() {
    let mut guest = guest();
    let mut stream = UnixStream::connect(guest.folder.path().join("host")).unwrap();
    stream.write_all(b"CONNECT 81\n").unwrap();
    let request = guest.receive();
    guest.send(request.ports, RESET, 0, &[]);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    for bad in [
        "CONNECT x\n",
        "HELLO\n",
        "CONNECT 4294967296\n",
        "CONNECT 1234567890123456789012345678901234567890",
    ] {
        let mut stream = UnixStream::connect(guest.folder.path().join("host")).unwrap();
        stream.write_all(bad.as_bytes()).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
    guest.assert_works();
}

#[test]
fn the_guest_reaches_programs_of_the_host() {
    let mut guest = guest();
    let mut stream = guest.connect_to_host(PORTS);
    guest.send(PORTS, DATA, 0, b"to the host");
    let mut got = [0; 11];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"to the host");
    // Nobody listens there.
    let other = Ports { guest: 1, host: 51 };
    guest.send(other, REQUEST, 0, &[]);
    assert_eq!(guest.receive().operation, RESET);
    guest.assert_works();
}

#[test]
fn the_guests_connections_can_go_to_a_packet_socket() {
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let mut guest = guest_with(|_| GuestTarget::Socket(ours));
    guest.send(PORTS, REQUEST, 0, &[]);
    assert_eq!(guest.receive().operation, RESPONSE);
    let mut bytes = [0; 16];
    let (count, stream) = receive_descriptor(&theirs, &mut bytes);
    assert_eq!(&bytes[..count], 50u32.to_le_bytes());
    let mut stream = UnixStream::from(stream);
    guest.send(PORTS, DATA, 0, b"hello");
    let mut got = [0; 5];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    // The daemon is gone: refused.
    drop(theirs);
    let other = Ports { guest: 1, host: 51 };
    guest.send(other, REQUEST, 0, &[]);
    assert_eq!(guest.receive().operation, RESET);
    guest.assert_works();
}

fn receive_descriptor(socket: &OwnedFd, bytes: &mut [u8]) -> (usize, OwnedFd) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [std::io::IoSliceMut::new(bytes)];
    let message = rustix::net::recvmsg(
        socket.as_fd(),
        &mut parts,
        &mut ancillary,
        RecvFlags::empty(),
    )
    .unwrap();
    let fd = ancillary.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (message.bytes, fd.unwrap())
}

#[test]
fn eight_mebibytes_go_to_the_guest_with_little_credit() {
    let mut guest = guest();
    guest.buffer = 5000;
    let (mut stream, ports) = guest.connect_from_host(80);
    let data = pattern(8 << 20);
    let sent = data.clone();
    let thread = std::thread::spawn(move || {
        stream.write_all(&sent).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        stream
    });
    let mut got = Vec::new();
    loop {
        let packet = guest.receive();
        match packet.operation {
            DATA => {
                got.extend(packet.data);
                let under_way = (got.len() as u32).wrapping_sub(guest.forwarded);
                assert!(under_way <= guest.buffer, "more than the guest's credit");
                if under_way > 4500 {
                    guest.forwarded = got.len() as u32;
                    guest.send(ports, UPDATE, 0, &[]);
                }
            }
            CREDIT_REQUEST => {
                guest.forwarded = got.len() as u32;
                guest.send(ports, UPDATE, 0, &[]);
            }
            SHUTDOWN => {
                assert_eq!(packet.flags, SHUTDOWN_SEND);
                break;
            }
            _ => {}
        }
    }
    assert!(got == data, "{} of {} bytes", got.len(), data.len());
    // The other direction is still open.
    let mut stream = thread.join().unwrap();
    guest.send(ports, DATA, 0, b"thanks");
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"thanks");
    // The guest's end closes both.
    guest.send(ports, SHUTDOWN, SHUTDOWN_SEND | SHUTDOWN_RECEIVE, &[]);
    assert_eq!(guest.receive().operation, RESET);
    assert_eq!(stream.read(&mut answer).unwrap(), 0);
}

#[test]
fn eight_mebibytes_go_to_the_host_within_our_credit() {
    let mut guest = guest();
    let (stream, ports) = guest.connect_from_host(80);
    let data = pattern(8 << 20);
    let thread = std::thread::spawn(move || {
        let mut stream = stream;
        let mut got = Vec::new();
        let mut part = [0; 3000];
        loop {
            match stream.read(&mut part).unwrap() {
                0 => return (got, stream),
                count => got.extend_from_slice(&part[..count]),
            }
        }
    });
    let mut sent = 0u32;
    let (mut buffer, mut forwarded) = (256 << 10, 0u32);
    for part in data.chunks(40_000) {
        while buffer - sent.wrapping_sub(forwarded) < part.len() as u32 {
            let packet = guest.receive();
            assert_eq!(packet.operation, UPDATE);
            (buffer, forwarded) = (packet.buffer, packet.forwarded);
        }
        guest.send(ports, DATA, 0, part);
        sent += part.len() as u32;
    }
    guest.send(ports, SHUTDOWN, SHUTDOWN_SEND, &[]);
    let (got, mut stream) = thread.join().unwrap();
    assert!(got == data, "{} of {} bytes", got.len(), data.len());
    // The other direction is still open.
    stream.write_all(b"got it").unwrap();
    let packet = guest.receive_kind(DATA);
    assert_eq!(packet.data, b"got it");
    drop(stream);
    let end = guest.receive();
    assert_eq!(end.operation, SHUTDOWN);
    // It may be seen to send no more before it is seen to be gone altogether.
    assert_ne!(end.flags & SHUTDOWN_SEND, 0);
    assert_eq!(guest.receive().operation, RESET);
    guest.assert_works();
}

/// A guest that closes at once after its last byte: nothing may be lost.
#[test]
fn the_last_bytes_arrive_before_the_end() {
    let mut guest = guest();
    for ending in [SHUTDOWN, RESET] {
        let (mut stream, ports) = guest.connect_from_host(80);
        let data = pattern(250_000);
        for part in data.chunks(50_000) {
            guest.send(ports, DATA, 0, part);
        }
        guest.send(ports, ending, SHUTDOWN_SEND | SHUTDOWN_RECEIVE, &[]);
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert!(got == data, "{} of {} bytes", got.len(), data.len());
        if ending == SHUTDOWN {
            guest.receive_kind(RESET);
        }
    }
    // The same for a program of the host.
    let (mut stream, ports) = guest.connect_from_host(80);
    let data = pattern(100_000);
    stream.write_all(&data).unwrap();
    drop(stream);
    let mut got = Vec::new();
    let end = loop {
        let packet = guest.receive();
        match packet.operation {
            DATA => got.extend(packet.data),
            _ => break packet,
        }
    };
    assert_eq!((end.operation, end.ports), (SHUTDOWN, ports));
    assert!(got == data, "{} of {} bytes", got.len(), data.len());
    guest.send(ports, RESET, 0, &[]);
    guest.assert_works();
}

#[test]
fn a_program_that_does_not_read_stops_only_its_connection() {
    let mut guest = guest();
    let (_deaf, ports) = guest.connect_from_host(80);
    // Within its credit everything is taken; beyond, the connection is reset.
    let mut sent = 0;
    let reset = loop {
        guest.send(ports, DATA, 0, &[0; 32 << 10]);
        sent += 32 << 10;
        assert!(sent < 4 << 20);
        match guest.receive_within(Duration::from_millis(5)) {
            Some(packet) if packet.operation == RESET => break packet,
            _ => {}
        }
    };
    assert_eq!(reset.ports, ports);
    assert!(sent > 256 << 10);
    guest.assert_works();
}

#[test]
fn packets_that_cannot_be_are_reset() {
    let mut guest = guest();
    guest.offer_buffers();
    // Unknown connections.
    for operation in [
        RESPONSE,
        SHUTDOWN,
        DATA,
        UPDATE,
        CREDIT_REQUEST,
        0,
        8,
        0xffff,
    ] {
        guest.send(PORTS, operation, 0, &[]);
        let reset = guest.receive();
        assert_eq!((reset.operation, reset.ports), (RESET, PORTS));
    }
    guest.send(PORTS, RESET, 0, &[]);
    assert_eq!(guest.receive_within(MOMENT), None, "no reset for a reset");
    // Known connections: opened twice, unknown operation, data that is not there or too long.
    type Act = Box<dyn Fn(&mut Guest, Ports)>;
    let mut broken: Vec<Act> = vec![
        Box::new(|guest, ports| guest.send(ports, REQUEST, 0, &[])),
        Box::new(|guest, ports| guest.send(ports, RESPONSE, 0, &[])),
        Box::new(|guest, ports| guest.send(ports, 9, 0, &[])),
    ];
    for length in [5u32, 65537, u32::MAX] {
        broken.push(Box::new(move |guest, ports| {
            let bytes = guest.header(ports, DATA, 0, length);
            assert!(guest.send_raw(&bytes));
        }));
    }
    broken.push(Box::new(|guest, ports| {
        guest.send(ports, DATA, 0, &[0; 65537]);
    }));
    broken.push(Box::new(|guest, ports| {
        let mut bytes = guest.header(ports, DATA, 0, 0);
        bytes[28] = 2; // a socket type that is not offered
        assert!(guest.send_raw(&bytes));
    }));
    broken.push(Box::new(|guest, ports| {
        guest.send(ports, SHUTDOWN, SHUTDOWN_SEND, &[]);
        guest.send(ports, DATA, 0, b"after the end");
    }));
    for act in broken {
        let (mut stream, ports) = guest.connect_from_host(80);
        act(&mut guest, ports);
        assert_eq!(guest.receive_kind(RESET).ports, ports);
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
    // Others' names, and packets that are no packets.
    let mut bytes = guest.header(PORTS, REQUEST, 0, 0);
    bytes[0] = 9;
    assert!(guest.send_raw(&bytes));
    assert!(guest.send_raw(&[1; 43]));
    assert!(guest.send_raw(&[]));
    assert_eq!(guest.receive_within(MOMENT), None);
    guest.assert_works();
}

#[test]
fn a_flood_of_connections_ends_at_a_limit() {
    let mut guest = guest();
    let path = guest.folder.path().join("guest_50");
    let listener = UnixListener::bind(path).unwrap();
    let count = Arc::new(Mutex::new(Vec::new()));
    let held = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            held.lock().unwrap().push(stream.unwrap());
        }
    });
    let (mut opened, mut refused) = (0, 0);
    for port in 0..1000 {
        let ports = Ports {
            guest: port,
            host: 50,
        };
        guest.send(ports, REQUEST, 0, &[]);
        match guest.receive().operation {
            RESPONSE => opened += 1,
            _ => refused += 1,
        }
    }
    assert!(opened <= 512 && refused >= 488, "{opened} and {refused}");
    assert!(opened > 100, "{opened}");
    for port in 0..1000 {
        let ports = Ports {
            guest: port,
            host: 50,
        };
        guest.send(ports, RESET, 0, &[]);
    }
    guest.assert_works();
}

#[test]
fn a_guest_that_takes_no_answers_is_not_listened_to() {
    let mut guest = guest();
    let mut taken = 0;
    let bytes = guest.header(PORTS, DATA, 0, 0);
    while taken < 2000 && guest.send_raw_within(&bytes, Duration::from_secs(1)) {
        taken += 1;
    }
    assert!((200..400).contains(&taken), "{taken}");
    // Once it offers buffers, everything is answered.
    for _ in 0..taken {
        assert_eq!(guest.receive().operation, RESET);
    }
    guest.receive();
    guest.tx_seen = guest.used(TX);
    guest.assert_works();
}

#[test]
fn a_guest_that_gives_no_credit_gets_nothing() {
    let mut guest = guest();
    guest.buffer = 0;
    let (mut stream, ports) = guest.connect_from_host(80);
    stream.set_nonblocking(true).unwrap();
    let mut written = 0;
    while let Ok(count) = stream.write(&[0; 65536]) {
        written += count;
        assert!(written < 4 << 20, "no more than the socket holds");
    }
    assert_eq!(guest.receive().operation, CREDIT_REQUEST);
    assert_eq!(guest.receive_within(MOMENT), None);
    // Nonsense is no credit either.
    guest.buffer = 100;
    guest.forwarded = 5_000_000;
    guest.send(ports, UPDATE, 0, &[]);
    let _ = guest.receive_within(MOMENT);
    guest.forwarded = 0;
    guest.buffer = 1 << 20;
    guest.assert_works();
}

#[test]
fn a_reset_device_closes_everything_and_starts_again() {
    let mut guest = guest();
    let (mut stream, _) = guest.connect_from_host(80);
    guest.device.reset();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}
