//! A firewall domain lets its clients reach what their rules say: by address, port, protocol and name,
//! for a time, and otherwise while they run.
//!
//! What they try to reach are addresses of a network domain behind it, which has a forwarder for names
//! as well.

use std::time::Duration;

use serde_json::Value;

use super::link::{PROBE, address, make_net_domain};
use crate::check;
use crate::e2e::context::{Background, Context};
use crate::e2e::{Failure, Outcome, Place, Scenario};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "net-rules",
    about: "a firewall domain applies its clients' rules: address, port, protocol, name, end, changes while they run",
    run: Place::Host(run),
};

const OUT: &str = "sys-out";
const FIREWALL: &str = "sys-firewall";
/// Addresses of the outside, with their names.
const FILES: (&str, &str) = ("198.51.100.80", "files.test");
const OTHER: (&str, &str) = ("198.51.100.81", "other.test");
const BELOW: (&str, &str) = ("198.51.100.82", "www.files.test");
/// Two ports that serve something, and one that answers.
const PORTS: [&str; 2] = ["7000", "7001"];
const ECHO: &str = "7002";
/// Where a held connection counts.
const HELD: &str = "/tmp/held";
/// How long a rule counts: longer than a start of the emulated guest's program takes.
const SHORT_S: u64 = 25;

fn run(context: &Context<'_>) -> Outcome {
    make_net_domain(context, OUT, &["--template", "net"])?;
    let behind = ["--template", "net", "--net-domain", OUT];
    make_net_domain(context, FIREWALL, &behind)?;
    for (domain, label) in [("work", "red"), ("personal", "green")] {
        context.domain(domain, label)?;
        context.host_ok(&["bulkhead", "prefs", domain, "net_domain", FIREWALL])?;
        context.host_ok(&["bulkhead", "start", domain])?;
        context.install_hostile(domain, PROBE)?;
    }
    let outside = Outside::begin(context)?;
    let outcome = rules(context);
    for (name, domain) in [("firewall", FIREWALL), ("out", OUT)] {
        let state = "nft list ruleset; ip route; ps ax; dmesg | tail -50";
        let run = ["bulkhead", "run", "--root", domain, "--", "sh", "-c", state];
        let output = context.host(&run)?;
        context.log(&format!("{name}-state.txt"), &output.stdout)?;
        let log = context.host(&["bulkhead", "log", domain])?;
        context.log(&format!("{name}-log.txt"), &log.stdout)?;
    }
    outcome?;
    drop(outside);
    for domain in ["work", "personal"] {
        context.host_ok(&["bulkhead", "kill", domain])?;
        context.host_ok(&["bulkhead", "firewall", domain, "reset"])?;
        context.host_ok(&["bulkhead", "prefs", domain, "net_domain", "-"])?;
    }
    for domain in [FIREWALL, OUT] {
        context.host_ok(&["bulkhead", "kill", domain])?;
        context.host_ok(&["bulkhead", "remove", "--yes", domain])?;
    }
    Ok(())
}

/// What the clients try to reach.
struct Outside {
    _running: Vec<Background>,
}

impl Outside {
    fn begin(context: &Context<'_>) -> Result<Self, Failure> {
        let probe = context.install_hostile(OUT, PROBE)?;
        let mut script = String::new();
        for (address, name) in [FILES, OTHER, BELOW] {
            script.push_str(&format!(
                "ip address add {address}/32 dev lo; \
                 echo host-record={name},{address},9 >> /etc/dnsmasq.d/test.conf; "
            ));
        }
        script.push_str("kill $(pidof dnsmasq)");
        root(context, OUT, &script)?;
        open(context)?;
        let mut running = Vec::new();
        for port in PORTS {
            running.push(context.spawn_in(OUT, &[&probe, "serve", port, "/etc/passwd"])?);
        }
        running.push(context.spawn_in(OUT, &[&probe, "echo", ECHO])?);
        Ok(Outside { _running: running })
    }
}

/// Its own firewall lets in questions for names only, each time that it is told of its clients.
fn open(context: &Context<'_>) -> Outcome {
    let rule = "nft insert rule ip bulkhead input ip daddr 198.51.100.0/24 accept";
    root(context, OUT, rule).map(drop)
}

fn root(context: &Context<'_>, domain: &str, script: &str) -> Result<String, Failure> {
    context.host_ok(&[
        "bulkhead", "run", "--root", domain, "--", "sh", "-c", script,
    ])
}

fn firewall(context: &Context<'_>, domain: &str, arguments: &[&str]) -> Result<Value, Failure> {
    let command = [&["bulkhead", "firewall", "--json", domain], arguments].concat();
    Ok(serde_json::from_str(&context.host_ok(&command)?)?)
}

