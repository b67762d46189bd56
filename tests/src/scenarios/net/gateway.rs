//! A WireGuard gateway: what its client sends goes into the tunnel, or nowhere. The tunnel's other end
//! is in the network domain that the gateway is behind, where everything that arrives is captured.

use super::capture::{
    ALL, Capture, FAR, Gateway, Packet, Restless, as_root, attempt, end, go_behind,
    sees_everything, until,
};
use super::link::{PROBE, address, make_net_domain, port, serve_bytes};
use crate::check;
use crate::e2e::context::Context;
use crate::e2e::{Failure, Outcome, Place, Scenario};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "net-gateway",
    about: "a WireGuard gateway's clients reach the outside through the tunnel, and with the tunnel down no packet of theirs leaves",
    run: Place::Host(run),
};

const OUT: &str = "sys-out";
const VPN: &str = "sys-vpn";
const TUNNEL_PORT: u16 = 51820;
const CONFIG: &str = "/home/gateway/wg0.conf";
/// The program that keeps the tunnel up, for a shell.
const SERVICE: &str = "$(pgrep -f '[b]ulkhead-net wireguard')";
const BYTES: u64 = 1_000_000;

fn run(context: &Context<'_>) -> Outcome {
    make_net_domain(context, OUT, &["--template", "wireguard"])?;
    make_net_domain(
        context,
        VPN,
        &["--template", "wireguard", "--net-domain", OUT],
    )?;
    context.domain("work", "red")?;
    context.host_ok(&["bulkhead", "prefs", "work", "net_domain", OUT])?;
    let both = format!("bulkhead start {VPN} & bulkhead start work; wait");
    context.host_ok(&["sh", "-c", &both])?;
    let public_key = other_end(context)?;
    let (_served, sum) = serve_bytes(context, OUT, BYTES)?;
    context.install_hostile("work", PROBE)?;
    let capture = Capture::begin(context, OUT)?;
    let outcome = tunnel(context, &capture, &public_key, &sum);
    end(context, &[VPN, OUT]);
    outcome
}

/// Makes of the outer network domain one that lets everything in, with the tunnel's other end, what is
/// behind it, and this end's keys. The other end's public key.
fn other_end(context: &Context<'_>) -> Result<String, Failure> {
    let script = format!(
        "set -e; rm /etc/bulkhead/gateway; nft flush ruleset; mv /usr/sbin/nft /usr/sbin/no-nft; \
         cd /tmp; umask 077; wg genkey > near; wg genkey > far; \
         ip link add far0 type wireguard; \
         wg set far0 private-key far listen-port {TUNNEL_PORT} peer $(wg pubkey < near) \
             allowed-ips 10.9.0.2/32; \
         ip address add 10.9.0.1/24 dev far0; ip link set far0 mtu 1420 up; \
         ip address add {FAR}/32 dev lo; \
         printf 'no-resolv\\nno-hosts\\naddress=/example/{FAR}\\n' > far.conf; \
         dnsmasq --conf-file=/tmp/far.conf --user=root --pid-file=/tmp/far.pid; \
         wg pubkey < far"
    );
    Ok(as_root(context, OUT, &script)?.trim().to_owned())
}

fn tunnel(
    context: &Context<'_>,
    capture: &Capture<'_, '_>,
    public_key: &str,
    sum: &str,
) -> Outcome {
    sees_everything(context, capture)?;
    context.install_hostile(VPN, PROBE)?;
    go_behind(context, VPN)?;
    let gateway = address(context, VPN, "trunk")?;
    let out = address(context, OUT, "trunk")?;
    let is_tunnel = |packet: &Packet| {
        packet.source == gateway
            && packet.destination == out
            && packet.protocol == 17
            && packet.port == TUNNEL_PORT
            && !packet.marked
    };
    let watched = &Gateway {
        context,
        capture,
        is_tunnel: &is_tunnel,
    };
    watched.nothing_passes("before there is a tunnel", "work")?;

    let near = as_root(context, OUT, "cat /tmp/near")?;
    let config = format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.9.0.2/32\nDNS = {FAR}\n\n[Peer]\n\
         PublicKey = {public_key}\nEndpoint = {out}:{TUNNEL_PORT}\nAllowedIPs = 0.0.0.0/0\n",
        near.trim()
    );
    let write = format!("umask 077; printf '{config}' > {CONFIG}");
    as_root(context, VPN, &write)?;
    watched.passes("with the tunnel", sum, ALL, 6)?;
    without_a_tunnel(context, watched, sum)?;
    while_it_changes(context, watched, sum)?;
    rules_alone(context, watched)
}

