//! Random and mutated packets on all ports of two networks. Nothing but what may pass comes out,
//! every frame is accounted for, and the process lives.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::checker::{To, check};
use crate::fixture::{Card, Link};
use crate::frames::*;

struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % below.max(1)
    }

    fn byte(&mut self) -> u8 {
        self.next(256) as u8
    }
}

struct Port {
    name: &'static str,
    trunk: &'static str,
    /// VLAN, card and address; none for a trunk.
    client: Option<(u16, [u8; 6], [u8; 4])>,
    card: Card,
    sent: u64,
    came: u64,
}

fn numbers(vlan: u8) -> (u16, [u8; 6], [u8; 4]) {
    (vlan.into(), [2, 0, 0, 0, 0, vlan], [10, 137, 0, vlan])
}

/// A packet that may pass, or nearly.
fn honest(random: &mut Random, client: (u16, [u8; 6], [u8; 4]), is_up: bool) -> Vec<u8> {
    let (vlan, card, address) = client;
    let (source, destination) = if is_up {
        (address, WORLD)
    } else {
        (WORLD, address)
    };
    let (from, to) = if is_up { (card, TRUNK) } else { (TRUNK, card) };
    let options: &[u8] = match random.next(6) {
        0 => &[7, 7, 4, 0, 0, 0, 0, 0],
        1 => &[1, 1, 1, 0],
        _ => &[],
    };
    let mut ip = Ip {
        source,
        destination,
        options,
        ..Ip::default()
    };
    let start = (34 + options.len()) as u16;
    let ip_frame = |ip: &Ip<'_>, contents: &[u8]| ether(to, from, IPV4, &ip.with(contents));
    let (header, frame) = match random.next(8) {
        0 => {
            let speaker = if is_up { address } else { GATEWAY };
            let body = arp(1 + random.next(2) as u16, from, speaker, WORLD);
            let to = if random.next(2) == 0 { ALL } else { to };
            (PLAIN, ether(to, from, ARP, &body))
        }
        1 | 2 => {
            ip.protocol = TCP;
            let most = [5_000, 60_000][usize::from(random.next(20) == 0)];
            let length = 1 + random.next(most);
            let frame = ip_frame(&ip, &tcp(length));
            (segments(start + 32, 1400, start), frame)
        }
        3 => {
            ip.fragment = 0x2000 * random.next(2) as u16 + random.next(30) as u16;
            (PLAIN, ip_frame(&ip, &udp(1, 2, random.next(40) * 8)))
        }
        4 => {
            let contents = udp(5000, 53, random.next(1500));
            (checksum(start, 6), ip_frame(&ip, &contents))
        }
        5 => {
            ip.protocol = random.byte();
            (PLAIN, ip_frame(&ip, &tcp(random.next(300))))
        }
        _ => {
            let port = if random.next(10) == 0 { 67 } else { 5000 };
            (PLAIN, ip_frame(&ip, &udp(port, 53, random.next(300))))
        }
    };
    let (header, frame) = if is_up {
        (header, frame)
    } else {
        let mut header = header;
        let places = [2, 6].map(|at| (at, header[at] != 0));
        for (at, _) in places.into_iter().filter(|(_, is_used)| *is_used) {
            let place = u16::from_le_bytes([header[at], header[at + 1]]) + 4;
            header[at..at + 2].copy_from_slice(&place.to_le_bytes());
        }
        (header, tag(vlan, &frame))
    };
    packet(header, &frame)
}

fn mutate(random: &mut Random, packet: &mut Vec<u8>) {
    const EDGES: [u8; 12] = [0, 1, 2, 4, 8, 0x20, 0x45, 0x7f, 0x80, 0x81, 0xa8, 0xff];
    for _ in 0..1 + random.next(3) {
        // Most of what matters stands at the beginning.
        let within = if random.next(4) == 0 {
            packet.len()
        } else {
            packet.len().min(80)
        };
        let at = random.next(within);
        match random.next(9) {
            0 => packet[at] ^= 1 << random.next(8),
            1 => packet[at] = random.byte(),
            2 | 3 => packet[at] = EDGES[random.next(EDGES.len())],
            4 => packet.truncate(at.max(1)),
            5 => {
                let more = random.next(2000);
                packet.resize(packet.len() + more, 0x5a);
            }
            6 => {
                let tag = [0x81, 0, 0, 8 + random.next(5) as u8];
                packet.splice(24.min(packet.len())..24.min(packet.len()), tag);
            }
            7 => {
                let byte = packet[random.next(packet.len())];
                packet[at] = byte;
            }
            _ => {
                let number = u16::to_be_bytes(random.next(3000) as u16);
                if let Some(place) = packet.get_mut(at..at + 2) {
                    place.copy_from_slice(&number);
                }
            }
        }
    }
}

/// Ports of two networks: name, trunk, and a client's number.
const PORTS: [(&str, &str, Option<u8>); 6] = [
    ("net", "net", None),
    ("a", "net", Some(9)),
    ("b", "net", Some(10)),
    ("c", "net", Some(11)),
    ("vpn", "vpn", None),
    ("d", "vpn", Some(9)),
];

fn add(link: &Link, (name, trunk, number): (&'static str, &'static str, Option<u8>)) -> Port {
    let card = match number {
        Some(number) => link.client(name, trunk, number),
        None => link.trunk(name, "02:00:00:00:00:01"),
    };
    Port {
        name,
        trunk,
        client: number.map(numbers),
        card,
        sent: 0,
        came: 0,
    }
}

