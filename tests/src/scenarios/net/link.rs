//! Clients reach their network domain, and nobody else; the host has no part in it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::check;
use crate::e2e::context::{Background, Context};
use crate::e2e::{Failure, Outcome, Place, Scenario};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "net-link",
    about: "clients reach their network domain and never each other, forged frames are refused and counted, the host has no network",
    run: Place::Host(run),
};

const NET: &str = "sys-net";
const FIREWALL: &str = "sys-firewall";
pub(in crate::scenarios) const PROBE: &str = "net-probe";
pub(super) const PORT: &str = "7000";
const FILE: &str = "/tmp/served";
const BYTES: u64 = 6_000_000;

fn run(context: &Context<'_>) -> Outcome {
    make_domains(context)?;
    // A client brings its network domain with it.
    context.host_ok(&["bulkhead", "start", "work"])?;
    check!(
        context.state(NET)? == "running",
        "{NET} was not started with its client"
    );
    context.guest_ok("personal", &["true"])?;
    for domain in ["work", "personal"] {
        context.install_hostile(domain, PROBE)?;
        let interfaces = interfaces(context, domain)?;
        check!(interfaces == "eth0 lo", "{domain} has {interfaces}");
    }
    let none = interfaces(context, "alone")?;
    check!(none == "lo", "a domain without network has {none}");
    context.host_ok(&["bulkhead", "kill", "alone"])?;

    // What is served arrives whole.
    let (served, sum) = serve(context, NET)?;
    let net = address(context, NET, "trunk")?;
    arrives(context, "work", &net, &sum)?;
    arrives(context, "personal", &net, &sum)?;

    no_way_to_neighbours(context)?;
    forged_frames(context, &net)?;
    arrives(context, "work", &net, &sum)?;
    nothing_on_the_host(context)?;
    in_use(context)?;
    elsewhere(context, &net, &sum)?;

    // The link ends: cards stay plugged in.
    context.host_ok(&["sh", "-c", "kill -9 $(pgrep -x bulkhead-link)"])?;
    arrives_soon(context, "work", &net, &sum)?;

    // The network domain ends, and comes back: its clients go on.
    drop(served);
    context.host_ok(&["bulkhead", "kill", NET])?;
    let card = port(context, "work", "card")?;
    check!(
        card["state"] == "unplugged",
        "without its network domain work's card is {}",
        card["state"]
    );
    check!(
        fetch(context, "work", &net)?.is_none(),
        "something still answers at {net}"
    );
    let (_served, sum) = serve(context, NET)?;
    arrives(context, "work", &net, &sum)?;
    arrives(context, "personal", &net, &sum)?;

    let told = context.host_ok(&["bulkhead", "net"])?;
    context.log("net.txt", told.as_bytes())?;
    context.host_ok(&["bulkhead", "stop", NET, "--force"])?;
    for domain in ["work", "personal"] {
        context.host_ok(&["bulkhead", "kill", domain])?;
        context.host_ok(&["bulkhead", "prefs", domain, "net_domain", "-"])?;
    }
    context.host_ok(&["bulkhead", "remove", "--yes", NET])?;
    Ok(())
}

fn make_domains(context: &Context<'_>) -> Outcome {
    for (domain, label) in [("work", "red"), ("personal", "green"), ("alone", "gray")] {
        context.domain(domain, label)?;
    }
    let refused = |command: &[&str], expected: &str| context.host_fails(command, expected);
    let prefs = |domain, value| ["bulkhead", "prefs", domain, "net_domain", value];
    refused(&prefs("work", NET), "there is no domain `sys-net`")?;
    refused(&prefs("work", "personal"), "does not provide network")?;
    make_net_domain(context, NET, &[])?;
    for domain in ["work", "personal"] {
        context.host_ok(&prefs(domain, NET))?;
    }
    refused(&prefs(NET, NET), "is the domain itself")?;
    refused(
        &["bulkhead", "remove", "--yes", NET],
        "is the net_domain of",
    )
}

/// A network domain that needs little.
pub(super) fn make_net_domain(context: &Context<'_>, name: &str, more: &[&str]) -> Outcome {
    let size = ["--cpus", "1", "--memory", "256", "--home-size", "64"];
    let kind = ["--label", "red", "--kind", "service", "--provides-network"];
    let mut command = vec!["bulkhead", "create", name];
    command.extend(size.iter().chain(&kind).chain(more));
    context.host_ok(&command).map(drop)
}