/// The tunnel is down in one way after the other.
fn without_a_tunnel(context: &Context<'_>, watched: &Gateway<'_, '_>, sum: &str) -> Outcome {
    as_root(context, OUT, "ip link set far0 down")?;
    watched.nothing_passes("without the other end", "work")?;
    as_root(context, OUT, "ip link set far0 up")?;

    // Nobody makes the interface again: the program that would is stopped.
    let stop = format!("kill -STOP {SERVICE}; sleep 0.3; ip link delete wg0");
    as_root(context, VPN, &stop)?;
    watched.nothing_passes("without the interface", "work")?;
    watched.nothing_passes("without the interface, of the gateway itself", VPN)?;
    as_root(
        context,
        VPN,
        &format!("kill -KILL {SERVICE}; pkill dnsmasq; true"),
    )?;
    watched.passes("after its program was killed", sum, ALL, 6)?;

    // The owner makes a mistake.
    let wrong = format!("cp {CONFIG} /tmp/good; echo 'PostUp = reboot' >> {CONFIG}");
    as_root(context, VPN, &wrong)?;
    until("the tunnel is down", || {
        let there = as_root(context, VPN, "test -e /sys/class/net/wg0 || echo gone")?;
        Ok(there.trim() == "gone")
    })?;
    watched.nothing_passes("with a wrong file", "work")?;
    let log = context.host_ok(&["bulkhead", "log", VPN])?;
    check!(
        log.contains("line 10: [Peer] has no `PostUp`"),
        "the gateway does not say what is wrong: {log}"
    );
    as_root(context, VPN, &format!("cat /tmp/good > {CONFIG}")).map(drop)
}

/// The client goes on while the gateway's interface comes and goes, while it is plugged in elsewhere,
/// and while it starts anew.
fn while_it_changes(context: &Context<'_>, watched: &Gateway<'_, '_>, sum: &str) -> Outcome {
    let client = Restless::begin(context, "work")?;
    watched.nothing_leaks("while the interface comes and goes", || {
        let flap = "for i in $(seq 10); do ip link delete wg0; sleep 0.6; done; true";
        as_root(context, VPN, flap)
    })?;
    watched.nothing_leaks("while it is plugged in elsewhere", || {
        for (to, state) in [("-", "unplugged"), (OUT, "plugged")] {
            context.host_ok(&["bulkhead", "prefs", VPN, "net_domain", to])?;
            until("the gateway is plugged in elsewhere", || {
                Ok(port(context, VPN, "card")?["state"] == state)
            })?;
        }
        Ok(())
    })?;
    watched.nothing_leaks("while it starts", || {
        context.host_ok(&["bulkhead", "kill", VPN])?;
        context.host_ok(&["bulkhead", "start", VPN]).map(drop)
    })?;
    client.end()?;
    watched.passes("after it has started anew", sum, ALL, 6)
}

/// The firewall holds what nothing else would, neither tunnel nor routes. Without it all is seen.
fn rules_alone(context: &Context<'_>, watched: &Gateway<'_, '_>) -> Outcome {
    context.install_hostile(VPN, PROBE)?;
    let bare = format!(
        "kill -STOP {SERVICE}; sleep 0.3; ip link delete wg0; \
         ip rule delete pref 100; ip rule delete pref 101; ip route get {FAR}"
    );
    let way = as_root(context, VPN, &bare)?;
    check!(way.contains("dev eth0"), "{FAR} is reached by: {way}");
    watched.nothing_passes("by the rules alone", "work")?;
    watched.nothing_passes("by the rules alone, of the gateway itself", VPN)?;

    let open = "nft flush ruleset; nft add table ip open; \
         nft 'add chain ip open out { type nat hook postrouting priority srcnat; }'; \
         nft add rule ip open out oifname eth0 masquerade";
    as_root(context, VPN, open)?;
    let (answered, seen) = watched.capture.during(|| attempt(context, "work", 3))?;
    // The gateway's own forwarder for names has gone with its tunnel.
    check!(
        answered == "tcp far-dns icmp" && !seen.keys().any(|packet| (watched.is_tunnel)(packet)),
        "without the rules work got answers by: {answered}; there came {seen:#?}"
    );
    for protocol in [1, 6, 17] {
        check!(
            seen.keys()
                .any(|packet| packet.protocol == protocol && packet.destination == FAR),
            "without the rules the capture sees no leak of protocol {protocol}: {seen:#?}"
        );
    }
    Ok(())
}
