//! A WireGuard gateway: what its client sends goes into the tunnel, or nowhere. The tunnel's other end
//! is in the network domain that the gateway is behind, where everything that arrives is captured.

use super::capture::{Capture, Packet, Seen, as_root, attempt, attempts, only, until};
use super::link::{PORT, PROBE, address, fetch, make_net_domain, port, serve};
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
/// What is behind the tunnel: a server for files and one for names.
const FAR: &str = "192.0.2.80";
const TUNNEL_PORT: u16 = 51820;
const CONFIG: &str = "/home/gateway/wg0.conf";
const ALL: &str = "tcp dns far-dns icmp";

fn run(context: &Context<'_>) -> Outcome {
    make_net_domain(context, OUT, &["--template", "wireguard"])?;
    make_net_domain(
        context,
        VPN,
        &["--template", "wireguard", "--net-domain", OUT],
    )?;
    context.domain("work", "red")?;
    context.host_ok(&["bulkhead", "prefs", "work", "net_domain", OUT])?;
    context.host_ok(&["bulkhead", "start", OUT])?;
    let public_key = other_end(context)?;
    let (_served, sum) = serve(context, OUT)?;
    context.install_hostile("work", PROBE)?;
    let capture = Capture::begin(context, OUT)?;
    let outcome = tunnel(context, &capture, &public_key, &sum);
    for (domain, name) in [(VPN, "sys-vpn.txt"), (OUT, "sys-out.txt")] {
        let state = "ip address; ip rule; ip route show table all; nft list ruleset; wg; ps ax; \
                     cat /etc/resolv.conf; tail -n 50 /tmp/seen";
        let command = ["bulkhead", "run", "--root", domain, "--", "sh", "-c", state];
        if let Ok(output) = context.host(&command) {
            context.log(name, &[output.stdout, output.stderr].concat())?;
        }
    }
    if let Ok(log) = context.host(&["bulkhead", "log", VPN]) {
        context.log("sys-vpn-log.txt", &log.stdout)?;
    }
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
    // The capture sees what it would see of a leak: all four ways, marked.
    let (answered, seen) = capture.during(|| attempt(context, "work", FAR, PORT, 3))?;
    check!(
        answered == ALL,
        "without a gateway work got answers by: {answered}"
    );
    let work = address(context, "work", "card")?;
    let is_seen = |protocol, port, marked| {
        seen.keys().any(|packet| {
            packet.source == work
                && packet.protocol == protocol
                && (port == 0 || packet.port == port)
                && packet.marked == marked
        })
    };
    let serves: u16 = PORT.parse().unwrap_or_default();
    check!(
        is_seen(6, serves, false)
            && is_seen(17, serves, true)
            && is_seen(17, 53, true)
            && is_seen(1, 0, true),
        "the capture does not see what work sends: {seen:#?}"
    );

    // Behind the gateway, before there is a tunnel.
    context.host_ok(&["bulkhead", "start", VPN])?;
    context.host_ok(&["bulkhead", "prefs", "work", "net_domain", VPN])?;
    let gateway = address(context, VPN, "trunk")?;
    until("work asks its gateway for names", || {
        let asked = context.guest("work", &["cat", "/etc/resolv.conf"])?;
        Ok(asked.stdout_text().contains(&gateway))
    })?;
    let out = address(context, OUT, "trunk")?;
    let down = Down {
        context,
        capture,
        gateway: &gateway,
        out: &out,
    };
    down.nothing_passes("before there is a tunnel", "work")?;

    // With it.
    let near = as_root(context, OUT, "cat /tmp/near")?;
    let config = format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.9.0.2/32\nDNS = {FAR}\n\n[Peer]\n\
         PublicKey = {public_key}\nEndpoint = {out}:{TUNNEL_PORT}\nAllowedIPs = 0.0.0.0/0\n",
        near.trim()
    );
    as_root(
        context,
        VPN,
        &format!("umask 077; printf '{config}' > {CONFIG}"),
    )?;
    let up = |state: &str| -> Outcome {
        until("the tunnel is up", || {
            Ok(attempt(context, "work", FAR, PORT, 3)? == ALL)
        })?;
        let (got, seen) = capture.during(|| {
            let answered = attempt(context, "work", FAR, PORT, 6)?;
            check!(
                answered == ALL,
                "through the tunnel work got answers by: {answered}"
            );
            fetch(context, "work", FAR)
        })?;
        check!(
            got.as_deref() == Some(sum),
            "{state}: work did not get the file"
        );
        check!(
            seen.values().sum::<usize>() > 100,
            "{state}: the file did not come through the tunnel: {seen:#?}"
        );
        down.only_tunnel(&seen, state)
    };
    up("with the tunnel")?;

    // The other end is gone.
    as_root(context, OUT, "ip link set far0 down")?;
    down.nothing_passes("without the other end", "work")?;
    as_root(context, OUT, "ip link set far0 up")?;

    // The interface is taken away as fast as it is made.
    let flap = "touch /tmp/flap; (while test -e /tmp/flap; do ip link delete wg0; sleep 0.05; done) \
                > /dev/null 2>&1 < /dev/null &";
    as_root(context, VPN, flap)?;
    down.only_tunnel_during("while the interface comes and goes", || {
        as_root(context, "work", &attempts(FAR, PORT, 1, 4))
    })?;
    as_root(context, VPN, "rm /tmp/flap")?;

    // Nobody makes it again.
    let service = "$(pgrep -f '[b]ulkhead-net wireguard')";
    as_root(
        context,
        VPN,
        &format!("kill -STOP {service}; ip link delete wg0"),
    )?;
    down.nothing_passes("without the interface", "work")?;
    down.nothing_passes("of the gateway itself", VPN)?;
    as_root(
        context,
        VPN,
        &format!("kill -KILL {service}; pkill dnsmasq; true"),
    )?;
    up("after its program was killed")?;

    // The owner makes a mistake.
    as_root(
        context,
        VPN,
        &format!("cp {CONFIG} /tmp/good; echo 'PostUp = reboot' >> {CONFIG}"),
    )?;
    until("the tunnel is down", || {
        let there = as_root(context, VPN, "test -e /sys/class/net/wg0 || echo gone")?;
        Ok(there.trim() == "gone")
    })?;
    down.nothing_passes("with a wrong file", "work")?;
    let log = context.host_ok(&["bulkhead", "log", VPN])?;
    check!(
        log.contains("line 10: [Peer] has no `PostUp`"),
        "the gateway does not say what is wrong: {log}"
    );
    as_root(context, VPN, &format!("cat /tmp/good > {CONFIG}"))?;
    until("the tunnel is up", || {
        Ok(attempt(context, "work", FAR, PORT, 3)? == ALL)
    })?;

    // The gateway is plugged in elsewhere and back, and then starts anew, while its client goes on.
    let goes_on = || {
        let script = format!(
            "({}) > /dev/null 2>&1 < /dev/null &",
            attempts(FAR, PORT, 1, 60)
        );
        as_root(context, "work", &script)
    };
    goes_on()?;
    down.only_tunnel_during("while it is plugged in elsewhere", || {
        for (to, state) in [("-", "unplugged"), (OUT, "plugged")] {
            context.host_ok(&["bulkhead", "prefs", VPN, "net_domain", to])?;
            until("the gateway is plugged in elsewhere", || {
                Ok(port(context, VPN, "card")?["state"] == state)
            })?;
        }
        Ok(String::new())
    })?;
    down.only_tunnel_during("while it starts", || {
        context.host_ok(&["bulkhead", "kill", VPN])?;
        context.host_ok(&["bulkhead", "start", VPN])?;
        until("the tunnel is up", || {
            Ok(attempt(context, "work", FAR, PORT, 3)? == ALL)
        })?;
        Ok(String::new())
    })?;
    up("after it has started anew")
}

