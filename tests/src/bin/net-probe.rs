//! `net-probe`: what a guest does on the network between domains, and what it must not.
//!
//! `serve PORT FILE` sends a file to everybody who connects; `fetch ADDRESS PORT` writes what it is
//! sent to its output. `answer ADDRESS TO` answers every question for a name there.
//! `count PORT` reads to the end, and then answers how many bytes that were; `send ADDRESS PORT BYTES` sends so
//! many, ends its direction, and writes the answer; `stall ADDRESS PORT` takes nothing of what it is sent.
//! `echo PORT` gives everybody back what they send; `hold ADDRESS PORT FILE` keeps
//! one connection to that busy, and writes how often something came back. As root: `spoof SOURCE DESTINATION` sends packets of somebody else's address,
//! `forge CARD ADDRESS SOURCE-CARD` frames of somebody else's card, `frames CARD ADDRESS GATEWAY` what else a
//! client must not send.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use bulkhead_tests::hostile::frames;

const PATIENCE: Duration = Duration::from_secs(20);
/// Where nothing can come from, nobody waits as long.
const CONNECT: Duration = Duration::from_secs(5);
const PACKETS: usize = 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["serve", port, file] => serve(port, file),
        ["fetch", address, port] => fetch(address, port),
        ["answer", address, to] => answer(address, to),
        ["echo", port] => echo(port),
        ["count", port] => count(port),
        ["send", address, port, bytes] => send_and_end(address, port, bytes),
        ["stall", address, port] => stall(address, port),
        ["hold", address, port, file] => hold(address, port, file),
        ["spoof", source, destination] => spoof(source, destination),
        ["forge", card, address, source] => forge(card, address, source),
        ["frames", card, address, gateway] => frames(card, address, gateway),
        _ => Err(io::Error::other(
            "serve PORT FILE, fetch ADDRESS PORT, answer ADDRESS TO, echo PORT, count PORT, send ADDRESS PORT BYTES, \
             stall ADDRESS PORT, hold ADDRESS PORT FILE, spoof SOURCE \
             DESTINATION, forge CARD ADDRESS SOURCE-CARD, or frames CARD ADDRESS GATEWAY",
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("net-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse()
        .map_err(|_| io::Error::other(format!("`{text}` cannot be read")))
}

fn serve(port: &str, file: &str) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, parse(port)?))?;
    for stream in listener.incoming() {
        let (mut stream, mut file) = (stream?, File::open(file)?);
        std::thread::spawn(move || {
            // Whoever goes early, or takes nothing, is not this side's trouble.
            if let Err(error) = io::copy(&mut file, &mut stream) {
                eprintln!("net-probe: {error}");
            }
        });
    }
    Ok(())
}

fn fetch(address: &str, port: &str) -> io::Result<()> {
    let address = SocketAddrV4::new(parse(address)?, parse(port)?);
    let mut stream = TcpStream::connect_timeout(&address.into(), CONNECT)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    io::copy(&mut stream, &mut io::stdout().lock()).map(drop)
}

fn echo(port: &str) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, parse(port)?))?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        std::thread::spawn(move || {
            let mut reader = stream.try_clone()?;
            io::copy(&mut reader, &mut stream)
        });
    }
    Ok(())
}

/// The answer comes after the end of the question.
fn count(port: &str) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, parse(port)?))?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        std::thread::spawn(move || {
            let count = io::copy(&mut stream, &mut io::sink())?;
            stream.write_all(count.to_string().as_bytes())
        });
    }
    Ok(())
}

fn send_and_end(address: &str, port: &str, bytes: &str) -> io::Result<()> {
    let address = SocketAddrV4::new(parse(address)?, parse(port)?);
    let mut stream = TcpStream::connect_timeout(&address.into(), CONNECT)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    io::copy(&mut io::repeat(0).take(parse(bytes)?), &mut stream)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    io::copy(&mut stream, &mut io::stdout().lock()).map(drop)
}

fn stall(address: &str, port: &str) -> io::Result<()> {
    let address = SocketAddrV4::new(parse(address)?, parse(port)?);
    let _stream = TcpStream::connect_timeout(&address.into(), CONNECT)?;
    std::thread::sleep(Duration::from_secs(600));
    Ok(())
}