/// Whether a domain gets something there.
fn reaches(
    context: &Context<'_>,
    domain: &str,
    address: &str,
    port: &str,
) -> Result<bool, Failure> {
    let probe = format!("/tmp/{PROBE}");
    let output = context.guest(domain, &[&probe, "fetch", address, port])?;
    Ok(output.status == 0 && output.stdout_text().contains("root:"))
}

/// Whether it is told the address of a name.
fn finds(
    context: &Context<'_>,
    domain: &str,
    (address, name): (&str, &str),
) -> Result<bool, Failure> {
    let told = context
        .guest(domain, &["getent", "ahostsv4", name])?
        .stdout_text();
    Ok(told.starts_with(address))
}

/// Asks until it is so, for what takes its time.
fn soon(what: &str, mut ask: impl FnMut() -> Result<bool, Failure>) -> Outcome {
    for _ in 0..20 {
        if ask()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Err(Failure::new(what))
}

/// A connection that goes on.
struct Held<'a> {
    context: &'a Context<'a>,
    _running: Background,
}

impl<'a> Held<'a> {
    fn begin(context: &'a Context<'a>, domain: &str, address: &str) -> Result<Self, Failure> {
        let probe = format!("/tmp/{PROBE}");
        // What an earlier one has counted is not what this one has.
        context.guest(domain, &["rm", "-f", HELD])?;
        let running = context.spawn_in(domain, &[&probe, "hold", address, ECHO, HELD])?;
        let held = Held {
            context,
            _running: running,
        };
        soon("a connection does not come to be", || Ok(held.count()? > 0))?;
        Ok(held)
    }

    fn count(&self) -> Result<u64, Failure> {
        let told = self.context.guest("work", &["cat", HELD])?.stdout_text();
        Ok(told.trim().parse().unwrap_or(0))
    }

    /// Whether something comes back now.
    fn goes_on(&self) -> Result<bool, Failure> {
        let before = self.count()?;
        std::thread::sleep(Duration::from_secs(2));
        Ok(self.count()? > before + 2)
    }
}

fn rules(context: &Context<'_>) -> Outcome {
    soon("work reaches nothing", || {
        reaches(context, "work", FILES.0, PORTS[0])
    })?;
    soon("work finds no name", || finds(context, "work", FILES))?;
    let held = Held::begin(context, "work", FILES.0)?;
    check!(held.goes_on()?, "work's connection does not go on");

    // Nothing is left of what was allowed, in connections that are there as well.
    firewall(context, "work", &["default", "drop"])?;
    check!(
        !held.goes_on()?
            && !reaches(context, "work", FILES.0, PORTS[0])?
            && !finds(context, "work", FILES)?,
        "work reaches something without a rule, or its connection goes on"
    );
    check!(
        reaches(context, "personal", FILES.0, PORTS[0])? && finds(context, "personal", FILES)?,
        "personal has work's rules"
    );

    not_taken(context)?;
    by_address(context, &held)?;
    drop(held);
    by_name(context)?;
    until(context)?;
    in_order(context)?;

    // Another machine applies the same rules.
    context.host_ok(&["bulkhead", "kill", FIREWALL])?;
    context.host_ok(&["bulkhead", "start", FIREWALL])?;
    open(context)?;
    soon("work does not reach anything any more", || {
        finds(context, "work", FILES)?;
        reaches(context, "work", FILES.0, PORTS[0])
    })?;
    check!(
        !reaches(context, "work", OTHER.0, PORTS[0])?,
        "rules are lost with the firewall's machine"
    );
    let own = address(context, "work", "card")?;
    let (from, to) = (format!("tcp from {own}:"), format!(" to {}:", OTHER.0));
    let is_told =
        |line: &str| line.contains(" dropped: ") && line.contains(&from) && line.contains(&to);
    soon("what was dropped is not in the firewall's log", || {
        let log = context.host_ok(&["bulkhead", "log", FIREWALL])?;
        Ok(log.lines().any(is_told))
    })
}

/// A firewall domain that does not do as it is told is no secret.
fn not_taken(context: &Context<'_>) -> Outcome {
    root(
        context,
        FIREWALL,
        "cd /usr/sbin; mv nft no-nft; cp /bin/false nft",
    )?;
    let add = [
        "bulkhead",
        "firewall",
        "work",
        "add",
        "accept",
        "proto=icmp",
    ];
    context.host_fails(&add, &format!("`{FIREWALL}` does not do so"))?;
    root(context, FIREWALL, "cd /usr/sbin; mv no-nft nft")?;
    firewall(context, "work", &["remove", "1"]).map(drop)
}

