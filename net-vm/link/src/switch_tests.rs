//! What passes and what does not, frame by frame.

#[path = "../tests/it/frames.rs"]
mod frames;

use frames::*;

use super::*;

const VLAN: u16 = 7;

fn client() -> Client {
    Client {
        mac: Mac(CARD),
        address: ADDRESS.into(),
        vlan: VLAN,
    }
}

fn trunk() -> Trunk {
    Trunk {
        mac: Mac(TRUNK),
        mtu: 1500,
    }
}

fn buffer(packet: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xee; HEADROOM];
    bytes.extend(packet);
    bytes
}

fn send(packet: &[u8]) -> Result<Vec<u8>, Reason> {
    let mut bytes = buffer(packet);
    let passed = to_trunk(&client(), &trunk(), &mut bytes, packet.len())?;
    Ok(bytes[passed.place].to_vec())
}

fn receive(packet: &[u8]) -> Result<Vec<u8>, Reason> {
    let mut bytes = buffer(packet);
    vlan(&bytes, packet.len())?;
    let passed = to_client(&client(), &trunk(), &mut bytes, packet.len())?;
    Ok(bytes[passed.place].to_vec())
}

/// An IPv4 frame of the client.
fn ip_up(ip: &Ip<'_>, contents: &[u8]) -> Vec<u8> {
    packet(PLAIN, &ether(TRUNK, CARD, IPV4, &ip.with(contents)))
}

fn arp_up(destination: [u8; 6], body: &[u8]) -> Vec<u8> {
    packet(PLAIN, &ether(destination, CARD, ARP, body))
}

#[test]
fn a_clients_frame_gets_its_tag() {
    let frame = ether(TRUNK, CARD, IPV4, &Ip::default().with(&udp(5000, 53, 40)));
    let mut header = PLAIN;
    header[10..].fill(0xff);
    assert_eq!(
        send(&packet(header, &frame)),
        Ok(packet(PLAIN, &tag(VLAN, &frame)))
    );
    // As long as the network's packets, and no longer.
    let longest = up(0, 1500 - 28);
    assert_eq!(
        send(&longest).map(|sent| sent.len()),
        Ok(12 + 14 + 4 + 1500)
    );
    assert_eq!(send(&up(0, 1501 - 28)), Err(Reason::OverMtu));
}

#[test]
fn arp_goes_to_all_or_to_the_trunk() {
    for destination in [ALL, TRUNK] {
        let ask = ether(destination, CARD, ARP, &arp(1, CARD, ADDRESS, GATEWAY));
        let sent = send(&packet(PLAIN, &ask));
        assert_eq!(sent, Ok(packet(PLAIN, &tag(VLAN, &ask))));
    }
    assert!(send(&arp_up(ALL, &arp(1, CARD, [0; 4], ADDRESS))).is_ok());
    assert!(send(&arp_up(TRUNK, &arp(2, CARD, ADDRESS, GATEWAY))).is_ok());
}

#[test]
fn nobody_speaks_arp_for_others() {
    for body in [
        arp(1, CARD, GATEWAY, WORLD),
        arp(2, CARD, OTHER_ADDRESS, WORLD),
        arp(1, OTHER_CARD, ADDRESS, GATEWAY),
        arp(1, TRUNK, [0; 4], GATEWAY),
        // A probe asks.
        arp(2, CARD, [0; 4], GATEWAY),
    ] {
        assert_eq!(send(&arp_up(ALL, &body)), Err(Reason::ArpSender));
    }
    let short = arp(1, CARD, ADDRESS, GATEWAY);
    assert_eq!(send(&arp_up(ALL, &short[..27])), Err(Reason::ArpFormat));
}

#[test]
fn addresses_are_the_assigned_ones() {
    let ip = Ip::default().with(&udp(5000, 53, 4));
    let with = |destination, source| send(&packet(PLAIN, &ether(destination, source, IPV4, &ip)));
    assert!(with(TRUNK, CARD).is_ok());
    assert_eq!(with(TRUNK, OTHER_CARD), Err(Reason::SourceMac));
    assert_eq!(with(TRUNK, TRUNK), Err(Reason::SourceMac));
    assert_eq!(with(OTHER_CARD, CARD), Err(Reason::DestinationMac));
    assert_eq!(with(CARD, CARD), Err(Reason::DestinationMac));
    assert_eq!(
        with([1, 0, 0x5e, 0, 0, 1], CARD),
        Err(Reason::DestinationMac)
    );
    assert_eq!(with(ALL, CARD), Err(Reason::Broadcast));
    for source in [OTHER_ADDRESS, GATEWAY, [0; 4], [255; 4], [127, 0, 0, 1]] {
        let ip = Ip {
            source,
            ..Ip::default()
        };
        assert_eq!(
            send(&ip_up(&ip, &udp(5000, 53, 4))),
            Err(Reason::SourceAddress)
        );
    }
}

