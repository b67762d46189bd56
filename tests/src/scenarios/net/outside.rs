//! App domains reach the outside through a network domain that owns the physical card: it gets an
//! address by DHCP, translates theirs, answers for names, and lets them reach nothing else.
//!
//! The card is that of `net-nic`. Its network is QEMU's user network, cut off from everything but a
//! file that the test serves there. So restricted, its DHCP server names neither a router nor a DNS
//! server: a record of the forwarder's own stands in for what one would answer.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::link::{
    PORT, PROBE, address, fetch, listens, make_net_domain, nothing_on_the_host, port, serve,
};
use super::nic::{CARD, add, bind, with_iommu};
use crate::check;
use crate::e2e::context::Context;
use crate::e2e::own_host::OwnHostContext;
use crate::e2e::{Failure, Outcome, Place, Scenario};
use crate::machine::Machine;

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "net-outside",
    about: "app domains reach the outside through a network domain with the physical card, and nothing else",
    run: Place::OwnHost(run),
};

pub(super) const NET: &str = "sys-net";
const FIREWALL: &str = "sys-firewall";
/// Where the test serves a file, and on which port.
pub(super) const SERVER: &str = "10.0.2.100";
const SERVER_PORT: &str = "80";
/// A name that leads there.
const NAME: &str = "files.test";
/// What QEMU's DHCP server gives first.
const LEASED: &str = "10.0.2.15/24";
const BYTES: usize = 3_000_000;

fn run(context: &OwnHostContext<'_>) -> Outcome {
    let network = served(context.folder())?;
    let captured = context.folder().join("card.pcap");
    let mut options = with_iommu(context, &network);
    let dump = format!("filter-dump,id=dump,netdev=nic,file={}", captured.display());
    add(&mut options, "-object", &dump);
    context.in_machine(&options, |machine| in_host(context, machine))?;
    on_the_wire(&captured)
}

/// The emulator's word for a network with nothing but a file at [`SERVER`].
pub(super) fn served(folder: &Path) -> Result<String, Failure> {
    let served = folder.join("served");
    let contents: Vec<u8> = (0..BYTES).map(|at| (at * 7 + at / 251) as u8).collect();
    std::fs::write(&served, &contents)?;
    Ok(format!(
        "user,id=nic,restrict=on,guestfwd=tcp:{SERVER}:{SERVER_PORT}-cmd:cat {}",
        served.display()
    ))
}

fn in_host(own: &OwnHostContext<'_>, machine: &Machine) -> Outcome {
    let context = &Context::new(machine, own.folder());
    let card = own.root_ok(machine, "card", &format!("{CARD} echo $card"))?;
    let card = card.trim();
    let device = ["--template", "net", "--pci", card];
    make_net_domain(context, NET, &device)?;
    for (domain, label) in [("work", "red"), ("personal", "green")] {
        context.domain(domain, label)?;
        context.host_ok(&["bulkhead", "prefs", domain, "net_domain", NET])?;
    }
    refused(context, card)?;
    give_away(own, machine, context)?;

    context.host_ok(&["bulkhead", "start", "work"])?;
    let outcome = outside(context);
    keep_state(
        context,
        NET,
        "nft list ruleset; ps ax; cat /proc/net/nf_conntrack",
    )?;
    outcome
}

/// Keeps what a network domain says itself, whatever became of it: its log, its network, and what the
/// shell words `more` show.
pub(super) fn keep_state(context: &Context<'_>, domain: &str, more: &str) -> Outcome {
    let shown = format!("ip address; ip route; cat /etc/resolv.conf; {more}");
    for (name, command) in [
        ("net", &["bulkhead", "net"][..]),
        ("log", &["bulkhead", "log", domain]),
        (
            "state",
            &[
                "bulkhead",
                "run",
                "--no-start",
                "--root",
                domain,
                "--",
                "sh",
                "-c",
                &shown,
            ],
        ),
    ] {
        if let Ok(output) = context.host(command) {
            let told = [output.stdout, output.stderr].concat();
            context.log(&format!("{domain}-{name}.txt"), &told)?;
        }
    }
    Ok(())
}

