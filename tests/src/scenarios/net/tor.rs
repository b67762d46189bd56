//! A Tor gateway: its client's connections and questions for names become Tor's, everything else stays.
//! The Tor network is a small one of the test's own, in the network domain that the gateway is behind:
//! a directory authority that is a relay, and two more relays, which are exits.

use super::capture::{
    Capture, FAR, Gateway, Packet, Restless, as_root, attempt, end, go_behind, sees_everything,
};
use super::link::{PROBE, address, make_net_domain, serve_bytes};
use crate::check;
use crate::e2e::context::Context;
use crate::e2e::{Failure, Outcome, Place, Scenario};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "net-tor",
    about: "a Tor gateway's clients reach the outside by Tor's connections, and without Tor no packet of theirs leaves",
    run: Place::Host(run),
};

const OUT: &str = "sys-out";
const TOR: &str = "sys-tor";
/// Where the Tor network is, and the ports of its members.
const RELAYS: &str = "198.51.100.7";
const PORTS: [u16; 4] = [5100, 5101, 5102, 7100];
const BYTES: u64 = 200_000;
/// What Tor carries.
const WAYS: &str = "tcp dns far-dns";

fn run(context: &Context<'_>) -> Outcome {
    make_net_domain(context, OUT, &["--template", "tor"])?;
    context.host_ok(&["bulkhead", "prefs", OUT, "memory_mib", "512"])?;
    make_net_domain(context, TOR, &["--template", "tor"])?;
    context.domain("work", "red")?;
    context.host_ok(&["bulkhead", "prefs", "work", "net_domain", OUT])?;
    // Until it is told of the test's network, the gateway is behind nothing.
    let both = format!("bulkhead start {TOR} & bulkhead start work; wait");
    context.host_ok(&["sh", "-c", &both])?;
    let (_served, sum) = serve_bytes(context, OUT, BYTES)?;
    let network = tor_network(context)?;
    context.install_hostile("work", PROBE)?;
    let capture = Capture::begin(context, OUT)?;
    let outcome = gateway(context, &capture, &network, &sum);
    end(context, &[TOR, OUT]);
    outcome
}

/// Makes of the outer network domain one that lets everything in, with a server for names and a Tor
/// network. What a client of it has to know.
fn tor_network(context: &Context<'_>) -> Result<String, Failure> {
    let script = include_str!("tor-network.sh")
        .replace("@RELAYS@", RELAYS)
        .replace("@FAR@", FAR)
        .replace("@PROBE@", PROBE);
    let network = as_root(context, OUT, &script)?;
    let network = network
        .lines()
        .find(|line| line.starts_with("DirAuthority "));
    match network {
        Some(line) => Ok(format!(
            "TestingTorNetwork 1\nVanguardsLiteEnabled 0\n{line}\n"
        )),
        None => Err(Failure::new("the Tor network has no authority")),
    }
}

fn gateway(context: &Context<'_>, capture: &Capture<'_, '_>, network: &str, sum: &str) -> Outcome {
    sees_everything(context, capture)?;
    let configure = format!("printf '{network}' > /home/gateway/torrc; sync");
    as_root(context, TOR, &configure)?;
    context.host_ok(&["bulkhead", "kill", TOR])?;
    context.host_ok(&["bulkhead", "prefs", TOR, "net_domain", OUT])?;
    let own = address(context, TOR, "trunk")?;
    let is_tunnel = |packet: &Packet| {
        packet.source == own
            && packet.destination == RELAYS
            && packet.protocol == 6
            && PORTS.contains(&packet.port)
            && !packet.marked
    };
    let watched = &Gateway {
        context,
        capture,
        is_tunnel: &is_tunnel,
    };
    context.host_ok(&["bulkhead", "prefs", "work", "net_domain", "-"])?;
    watched.nothing_leaks("while it starts", || {
        context.host_ok(&["bulkhead", "start", TOR])?;
        go_behind(context, TOR)?;
        // Tor may have come so far already, or not.
        attempt(context, "work", 3)
    })?;
    context.install_hostile(TOR, PROBE)?;
    watched.passes("with Tor", sum, WAYS, 20)?;

    as_root(context, OUT, "kill -STOP $(pidof tor)")?;
    watched.nothing_passes("without the Tor network", "work")?;
    as_root(context, OUT, "kill -CONT $(pidof tor)")?;
    let tor = "$(pidof tor)";
    as_root(context, TOR, &format!("kill -STOP {tor}"))?;
    watched.nothing_passes("with a Tor that hangs", "work")?;
    watched.nothing_passes("with a Tor that hangs, of the gateway itself", TOR)?;
    let client = Restless::begin(context, "work")?;
    watched.nothing_leaks("while Tor ends again and again", || {
        let end =
            "for i in $(seq 20); do kill -KILL $(pidof tor) 2> /dev/null; sleep 0.2; done; true";
        as_root(context, TOR, end)
    })?;
    watched.passes("after Tor has started anew", sum, WAYS, 20)?;

    // Of the rest nothing goes further, and all of it is counted.
    let rules = as_root(context, TOR, "nft list table ip bulkhead")?;
    let dropped = rules.lines().filter(|line| {
        line.contains("drop") && line.contains("counter packets") && line.contains("vlan")
    });
    let counted = dropped.filter(|line| !line.contains("packets 0 ")).count();
    check!(counted == 2, "{TOR} does not count what it drops: {rules}");
    let forwarded = as_root(context, TOR, "cat /proc/sys/net/ipv4/ip_forward")?;
    check!(forwarded == "0\n", "{TOR} passes packets on");
    client.end()
}