#[test]
fn only_ipv4_and_arp_are_carried() {
    let ip = Ip::default().with(&udp(5000, 53, 4));
    let of = |kind| send(&packet(PLAIN, &ether(TRUNK, CARD, kind, &ip)));
    for kind in [0x8100, 0x88a8, 0x9100, 0x9200] {
        assert_eq!(of(kind), Err(Reason::Tag));
    }
    assert_eq!(of(0x86dd), Err(Reason::Ipv6));
    // LLC with its length, PPPoE, 802.1X, LLDP, MPLS, anything.
    for kind in [0, 46, 0x8863, 0x888e, 0x88cc, 0x8847, 0xffff] {
        assert_eq!(of(kind), Err(Reason::EtherType), "{kind:#x}");
    }
    // A router advertisement, to all nodes.
    let nodes = [0x33, 0x33, 0, 0, 0, 1];
    let advertisement = ether(nodes, CARD, 0x86dd, &[0x60; 60]);
    assert_eq!(send(&packet(PLAIN, &advertisement)), Err(Reason::Ipv6));
}

#[test]
fn ip_tricks_of_a_client_end_here() {
    let with = |ip: &Ip<'_>, contents: &[u8]| send(&ip_up(ip, contents)).map(|_| ());
    let plain = Ip::default();
    assert_eq!(with(&plain, &udp(68, 67, 300)), Ok(()));
    assert_eq!(with(&plain, &udp(67, 68, 300)), Err(Reason::DhcpServer));
    let later = Ip {
        fragment: 10,
        ..Ip::default()
    };
    assert_eq!(with(&later, &udp(67, 68, 300)), Ok(()));
    let routed = Ip {
        options: &[131, 7, 4, 10, 137, 0, 10, 0],
        ..Ip::default()
    };
    assert_eq!(with(&routed, &udp(1, 2, 3)), Err(Reason::SourceRoute));
    let tiny = Ip {
        protocol: TCP,
        fragment: 0x2000,
        ..Ip::default()
    };
    assert_eq!(with(&tiny, &tcp(0)[..8]), Err(Reason::TransportHeader));
    let overlap = Ip {
        protocol: TCP,
        fragment: 1,
        ..Ip::default()
    };
    assert_eq!(with(&overlap, &tcp(0)), Err(Reason::Fragment));
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    for length in 0..26 {
        assert_eq!(send(&vec![0; length]), Err(Reason::Short));
        assert_eq!(receive(&vec![0; length]), Err(Reason::Short));
    }
    assert_eq!(send(&vec![0; MAX_PACKET_BYTES + 1]), Err(Reason::Long));
    assert_eq!(receive(&vec![0; MAX_PACKET_BYTES + 1]), Err(Reason::Long));
    // The kernel says how long it was; the buffer has less.
    let mut bytes = buffer(&up(0, 100));
    let result = to_trunk(&client(), &trunk(), &mut bytes, 60_000);
    assert_eq!(result, Err(Reason::Long));
    // The longest that a card may send would be too long for the next one with a tag.
    let longest = |total: usize| {
        let ip = Ip {
            protocol: TCP,
            ..Ip::default()
        };
        let frame = ether(TRUNK, CARD, IPV4, &ip.with(&tcp(total - 52)));
        send(&packet(segments(66, 1448, 34), &frame)).map(|sent| sent.len())
    };
    assert_eq!(longest(65535), Err(Reason::Long));
    assert_eq!(longest(65531), Ok(MAX_PACKET_BYTES));
}