/// What the administrator does. What is missing is said meanwhile.
fn give_away(own: &OwnHostContext<'_>, machine: &Machine, context: &Context<'_>) -> Outcome {
    bind(own, machine)?;
    start_refused(context, "give this user")?;
    give_to_user(own, machine)?;
    let limit = |most: &str| {
        let command = format!("prlimit --memlock={most} --pid $(pgrep -x bulkheadd)");
        own.root_ok(machine, "limit", &command).map(drop)
    };
    limit("8388608:unlimited")?;
    start_refused(context, "256 MiB of memory locked")?;
    limit("unlimited:unlimited")
}

/// Lets the desktop user open the card's group.
pub(super) fn give_to_user(own: &OwnHostContext<'_>, machine: &Machine) -> Outcome {
    let script = format!("{CARD} chown 1000 /dev/vfio/$group");
    own.root_ok(machine, "own", &script).map(drop)
}

/// A start fails with these words of the VMM.
fn start_refused(context: &Context<'_>, words: &str) -> Outcome {
    context.host_fails(&["bulkhead", "start", NET], words)
}

/// A device that the host uses, or another domain has, is not given away.
fn refused(context: &Context<'_>, card: &str) -> Outcome {
    start_refused(context, "in use by the host's driver virtio-pci")?;
    for (device, expected) in [
        (card, "belongs to domain `sys-net` already"),
        ("eth0", "is no address of a PCI device"),
    ] {
        context.host_fails(&["bulkhead", "prefs", "work", "pci", device], expected)?;
    }
    Ok(())
}

fn outside(context: &Context<'_>) -> Outcome {
    has_lease(context, LEASED)?;
    for domain in ["work", "personal"] {
        context.install_hostile(domain, PROBE)?;
    }
    arrives(context, "work")?;
    arrives(context, "personal")?;
    nothing_on_the_host(context)?;
    names(context)?;
    nothing_else(context)?;
    chain(context)?;

    // The network domain ends and comes back: its clients go on.
    context.host_ok(&["bulkhead", "kill", NET])?;
    let without = fetch_outside(context, "work")?;
    check!(without.is_none(), "work reaches the outside without {NET}");
    context.host_ok(&["bulkhead", "start", NET])?;
    has_lease(context, LEASED)?;
    arrives(context, "work")
}

pub(super) fn has_lease(context: &Context<'_>, leased: &str) -> Result<Value, Failure> {
    has_lease_of(context, NET, leased)
}