/// Takes and checks all that has come.
fn drain(ports: &mut [Port]) {
    for port in ports {
        let of_trunk: Vec<_> = PORTS
            .iter()
            .filter(|(_, trunk, _)| *trunk == port.trunk)
            .filter_map(|(_, _, number)| number.map(numbers))
            .collect();
        let to = match port.client {
            Some((_, card, address)) => To::Client(card, address),
            None => To::Trunk(&of_trunk),
        };
        while let Some(packet) = port.card.try_receive() {
            assert!(!packet.is_empty(), "{}: the link has ended", port.name);
            if matches!(packet[..], [0 | 1]) {
                continue;
            }
            if let Err(wrong) = check(&packet, &to) {
                let head = &packet[..packet.len().min(100)];
                panic!("{}: not {wrong}: {head:02x?}", port.name);
            }
            port.came += 1;
        }
    }
}

/// A packet from a port, in two of three cases with mistakes.
fn any_packet(random: &mut Random, port: &Port) -> Vec<u8> {
    let client = port
        .client
        .unwrap_or_else(|| numbers(9 + random.next(3) as u8));
    let mut packet = match random.next(20) {
        0 => (0..1 + random.next(200)).map(|_| random.byte()).collect(),
        _ => honest(random, client, port.client.is_some()),
    };
    if random.next(3) != 0 {
        mutate(random, &mut packet);
    }
    packet
}

fn sum(value: &Value) -> u64 {
    let counts = value.as_object().unwrap().values();
    counts.map(|count| count.as_u64().unwrap()).sum()
}

fn fuzz(seed: u64, packets: u64) {
    let mut random = Random(seed);
    let link = Link::start();
    let mut ports: Vec<Port> = PORTS.map(|port| add(&link, port)).into();
    for _ in 0..packets {
        let index = random.next(ports.len());
        let packet = any_packet(&mut random, &ports[index]);
        while !ports[index].card.try_send(&packet) {
            drain(&mut ports);
        }
        ports[index].sent += 1;
        if random.next(64) == 0 {
            drain(&mut ports);
        }
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let stats = loop {
        drain(&mut ports);
        let stats = link.stats();
        let is_quiet = ports.iter().all(|port| {
            let its = &stats[port.name];
            its["in"]["frames"] == port.sent && its["waiting"]["frames"] == 0
        });
        if is_quiet {
            break stats;
        }
        assert!(Instant::now() < deadline, "{stats:?}");
    };
    drain(&mut ports);
    let mut balance: BTreeMap<&str, i64> = BTreeMap::new();
    let mut reasons = std::collections::BTreeSet::new();
    let mut passed = 0;
    for port in &ports {
        let its = &stats[port.name];
        assert_eq!(its["out"]["frames"], port.came, "{its}");
        let on = port.sent - sum(&its["refused"]);
        let arrived = port.came + sum(&its["lost"]);
        *balance.entry(port.trunk).or_default() += on as i64 - arrived as i64;
        passed += on;
        reasons.extend(its["refused"].as_object().unwrap().keys().cloned());
    }
    // What was not refused has arrived in its network, or was counted as lost there.
    assert!(balance.values().all(|balance| *balance == 0), "{balance:?}");
    // The packets were neither all good nor all bad, and bad in many ways.
    assert!(
        passed > packets / 10 && passed < packets * 9 / 10,
        "{passed}"
    );
    let expected = if packets < 50_000 { 20 } else { 25 };
    assert!(reasons.len() >= expected, "{reasons:?}");
    assert!(link.end().success());
}

#[test]
fn random_packets() {
    for seed in [1, 0x9e37_79b9_7f4a_7c15] {
        fuzz(seed, 75_000);
    }
}

#[test]
fn ports_come_and_go_in_the_traffic() {
    let mut random = Random(7);
    let link = Link::start();
    let mut ports: Vec<Port> = Vec::new();
    let mut came = 0;
    for _ in 0..4000 {
        let index = random.next(ports.len());
        match random.next(40) {
            // Its other end closes, or the manager removes it; with all that waits.
            0 | 1 if !ports.is_empty() => {
                let port = ports.swap_remove(index);
                if random.next(2) == 0 {
                    let request = json!({ "op": "remove", "name": port.name });
                    link.ask(request, &[]).unwrap();
                }
                came += port.came;
            }
            2..8 => {
                let port = PORTS[random.next(PORTS.len())];
                if ports.iter().all(|other| other.name != port.0) {
                    // The link may not have seen yet that it has closed.
                    let _ = link.ask(json!({ "op": "remove", "name": port.0 }), &[]);
                    ports.push(add(&link, port));
                }
            }
            8..10 => drain(&mut ports),
            _ if ports.is_empty() => {}
            _ => {
                for _ in 0..random.next(30) {
                    let packet = any_packet(&mut random, &ports[index]);
                    ports[index].card.try_send(&packet);
                }
            }
        }
    }
    assert!(came > 1000, "{came}");
    drop(ports);
    for (name, ..) in PORTS {
        link.wait_until(name, |port| port.is_null());
    }
    // Nothing of them is left that could disturb new ones.
    let ports = PORTS.map(|port| add(&link, port));
    for port in &ports {
        // Trunks stand before their clients in the list.
        port.card.expect_cable(true);
        port.card.expect_nothing();
    }
    assert_eq!(link.stats().len(), PORTS.len());
    assert!(link.end().success());
}

/// `cargo test -p bulkhead-link -- --ignored`: minutes, and another seed each time.
#[test]
#[ignore = "minutes"]
fn random_packets_for_long() {
    for round in 0..20 {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let seed = now.as_nanos() as u64 | 1;
        println!("round {round}, seed {seed}");
        fuzz(seed, 500_000);
    }
}
