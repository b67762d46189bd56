//! Hostile clients and a hostile network domain.

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use bulkhead_ring::WAKE;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::json;

use crate::fixture::{Card, Link};
use crate::frames::*;

struct Desk {
    link: Link,
    trunk: Card,
    work: Card,
    other: Card,
}

/// A network domain with two clients, all plugged in.
fn desk() -> Desk {
    let link = Link::start();
    let trunk = link.trunk("net", "02:00:00:00:00:01");
    let work = link.client("work", "net", 9);
    let other = link.client("other", "net", 10);
    for card in [&trunk, &work, &other] {
        card.expect_cable(true);
    }
    Desk {
        link,
        trunk,
        work,
        other,
    }
}

fn frame_up(kind: u16, body: &[u8]) -> Vec<u8> {
    packet(PLAIN, &ether(TRUNK, CARD, kind, body))
}

#[test]
fn frames_go_between_a_client_and_its_trunk() {
    let desk = desk();
    let sent = up(1, 100);
    desk.work.send(&sent);
    assert_eq!(desk.trunk.receive(), packet(PLAIN, &tag(9, &sent[12..])));
    desk.other
        .send(&numbered(OTHER_CARD, OTHER_ADDRESS, 2, 100));
    assert_eq!(desk.trunk.receive()[12 + 12..][..4], [0x81, 0, 0, 10]);
    let frame = down_frame(CARD, ADDRESS, 3, 50);
    desk.trunk.send(&packet(PLAIN, &tag(9 | 0xa000, &frame)));
    assert_eq!(desk.work.receive(), packet(PLAIN, &frame));
    let stats = desk.link.wait_for("work", 1);
    assert_eq!(
        stats["in"],
        json!({ "frames": 1, "bytes": sent.len() - 12 })
    );
    assert_eq!(stats["out"], json!({ "frames": 1, "bytes": frame.len() }));
    assert_eq!(
        (&stats["kind"], &stats["vlan"]),
        (&json!("client"), &json!(9))
    );
    desk.other.expect_nothing();
    desk.trunk.expect_nothing();
    assert!(desk.link.end().success());
}

#[test]
fn clients_do_not_reach_each_other() {
    let desk = desk();
    let ip = Ip {
        destination: OTHER_ADDRESS,
        ..Ip::default()
    }
    .with(&udp(5000, 53, 20));
    // By card; by all; by a tag of one's own, of the other and of the trunk.
    let straight = ether(OTHER_CARD, CARD, IPV4, &ip);
    let frames = [
        straight.clone(),
        ether(ALL, CARD, IPV4, &ip),
        tag(10, &straight),
        tag(9, &straight),
        tag(10, &ether(TRUNK, CARD, IPV4, &ip)),
        ether(OTHER_CARD, CARD, ARP, &arp(2, CARD, ADDRESS, OTHER_ADDRESS)),
        ether(OTHER_CARD, TRUNK, IPV4, &ip),
    ];
    for frame in &frames {
        desk.work.send(&packet(PLAIN, frame));
    }
    // For everyone here, but only the trunk hears it.
    desk.work.send(&packet(
        PLAIN,
        &ether(ALL, CARD, ARP, &arp(1, CARD, ADDRESS, OTHER_ADDRESS)),
    ));
    let stats = desk.link.wait_for("work", frames.len() as u64 + 1);
    let refused = json!({
        "destination_mac": 2, "broadcast": 1, "tag": 3, "source_mac": 1,
    });
    assert_eq!(stats["refused"], refused);
    assert_eq!(desk.trunk.receive()[12..18], ALL);
    desk.trunk.expect_nothing();
    desk.other.expect_nothing();
    assert_eq!(desk.link.port("other")["out"]["frames"], json!(0));
}

