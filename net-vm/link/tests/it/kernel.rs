//! Two kernels' IP stacks instead of packets built by hand: network namespaces with tap devices, which
//! write the same headers as a guest's card. Segmentation and checksums are left undone all the way.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use crate::fixture::{Card, Link};

const VLAN: u8 = 9;
const BYTES: usize = 32 << 20;

/// A tap device in a network of this thread's own, which ends with its threads.
fn tap(mac: &str, own: &str, other: &str) -> io::Result<OwnedFd> {
    // SAFETY: it takes no pointers, and changes this thread alone.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tap = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    // struct ifreq: a name of 16 bytes, and here flags (2).
    let mut request = [0_u8; 40];
    request[..4].copy_from_slice(b"eth0");
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request[16..18].copy_from_slice(&(flags as u16).to_ne_bytes());
    let header: libc::c_int = 12;
    let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    // SAFETY: the first two read an ifreq and an int that live as long as the calls; the third takes
    // a number.
    let results = unsafe {
        [
            libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, request.as_ptr()),
            libc::ioctl(tap.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const header),
            libc::ioctl(
                tap.as_raw_fd(),
                libc::TUNSETOFFLOAD,
                libc::c_ulong::from(offloads),
            ),
        ]
    };
    if results != [0; 3] {
        return Err(io::Error::last_os_error());
    }
    let script = format!(
        "set -e; ip link set eth0 address {mac}; ip link set eth0 up; \
         ip addr add {own}/32 dev eth0; ip route add {other} dev eth0"
    );
    let done = Command::new("sh")
        .args(["-c", &script])
        .stderr(Stdio::null())
        .status()?;
    if !done.success() {
        return Err(io::Error::other("ip (iproute2) is missing or refuses"));
    }
    Ok(tap)
}

/// Moves the places in a header by a tag, as a VLAN device does.
fn shift(packet: &mut [u8], by: i16) {
    for (at, is_used) in [(2, packet[1] != 0), (6, packet[0] & 1 != 0)] {
        let place = u16::from_le_bytes([packet[at], packet[at + 1]]);
        if is_used {
            let moved = place.wrapping_add_signed(by);
            packet[at..at + 2].copy_from_slice(&moved.to_le_bytes());
        }
    }
}

/// Carries packets between a device and its card until told to stop.
fn pump(tap: &OwnedFd, card: &Card, vlan: Option<u8>, stop: &AtomicBool) {
    let mut bytes = vec![0; 1 << 17];
    while !stop.load(Ordering::Relaxed) {
        let mut fds = [
            PollFd::new(tap, PollFlags::IN),
            PollFd::new(&card.socket, PollFlags::IN),
        ];
        let nanoseconds = if card.wait_for_packets() {
            0
        } else {
            50_000_000
        };
        let limit = Timespec {
            tv_sec: 0,
            tv_nsec: nanoseconds,
        };
        poll(&mut fds, Some(&limit)).unwrap();
        while let Ok(length) = rustix::io::read(tap, &mut bytes) {
            let mut packet = bytes[..length].to_vec();
            if let Some(vlan) = vlan {
                shift(&mut packet, 4);
                packet.splice(24..24, [0x81, 0, 0, vlan]);
            }
            card.send(&packet);
        }
        while let Some(mut packet) = card.try_receive() {
            if packet.len() == 1 {
                continue;
            }
            if vlan.is_some() {
                shift(&mut packet, -4);
                packet.drain(24..28);
            }
            rustix::io::write(tap, &packet).unwrap();
        }
    }
}

/// Stops the pumps of both sides when this one has failed, so that the test ends.
struct StopIfFailed<'a>(&'a AtomicBool);

impl Drop for StopIfFailed<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

fn pattern() -> impl Iterator<Item = Vec<u8>> {
    let block = |number: usize| {
        (0..1 << 16)
            .map(|at| (at * 31 + number * 7) as u8)
            .collect()
    };
    (0..BYTES >> 16).map(block)
}

fn send_all(stream: &mut TcpStream) {
    for block in pattern() {
        stream.write_all(&block).unwrap();
    }
}

