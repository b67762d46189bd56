//! Packets built by hand: headers of cards, frames, and what they carry.
#![allow(dead_code)]

pub const TRUNK: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const CARD: [u8; 6] = [2, 0, 0, 0, 0, 9];
pub const OTHER_CARD: [u8; 6] = [2, 0, 0, 0, 0, 10];
pub const ALL: [u8; 6] = [0xff; 6];
pub const ADDRESS: [u8; 4] = [10, 137, 0, 9];
pub const OTHER_ADDRESS: [u8; 4] = [10, 137, 0, 10];
pub const GATEWAY: [u8; 4] = [10, 137, 0, 1];
pub const WORLD: [u8; 4] = [192, 0, 2, 1];
pub const IPV4: u16 = 0x0800;
pub const ARP: u16 = 0x0806;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// An empty header of a card.
pub const PLAIN: [u8; 12] = [0; 12];

/// A header that asks for a checksum.
pub fn checksum(start: u16, offset: u16) -> [u8; 12] {
    let mut header = PLAIN;
    header[0] = 1;
    header[6..8].copy_from_slice(&start.to_le_bytes());
    header[8..10].copy_from_slice(&offset.to_le_bytes());
    header
}

/// A header that asks for segments of IPv4's TCP.
pub fn segments(headers: u16, size: u16, start: u16) -> [u8; 12] {
    let mut header = checksum(start, 16);
    header[1] = 1;
    header[2..4].copy_from_slice(&headers.to_le_bytes());
    header[4..6].copy_from_slice(&size.to_le_bytes());
    header
}

pub fn packet(header: [u8; 12], frame: &[u8]) -> Vec<u8> {
    [&header, frame].concat()
}

pub fn ether(destination: [u8; 6], source: [u8; 6], kind: u16, body: &[u8]) -> Vec<u8> {
    [&destination, &source, &kind.to_be_bytes()[..], body].concat()
}

/// A frame with a tag of this type and with this content.
pub fn tag_of(kind: u16, tag: u16, frame: &[u8]) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend(kind.to_be_bytes());
    tagged.extend(tag.to_be_bytes());
    tagged.extend(&frame[12..]);
    tagged
}

pub fn tag(vlan: u16, frame: &[u8]) -> Vec<u8> {
    tag_of(0x8100, vlan, frame)
}

pub struct Ip<'a> {
    pub source: [u8; 4],
    pub destination: [u8; 4],
    pub protocol: u8,
    pub fragment: u16,
    pub options: &'a [u8],
}

impl Default for Ip<'_> {
    fn default() -> Self {
        Self {
            source: ADDRESS,
            destination: WORLD,
            protocol: UDP,
            fragment: 0,
            options: &[],
        }
    }
}

impl Ip<'_> {
    /// Whole, with a right checksum.
    pub fn with(&self, contents: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut bytes = vec![0x40 | (header / 4) as u8, 0];
        bytes.extend(((header + contents.len()) as u16).to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([64, self.protocol, 0, 0]);
        bytes.extend(self.source);
        bytes.extend(self.destination);
        bytes.extend(self.options);
        let mut sum: u32 = bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        bytes[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        bytes.extend(contents);
        bytes
    }
}

pub fn udp(source: u16, destination: u16, length: usize) -> Vec<u8> {
    let mut bytes = source.to_be_bytes().to_vec();
    bytes.extend(destination.to_be_bytes());
    bytes.extend(((8 + length) as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend((0..length).map(|at| at as u8));
    bytes
}

/// TCP with a header of 32 bytes.
pub fn tcp(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    bytes[..4].copy_from_slice(&[0x80, 0, 0, 80]);
    bytes[12..14].copy_from_slice(&[0x80, 0x18]);
    bytes.extend((0..length).map(|at| (at * 7) as u8));
    bytes
}

pub fn arp(operation: u16, card: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4];
    bytes.extend(operation.to_be_bytes());
    bytes.extend(card);
    bytes.extend(sender);
    bytes.extend([0; 6]);
    bytes.extend(target);
    bytes
}

/// What the client sends into the world, with a number to know it by.
pub fn up(number: u32, length: usize) -> Vec<u8> {
    numbered(CARD, ADDRESS, number, length)
}

pub fn numbered(card: [u8; 6], address: [u8; 4], number: u32, length: usize) -> Vec<u8> {
    let mut contents = udp(5000, 53, length.max(4));
    contents[8..12].copy_from_slice(&number.to_be_bytes());
    let ip = Ip {
        source: address,
        ..Ip::default()
    };
    packet(PLAIN, &ether(TRUNK, card, IPV4, &ip.with(&contents)))
}

/// The number in a packet of [`numbered`] or [`down`], before which `tag` bytes are a tag.
pub fn number(packet: &[u8], tag: usize) -> u32 {
    let at = 12 + 14 + tag + 20 + 8;
    u32::from_be_bytes(packet[at..at + 4].try_into().unwrap())
}

/// What the world sends to a client, without a tag.
pub fn down_frame(card: [u8; 6], address: [u8; 4], number: u32, length: usize) -> Vec<u8> {
    let mut contents = udp(53, 5000, length.max(4));
    contents[8..12].copy_from_slice(&number.to_be_bytes());
    let ip = Ip {
        source: WORLD,
        destination: address,
        ..Ip::default()
    };
    ether(card, TRUNK, IPV4, &ip.with(&contents))
}