#[test]
fn what_a_client_forges_is_counted_and_goes_nowhere() {
    let desk = desk();
    let ip = Ip {
        protocol: TCP,
        ..Ip::default()
    };
    let longest = ether(TRUNK, CARD, IPV4, &ip.with(&tcp(65535 - 20 - 32)));
    let plain = Ip::default().with(&udp(5000, 53, 20));
    let with = |ip: Ip<'_>, contents: &[u8]| frame_up(IPV4, &ip.with(contents));
    let router = [0x33, 0x33, 0, 0, 0, 1];
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "source_mac",
            packet(PLAIN, &ether(TRUNK, OTHER_CARD, IPV4, &plain)),
        ),
        (
            "source_address",
            with(
                Ip {
                    source: OTHER_ADDRESS,
                    ..Ip::default()
                },
                &udp(1, 2, 3),
            ),
        ),
        (
            "arp_sender",
            frame_up(ARP, &arp(2, CARD, GATEWAY, OTHER_ADDRESS)),
        ),
        (
            "tag",
            packet(PLAIN, &tag(9, &ether(TRUNK, CARD, IPV4, &plain))),
        ),
        (
            "tag",
            packet(PLAIN, &tag_of(0x88a8, 9, &ether(TRUNK, CARD, IPV4, &plain))),
        ),
        ("dhcp_server", with(Ip::default(), &udp(67, 68, 300))),
        (
            "ipv6",
            packet(PLAIN, &ether(router, CARD, 0x86dd, &[0x60; 80])),
        ),
        ("ether_type", frame_up(46, &[0x42; 46])),
        (
            "source_route",
            with(
                Ip {
                    options: &[137, 7, 4, 10, 137, 0, 10, 0],
                    ..Ip::default()
                },
                &udp(1, 2, 3),
            ),
        ),
        (
            "fragment",
            with(
                Ip {
                    protocol: TCP,
                    fragment: 1,
                    ..Ip::default()
                },
                &tcp(0),
            ),
        ),
        (
            "transport_header",
            with(
                Ip {
                    protocol: TCP,
                    fragment: 0x2000,
                    ..Ip::default()
                },
                &tcp(0)[..8],
            ),
        ),
        ("ipv4_header", frame_up(IPV4, &plain[..25])),
        ("over_mtu", up(0, 1473)),
        ("short", vec![0; 25]),
        ("short", vec![1]),
        // With its tag it would be.
        ("long", packet(segments(66, 1400, 34), &longest)),
        ("header_flags", packet([2; 12], &up(0, 4)[12..])),
        ("checksum_place", packet(checksum(20, 6), &up(0, 4)[12..])),
        (
            "checksum_place",
            packet(checksum(34, 6000), &up(0, 4)[12..]),
        ),
        (
            "gso_frame",
            packet(segments(66, 1400, 34), &up(0, 100)[12..]),
        ),
        ("gso_size", packet(segments(66, 0, 34), &up(0, 100)[12..])),
        (
            "header_length",
            packet(segments(2000, 1400, 34), &up(0, 100)[12..]),
        ),
    ];
    let mut expected = std::collections::BTreeMap::new();
    for (reason, packet) in &cases {
        desk.work.send(packet);
        *expected.entry(*reason).or_insert(0) += 1;
    }
    let stats = desk.link.wait_for("work", cases.len() as u64);
    assert_eq!(stats["refused"], json!(expected));
    desk.trunk.expect_nothing();
    // It goes on as if nothing had been.
    desk.work.send(&up(77, 4));
    assert_eq!(number(&desk.trunk.receive(), 4), 77);
}

#[test]
fn a_network_domain_reaches_only_its_clients_as_it_should() {
    let desk = desk();
    let frame = down_frame(CARD, ADDRESS, 1, 20);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("untagged", frame.clone()),
        ("tag", tag(9, &tag(9, &frame))),
        ("tag", tag_of(0x88a8, 9, &frame)),
        ("unknown_vlan", tag(11, &frame)),
        ("unknown_vlan", tag(0, &frame)),
        ("unknown_vlan", tag(4095, &frame)),
        ("destination_mac", tag(10, &frame)),
        (
            "destination_address",
            tag(9, &down_frame(CARD, OTHER_ADDRESS, 1, 20)),
        ),
        (
            "source_mac",
            tag(9, &ether(CARD, OTHER_CARD, IPV4, &frame[14..])),
        ),
        ("broadcast", tag(9, &ether(ALL, TRUNK, IPV4, &frame[14..]))),
        (
            "ipv6",
            tag(
                9,
                &ether([0x33, 0x33, 0, 0, 0, 1], TRUNK, 0x86dd, &[0x60; 60]),
            ),
        ),
        (
            "arp_sender",
            tag(
                9,
                &ether(CARD, TRUNK, ARP, &arp(2, OTHER_CARD, GATEWAY, ADDRESS)),
            ),
        ),
        ("over_mtu", tag(9, &down_frame(CARD, ADDRESS, 1, 1473))),
    ];
    let mut expected = std::collections::BTreeMap::new();
    for (reason, frame) in &cases {
        desk.trunk.send(&packet(PLAIN, frame));
        *expected.entry(*reason).or_insert(0) += 1;
    }
    let stats = desk.link.wait_for("net", cases.len() as u64);
    assert_eq!(stats["refused"], json!(expected));
    desk.work.expect_nothing();
    desk.other.expect_nothing();
}

