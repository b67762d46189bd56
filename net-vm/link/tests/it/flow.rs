//! Slow receivers, floods, rates, and cables.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::fixture::{Link, client};
use crate::frames::*;

#[test]
fn a_slow_client_holds_nobody() {
    let link = Link::start();
    let trunk = link.trunk("net", "02:00:00:00:00:01");
    let slow = link.client("slow", "net", 9);
    let quick = link.client("quick", "net", 10);
    for card in [&trunk, &slow, &quick] {
        card.expect_cable(true);
    }
    const FRAMES: u32 = 3000;
    for number in 0..FRAMES {
        let to_slow = down_frame(CARD, ADDRESS, number, 400);
        trunk.send(&packet(PLAIN, &tag(9, &to_slow)));
        let to_quick = down_frame(OTHER_CARD, OTHER_ADDRESS, number, 400);
        trunk.send(&packet(PLAIN, &tag(10, &to_quick)));
        assert_eq!(crate::frames::number(&quick.receive(), 0), number);
    }
    let stats = link.wait_for("net", u64::from(FRAMES) * 2);
    assert_eq!(stats["refused"], json!({}));
    let stats = link.port("slow");
    let count = |value: &serde_json::Value| value.as_u64().unwrap();
    let waiting = count(&stats["waiting"]["frames"]);
    assert!((1..=256).contains(&waiting), "{stats}");
    let sum = waiting + count(&stats["out"]["frames"]) + count(&stats["lost"]["queue_full"]);
    assert_eq!(sum, u64::from(FRAMES), "{stats}");
    // What waited comes in order, and nothing twice.
    let mut came = Vec::new();
    while (came.len() as u64) < waiting + count(&stats["out"]["frames"]) {
        came.push(number(&slow.receive(), 0));
    }
    assert!(came.is_sorted_by(|one, next| one < next));
    // And then it is a client as any other.
    let again = down_frame(CARD, ADDRESS, FRAMES, 4);
    trunk.send(&packet(PLAIN, &tag(9, &again)));
    assert_eq!(number(&slow.receive(), 0), FRAMES);
}

#[test]
fn a_full_trunk_loses_nothing_and_is_shared() {
    let link = Link::start();
    let trunk = link.trunk("net", "02:00:00:00:00:01");
    let one = link.client("one", "net", 9);
    let two = link.client("two", "net", 10);
    for card in [&trunk, &one, &two] {
        card.expect_cable(true);
    }
    // Until the trunk, and then their own sockets, are full.
    let mut sent = [0_u32; 2];
    let mut idle_since = Instant::now();
    while idle_since.elapsed() < Duration::from_millis(200) {
        let before = sent;
        if one.try_send(&up(sent[0], 1000)) {
            sent[0] += 1;
        }
        if two.try_send(&numbered(OTHER_CARD, OTHER_ADDRESS, sent[1], 1000)) {
            sent[1] += 1;
        }
        if sent != before {
            idle_since = Instant::now();
        }
    }
    // Now it reads, and both go on sending.
    let mut came = [0_u32; 2];
    let mut shares = [0_u32; 2];
    let total = 4000;
    let deadline = Instant::now() + Duration::from_secs(20);
    while came != sent || sent.iter().sum::<u32>() < total {
        assert!(Instant::now() < deadline, "{came:?} of {sent:?}");
        let more = sent.iter().sum::<u32>() < total;
        while more && one.try_send(&up(sent[0], 1000)) {
            sent[0] += 1;
        }
        while more && two.try_send(&numbered(OTHER_CARD, OTHER_ADDRESS, sent[1], 1000)) {
            sent[1] += 1;
        }
        while let Some(packet) = trunk.try_receive() {
            let port = usize::from(packet[27] - 9);
            assert_eq!(number(&packet, 4), came[port], "in order, none lost");
            came[port] += 1;
            if more {
                shares[port] += 1;
            }
        }
    }
    let all = f64::from(shares[0] + shares[1]);
    for share in shares {
        assert!((0.3..0.7).contains(&(f64::from(share) / all)), "{shares:?}");
    }
    for (name, sent) in [("one", sent[0]), ("two", sent[1])] {
        let stats = link.wait_for(name, sent.into());
        assert_eq!(
            (&stats["refused"], &stats["lost"]),
            (&json!({}), &json!({}))
        );
    }
    assert_eq!(link.port("net")["lost"], json!({}));
}