fn by_address(context: &Context<'_>, held: &Held<'_>) -> Outcome {
    let network = format!(
        "accept dsthost=198.51.100.80/31 proto=tcp dstports={}",
        PORTS[0]
    );
    firewall(context, "work", &["add", &network])?;
    soon("work does not reach what a rule allows", || {
        reaches(context, "work", FILES.0, PORTS[0])
    })?;
    for (address, port, wanted) in [
        (OTHER.0, PORTS[0], true),
        (BELOW.0, PORTS[0], false),
        (FILES.0, PORTS[1], false),
    ] {
        check!(
            reaches(context, "work", address, port)? == wanted,
            "work reaches {address}:{port}: {}, with {network}",
            !wanted
        );
    }
    check!(!held.goes_on()?, "work's old connection goes on");
    check!(
        !finds(context, "work", FILES)?,
        "work asks for names without a rule for that"
    );
    // A connection that is allowed again goes on.
    firewall(
        context,
        "work",
        &["add", &format!("accept proto=tcp dstports={ECHO}")],
    )?;
    soon("work's connection does not go on", || held.goes_on())?;
    firewall(context, "work", &["remove", "1", "2"]).map(drop)
}

fn by_name(context: &Context<'_>) -> Outcome {
    let rule = format!("accept dsthost={} proto=tcp dstports={}", FILES.1, PORTS[0]);
    firewall(context, "work", &["add", &rule])?;
    soon("work is not told a name that it may reach", || {
        finds(context, "work", FILES)
    })?;
    check!(
        reaches(context, "work", FILES.0, PORTS[0])?,
        "work does not reach what it was told"
    );
    for (place, port) in [(FILES, PORTS[1]), (OTHER, PORTS[0]), (BELOW, PORTS[0])] {
        let found = place != FILES && finds(context, "work", place)?;
        check!(
            !found && !reaches(context, "work", place.0, port)?,
            "work reaches {place:?}:{port} with {rule}"
        );
    }
    let below = format!("accept dsthost=*.{}", FILES.1);
    firewall(context, "work", &["add", &below])?;
    // Not before it has asked.
    check!(
        !reaches(context, "work", BELOW.0, PORTS[0])?,
        "work reaches an address that it was not told"
    );
    soon("work is not told a name below", || {
        finds(context, "work", BELOW)
    })?;
    check!(
        reaches(context, "work", BELOW.0, PORTS[1])?,
        "work does not reach a name below"
    );
    // What a name has led to stays, whoever comes and goes meanwhile.
    context.host_ok(&["bulkhead", "kill", "personal"])?;
    context.host_ok(&["bulkhead", "start", "personal"])?;
    check!(
        reaches(context, "work", FILES.0, PORTS[0])?,
        "work's names are lost when another client starts"
    );
    firewall(context, "work", &["remove", "2"]).map(drop)
}

/// A rule ends by itself, and with it the connection that it allowed.
fn until(context: &Context<'_>) -> Outcome {
    let rule = format!("accept dsthost={} expire=+{SHORT_S}", OTHER.0);
    firewall(context, "work", &["add", &rule])?;
    let begin = std::time::Instant::now();
    soon("work does not reach what a rule allows for a time", || {
        reaches(context, "work", OTHER.0, PORTS[1])
    })?;
    let held = Held::begin(context, "work", OTHER.0)?;
    check!(
        held.goes_on()? && begin.elapsed() < Duration::from_secs(SHORT_S),
        "work's connection does not go on while its rule counts"
    );
    std::thread::sleep(Duration::from_secs(SHORT_S + 1).saturating_sub(begin.elapsed()));
    check!(
        !held.goes_on()? && !reaches(context, "work", OTHER.0, PORTS[1])?,
        "a rule counts after its end"
    );
    let shown = firewall(context, "work", &[])?;
    check!(
        shown["rules"][1]["ended"] == true,
        "it is not shown: {shown}"
    );
    Ok(())
}

/// The first rule that fits counts.
fn in_order(context: &Context<'_>) -> Outcome {
    firewall(context, "work", &["add", "accept", "proto=tcp"])?;
    soon("work does not reach what a rule allows", || {
        reaches(context, "work", OTHER.0, PORTS[1])
    })?;
    let drops = format!("drop dsthost={} comment=not this one", OTHER.0);
    firewall(context, "work", &["add", "--before", "1", &drops])?;
    soon("work reaches what its first rule drops", || {
        Ok(!reaches(context, "work", OTHER.0, PORTS[1])?)
    })?;
    check!(
        reaches(context, "work", FILES.0, PORTS[1])?,
        "work does not reach what its last rule allows"
    );
    Ok(())
}
