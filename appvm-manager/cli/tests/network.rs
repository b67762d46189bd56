//! Domains behind network domains, with the real daemon, link and command line. No guest runs here
//! that could set up cards: what goes over them is shown by the end-to-end scenario `net-link`.

mod support;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Machine, signal};

fn ports(machine: &Machine) -> Vec<Value> {
    let text = machine.ok(&["net", "--json"]);
    let ports: Value = serde_json::from_str(&text).unwrap();
    ports.as_array().unwrap().clone()
}

fn port(machine: &Machine, domain: &str, kind: &str) -> Value {
    let ports = ports(machine);
    let found = ports
        .iter()
        .find(|port| port["domain"] == domain && port["kind"] == kind);
    found
        .unwrap_or_else(|| panic!("no {kind} of {domain} in {ports:?}"))
        .clone()
}

fn wait_for(machine: &Machine, domain: &str, kind: &str, state: &str) {
    let end = Instant::now() + support::PATIENCE;
    while port(machine, domain, kind)["state"] != state {
        let now = port(machine, domain, kind);
        assert!(Instant::now() < end, "not {state}: {now}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn net_and_work() -> Machine {
    let machine = Machine::new();
    machine.ok(&["create", "net", "--kind", "service", "--provides-network"]);
    machine.ok(&["create", "work", "--net-domain", "net"]);
    machine
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let machine = net_and_work();
    machine.ok(&["create", "alone"]);
    for (arguments, expected) in [
        (
            &["create", "x", "--net-domain", "gone"][..],
            "there is no domain `gone`",
        ),
        (
            &["create", "x", "--net-domain", "alone"],
            "`alone` does not provide network",
        ),
        (
            &["prefs", "net", "net_domain", "net"],
            "is the domain itself",
        ),
        (
            &["prefs", "net", "provides_network", "no"],
            "`net` is the net_domain of `work`",
        ),
        (
            &["remove", "net", "--yes"],
            "`net` is the net_domain of `work`",
        ),
    ] {
        let error = machine.fails(1, arguments);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    machine.ok(&[
        "create",
        "firewall",
        "--provides-network",
        "--net-domain",
        "net",
    ]);
    let error = machine.fails(1, &["prefs", "net", "net_domain", "firewall"]);
    assert!(
        error.contains("behind itself (net → firewall → net)"),
        "{error}"
    );
    // Several at once count as they will be.
    let file = machine.path("d.toml");
    let text = |net: &str| {
        format!(
            "[[domain]]\nname = \"one\"\nnet_domain = \"two\"\n[[domain]]\nname = \"two\"\n\
             provides_network = true\nnet_domain = \"{net}\"\n"
        )
    };
    fs::write(&file, text("one")).unwrap();
    let error = machine.fails(1, &["apply", "--yes", file.to_str().unwrap()]);
    assert!(
        error.contains("`one` is the net_domain of `two`"),
        "{error}"
    );
    fs::write(&file, text("net")).unwrap();
    machine.ok(&["apply", "--yes", file.to_str().unwrap()]);
    let prune = machine.fails(1, &["apply", "--prune", "--yes", file.to_str().unwrap()]);
    assert!(prune.contains("it is the net_domain of `two`"), "{prune}");
    // Others follow another name.
    machine.ok(&["rename", "net", "sys-net"]);
    assert_eq!(machine.ok(&["prefs", "work", "net_domain"]), "sys-net\n");
}

#[test]
fn rules_are_kept_in_their_order() {
    let machine = net_and_work();
    let shown = machine.ok(&["firewall", "work"]);
    assert!(shown.contains("-   accept  everything else"), "{shown}");
    let firewall = |arguments: &[&str]| {
        let all = [&["firewall", "work"], arguments].concat();
        machine.ok(&all)
    };
    firewall(&[
        "add",
        "accept",
        "dsthost=Example.org",
        "proto=tcp",
        "dstports=443",
    ]);
    firewall(&["add", "drop dsthost=192.0.2.0/24 comment=as one word"]);
    firewall(&[
        "add",
        "--before",
        "2",
        "accept",
        "expire=+1h",
        "comment=in",
        "between",
    ]);
    firewall(&["log", "off"]);
    let shown = firewall(&["default", "drop"]);
    for (line, expected) in shown.lines().skip(1).zip([
        "1   accept  dsthost=example.org proto=tcp dstports=443",
        "2   accept  expire=",
        "3   drop    dsthost=192.0.2.0/24 comment=as one word",
        "-   drop    everything else",
        "work: `net` applies them and logs nothing",
    ]) {
        assert!(line.starts_with(expected), "{shown}");
    }
    // They are in the domain's file.
    let file = fs::read_to_string(machine.path("config/bulkhead/domains/work.toml")).unwrap();
    assert!(file.contains("firewall_default = \"drop\""), "{file}");
    assert!(
        file.contains("\"drop dsthost=192.0.2.0/24 comment=as one word\""),
        "{file}"
    );
    firewall(&["remove", "1", "3"]);
    let json: Value = serde_json::from_str(&firewall(&["--json"])).unwrap();
    assert_eq!(json["rules"].as_array().unwrap().len(), 1, "{json}");
    assert_eq!(json["rules"][0]["ended"], false, "{json}");
    for (arguments, expected) in [
        (&["add", "allow"][..], "begins with `accept` or `drop`"),
        (
            &["add", "accept", "port=5"],
            "the rule `accept port=5`: `port=5` is no part",
        ),
        (
            &["add", "--before", "3", "drop"],
            "`work` has no rule 3; it has 1",
        ),
        (&["remove", "2"], "`work` has no rule 2; it has 1"),
    ] {
        let all = [&["firewall", "work"], arguments].concat();
        let error = machine.fails(1, &all);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    // What has ended goes when something is added.
    machine.ok(&[
        "prefs",
        "work",
        "firewall",
        "drop expire=1000; accept dsthost=192.0.2.1",
    ]);
    let shown = firewall(&["add", "--before", "2", "drop", "dsthost=192.0.2.2"]);
    assert!(shown.contains("1   drop    dsthost=192.0.2.2"), "{shown}");
    assert!(shown.contains("2   accept  dsthost=192.0.2.1"), "{shown}");
    let shown = firewall(&["reset"]);
    assert!(shown.contains("-   accept  everything else"), "{shown}");
    assert_eq!(shown.lines().count(), 3, "{shown}");
    machine.fails(1, &["firewall", "gone"]);
}

#[test]
fn addresses_stay() {
    let mut machine = net_and_work();
    machine.ok(&["create", "alone"]);
    let address = |machine: &Machine, domain: &str, kind: &str| {
        let port = port(machine, domain, kind);
        port["address"].as_str().unwrap().to_owned()
    };
    assert_eq!(address(&machine, "net", "trunk"), "10.137.0.1");
    assert_eq!(address(&machine, "work", "card"), "10.137.0.2");
    assert_eq!(
        ports(&machine).len(),
        2,
        "a domain without network has no port"
    );
    machine.ok(&["rename", "work", "job"]);
    machine.ok(&["clone", "job", "copy"]);
    let mut daemon = machine.daemon.take().unwrap();
    signal(daemon.id().into(), libc::SIGTERM);
    daemon.wait().unwrap();
    machine.start_daemon(&[]);
    assert_eq!(address(&machine, "job", "card"), "10.137.0.2");
    // What is removed makes room; what is there keeps its place.
    machine.ok(&["remove", "job", "--yes"]);
    machine.ok(&["start", "copy"]);
    let copy = address(&machine, "copy", "card");
    machine.ok(&["create", "new", "--net-domain", "net"]);
    let all = [copy, address(&machine, "new", "card")];
    assert!(
        all.contains(&"10.137.0.2".to_owned()) && all[0] != all[1],
        "{all:?}"
    );
    assert_eq!(address(&machine, "net", "trunk"), "10.137.0.1");
}

#[test]
fn a_client_brings_its_network_domain_and_holds_it() {
    let machine = net_and_work();
    machine.ok(&["start", "work"]);
    assert_eq!(machine.state("net"), "running");
    for (domain, kind) in [("work", "card"), ("net", "trunk")] {
        assert_eq!(port(&machine, domain, kind)["state"], "plugged");
    }
    // No program sets up cards here: the domain runs all the same, and it is said why.
    let problem = port(&machine, "work", "card")["problem"].to_string();
    assert!(problem.contains("its network is not set up"), "{problem}");
    let error = machine.fails(1, &["firewall", "work", "default", "drop"]);
    assert!(error.contains("`net` does not do so"), "{error}");
    let error = machine.fails(1, &["stop", "net"]);
    assert!(error.contains("`work`, which run"), "{error}");
    machine.ok(&["kill", "net"]);
    wait_for(&machine, "work", "card", "unplugged");
    machine.ok(&["start", "net"]);
    wait_for(&machine, "work", "card", "plugged");
    machine.ok(&["stop", "net", "--force"]);
    wait_for(&machine, "work", "card", "unplugged");
    machine.ok(&["stop", "work"]);
    assert_eq!(port(&machine, "work", "card")["state"], "off");
    assert_eq!(machine.sockets(), 0);
}

#[test]
fn a_running_client_is_plugged_in_elsewhere() {
    let machine = net_and_work();
    machine.ok(&["create", "other", "--provides-network"]);
    machine.ok(&["create", "late"]);
    machine.ok(&["start", "work"]);
    machine.ok(&["start", "late"]);
    machine.ok(&["prefs", "work", "net_domain", "other"]);
    let end = Instant::now() + support::PATIENCE;
    while port(&machine, "work", "card")["net_domain"] != "other" {
        assert!(Instant::now() < end, "{:?}", ports(&machine));
        thread::sleep(Duration::from_millis(20));
    }
    wait_for(&machine, "work", "card", "plugged");
    assert_eq!(machine.state("other"), "running");
    // The first one is free now, the other is not.
    machine.ok(&["stop", "net"]);
    machine.fails(1, &["stop", "other"]);
    machine.ok(&["prefs", "work", "net_domain", "-"]);
    wait_for(&machine, "work", "card", "unplugged");
    machine.ok(&["stop", "other"]);
    // What runs without a card gets one when it starts again.
    machine.ok(&["prefs", "late", "net_domain", "net"]);
    assert_eq!(port(&machine, "late", "card")["state"], "next-start");
    machine.ok(&["stop", "late"]);
    machine.ok(&["start", "late"]);
    assert_eq!(port(&machine, "late", "card")["state"], "plugged");
}

#[test]
fn cards_outlive_the_link() {
    let machine = net_and_work();
    machine.ok(&["start", "work"]);
    let link = || -> Vec<i64> {
        let daemon = machine.daemon.as_ref().unwrap().id();
        let children = fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children"));
        let children = children.unwrap();
        let is_link = |pid: &i64| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim() == "bulkhead-link"
        };
        let pids = children.split_whitespace();
        pids.map(|pid| pid.parse().unwrap())
            .filter(is_link)
            .collect()
    };
    let [first] = link().try_into().unwrap();
    signal(first, libc::SIGKILL);
    support::wait_until_dead(first);
    let end = Instant::now() + support::PATIENCE;
    while link().is_empty() || link() == [first] {
        assert!(Instant::now() < end, "{}", machine.daemon_log());
        thread::sleep(Duration::from_millis(20));
    }
    wait_for(&machine, "work", "card", "plugged");
    wait_for(&machine, "net", "trunk", "plugged");
    machine.ok(&["kill", "net"]);
    wait_for(&machine, "work", "card", "unplugged");
}

#[test]
fn a_network_domain_that_does_not_start_is_named() {
    let machine = Machine::new();
    machine.ok(&["create", "broken-net", "--provides-network"]);
    machine.ok(&["create", "work", "--net-domain", "broken-net"]);
    let error = machine.fails(1, &["start", "work"]);
    assert!(error.contains("its network domain `broken-net`"), "{error}");
    assert_eq!(machine.state("work"), "halted");
    // What people write by hand is looked at again.
    let file = machine.path("config/bulkhead/domains/broken-net.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}net_domain = \"work\"\n")).unwrap();
    let error = machine.fails(1, &["start", "work"]);
    assert!(error.contains("behind itself"), "{error}");
}

#[test]
fn a_device_belongs_to_one_domain() {
    let machine = net_and_work();
    let card = "0000:01:00.0";
    machine.ok(&["prefs", "net", "pci", "0000:02:00.1,0000:01:00.0"]);
    let shown = machine.ok(&["prefs", "net", "pci"]);
    assert_eq!(shown, "0000:01:00.0, 0000:02:00.1\n");
    assert!(machine.ok(&["info", "net"]).contains(card));
    let physical = port(&machine, "net", "physical");
    assert_eq!(physical["devices"][0], card);
    assert_eq!(physical["runs"], false);
    assert!(physical["untrusted_address"].is_null());
    let told = machine.ok(&["net"]);
    assert!(told.contains("as their domains say"), "{told}");

    for (arguments, expected) in [
        (&["net", "wifi", "net"][..], "`net` is not running"),
        (&["net", "wifi", "work"], "no network domain with a device"),
        (&["net", "wifi", "gone", "forget", "x"], "no domain `gone`"),
    ] {
        let error = machine.fails(1, arguments);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }

    let file = machine.path("d.toml");
    let text = |devices: &str| format!("[[domain]]\nname = \"work\"\npci = [{devices}]\n");
    fs::write(&file, text("\"0000:01:00.0\"")).unwrap();
    let file = file.to_str().unwrap();
    for (arguments, expected) in [
        (&["prefs", "work", "pci", card][..], "domain `net` already"),
        (&["create", "x", "--pci", card], "domain `net` already"),
        (&["apply", "--yes", file], "domain `net` already"),
        (&["prefs", "work", "pci", "01:00.0"], "as `lspci -D` does"),
    ] {
        let error = machine.fails(1, arguments);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    // A copy has none, and the name follows.
    machine.ok(&["clone", "net", "copy"]);
    assert_eq!(machine.ok(&["prefs", "copy", "pci"]), "-\n");
    machine.ok(&["rename", "net", "sys-net"]);
    let error = machine.fails(1, &["prefs", "work", "pci", card]);
    assert!(error.contains("domain `sys-net` already"), "{error}");
    machine.ok(&["prefs", "sys-net", "pci", "-"]);
    machine.ok(&["apply", "--yes", file]);
    assert!(machine.ok(&["prefs", "work", "pci"]).contains(card));
}
