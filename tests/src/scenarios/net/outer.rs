//! A network outside of the host that the tests make up: one machine that is router, DHCP server and
//! DNS server, and sees everything. It is what an emulated card's cable leads to; nothing of it leaves
//! the process.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The router, which is the DHCP server as well.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The address that it gives away.
pub const GIVEN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 15);
/// For how many seconds.
pub const LEASE_S: u32 = 30;
/// The DNS server, behind the router.
pub const DNS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
/// Where all names lead.
pub const NAMED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 80);
const ROUTER_MAC: [u8; 6] = [0x02, 0, 0x5e, 0, 0, 1];
/// Longer frames are none of a card's.
const MAX_FRAME: usize = 70_000;

/// What came over the cable.
#[derive(Debug, Default)]
pub struct Seen {
    /// Leases that were asked for again by who has one.
    pub renewals: u32,
    /// Questions for names.
    pub questions: u32,
    /// Where TCP connections were begun: from and to.
    pub connections: BTreeSet<(Ipv4Addr, Ipv4Addr)>,
    /// Whose IPv4 packets came.
    pub sources: BTreeSet<Ipv4Addr>,
    /// Somebody told the DHCP server what it is made of.
    pub names_software: bool,
    /// The DHCP server says nothing.
    pub silent: bool,
}

/// The network.
pub struct Outer {
    socket: PathBuf,
    seen: Arc<Mutex<Seen>>,
}

impl Outer {
    /// A network that a card is plugged into by connecting to a socket in `folder`.
    pub fn begin(folder: &Path) -> io::Result<Self> {
        let socket = folder.join("cable.sock");
        let listener = UnixListener::bind(&socket)?;
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = seen.clone();
        std::thread::Builder::new()
            .name("outer-network".into())
            .spawn(move || {
                // It ends with the emulator.
                if let Ok((stream, _)) = listener.accept() {
                    let _ = serve(stream, &shared);
                }
            })?;
        Ok(Outer { socket, seen })
    }

    /// The emulator's word for it.
    pub fn netdev(&self) -> String {
        let socket = self.socket.display();
        format!("stream,id=nic,server=off,addr.type=unix,addr.path={socket}")
    }

    /// What came so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The emulator writes each frame's length before it.
fn serve(mut stream: UnixStream, seen: &Mutex<Seen>) -> io::Result<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut frame = vec![0; length];
        stream.read_exact(&mut frame)?;
        let answer = answer(&frame, &mut lock(seen));
        if let Some(answer) = answer {
            stream.write_all(&(answer.len() as u32).to_be_bytes())?;
            stream.write_all(&answer)?;
        }
    }
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(bytes.into())
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes: [u8; 2] = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_be_bytes(bytes))
}

fn answer(frame: &[u8], seen: &mut Seen) -> Option<Vec<u8>> {
    let sender = frame.get(6..12)?;
    match number(frame, 12)? {
        0x0806 => {
            let asked = address(frame, 38)?;
            let is_request = number(frame, 20)? == 1;
            let answer = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &ROUTER_MAC, &asked.octets()];
            let answer = [&answer.concat()[..], sender, frame.get(28..32)?].concat();
            (is_request && asked == ROUTER).then(|| ethernet(sender, 0x0806, &answer))
        }
        0x0800 => ip(frame.get(14..)?, sender, seen),
        _ => None,
    }
}

fn ip(packet: &[u8], sender: &[u8], seen: &mut Seen) -> Option<Vec<u8>> {
    let (from, to) = (address(packet, 12)?, address(packet, 16)?);
    seen.sources.insert(from);
    let inner = packet.get(usize::from(packet.first()? & 15) * 4..)?;
    match packet.get(9)? {
        // TCP: only beginnings (SYN without ACK) matter.
        6 if inner.get(13)? & 0x12 == 2 => {
            seen.connections.insert((from, to));
            None
        }
        17 => {
            let (from_port, to_port) = (number(inner, 0)?, number(inner, 2)?);
            let data = inner.get(8..)?;
            let (source, target, data) = match to_port {
                67 if !seen.silent => (ROUTER, Ipv4Addr::BROADCAST, dhcp(data, seen)?),
                53 if to == DNS => {
                    seen.questions += 1;
                    (DNS, from, name(data)?)
                }
                _ => return None,
            };
            // Who has an address already is answered there.
            let has_address = to_port == 67 && !from.is_unspecified();
            let target = if has_address { from } else { target };
            let packet = udp((source, to_port), (target, from_port), &data);
            Some(ethernet(sender, 0x0800, &packet))
        }
        _ => None,
    }
}

