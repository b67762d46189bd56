//! What the manager may ask, and what it is told.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use bulkhead_ring::Memory;
use bulkhead_ring::memory::MEMORY_BYTES;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::fixture::{Link, client, pair};

#[test]
fn what_is_in_use_is_refused() {
    let link = Link::start();
    let _trunk = link.trunk("net", "02:00:00:00:00:01");
    let _work = link.client("work", "net", 9);
    let refuse = |change: fn(&mut serde_json::Value)| {
        let mut request = client("other", "net", 10);
        change(&mut request);
        link.try_add(request).err().unwrap()
    };
    for (message, expected) in [
        (
            refuse(|r| r["name"] = json!("work")),
            "there is a port work already: remove it first, or choose another name",
        ),
        (
            refuse(|r| r["vlan"] = json!(9)),
            "VLAN 9 is that of work: choose another",
        ),
        (
            refuse(|r| r["mac"] = json!("02:00:00:00:00:09")),
            "hardware address 02:00:00:00:00:09 is that of work: choose another",
        ),
        (
            refuse(|r| r["mac"] = json!("02:00:00:00:00:01")),
            "hardware address 02:00:00:00:00:01 is that of net: choose another",
        ),
        (
            refuse(|r| r["address"] = json!("10.137.0.9")),
            "address 10.137.0.9 is that of work: choose another",
        ),
        (
            refuse(|r| r["trunk"] = json!("other")),
            "other cannot be its own trunk: give its two ports two names",
        ),
    ] {
        assert_eq!(message, expected);
    }
    // A trunk that comes later takes nobody's address either.
    let _early = link.client("early", "vpn", 9);
    let request = json!({ "op": "add_trunk", "name": "vpn", "mac": "02:00:00:00:00:09" });
    let error = link.try_add(request).err().unwrap();
    assert!(error.contains("is that of early"), "{error}");
    let names: Vec<_> = link.stats().keys().cloned().collect();
    assert_eq!(names, ["early", "net", "work"]);
}

#[test]
fn what_makes_no_sense_is_refused_with_what_to_do() {
    let link = Link::start();
    let refuse = |key: &str, value: serde_json::Value| {
        let mut request = client("work", "net", 9);
        request[key] = value;
        link.try_add(request).err().unwrap()
    };
    for name in ["", "a b", "a/b", "ä", "a\nb", &"x".repeat(65)] {
        let error = refuse("name", json!(name));
        assert!(error.contains("use 1 to 64 letters"), "{error}");
        let error = refuse("trunk", json!(name));
        assert!(error.contains("use 1 to 64 letters"), "{error}");
    }
    for vlan in [0, 4095, 65535] {
        let error = refuse("vlan", json!(vlan));
        assert!(error.contains("choose 1 to 4094"), "{error}");
    }
    for address in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
        let error = refuse("address", json!(address));
        assert!(error.contains("is no address for a client"), "{error}");
    }
    for rate in [0, 999, 1_000_000_000_001_u64] {
        let error = refuse("rate", json!(rate));
        assert!(error.contains("bytes a second"), "{error}");
    }
    for mac in ["01:00:00:00:00:01", "ff:ff:ff:ff:ff:ff", "x"] {
        let error = refuse("mac", json!(mac));
        assert!(error.contains("write six bytes like"), "{error}");
    }
    refuse("vlan", json!(65536));
    refuse("address", json!("10.0.0.256"));
    refuse("extra", json!(1));
    refuse("op", json!("add_hub"));
    let mtu = |mtu: u16| {
        let request =
            json!({ "op": "add_trunk", "name": "net", "mac": "02:00:00:00:00:01", "mtu": mtu });
        link.try_add(request).map(|_| ())
    };
    assert!(mtu(67).unwrap_err().contains("choose 68 to 65521"));
    assert!(mtu(65522).is_err());
    let unknown = link.ask(json!({ "op": "remove", "name": "work" }), &[]);
    assert!(unknown.unwrap_err().contains("there is no port \"work\""));
    for request in [&b"{"[..], b"[]", b"\xff\xfe", b"null", &[b' '; 70_000]] {
        assert_eq!(link.say(request, &[])["ok"], json!(false));
    }
    assert!(link.stats().is_empty());
    assert!(link.end().success());
}

#[test]
fn only_connected_sequenced_sockets_and_rings_are_ports() {
    let link = Link::start();
    let of = |kind| socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    let (stream, _stream) = of(SocketType::STREAM);
    let (datagram, _datagram) = of(SocketType::DGRAM);
    let alone = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let wrong = [
        stream.as_fd(),
        datagram.as_fd(),
        alone.as_fd(),
        file.as_fd(),
        udp.as_fd(),
    ];
    let ring = Memory::create().unwrap();
    for fd in wrong {
        let fds = [fd, ring.as_fd()];
        let error = link.ask(client("work", "net", 9), &fds).unwrap_err();
        assert!(error.contains("no connected SOCK_SEQPACKET"), "{error}");
    }
    let (one, two) = pair();
    for fds in [
        &[][..],
        &[one.as_fd()],
        &[one.as_fd(), ring.as_fd(), two.as_fd()],
    ] {
        let error = link.ask(client("work", "net", 9), fds).unwrap_err();
        assert!(error.contains("exactly two descriptors"), "{error}");
    }
    let flags = MemfdFlags::ALLOW_SEALING;
    let short = rustix::fs::memfd_create("short", flags).unwrap();
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&short, seals).unwrap();
    let long = rustix::fs::memfd_create("long", flags).unwrap();
    rustix::fs::ftruncate(&long, MEMORY_BYTES as u64).unwrap();
    for (fd, expected) in [
        (two.as_fd(), "its size is not sealed"),
        (file.as_fd(), "its size is not sealed"),
        (long.as_fd(), "its size is not sealed"),
        (short.as_fd(), "it has 0 bytes"),
    ] {
        let fds = [one.as_fd(), fd];
        let error = link.ask(client("work", "net", 9), &fds).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let error = link.ask(json!({ "op": "stats" }), &[one.as_fd()]);
    assert!(error.unwrap_err().contains("no descriptor"));
    assert!(link.stats().is_empty());
}

