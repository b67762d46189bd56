//! Frames that a client must not send to its network domain, and what the link counts them as.

use std::net::Ipv4Addr;

/// A card's hardware address.
pub type Mac = [u8; 6];

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const TAG: u16 = 0x8100;
const IPV6: u16 = 0x86dd;
const LLDP: u16 = 0x88cc;
const UDP: u8 = 17;
const TCP: u8 = 6;

/// Who sends, and to whom.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// The client's card.
    pub mac: Mac,
    /// Its address.
    pub address: Ipv4Addr,
    /// The network domain's card.
    pub gateway_mac: Mac,
    /// Its address.
    pub gateway: Ipv4Addr,
}

/// The frames, each with the name of the reason for which it is refused.
pub fn all(ends: &Ends) -> Vec<(&'static str, Vec<u8>)> {
    let plain = |contents: &[u8]| ipv4(ends, UDP, 0, &[], contents);
    let udp = |source: u16, destination: u16| {
        let mut bytes = Vec::new();
        for field in [source, destination, 8, 0] {
            bytes.extend(field.to_be_bytes());
        }
        bytes
    };
    let echo = udp(12345, 7);
    let mut short_header = plain(&echo);
    short_header[0] = 0x44;
    let mut long_packet = plain(&echo);
    long_packet[3] = 0xff;
    // "Go by way of the neighbour" (RFC 791, LSRR), and one byte that says: no more options.
    let route = [0x83, 7, 4, 10, 137, 0, 1, 0];
    let mut announcement = vec![0x60, 0, 0, 0, 0, 16, 58, 255];
    announcement.extend([0; 32]);
    // A router's announcement (RFC 4861, 4.2).
    announcement.extend([134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut tagged = 5_u16.to_be_bytes().to_vec();
    tagged.extend(IPV4.to_be_bytes());
    tagged.extend(plain(&echo));
    let body = |kind, bytes: &[u8]| frame(ends, kind, bytes);
    vec![
        (
            "arp_sender",
            body(ARP, &answer(ends, ends.gateway, ends.mac)),
        ),
        (
            "arp_sender",
            body(ARP, &answer(ends, ends.address, ends.gateway_mac)),
        ),
        ("arp_format", body(ARP, &[0, 1, 8, 0])),
        ("tag", body(TAG, &tagged)),
        ("dhcp_server", body(IPV4, &plain(&udp(67, 68)))),
        ("ipv6", body(IPV6, &announcement)),
        ("ether_type", body(LLDP, &[2, 7, 4])),
        ("ipv4_header", body(IPV4, &short_header)),
        ("ipv4_header", body(IPV4, &long_packet)),
        (
            "source_route",
            body(IPV4, &ipv4(ends, UDP, 0, &route, &echo)),
        ),
        ("fragment", body(IPV4, &ipv4(ends, TCP, 1, &[], &[0; 8]))),
        (
            "transport_header",
            body(IPV4, &ipv4(ends, TCP, 0x2000, &[], &[0; 8])),
        ),
    ]
}

fn frame(ends: &Ends, kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = [ends.gateway_mac, ends.mac].concat();
    bytes.extend(kind.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// "This card has this address" (RFC 826).
fn answer(ends: &Ends, address: Ipv4Addr, mac: Mac) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 2];
    bytes.extend(mac);
    bytes.extend(address.octets());
    bytes.extend(ends.gateway_mac);
    bytes.extend(ends.gateway.octets());
    bytes
}

fn ipv4(ends: &Ends, protocol: u8, fragment: u16, options: &[u8], contents: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut bytes = vec![0x40 | (header / 4) as u8, 0];
    bytes.extend(((header + contents.len()) as u16).to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(ends.address.octets());
    bytes.extend(ends.gateway.octets());
    bytes.extend(options);
    bytes.extend(contents);
    bytes
}