fn interfaces(context: &Context<'_>, domain: &str) -> Result<String, Failure> {
    let names = context.guest_ok(domain, &["ls", "/sys/class/net"])?;
    Ok(names.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// One card of a domain, as `bulkhead net` tells of it.
pub(super) fn port(context: &Context<'_>, domain: &str, kind: &str) -> Result<Value, Failure> {
    let ports = context.host_ok(&["bulkhead", "net", "--json"])?;
    let ports: Value = serde_json::from_str(&ports)?;
    let found = ports
        .as_array()
        .into_iter()
        .flatten()
        .find(|port| port["domain"] == domain && port["kind"] == kind);
    found
        .cloned()
        .ok_or_else(|| Failure::new(format!("no {kind} of {domain} in {ports}")))
}

/// The address of a domain.
pub(super) fn address(context: &Context<'_>, domain: &str, kind: &str) -> Result<String, Failure> {
    let port = port(context, domain, kind)?;
    match port["address"].as_str() {
        Some(address) => Ok(address.to_owned()),
        None => Err(Failure::new(format!("no address: {port}"))),
    }
}

/// A file that a network domain offers, and its checksum.
pub(super) fn serve(context: &Context<'_>, net: &str) -> Result<(Background, String), Failure> {
    serve_bytes(context, net, BYTES)
}

/// The same with a file of this size.
pub(super) fn serve_bytes(
    context: &Context<'_>,
    net: &str,
    bytes: u64,
) -> Result<(Background, String), Failure> {
    let probe = context.install_hostile(net, PROBE)?;
    let make = format!("head -c {bytes} /dev/urandom > {FILE}; sha256sum < {FILE}");
    let sum = context.guest_ok(net, &["sh", "-c", &make])?;
    let served = context.spawn_in(net, &[&probe, "serve", PORT, FILE])?;
    listens(context, net, PORT.parse().unwrap_or_default())?;
    Ok((served, sum))
}

/// Waits until something listens in a domain.
pub(in crate::scenarios) fn listens(context: &Context<'_>, domain: &str, port: u16) -> Outcome {
    // 0A is the state LISTEN.
    let wait = format!(
        "for i in $(seq 200); do grep -q ':{port:04X} 00000000:0000 0A' /proc/net/tcp && exit 0; \
         sleep 0.1; done; exit 1"
    );
    context.guest_ok(domain, &["sh", "-c", &wait]).map(drop)
}

/// The checksum of what a domain gets at an address, if it gets anything.
pub(super) fn fetch(
    context: &Context<'_>,
    domain: &str,
    address: &str,
) -> Result<Option<String>, Failure> {
    let script = format!(
        "/tmp/{PROBE} fetch {address} {PORT} > /tmp/fetched || exit 9; sha256sum < /tmp/fetched"
    );
    let output = context.guest(domain, &["sh", "-c", &script])?;
    match output.status {
        0 => Ok(Some(output.stdout_text())),
        9 => Ok(None),
        status => Err(Failure::new(format!(
            "{domain}: status {status}: {}",
            output.stderr_text()
        ))),
    }
}

fn arrives(context: &Context<'_>, domain: &str, address: &str, sum: &str) -> Outcome {
    match fetch(context, domain, address)? {
        Some(found) if found == sum => Ok(()),
        Some(_) => Err(Failure::new(format!("{domain} got something else"))),
        None => {
            let told = context.host_ok(&["bulkhead", "net"])?;
            Err(Failure::new(format!(
                "{domain} does not reach {address}:\n{told}"
            )))
        }
    }
}

/// The same, while something starts again.
fn arrives_soon(context: &Context<'_>, domain: &str, address: &str, sum: &str) -> Outcome {
    for _ in 0..5 {
        if fetch(context, domain, address)?.is_some_and(|found| found == sum) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    arrives(context, domain, address, sum)
}

/// Clients do not reach each other, whichever way they try.
fn no_way_to_neighbours(context: &Context<'_>) -> Outcome {
    let neighbour = address(context, "personal", "card")?;
    let probe = format!("/tmp/{PROBE}");
    let _serves = context.spawn_in("personal", &[&probe, "serve", PORT, "/etc/passwd"])?;
    listens(context, "personal", PORT.parse().unwrap_or_default())?;
    let own = fetch(context, "personal", &neighbour)?;
    check!(own.is_some(), "personal serves nothing");
    // Through the gateway.
    let way = fetch(context, "work", &neighbour)?;
    check!(way.is_none(), "work reaches personal through the gateway");
    let received = || -> Result<u64, Failure> {
        let port = port(context, "personal", "card")?;
        Ok(port["received_frames"].as_u64().unwrap_or(0))
    };
    // Straight, by a packet that looks like the neighbour's own, and one for all.
    let before = received()?;
    let script = format!("{probe} spoof {neighbour} {neighbour}");
    context.host_ok(&[
        "bulkhead", "run", "--root", "work", "--", "sh", "-c", &script,
    ])?;
    let after = received()?;
    check!(
        after <= before,
        "personal was sent {} frames by work",
        after - before
    );
    Ok(())
}

/// Frames of another's address or card do not come through, and are counted.
fn forged_frames(context: &Context<'_>, net: &str) -> Outcome {
    let neighbour = address(context, "personal", "card")?;
    let own = address(context, "work", "card")?;
    let script = format!(
        "/tmp/{PROBE} spoof {neighbour} {net} && /tmp/{PROBE} forge eth0 {own} 02:00:00:00:00:99"
    );
    context.host_ok(&[
        "bulkhead", "run", "--root", "work", "--", "sh", "-c", &script,
    ])?;
    // And what else there is: each kind says as what it must be counted.
    let probe = format!("/tmp/{PROBE}");
    let more = context.host_ok(&[
        "bulkhead", "run", "--root", "work", "--", &probe, "frames", "eth0", &own, net,
    ])?;
    let kinds: BTreeSet<&str> = more
        .lines()
        .chain(["source_address", "source_mac"])
        .collect();
    check!(kinds.len() > 10, "only {kinds:?} were sent");
    let port = port(context, "work", "card")?;
    context.log("refused.json", port.to_string().as_bytes())?;
    let reasons = port["refused_reasons"].to_string();
    for reason in kinds {
        let count = reasons
            .split(['"', ','])
            .find_map(|part| part.strip_prefix(reason)?.trim().parse::<u64>().ok());
        check!(
            count.is_some_and(|count| count >= 20),
            "{reason} is not counted: {port}"
        );
    }
    Ok(())
}

/// The host has no network of its own.
pub(in crate::scenarios) fn nothing_on_the_host(context: &Context<'_>) -> Outcome {
    let up = context.host_ok(&[
        "sh",
        "-c",
        "for i in /sys/class/net/*; do \
           test $(($(cat $i/flags) & 1)) = 0 || basename $i; done",
    ])?;
    check!(up.trim().is_empty() || up == "lo\n", "up on the host: {up}");
    let routes = context.host_ok(&["tail", "-n", "+2", "/proc/net/route"])?;
    check!(routes.is_empty(), "the host has routes:\n{routes}");
    Ok(())
}

/// A network domain that is in use is not stopped by accident.
fn in_use(context: &Context<'_>) -> Outcome {
    let output = context.host(&["bulkhead", "stop", NET])?;
    let told = output.stderr_text();
    check!(
        output.status == 1 && told.contains("which run") && context.state(NET)? == "running",
        "stopping a network domain in use says: {told}"
    );
    Ok(())
}

/// A running client is plugged in elsewhere, unplugged, and plugged in again.
fn elsewhere(context: &Context<'_>, net: &str, sum: &str) -> Outcome {
    let personal = |value| {
        let command = ["bulkhead", "prefs", "personal", "net_domain", value];
        context.host_ok(&command).map(drop)
    };
    let reaches = |domain: &str, wanted: &str, state: &str| -> Outcome {
        for _ in 0..200 {
            let port = port(context, domain, "card")?;
            if port["state"] == state && (wanted == "-" || port["net_domain"] == wanted) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        let told = context.host_ok(&["bulkhead", "net"])?;
        Err(Failure::new(format!(
            "{domain}'s card is not {state}:\n{told}"
        )))
    };
    // Behind a domain that is itself behind one, and is started for it.
    make_net_domain(context, FIREWALL, &["--net-domain", NET])?;
    personal(FIREWALL)?;
    reaches("personal", FIREWALL, "plugged")?;
    let (served, other_sum) = serve(context, FIREWALL)?;
    let firewall = address(context, FIREWALL, "trunk")?;
    arrives_soon(context, "personal", &firewall, &other_sum)?;
    arrives(context, FIREWALL, net, sum)?;
    check!(
        fetch(context, "personal", net)?.is_none(),
        "personal reaches {net} through {FIREWALL}, which passes nothing on"
    );
    check!(
        fetch(context, "work", &firewall)?.is_none(),
        "work reaches {FIREWALL}, which is another client of {NET}"
    );
    context.log(
        "behind.txt",
        context.host_ok(&["bulkhead", "net"])?.as_bytes(),
    )?;
    drop(served);

    personal("-")?;
    reaches("personal", "-", "unplugged")?;
    check!(
        fetch(context, "personal", &firewall)?.is_none(),
        "personal reaches {FIREWALL} without a network domain"
    );
    personal(NET)?;
    reaches("personal", NET, "plugged")?;
    context.host_ok(&["bulkhead", "kill", FIREWALL])?;
    context.host_ok(&["bulkhead", "remove", "--yes", FIREWALL])?;
    arrives_soon(context, "personal", net, sum)
}