#[test]
fn a_rate_is_kept_both_ways() {
    const RATE: u32 = 1_000_000;
    let link = Link::start();
    let trunk = link.trunk("net", "02:00:00:00:00:01");
    let mut request = client("slow", "net", 9);
    request["rate"] = json!(RATE);
    let card = link.add(request);
    trunk.expect_cable(true);
    card.expect_cable(true);
    // A burst of 128 KiB goes at once; after it, 400 packets of 1042 bytes take 0.42 seconds.
    let start = Instant::now();
    let frames = 131_072 / 1042 + 400;
    let (mut sent, mut came) = (0, 0);
    while came < frames {
        if sent < frames && card.try_send(&up(sent, 1000)) {
            sent += 1;
        }
        while let Some(packet) = trunk.try_receive() {
            assert_eq!(number(&packet, 4), came);
            came += 1;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{came}");
    }
    assert!(start.elapsed() > Duration::from_millis(400));
    // What waits for the client goes as it may; what is too much is lost.
    let start = Instant::now();
    for number in 0..600 {
        trunk.send(&packet(
            PLAIN,
            &tag(9, &down_frame(CARD, ADDRESS, number, 1000)),
        ));
    }
    link.wait_for("net", 600);
    let read = std::cell::Cell::new(0);
    let stats = link.wait_until("slow", |port| {
        while card.try_receive().is_some() {
            read.set(read.get() + 1);
        }
        port["waiting"]["frames"] == json!(0)
    });
    let lost = stats["lost"]["queue_full"].as_u64().unwrap_or(0);
    let out = stats["out"]["frames"].as_u64().unwrap();
    assert_eq!(out + lost, 600, "{stats}");
    let least = (out as f64 * 1042.0 - 131_072.0 - 2000.0) / f64::from(RATE);
    assert!(least > 0.1, "{stats}");
    assert!(start.elapsed().as_secs_f64() > least, "{stats}");
    for _ in read.get()..out {
        card.receive();
    }
    card.expect_nothing();
}

#[test]
fn cables_follow_the_other_side() {
    let link = Link::start();
    // The client is there first.
    let work = link.client("work", "net", 9);
    work.expect_cable(false);
    work.send(&up(1, 4));
    let stats = link.wait_for("work", 1);
    assert_eq!(stats["refused"], json!({ "no_trunk": 1 }));
    let trunk = link.trunk("net", "02:00:00:00:00:01");
    trunk.expect_cable(true);
    work.expect_cable(true);
    work.send(&up(2, 4));
    assert_eq!(number(&trunk.receive(), 4), 2);
    // The network domain ends; what it had not read is gone with it.
    work.send(&up(3, 4));
    link.wait_for("work", 3);
    drop(trunk);
    work.expect_cable(false);
    assert!(!link.stats().contains_key("net"));
    let trunk = link.trunk("net", "02:00:00:00:00:02");
    trunk.expect_cable(true);
    work.expect_cable(true);
    trunk.expect_nothing();
    // The client ends: its name, VLAN, card and address are free.
    drop(work);
    link.wait_until("work", |port| port.is_null());
    let work = link.client("work", "net", 9);
    work.expect_cable(true);
    // The manager pulls it out.
    link.ask(json!({ "op": "remove", "name": "work" }), &[])
        .unwrap();
    assert_eq!(work.receive(), [0_u8; 0], "the end");
    trunk.expect_nothing();
}

#[test]
fn news_of_the_cable_come_before_frames_however_slow_the_client_is() {
    let link = Link::start();
    let slow = link.client("slow", "net", 9);
    for round in 0..50 {
        let trunk = link.trunk("net", "02:00:00:00:00:01");
        for number in 0..100 {
            let frame = down_frame(CARD, ADDRESS, number, 1000);
            trunk.send(&packet(PLAIN, &tag(9, &frame)));
        }
        link.wait_for("net", 100);
        drop(trunk);
        link.wait_until("net", |port| port.is_null());
        assert_eq!(link.port("slow")["plugged"], json!(false), "{round}");
    }
    let mut last = None;
    let waiting = |link: &Link| link.port("slow")["waiting"]["frames"] != json!(0);
    loop {
        match slow.try_receive() {
            Some(packet) if packet.len() == 1 => last = Some(packet[0]),
            Some(_) => {}
            None if waiting(&link) => {}
            None => break,
        }
    }
    assert_eq!(last, Some(0));
}

#[test]
fn an_end_that_is_half_closed_is_an_end() {
    let link = Link::start();
    let work = link.client("work", "net", 9);
    rustix::net::shutdown(&work.socket, rustix::net::Shutdown::Write).unwrap();
    link.wait_until("work", |port| port.is_null());
    let work = link.client("work", "net", 9);
    rustix::net::shutdown(&work.socket, rustix::net::Shutdown::Read).unwrap();
    link.trunk("net", "02:00:00:00:00:01");
    link.wait_until("work", |port| port.is_null());
    assert!(link.end().success());
}

/// Hundredths of a second of processor time that the link takes in half a second.
fn work_of(link: &Link) -> u64 {
    let read = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", link.pid())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields: Vec<_> = fields.split_whitespace().collect();
        // Fields 14 and 15 of proc(5), user and system; the state behind the name is field 3.
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = read();
    std::thread::sleep(Duration::from_millis(500));
    read() - before
}

#[test]
fn it_sleeps_while_there_is_nothing_that_it_can_do() {
    let link = Link::start();
    let trunk = link.trunk("net", "02:00:00:00:00:01");
    let mut request = client("limited", "net", 10);
    request["rate"] = json!(1000);
    let limited = link.add(request);
    let work = link.client("work", "net", 9);
    for card in [&trunk, &work, &limited] {
        card.expect_cable(true);
    }
    assert!(work_of(&link) <= 5, "idle");
    // Nobody reads: both directions are full, and a rate is used up for minutes.
    let until_full = |send: &dyn Fn() -> bool| {
        let mut idle_since = Instant::now();
        while idle_since.elapsed() < Duration::from_millis(100) {
            if send() {
                idle_since = Instant::now();
            }
        }
    };
    let frame = down_frame(CARD, ADDRESS, 1, 1000);
    let down = packet(PLAIN, &tag(9, &frame));
    for _ in 0..2000 {
        trunk.send(&down);
    }
    link.wait_for("net", 2000);
    assert!(work_of(&link) <= 5, "a client that does not read");
    let spend = numbered(OTHER_CARD, OTHER_ADDRESS, 1, 1000);
    until_full(&|| {
        while trunk.try_receive().is_some() {}
        limited.try_send(&spend)
    });
    assert!(work_of(&link) <= 5, "a client that may not send");
    until_full(&|| work.try_send(&up(1, 1000)));
    assert!(work_of(&link) <= 5, "a trunk that does not read");
    // All of it goes on.
    let old = link.port("work")["in"]["frames"].as_u64().unwrap();
    until_full(&|| trunk.try_receive().is_some());
    assert!(link.port("work")["in"]["frames"].as_u64().unwrap() > old);
}

/// A frame of TCP that is to be segmented, with contents of its own.
fn long(number: usize, destination: [u8; 6], source: [u8; 6], ip: &Ip<'_>) -> Vec<u8> {
    let length = 1 + number * 7919 % 60_000;
    let mut frame = ether(destination, source, IPV4, &ip.with(&tcp(length)));
    let contents = frame.iter_mut().skip(14 + 20 + 32);
    for (at, byte) in contents.enumerate() {
        *byte = (at * 31 + number * 7 + at / 251) as u8;
    }
    frame
}

/// Of a long packet the link looks at the beginning only. All of it arrives, wherever in the rings it lies,
/// and whether it had to wait.
#[test]
fn long_packets_arrive_as_they_were_sent() {
    let link = Link::start();
    let trunk = link.trunk("net", "02:00:00:00:00:01");
    let work = link.client("work", "net", 9);
    for card in [&trunk, &work] {
        card.expect_cable(true);
    }
    let up = Ip {
        protocol: TCP,
        ..Ip::default()
    };
    let down = Ip {
        protocol: TCP,
        source: WORLD,
        destination: ADDRESS,
        ..Ip::default()
    };
    let plain = |frame: &[u8]| packet(segments(66, 1448, 34), frame);
    let tagged = |frame: &[u8]| packet(segments(70, 1448, 38), &tag(9, frame));
    const PACKETS: usize = 200;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..PACKETS {
                work.send(&plain(&long(number, TRUNK, CARD, &up)));
            }
        });
        // Until all rings are full, and then by fits and starts.
        std::thread::sleep(Duration::from_millis(300));
        for number in 0..PACKETS {
            let came = trunk.receive();
            assert!(came == tagged(&long(number, TRUNK, CARD, &up)), "{number}");
            if number % 20 == 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    });
    // Some for a client that does not keep up are lost; the others are whole, and in order.
    let sent: Vec<Vec<u8>> = (0..PACKETS)
        .map(|number| long(number, CARD, TRUNK, &down))
        .collect();
    for frame in &sent {
        trunk.send(&tagged(frame));
    }
    link.wait_for("net", PACKETS as u64);
    let mut expected = sent.iter();
    let mut arrived = 0;
    while let Some(came) = work.try_receive().or_else(|| {
        std::thread::sleep(Duration::from_millis(50));
        work.try_receive()
    }) {
        assert!(expected.any(|frame| came == plain(frame)), "{arrived}");
        arrived += 1;
    }
    assert!(arrived > 20, "{arrived} arrived");
    assert!(link.end().success());
}