fn receive_all(stream: &mut TcpStream) {
    for expected in pattern() {
        let mut block = vec![0; expected.len()];
        stream.read_exact(&mut block).unwrap();
        assert!(block == expected, "what came is not what was sent");
    }
}

#[test]
fn two_kernels_speak_through_it() {
    let link = Link::start();
    // Kept to the end, since a port goes with its other end, and its numbers with it.
    let trunk = Arc::new(link.trunk("net", "02:00:00:00:00:01"));
    let work = Arc::new(link.client("work", "net", VLAN));
    let stop = Arc::new(AtomicBool::new(false));
    let (ready, is_ready) = channel();
    let server = {
        let (stop, trunk) = (stop.clone(), trunk.clone());
        thread::spawn(move || {
            let tap = match tap("02:00:00:00:00:01", "10.137.0.1", "10.137.0.9") {
                Ok(tap) => tap,
                Err(error) => {
                    ready.send(Err(error)).unwrap();
                    return;
                }
            };
            let listener = TcpListener::bind("10.137.0.1:5001").unwrap();
            let datagrams = UdpSocket::bind("10.137.0.1:5002").unwrap();
            let limit = Some(Duration::from_secs(30));
            datagrams.set_read_timeout(limit).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| pump(&tap, &trunk, Some(VLAN), &stop));
                let _guard = StopIfFailed(&stop);
                ready.send(Ok(())).unwrap();
                let mut big = [0; 8192];
                let (length, from) = datagrams.recv_from(&mut big).unwrap();
                datagrams.send_to(&big[..length], from).unwrap();
                listener.set_nonblocking(true).unwrap();
                let mut stream = loop {
                    match listener.accept() {
                        Ok((stream, _)) => break stream,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => panic!("{error}"),
                    }
                    assert!(!stop.load(Ordering::Relaxed), "the other side failed");
                    thread::sleep(Duration::from_millis(5));
                };
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(limit).unwrap();
                receive_all(&mut stream);
                send_all(&mut stream);
                stream.shutdown(Shutdown::Write).unwrap();
                // Until the other side has all of it.
                let _ = stream.read(&mut [0]);
                stop.store(true, Ordering::Relaxed);
            });
        })
    };
    if let Err(error) = is_ready.recv().unwrap() {
        println!("SKIPPED: a network namespace with a tap device cannot be made here: {error}");
        return;
    }
    let card = work.clone();
    let client = thread::spawn(move || {
        let tap = tap("02:00:00:00:00:09", "10.137.0.9", "10.137.0.1").unwrap();
        thread::scope(|scope| {
            scope.spawn(|| pump(&tap, &card, None, &stop));
            let _guard = StopIfFailed(&stop);
            let limit = Some(Duration::from_secs(30));
            // Three fragments there and back.
            let datagrams = UdpSocket::bind("10.137.0.9:0").unwrap();
            datagrams.set_read_timeout(limit).unwrap();
            let sent: Vec<u8> = (0..4000).map(|at| at as u8).collect();
            datagrams.send_to(&sent, "10.137.0.1:5002").unwrap();
            let mut came = [0; 8192];
            let length = datagrams.recv(&mut came).unwrap();
            assert_eq!(came[..length], sent);
            let mut stream = TcpStream::connect("10.137.0.1:5001").unwrap();
            stream.set_read_timeout(limit).unwrap();
            send_all(&mut stream);
            receive_all(&mut stream);
        });
    });
    client.join().unwrap();
    server.join().unwrap();
    for name in ["net", "work"] {
        let port = link.port(name);
        // Kernels look for IPv6 routers, whom they do not find.
        let others: Vec<_> = port["refused"]
            .as_object()
            .unwrap()
            .keys()
            .filter(|reason| *reason != "ipv6")
            .collect();
        assert!(others.is_empty(), "{port}");
        // Acknowledgements counted, frames are still far longer than the MTU.
        let average =
            port["in"]["bytes"].as_u64().unwrap() / port["in"]["frames"].as_u64().unwrap();
        assert!(average > 4000, "{port}");
    }
}
