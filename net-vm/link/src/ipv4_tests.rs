//! IPv4 headers, good ones and tricks.

use super::*;

/// A packet with options, the field of fragments, and contents.
fn packet(protocol: u8, field: u16, options: &[u8], contents: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut bytes = vec![0; 20];
    bytes[0] = 0x40 | (header / 4) as u8;
    bytes[2..4].copy_from_slice(&((header + contents.len()) as u16).to_be_bytes());
    bytes[6..8].copy_from_slice(&field.to_be_bytes());
    bytes[8] = 64;
    bytes[9] = protocol;
    bytes[12..16].copy_from_slice(&[10, 0, 0, 9]);
    bytes[16..20].copy_from_slice(&[192, 0, 2, 1]);
    bytes.extend(options);
    bytes.extend(contents);
    bytes
}

fn udp(port: u16) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes[..2].copy_from_slice(&port.to_be_bytes());
    bytes
}

fn tcp() -> Vec<u8> {
    let mut bytes = vec![0; 40];
    bytes[12] = 0x80;
    bytes
}

#[test]
fn a_packet_is_read() {
    let bytes = packet(TCP, 0x4000, &[], &tcp());
    let ip = parse(&bytes).unwrap();
    assert_eq!(ip.source, Ipv4Addr::new(10, 0, 0, 9));
    assert_eq!(ip.destination, Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!((ip.header_bytes, ip.total_bytes), (20, 60));
    assert_eq!(ip.tcp_header_bytes, Some(32));
    assert!(!ip.is_fragment && !ip.is_dhcp_server);
    // Padding behind the packet is none of it.
    let mut padded = bytes;
    padded.resize(200, 7);
    assert_eq!(parse(&padded), Ok(ip));
}

#[test]
fn headers_that_do_not_fit_are_refused() {
    let good = packet(UDP, 0, &[], &udp(5000));
    for length in 0..good.len() {
        assert_eq!(parse(&good[..length]), Err(Reason::Ipv4Header), "{length}");
    }
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        parse(&bytes)
    };
    assert_eq!(with(0, 0x65), Err(Reason::Ipv4Header));
    assert_eq!(with(0, 0x44), Err(Reason::Ipv4Header));
    // 60 bytes of header in a packet of 36.
    assert_eq!(with(0, 0x4f), Err(Reason::Ipv4Header));
    // Shorter than its header; longer than the frame.
    assert_eq!(with(3, 19), Err(Reason::Ipv4Header));
    assert_eq!(with(3, 37), Err(Reason::Ipv4Header));
    assert_eq!(with(2, 0xff), Err(Reason::Ipv4Header));
}

#[test]
fn options_are_read_to_their_end() {
    let check = |options: &[u8]| parse(&packet(1, 0, options, &[0; 8])).map(|_| ());
    assert_eq!(check(&[1, 1, 1, 0]), Ok(()));
    // Router alert; record route with room; a timestamp that ends the list exactly.
    assert_eq!(check(&[148, 4, 0, 0]), Ok(()));
    assert_eq!(check(&[7, 7, 4, 0, 0, 0, 0, 0]), Ok(()));
    assert_eq!(check(&[1, 1, 68, 6, 5, 0, 0, 0]), Ok(()));
    // Behind the end nobody reads.
    assert_eq!(check(&[0, 131, 3, 4]), Ok(()));
    assert_eq!(check(&[131, 3, 4, 0]), Err(Reason::SourceRoute));
    assert_eq!(check(&[137, 3, 4, 0]), Err(Reason::SourceRoute));
    assert_eq!(check(&[1, 1, 1, 131]), Err(Reason::SourceRoute));
    assert_eq!(
        check(&[148, 4, 0, 0, 137, 3, 4, 0]),
        Err(Reason::SourceRoute)
    );
    assert_eq!(check(&[148, 0, 0, 0]), Err(Reason::Ipv4Options));
    assert_eq!(check(&[148, 1, 0, 0]), Err(Reason::Ipv4Options));
    assert_eq!(check(&[148, 5, 0, 0]), Err(Reason::Ipv4Options));
    assert_eq!(check(&[1, 1, 1, 148]), Err(Reason::Ipv4Options));
}

#[test]
fn dhcp_servers_are_known_by_their_port() {
    let server = |field, port| parse(&packet(UDP, field, &[], &udp(port))).unwrap();
    assert!(server(0, 67).is_dhcp_server);
    assert!(server(MORE_FRAGMENTS, 67).is_dhcp_server);
    assert!(!server(0, 68).is_dhcp_server);
    // Bytes in the middle of a packet are no port.
    assert!(!server(2, 67).is_dhcp_server);
    let mut contents = tcp();
    contents[..2].copy_from_slice(&67_u16.to_be_bytes());
    assert!(
        !parse(&packet(TCP, 0, &[], &contents))
            .unwrap()
            .is_dhcp_server
    );
}

#[test]
fn no_fragment_hides_or_replaces_a_transport_header() {
    let check = |protocol, field, length: usize| {
        parse(&packet(protocol, field, &[], &vec![0; length])).map(|ip| ip.is_fragment)
    };
    assert_eq!(check(TCP, 0, 20), Ok(false));
    assert_eq!(check(TCP, 0, 19), Err(Reason::TransportHeader));
    assert_eq!(check(TCP, MORE_FRAGMENTS, 16), Err(Reason::TransportHeader));
    assert_eq!(check(TCP, MORE_FRAGMENTS, 24), Ok(true));
    assert_eq!(check(TCP, 1, 24), Err(Reason::Fragment));
    assert_eq!(check(TCP, 2 | MORE_FRAGMENTS, 24), Err(Reason::Fragment));
    assert_eq!(check(TCP, 3, 24), Ok(true));
    assert_eq!(check(UDP, 0, 7), Err(Reason::TransportHeader));
    assert_eq!(check(UDP, MORE_FRAGMENTS, 8), Ok(true));
    assert_eq!(check(UDP, 1, 1), Ok(true));
    assert_eq!(check(1, MORE_FRAGMENTS, 8), Ok(true));
}

#[test]
fn fragments_that_cannot_be_are_refused() {
    let check = |field, length: usize| {
        parse(&packet(1, field, &[], &vec![0; length])).map(|ip| ip.is_fragment)
    };
    assert_eq!(check(MORE_FRAGMENTS, 12), Err(Reason::Fragment));
    assert_eq!(check(MORE_FRAGMENTS, 0), Err(Reason::Fragment));
    assert_eq!(check(5, 0), Err(Reason::Fragment));
    assert_eq!(check(RESERVED_FLAG, 8), Err(Reason::Fragment));
    // The ping of death: together longer than a packet can be.
    assert_eq!(check(OFFSET, 8), Err(Reason::Fragment));
    assert_eq!(check(8188, 11), Ok(true));
    assert_eq!(check(8188, 12), Err(Reason::Fragment));
}

#[test]
fn only_a_whole_tcp_packet_has_a_header_of_tcp() {
    let header = |field, contents: &[u8]| {
        parse(&packet(TCP, field, &[], contents))
            .unwrap()
            .tcp_header_bytes
    };
    assert_eq!(header(0, &tcp()), Some(32));
    assert_eq!(header(MORE_FRAGMENTS, &tcp()), None);
    for offset in [0x00, 0x40, 0xb0, 0xf0] {
        let mut contents = tcp();
        contents[12] = offset;
        assert_eq!(header(0, &contents), None, "{offset:#x}");
    }
}