/// DHCP (RFC 2131): the same address for everybody who asks.
fn dhcp(request: &[u8], seen: &mut Seen) -> Option<Vec<u8>> {
    let mut options = request.get(240..)?;
    let speaks_of = |word: &[u8]| options.windows(word.len()).any(|words| words == word);
    seen.names_software |= speaks_of(b"dhcpcd") || speaks_of(b"Linux");
    let mut kind = None;
    while let [code, length, rest @ ..] = options {
        let (value, rest) = rest.split_at_checked((*length).into())?;
        if *code == 53 {
            kind = value.first();
            break;
        }
        options = rest;
    }
    let kind = match kind? {
        1 => 2,
        3 => 5,
        _ => return None,
    };
    if kind == 5 && !address(request, 12)?.is_unspecified() {
        seen.renewals += 1;
    }
    let mut answer = vec![0; 240];
    answer[..4].copy_from_slice(&[2, 1, 6, 0]);
    answer[4..8].copy_from_slice(request.get(4..8)?);
    answer[10..16].copy_from_slice(request.get(10..16)?);
    answer[16..20].copy_from_slice(&GIVEN.octets());
    answer[20..24].copy_from_slice(&ROUTER.octets());
    answer[28..44].copy_from_slice(request.get(28..44)?);
    answer[236..240].copy_from_slice(&[99, 130, 83, 99]);
    answer.extend([53, 1, kind]);
    for (code, value) in [
        (54, ROUTER.octets()),
        (51, LEASE_S.to_be_bytes()),
        (1, [255, 255, 255, 0]),
        (3, ROUTER.octets()),
        (6, DNS.octets()),
    ] {
        answer.extend([code, 4]);
        answer.extend(value);
    }
    answer.push(255);
    Some(answer)
}

/// DNS (RFC 1035): each name has one address.
fn name(question: &[u8]) -> Option<Vec<u8>> {
    let mut end = 12;
    while *question.get(end)? != 0 {
        end += usize::from(*question.get(end)?) + 1;
    }
    let is_address = number(question, end + 1)? == 1;
    let asked = question.get(12..end + 5)?;
    let mut answer = question.get(..2)?.to_vec();
    // An answer with recursion, one question, perhaps one record.
    answer.extend([0x81, 0x80, 0, 1, 0, is_address.into(), 0, 0, 0, 0]);
    answer.extend(asked);
    if is_address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
        answer.extend(NAMED.octets());
    }
    Some(answer)
}

fn ethernet(to: &[u8], kind: u16, contents: &[u8]) -> Vec<u8> {
    let mut frame = [to, &ROUTER_MAC, &kind.to_be_bytes(), contents].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), data: &[u8]) -> Vec<u8> {
    let length = (data.len() + 8) as u16;
    let mut datagram = [from.1, to.1, length, 0].map(u16::to_be_bytes).concat();
    datagram.extend(data);
    let pseudo = [
        &from.0.octets()[..],
        &to.0.octets(),
        &[0, 17],
        &length.to_be_bytes(),
        &datagram,
    ];
    let sum = checksum(&pseudo.concat());
    // Zero would be none.
    let sum = if sum == 0 { u16::MAX } else { sum };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x45, 0];
    packet.extend((length + 20).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.0.octets());
    packet.extend(to.0.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(datagram);
    packet
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_have_right_checksums() {
        let packet = udp((ROUTER, 67), (GIVEN, 68), b"abc");
        assert_eq!(checksum(&packet[..20]), 0);
        let pseudo = [&packet[12..20], &[0, 17], &packet[24..26], &packet[20..]].concat();
        assert_eq!(checksum(&pseudo), 0);
    }

    #[test]
    fn a_name_is_answered_with_its_address() {
        let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01";
        let answer = name(question).unwrap();
        assert!(answer.starts_with(b"\x12\x34\x81\x80\0\x01\0\x01"));
        assert!(answer.ends_with(&NAMED.octets()));
        assert!(name(&question[..15]).is_none());
    }

    #[test]
    fn pieces_of_frames_are_nothing() {
        let request = ethernet(&[255; 6], 0x0800, &udp((GIVEN, 5), (DNS, 53), b"x"));
        // Up to where the question would begin.
        for length in 0..14 + 20 + 8 + 12 {
            assert!(answer(&request[..length], &mut Seen::default()).is_none());
        }
    }
}