/// Waits until a network domain says that its card has its address.
pub(super) fn has_lease_of(
    context: &Context<'_>,
    domain: &str,
    leased: &str,
) -> Result<Value, Failure> {
    let mut state = Value::Null;
    for _ in 0..120 {
        state = port(context, domain, "physical")?;
        if state["untrusted_address"] == leased {
            check!(
                state["untrusted_driver"] == "virtio_net" && state["untrusted_carrier"] == true,
                "the card's state: {state}"
            );
            return Ok(state);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Err(Failure::new(format!("{domain} has no address: {state}")))
}

fn fetch_outside(context: &Context<'_>, domain: &str) -> Result<Option<String>, Failure> {
    let script = format!(
        "/tmp/{PROBE} fetch {SERVER} {SERVER_PORT} > /tmp/fetched || exit 9; sha256sum < /tmp/fetched"
    );
    let output = context.guest(domain, &["sh", "-c", &script])?;
    Ok((output.status == 0).then(|| output.stdout_text()))
}

/// A domain gets the file, whole.
pub(super) fn arrives(context: &Context<'_>, domain: &str) -> Outcome {
    let path = context.folder().join("served");
    let output = std::process::Command::new("sha256sum")
        .stdin(std::fs::File::open(path)?)
        .output()?;
    let sum = String::from_utf8_lossy(&output.stdout).into_owned();
    match fetch_outside(context, domain)? {
        Some(found) if found == sum => Ok(()),
        Some(_) => Err(Failure::new(format!("{domain} got something else"))),
        None => Err(Failure::new(format!("{domain} does not reach {SERVER}"))),
    }
}

/// Clients ask their gateway for names. The forwarder ends, and is started again.
fn names(context: &Context<'_>) -> Outcome {
    let record =
        format!("echo address=/{NAME}/{SERVER} > /etc/dnsmasq.d/test.conf; kill $(pidof dnsmasq)");
    context.host_ok(&["bulkhead", "run", "--root", NET, "--", "sh", "-c", &record])?;
    let gateway = address(context, NET, "trunk")?;
    let asked = context.guest_ok("work", &["cat", "/etc/resolv.conf"])?;
    check!(
        asked.contains(&format!("nameserver {gateway}\n")),
        "work asks others for names: {asked}"
    );
    let mut told = String::new();
    for _ in 0..20 {
        told = context
            .guest("work", &["getent", "ahostsv4", NAME])?
            .stdout_text();
        if told.starts_with(SERVER) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Err(Failure::new(format!("{NAME} is not found: {told}")))
}

/// A client reaches neither the network domain's services nor another client.
fn nothing_else(context: &Context<'_>) -> Outcome {
    let (_served, _) = serve(context, NET)?;
    let net = address(context, NET, "trunk")?;
    let outer = LEASED.split('/').next().unwrap_or_default();
    let own = fetch(context, NET, &net)?;
    check!(own.is_some(), "{NET} serves nothing");
    let probe = format!("/tmp/{PROBE}");
    let _serves = context.spawn_in("personal", &[&probe, "serve", PORT, "/etc/passwd"])?;
    let neighbour = address(context, "personal", "card")?;
    listens(context, "personal", PORT.parse().unwrap_or_default())?;
    let own = fetch(context, "personal", &neighbour)?;
    check!(own.is_some(), "personal serves nothing");
    for target in [net.as_str(), outer, &neighbour] {
        let way = fetch(context, "work", target)?;
        check!(way.is_none(), "work reaches {target}:{PORT}");
    }
    Ok(())
}

/// A network domain behind another one does the same once more.
fn chain(context: &Context<'_>) -> Outcome {
    make_net_domain(
        context,
        FIREWALL,
        &["--template", "net", "--net-domain", NET],
    )?;
    context.host_ok(&["bulkhead", "start", FIREWALL])?;
    context.host_ok(&["bulkhead", "prefs", "personal", "net_domain", FIREWALL])?;
    let mut result = Ok(());
    for _ in 0..10 {
        result = arrives(context, "personal");
        if result.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    result?;
    let found = context.guest("personal", &["getent", "ahostsv4", NAME])?;
    let told = found.stdout_text();
    check!(
        told.starts_with(SERVER),
        "personal does not find {NAME} through {FIREWALL}: {told}"
    );
    context.host_ok(&["bulkhead", "kill", "personal"])?;
    context.host_ok(&["bulkhead", "kill", FIREWALL]).map(drop)
}

/// What the emulator saw on the card's cable: the network domain's address and the network's own,
/// never a domain's.
fn on_the_wire(captured: &Path) -> Outcome {
    let (mut sources, mut packets) = (BTreeSet::new(), 0);
    for frame in frames(&std::fs::read(captured)?) {
        // Ethernet, then IPv4, whose source is at 12.
        if let [_, _, _, _, _, _, _, _, _, _, _, _, 0x08, 0x00, packet @ ..] = frame
            && let Some([a, b, c, d]) = packet.get(12..16)
        {
            sources.insert(Ipv4Addr::new(*a, *b, *c, *d));
            packets += 1;
        }
    }
    eprintln!("  {packets} packets on the cable, from {sources:?}");
    let is_ours =
        |address: &Ipv4Addr| address.is_unspecified() || address.octets().starts_with(&[10, 0, 2]);
    check!(
        packets > 1000 && sources.iter().all(is_ours),
        "{packets} packets on the cable, from {sources:?}"
    );
    Ok(())
}

/// The frames of a capture as the emulator writes it (little endian): a header of 24 bytes, and
/// before each frame 16, whose third number is its length.
fn frames(capture: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    let mut rest = capture.get(24..).unwrap_or_default();
    while let Some((header, after)) = rest.split_at_checked(16) {
        let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        let Some((frame, after)) = after.split_at_checked(length as usize) else {
            break;
        };
        frames.push(frame);
        rest = after;
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_is_cut_into_frames() {
        let mut capture = vec![0; 24];
        for frame in [&b"ab"[..], b"c"] {
            capture.extend([0; 8]);
            capture.extend((frame.len() as u32).to_le_bytes());
            capture.extend([9; 4]);
            capture.extend(frame);
        }
        assert_eq!(frames(&capture), [&b"ab"[..], b"c"]);
        // The last one may not be whole.
        capture.pop();
        assert_eq!(frames(&capture), [&b"ab"[..]]);
        assert!(frames(b"").is_empty());
    }
}