/// One address for every name (RFC 1035, 4.1).
fn answer(address: &str, to: &str) -> io::Result<()> {
    let socket = UdpSocket::bind(SocketAddrV4::new(parse(address)?, 53))?;
    let to: Ipv4Addr = parse(to)?;
    let mut buffer = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        let Some((id, question)) = buffer.get(..length).and_then(|m| m.split_at_checked(2)) else {
            continue;
        };
        // The question's name goes to its empty part; then come its type and its class.
        let Some(rest) = question.get(10..) else {
            continue;
        };
        let name = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
        let Some(asked) = rest.get(..name + 5) else {
            continue;
        };
        let is_address = asked.get(name + 1..name + 3) == Some(&[0, 1]);
        let mut reply = id.to_vec();
        reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
        reply.extend(asked);
        if is_address {
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
            reply.extend(to.octets());
        }
        socket.send_to(&reply, from)?;
    }
}

fn hold(address: &str, port: &str, file: &str) -> io::Result<()> {
    let address = SocketAddrV4::new(parse(address)?, parse(port)?);
    let mut stream = TcpStream::connect_timeout(&address.into(), CONNECT)?;
    for count in 1_u64.. {
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
        std::fs::write(file, count.to_string())?;
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// A UDP packet without contents, whose checksum is left to nobody (RFC 768).
fn packet(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend([0x30, 0x39, 0x30, 0x39, 0, 8, 0, 0]);
    let mut sum: u32 = bytes
        .chunks_exact(2)
        .take(10)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !(sum as u16);
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn socket(domain: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the result is checked.
    let socket = unsafe { libc::socket(domain, kind, protocol) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

fn send<T>(socket: &OwnedFd, bytes: &[u8], to: &T) -> io::Result<()> {
    // SAFETY: bytes and address are borrowed for the call, with their lengths.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            0,
            std::ptr::from_ref(to).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    match sent {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn spoof(source: &str, destination: &str) -> io::Result<()> {
    let (source, destination) = (parse(source)?, parse::<Ipv4Addr>(destination)?);
    // IPPROTO_RAW: the header is ours.
    let socket = socket(libc::AF_INET, libc::IPPROTO_RAW)?;
    // SAFETY: a sockaddr_in is plain old data, for which zeroes are valid.
    let mut to: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    to.sin_family = libc::AF_INET as libc::sa_family_t;
    to.sin_addr.s_addr = u32::from_ne_bytes(destination.octets());
    for _ in 0..PACKETS {
        send(&socket, &packet(source, destination), &to)?;
    }
    Ok(())
}

/// Frames to the network domain's card, from a card that this one is not.
fn forge(card: &str, address: &str, source: &str) -> io::Result<()> {
    let mac = mac(source)?;
    let address: Ipv4Addr = parse(address)?;
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([8, 0]);
    frame.extend(packet(address, address));
    send_frame(card, &frame)
}

/// Everything else that a client must not send.
fn frames(card: &str, address: &str, gateway: &str) -> io::Result<()> {
    let own = std::fs::read_to_string(format!("/sys/class/net/{card}/address"))?;
    let neighbours = std::fs::read_to_string("/proc/net/arp")?;
    let line = neighbours.lines().find(|line| line.starts_with(gateway));
    let gateway_mac = line.and_then(|line| line.split_whitespace().nth(3));
    let ends = frames::Ends {
        mac: mac(own.trim())?,
        address: parse(address)?,
        gateway_mac: mac(gateway_mac.unwrap_or("none"))?,
        gateway: parse(gateway)?,
    };
    for (reason, frame) in frames::all(&ends) {
        send_frame(card, &frame)?;
        println!("{reason}");
    }
    Ok(())
}

fn mac(text: &str) -> io::Result<frames::Mac> {
    let parts: Result<Vec<u8>, _> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16))
        .collect();
    let bytes = parts.ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| io::Error::other(format!("`{text}` is no card's address")))
}

/// Sends a frame several times.
fn send_frame(card: &str, frame: &[u8]) -> io::Result<()> {
    let index: i32 =
        parse(std::fs::read_to_string(format!("/sys/class/net/{card}/ifindex"))?.trim())?;
    let socket = socket(libc::AF_PACKET, 0)?;
    // SAFETY: a sockaddr_ll is plain old data, for which zeroes are valid.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as libc::sa_family_t;
    to.sll_ifindex = index;
    for _ in 0..PACKETS {
        send(&socket, frame, &to)?;
    }
    Ok(())
}