#[test]
fn a_frame_that_is_cut_anywhere_is_refused() {
    let whole = up(1, 40);
    for length in 0..whole.len() {
        assert!(send(&whole[..length]).is_err(), "{length}");
    }
    let frame = down_frame(CARD, ADDRESS, 1, 40);
    let whole = packet(PLAIN, &tag(VLAN, &frame));
    assert_eq!(receive(&whole), Ok(packet(PLAIN, &frame)));
    for length in 0..whole.len() {
        assert!(receive(&whole[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_trunks_frame_loses_its_tag() {
    let frame = down_frame(CARD, ADDRESS, 1, 40);
    for priority in [0, 0xe000, 0xf000] {
        let sent = packet(PLAIN, &tag(VLAN | priority, &frame));
        assert_eq!(receive(&sent), Ok(packet(PLAIN, &frame)));
    }
    assert_eq!(receive(&packet(PLAIN, &frame)), Err(Reason::Untagged));
    let twice = tag(VLAN, &tag(VLAN, &frame));
    assert_eq!(receive(&packet(PLAIN, &twice)), Err(Reason::Tag));
    let service = tag_of(0x88a8, VLAN, &frame);
    assert_eq!(receive(&packet(PLAIN, &service)), Err(Reason::Tag));
    let other = packet(PLAIN, &tag(8, &frame));
    assert_eq!(receive(&other), Err(Reason::UnknownVlan));
    let longest = down_frame(CARD, ADDRESS, 1, 1472);
    assert!(receive(&packet(PLAIN, &tag(VLAN, &longest))).is_ok());
    let longer = down_frame(CARD, ADDRESS, 1, 1473);
    let result = receive(&packet(PLAIN, &tag(VLAN, &longer)));
    assert_eq!(result, Err(Reason::OverMtu));
}

#[test]
fn a_trunk_reaches_one_client_by_its_own_addresses() {
    let with = |frame: &[u8]| receive(&packet(PLAIN, &tag(VLAN, frame))).map(|_| ());
    let body = down_frame(CARD, ADDRESS, 1, 4).split_off(14);
    let of = |destination, source, kind| with(&ether(destination, source, kind, &body));
    assert_eq!(of(CARD, TRUNK, IPV4), Ok(()));
    assert_eq!(of(CARD, OTHER_CARD, IPV4), Err(Reason::SourceMac));
    assert_eq!(of(OTHER_CARD, TRUNK, IPV4), Err(Reason::DestinationMac));
    assert_eq!(of(ALL, TRUNK, IPV4), Err(Reason::Broadcast));
    assert_eq!(of(CARD, TRUNK, 0x86dd), Err(Reason::Ipv6));
    assert_eq!(of(CARD, TRUNK, 40), Err(Reason::EtherType));
    let other = down_frame(CARD, OTHER_ADDRESS, 1, 4);
    assert_eq!(with(&other), Err(Reason::DestinationAddress));
    let arp_of = |destination, body: &[u8]| with(&ether(destination, TRUNK, ARP, body));
    assert_eq!(arp_of(ALL, &arp(1, TRUNK, GATEWAY, ADDRESS)), Ok(()));
    assert_eq!(arp_of(CARD, &arp(2, TRUNK, WORLD, ADDRESS)), Ok(()));
    let foreign = arp(2, OTHER_CARD, GATEWAY, ADDRESS);
    assert_eq!(arp_of(CARD, &foreign), Err(Reason::ArpSender));
    let conflict = arp(2, TRUNK, ADDRESS, ADDRESS);
    assert_eq!(arp_of(ALL, &conflict), Err(Reason::ArpSender));
}

#[test]
fn offloads_survive_the_way_there_and_back() {
    let ip = Ip {
        protocol: TCP,
        ..Ip::default()
    };
    let frame = ether(TRUNK, CARD, IPV4, &ip.with(&tcp(20_000)));
    let sent = send(&packet(segments(66, 1448, 34), &frame));
    let tagged = packet(segments(70, 1448, 38), &tag(VLAN, &frame));
    assert_eq!(sent, Ok(tagged));
    let ip = Ip {
        protocol: TCP,
        source: WORLD,
        destination: ADDRESS,
        ..Ip::default()
    };
    let frame = ether(CARD, TRUNK, IPV4, &ip.with(&tcp(20_000)));
    let back = receive(&packet(segments(70, 1448, 38), &tag(VLAN, &frame)));
    assert_eq!(back, Ok(packet(segments(66, 1448, 34), &frame)));
    // An offset that forgets the tag would spoil the IP header.
    let forgot = receive(&packet(segments(66, 1448, 34), &tag(VLAN, &frame)));
    assert_eq!(forgot, Err(Reason::ChecksumPlace));
}

/// Behind what is looked at a packet may be anything, also while it is looked at.
#[test]
fn nothing_is_decided_by_what_lies_behind_the_headers() {
    let options = [1; 40];
    let ip = Ip {
        protocol: TCP,
        options: &options,
        ..Ip::default()
    };
    let mut segment = tcp(20_000);
    // A TCP header of 60 bytes.
    segment[12] = 0xf0;
    let whole = packet(
        segments(134, 1300, 74),
        &ether(TRUNK, CARD, IPV4, &ip.with(&segment)),
    );
    let decide = |packet: &[u8], behind: u8| {
        let mut up = buffer(packet);
        let mut down = up.clone();
        for buffer in [&mut up, &mut down] {
            for byte in buffer.iter_mut().skip(HEADROOM + frame::LOOK_BYTES) {
                *byte = behind;
            }
        }
        let up = to_trunk(&client(), &trunk(), &mut up, packet.len());
        let vlan = vlan(&down, packet.len());
        (
            up,
            vlan,
            to_client(&client(), &trunk(), &mut down, packet.len()),
        )
    };
    assert!(decide(&whole, 0).0.is_ok());
    let tagged = send(&whole).unwrap();
    assert!(decide(&tagged, 0).1.is_ok());
    for whole in [whole, tagged] {
        for at in 0..frame::LOOK_BYTES {
            for value in [0, 1, 0x45, 0x4f, 0x81, 0xff] {
                let mut packet = whole.clone();
                packet[at] = value;
                let decided = decide(&packet, 0);
                assert_eq!(decided, decide(&packet, 0xff), "{value} at {at}");
            }
        }
    }
}