#[test]
fn there_is_a_limit_of_ports_and_statistics_come_in_parts() {
    let link = Link::start();
    // The other ends, and their rings, are all in this process.
    let limits = getrlimit(Resource::Nofile);
    if limits.maximum.is_some_and(|maximum| maximum < 4096) {
        println!("SKIPPED: this process may not have 4096 descriptors");
        return;
    }
    let raised = Rlimit {
        current: limits.current.map(|current| current.max(4096)),
        ..limits
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let add = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let request = json!({
            "op": "add_client",
            "name": format!("client-{number:04}"),
            "trunk": "net",
            "vlan": number + 1,
            "mac": format!("02:00:00:00:{high:02x}:{low:02x}"),
            "address": format!("10.137.{high}.{low}"),
        });
        link.try_add(request)
    };
    let cards: Vec<_> = (0..1024).map(|number| add(number).unwrap()).collect();
    let error = add(1024).err().unwrap();
    assert!(error.contains("1024 ports already"), "{error}");
    let stats = link.stats();
    assert_eq!(stats.len(), 1024);
    assert_eq!(stats["client-1023"]["vlan"], json!(1024));
    drop(cards);
    link.wait_until("client-0000", |port| port.is_null());
    link.client("work", "net", 9);
}

#[test]
fn a_manager_that_does_not_read_waits_and_loses_no_answer() {
    let link = Link::start();
    let _trunk = link.trunk("net", "02:00:00:00:00:01");
    let mut asked = 0;
    let flags = rustix::net::SendFlags::DONTWAIT;
    let mut idle = 0;
    while idle < 50 {
        match rustix::net::send(link.control(), br#"{"op":"stats"}"#, flags) {
            Ok(_) => {
                asked += 1;
                idle = 0;
            }
            Err(_) => {
                idle += 1;
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
    }
    for _ in 0..asked {
        assert_eq!(link.answer()["ports"][0]["name"], json!("net"));
    }
    assert_eq!(link.stats().len(), 1);
    assert!(link.end().success());
}

#[test]
fn a_manager_that_leaves_without_reading_ends_it_in_order() {
    let link = Link::start();
    let flags = rustix::net::SendFlags::DONTWAIT;
    for _ in 0..500 {
        let _ = rustix::net::send(link.control(), br#"{"op":"stats"}"#, flags);
    }
    assert!(link.end().success());
}

#[test]
fn it_is_locked_up() {
    // Left open for every child by mistake.
    let left_open = rustix::io::dup(std::fs::File::open("/dev/zero").unwrap()).unwrap();
    let link = Link::start();
    drop(left_open);
    // It answers, so it is ready.
    assert!(link.stats().is_empty());
    let folder = format!("/proc/{}", link.pid());
    let status = std::fs::read_to_string(format!("{folder}/status")).unwrap();
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "Threads:\t1"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let limits = std::fs::read_to_string(format!("{folder}/limits")).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        let words: Vec<_> = line[name.len()..].split_whitespace().collect();
        (words[0].to_owned(), words[1].to_owned())
    };
    assert_eq!(limit("Max core file size"), ("0".into(), "0".into()));
    assert_eq!(limit("Max processes"), ("0".into(), "0".into()));
    let (soft, hard) = limit("Max open files");
    assert_eq!(soft, hard);
    assert!(soft.parse::<u64>().unwrap() <= 1056);
    // A process that may not be looked into belongs to root; only root sees its descriptors.
    match std::fs::read_dir(format!("{folder}/fd")) {
        Ok(fds) => {
            let mut targets: Vec<String> = fds
                .map(|fd| std::fs::read_link(fd.unwrap().path()).unwrap())
                .map(|target| target.to_str().unwrap().to_owned())
                .collect();
            // Its standard input is the manager's socket here, and it has a copy of that.
            targets.retain(|target| !target.starts_with("socket:"));
            targets.retain(|target| !target.contains("eventpoll"));
            assert!(!targets.contains(&"/dev/zero".into()), "{targets:?}");
            assert!(targets.len() <= 2, "standard output and error: {targets:?}");
        }
        Err(error) => println!("SKIPPED: its descriptors: {error}"),
    }
    assert!(link.end().success());
}

#[test]
fn it_needs_its_socket() {
    for (number, input) in [
        ("0", Stdio::null()),
        ("99", Stdio::null()),
        ("-1", Stdio::null()),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_bulkhead-link"))
            .arg(format!("--control-fd={number}"))
            .stdin(input)
            .output()
            .unwrap();
        assert!(!output.status.success());
        let message = String::from_utf8(output.stderr).unwrap();
        let expected = format!(
            "bulkhead-link: --control-fd {number}: no connected SOCK_SEQPACKET socket is open \
             under that number\n"
        );
        assert_eq!(message, expected);
    }
}