#[test]
fn offloads_survive_both_ways() {
    let desk = desk();
    let ip = |source, destination| Ip {
        protocol: TCP,
        source,
        destination,
        ..Ip::default()
    };
    let frame = ether(TRUNK, CARD, IPV4, &ip(ADDRESS, WORLD).with(&tcp(60_000)));
    let mut header = segments(66, 1448, 34);
    header[10] = 5;
    desk.work.send(&packet(header, &frame));
    let tagged = packet(segments(70, 1448, 38), &tag(9, &frame));
    assert_eq!(desk.trunk.receive(), tagged);
    let frame = ether(CARD, TRUNK, IPV4, &ip(WORLD, ADDRESS).with(&tcp(60_000)));
    desk.trunk
        .send(&packet(segments(70, 1448, 38), &tag(9, &frame)));
    let untagged = packet(segments(66, 1448, 34), &frame);
    assert_eq!(desk.work.receive(), untagged);
    // A checksum alone.
    let frame = ether(TRUNK, CARD, IPV4, &Ip::default().with(&udp(5000, 53, 99)));
    desk.work.send(&packet(checksum(34, 6), &frame));
    assert_eq!(
        desk.trunk.receive(),
        packet(checksum(38, 6), &tag(9, &frame))
    );
}

#[test]
fn two_networks_know_nothing_of_each_other() {
    let desk = desk();
    let trunk = desk.link.trunk("vpn", "02:00:00:00:00:01");
    // The same numbers, elsewhere.
    let client = desk.link.client("elsewhere", "vpn", 9);
    trunk.expect_cable(true);
    client.expect_cable(true);
    desk.work.send(&up(1, 4));
    client.send(&up(2, 4));
    assert_eq!(number(&desk.trunk.receive(), 4), 1);
    assert_eq!(number(&trunk.receive(), 4), 2);
    trunk.send(&packet(PLAIN, &tag(9, &down_frame(CARD, ADDRESS, 3, 4))));
    trunk.send(&packet(
        PLAIN,
        &tag(10, &down_frame(OTHER_CARD, OTHER_ADDRESS, 3, 4)),
    ));
    assert_eq!(number(&client.receive(), 0), 3);
    let stats = desk.link.wait_for("vpn", 2);
    assert_eq!(stats["refused"], json!({ "unknown_vlan": 1 }));
    for card in [&desk.trunk, &desk.work, &desk.other] {
        card.expect_nothing();
    }
}

#[test]
fn descriptors_that_come_with_wakes_are_not_kept() {
    let desk = desk();
    let (mut read, write) = std::io::pipe().unwrap();
    // The last one ends it.
    for bytes in [&[WAKE][..], &[WAKE][..], &[0; 100][..]] {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [write.as_fd(), desk.work.socket.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        let parts = [IoSlice::new(bytes)];
        sendmsg(
            &desk.work.socket,
            &parts,
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
        .unwrap();
    }
    desk.link.wait_until("work", |port| port.is_null());
    drop(write);
    // It would not end while the link had a copy.
    assert_eq!(read.read(&mut [0]).unwrap(), 0);
}

#[test]
fn an_empty_packet_ends_a_port_and_nothing_else() {
    let desk = desk();
    desk.work.say(&[]);
    desk.link.wait_until("work", |port| port.is_null());
    desk.other.send(&numbered(OTHER_CARD, OTHER_ADDRESS, 6, 4));
    assert_eq!(number(&desk.trunk.receive(), 4), 6);
    // The same from the trunk: its clients are unplugged.
    desk.trunk.say(&[]);
    desk.other.expect_cable(false);
    assert!(desk.link.end().success());
}
