//! `net-probe`: what a guest does on the network between domains, and what it must not.
//!
//! `serve PORT FILE` sends a file to everybody who connects; `fetch ADDRESS PORT` writes what it is
//! sent to its output; `echo PORT` gives everybody back what they send; `hold ADDRESS PORT FILE` keeps
//! one connection to that busy, and writes how often something came back; `count PORT` reads to the end and
//! then answers how many bytes that were; `send ADDRESS PORT BYTES` sends so many, ends its direction, and
//! writes the answer; `stall ADDRESS PORT` takes nothing of what it is sent.
//!
//! As root: `attempt ADDRESS PORT RESOLVER NAME SECONDS` tries to reach an address by TCP, UDP and ICMP,
//! and a name by DNS, and says what was answered; `capture CARD FILE` writes a line for each frame that
//! arrives at a card; `names TO ADDRESS…` answers, at each address, every question for a name with the
//! first; `spoof SOURCE DESTINATION` sends packets of somebody else's address, `forge CARD ADDRESS
//! SOURCE-CARD` frames of somebody else's card, `frames CARD ADDRESS GATEWAY` what else a client must
//! not send. `modules FILE…` loads modules of the kernel.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bulkhead_tests::hostile::frames;

const PATIENCE: Duration = Duration::from_secs(20);
/// Where nothing can come from, nobody waits as long.
const CONNECT: Duration = Duration::from_secs(5);
/// Between two tries of a connection.
const AGAIN: Duration = Duration::from_millis(300);
const PACKETS: usize = 20;
/// Is in all that `attempt` sends, but in what begins a TCP connection.
const MARK: &[u8] = b"bulkhead-leak";
/// RFC 792.
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["serve", port, file] => serve(port, file),
        ["fetch", address, port] => fetch(address, port),
        ["echo", port] => echo(port),
        ["count", port] => count(port),
        ["send", address, port, bytes] => send_and_end(address, port, bytes),
        ["stall", address, port] => stall(address, port),
        ["hold", address, port, file] => hold(address, port, file),
        ["attempt", address, port, resolver, name, seconds] => {
            attempt(address, port, resolver, name, seconds)
        }
        ["names", to, addresses @ ..] => names(to, addresses),
        ["capture", card, file] => capture(card, file),
        ["spoof", source, destination] => spoof(source, destination),
        ["forge", card, address, source] => forge(card, address, source),
        ["frames", card, address, gateway] => frames(card, address, gateway),
        ["modules", files @ ..] => modules(files),
        _ => Err(io::Error::other(
            "serve PORT FILE, fetch ADDRESS PORT, echo PORT, hold ADDRESS PORT FILE, count PORT, send \
             ADDRESS PORT BYTES, stall ADDRESS PORT, attempt ADDRESS PORT RESOLVER NAME SECONDS, \
             capture CARD FILE, names TO ADDRESS…, spoof SOURCE \
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

/// Those that are there already are not loaded again. The kernel unpacks those that are packed
/// (`MODULE_INIT_COMPRESSED_FILE`).
fn modules(files: &[&str]) -> io::Result<()> {
    for file in files {
        let open = File::open(file)?;
        let flags: libc::c_int = if file.ends_with(".ko") { 0 } else { 4 };
        // SAFETY: the descriptor is open and the parameters are an empty C string.
        let result = unsafe {
            libc::syscall(
                libc::SYS_finit_module,
                open.as_raw_fd(),
                c"".as_ptr(),
                flags,
            )
        };
        let error = io::Error::last_os_error();
        if result != 0 && error.raw_os_error() != Some(libc::EEXIST) {
            return Err(io::Error::other(format!("{file}: {error}")));
        }
    }
    Ok(())
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

fn hold(address: &str, port: &str, file: &str) -> io::Result<()> {
    let address = SocketAddrV4::new(parse(address)?, parse(port)?);
    let mut stream = TcpStream::connect_timeout(&address.into(), CONNECT)?;
    for count in 1_u64.. {
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
        // Never half a number.
        let new = format!("{file}.new");
        std::fs::write(&new, count.to_string())?;
        std::fs::rename(&new, file)?;
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Sends by each way, and then waits for answers. A connection that is refused or cut off is made anew:
/// Tor gives up those whose path it changes its mind about.
fn attempt(address: &str, port: &str, resolver: &str, name: &str, seconds: &str) -> io::Result<()> {
    let (address, port): (Ipv4Addr, u16) = (parse(address)?, parse(port)?);
    let end = Instant::now() + Duration::from_secs(parse(seconds)?);
    let left = || {
        let left = end.saturating_duration_since(Instant::now());
        left.max(Duration::from_millis(50))
    };
    // What a socket has no way for it cannot send: that is an outcome, not an error.
    let datagram = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let _ = datagram.send_to(MARK, (address, port));
    let question = question(name);
    let ask = |server: Ipv4Addr| -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let _ = socket
            .connect((server, 53))
            .and_then(|()| socket.send(&question));
        Ok(socket)
    };
    let (near, far) = (ask(parse(resolver)?)?, ask(address)?);
    let pings = ping(address)?;

    let target = SocketAddrV4::new(address, port);
    let mut answered = Vec::new();
    loop {
        if is_served(target, left()) {
            answered.push("tcp");
            break;
        }
        if Instant::now() >= end {
            break;
        }
        std::thread::sleep(AGAIN.min(left()));
    }
    for (word, socket) in [("dns", near), ("far-dns", far)] {
        socket.set_read_timeout(Some(left()))?;
        let mut answer = [0; 512];
        // The same question, and at least one record.
        if let Ok(count) = socket.recv(&mut answer)
            && count > question.len()
            && answer[..2] == question[..2]
            && answer[6..8] != [0, 0]
        {
            answered.push(word);
        }
    }
    while let Ok(packet) = receive(&pings, left()) {
        let header = usize::from(packet[0] & 15) * 4;
        let reply = packet.get(header..).unwrap_or_default();
        if reply.first() == Some(&ECHO_REPLY) && reply.ends_with(MARK) {
            answered.push("icmp");
            break;
        }
    }
    println!("{}", answered.join(" "));
    Ok(())
}

/// Whether a connection comes to be and brings something: an intermediary may accept what it cannot
/// reach.
fn is_served(target: SocketAddrV4, patience: Duration) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&target.into(), patience) else {
        return false;
    };
    let waits = stream.set_read_timeout(Some(patience));
    waits.is_ok() && stream.read(&mut [0]).is_ok_and(|count| count == 1)
}

/// A question for the address of a name (RFC 1035), which is marked.
fn question(name: &str) -> Vec<u8> {
    let number = std::process::id() as u16;
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let mark = std::str::from_utf8(MARK).unwrap_or_default();
    for label in [mark].into_iter().chain(name.split('.')) {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// A DNS server (RFC 1035) for which all names are one machine's. An answer comes from where it was
/// asked.
fn names(to: &str, addresses: &[&str]) -> io::Result<()> {
    let to: Ipv4Addr = parse(to)?;
    let mut servers = Vec::new();
    for address in addresses {
        let socket = UdpSocket::bind((parse::<Ipv4Addr>(address)?, 53))?;
        servers.push(std::thread::spawn(move || serve_names(&socket, to)));
    }
    for server in servers {
        let ended = server
            .join()
            .map_err(|_| io::Error::other("a server has ended"))?;
        ended?;
    }
    Ok(())
}

fn serve_names(socket: &UdpSocket, address: Ipv4Addr) -> io::Result<()> {
    let mut bytes = [0; 512];
    loop {
        let (count, from) = socket.recv_from(&mut bytes)?;
        let Some(question) = bytes.get(12..count) else {
            continue;
        };
        let mut end = 0;
        while let Some(length) = question.get(end).filter(|length| **length != 0) {
            end += usize::from(*length) + 1;
        }
        let Some(asked) = question.get(..end + 5) else {
            continue;
        };
        let is_address = asked.ends_with(&[0, 1, 0, 1]);
        // An answer with recursion, one question, perhaps one record.
        let mut answer = bytes[..2].to_vec();
        answer.extend([0x81, 0x80, 0, 1, 0, is_address.into(), 0, 0, 0, 0]);
        answer.extend(asked);
        if is_address {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
            answer.extend(address.octets());
        }
        let _ = socket.send_to(&answer, from);
    }
}

/// Sends an echo request.
fn ping(address: Ipv4Addr) -> io::Result<OwnedFd> {
    let socket = socket(libc::AF_INET, libc::IPPROTO_ICMP)?;
    let mut packet = vec![ECHO_REQUEST, 0, 0, 0, 0xb1, 0x6b, 0, 1];
    packet.extend(MARK);
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    let _ = send(&socket, &packet, &internet(address));
    Ok(socket)
}

fn receive(socket: &OwnedFd, patience: Duration) -> io::Result<Vec<u8>> {
    let mut entry = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry is borrowed for the call.
    let ready = unsafe { libc::poll(&mut entry, 1, patience.as_millis() as libc::c_int) };
    if ready <= 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut bytes = vec![0; 70_000];
    // SAFETY: the buffer is borrowed for the call, with its length.
    let count = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            0,
        )
    };
    match usize::try_from(count) {
        Ok(count) if count > 0 => {
            bytes.truncate(count);
            Ok(bytes)
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writes what arrives at a card, a line a frame: `ip SOURCE DESTINATION PROTOCOL FROM-PORT TO-PORT
/// marked`, or `other TYPE`.
fn capture(card: &str, file: &str) -> io::Result<()> {
    // Frames of all types, in the order of the network.
    let all = (libc::ETH_P_ALL as u16).to_be();
    let socket = socket(libc::AF_PACKET, all.into())?;
    let mut to = link(card)?;
    to.sll_protocol = all;
    // SAFETY: the address is borrowed for the call, with its length.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&to).cast(),
            size_of_val(&to) as libc::socklen_t,
        )
    };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    let own = std::fs::read_to_string(format!("/sys/class/net/{card}/address"))?;
    let own = mac(own.trim())?;
    let mut file = File::create(file)?;
    loop {
        let frame = match receive(&socket, Duration::from_secs(3600)) {
            // Before it was bound it saw others' as well; what the card sends it sees now.
            Ok(frame) if frame.get(6..12) == Some(&own) => continue,
            Ok(frame) => frame,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => continue,
            Err(error) => return Err(error),
        };
        writeln!(file, "{}", describe(&frame))?;
    }
}

fn describe(frame: &[u8]) -> String {
    let kind = frame.get(12..14).unwrap_or_default();
    let packet = frame.get(14..).unwrap_or_default();
    if kind != [8, 0] || packet.len() < 20 {
        return format!("other {kind:02x?}");
    }
    let address =
        |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let inner = packet
        .get(usize::from(packet[0] & 15) * 4..)
        .unwrap_or_default();
    let port = |at: usize| match inner.get(at..at + 2) {
        Some([a, b]) if [6, 17].contains(&packet[9]) => u16::from_be_bytes([*a, *b]),
        _ => 0,
    };
    let marked = inner.windows(MARK.len()).any(|window| window == MARK);
    format!(
        "ip {} {} {} {} {} {}",
        address(12),
        address(16),
        packet[9],
        port(0),
        port(2),
        if marked { "marked" } else { "-" }
    )
}

/// The Internet's checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks(2);
    let words = pairs.map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A UDP packet without contents, whose checksum is left to nobody (RFC 768).
fn packet(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend([0x30, 0x39, 0x30, 0x39, 0, 8, 0, 0]);
    let sum = checksum(&bytes[..20]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
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
    let to = internet(destination);
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
    let socket = socket(libc::AF_PACKET, 0)?;
    let to = link(card)?;
    for _ in 0..PACKETS {
        send(&socket, frame, &to)?;
    }
    Ok(())
}

fn internet(address: Ipv4Addr) -> libc::sockaddr_in {
    // SAFETY: a sockaddr_in is plain old data, for which zeroes are valid.
    let mut to: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    to.sin_family = libc::AF_INET as libc::sa_family_t;
    to.sin_addr.s_addr = u32::from_ne_bytes(address.octets());
    to
}

fn link(card: &str) -> io::Result<libc::sockaddr_ll> {
    let index = std::fs::read_to_string(format!("/sys/class/net/{card}/ifindex"))?;
    // SAFETY: a sockaddr_ll is plain old data, for which zeroes are valid.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as libc::sa_family_t;
    to.sll_ifindex = parse(index.trim())?;
    Ok(to)
}