/// What may leave the gateway, whatever the state of its tunnel.
struct Down<'a, 'b> {
    context: &'a Context<'b>,
    capture: &'a Capture<'a, 'b>,
    gateway: &'a str,
    out: &'a str,
}

impl Down<'_, '_> {
    /// A domain tries each way, and gets no answer; nothing of it is seen.
    fn nothing_passes(&self, state: &str, domain: &str) -> Outcome {
        if domain != "work" {
            self.context.install_hostile(domain, PROBE)?;
        }
        let answered =
            self.only_tunnel_during(state, || attempt(self.context, domain, FAR, PORT, 3))?;
        check!(
            answered.is_empty(),
            "{state}: {domain} got answers by: {answered}"
        );
        Ok(())
    }

    fn only_tunnel_during(
        &self,
        state: &str,
        act: impl FnOnce() -> Result<String, Failure>,
    ) -> Result<String, Failure> {
        let (told, seen) = self.capture.during(act)?;
        self.only_tunnel(&seen, state)?;
        Ok(told)
    }

    fn only_tunnel(&self, seen: &Seen, state: &str) -> Outcome {
        only(seen, state, |packet: &Packet| {
            packet.source == self.gateway
                && packet.destination == self.out
                && packet.protocol == 17
                && packet.port == TUNNEL_PORT
                && !packet.marked
        })
    }
}
