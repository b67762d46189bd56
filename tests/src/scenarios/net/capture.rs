//! What arrives at a network domain from its clients, seen in that domain; and what a gateway that is
//! one of them lets out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::link::{PORT, PROBE, address, fetch};
use crate::check;
use crate::e2e::context::Context;
use crate::e2e::{Failure, Outcome};

/// What is behind the tunnel: a server for files and one for names.
pub(super) const FAR: &str = "192.0.2.80";
/// All that is answered where nothing is in the way.
pub(super) const ALL: &str = "tcp dns far-dns icmp";
const FILE: &str = "/tmp/seen";

/// A capture at a network domain's trunk.
pub(super) struct Capture<'a, 'b> {
    context: &'a Context<'b>,
    domain: &'static str,
}

/// One kind of packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packet {
    pub source: String,
    pub destination: String,
    /// IPv4's number of what is inside.
    pub protocol: u8,
    /// TCP's or UDP's; zero for others.
    pub port: u16,
    /// It has in it, for all to read, what a client has sent.
    pub marked: bool,
}

/// How often each kind of packet came.
pub(super) type Seen = BTreeMap<Packet, usize>;

impl<'a, 'b> Capture<'a, 'b> {
    /// Begins one in a domain that has the probe.
    pub(super) fn begin(
        context: &'a Context<'b>,
        domain: &'static str,
    ) -> Result<Capture<'a, 'b>, Failure> {
        // A domain that is behind no other has one card.
        let script = format!(
            "card=$(cd /sys/class/net; ls -d */device); \
             /tmp/{PROBE} capture ${{card%/device}} {FILE} > /tmp/capture.log 2>&1 < /dev/null & \
             for i in $(seq 50); do test -e {FILE} && exit 0; sleep 0.1; done; \
             cat /tmp/capture.log; exit 1"
        );
        as_root(context, domain, &script)?;
        Ok(Capture { context, domain })
    }

    /// What comes while something is done. Its outcome, and what came.
    pub(super) fn during<T>(
        &self,
        act: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<(T, Seen), Failure> {
        let before = as_root(self.context, self.domain, &format!("wc -l < {FILE}"))?;
        let before: usize = before.trim().parse().unwrap_or(0);
        let outcome = act()?;
        let script = format!("tail -n +{} {FILE}", before + 1);
        let lines = as_root(self.context, self.domain, &script)?;
        let mut seen = Seen::new();
        for line in lines.lines() {
            // What is no IPv4 is ARP; the link carries nothing else.
            if let Some(packet) = packet(line) {
                *seen.entry(packet).or_default() += 1;
            } else if line != "other [08, 06]" {
                return Err(Failure::new(format!("the capture has a frame {line}")));
            }
        }
        Ok((outcome, seen))
    }
}

fn packet(line: &str) -> Option<Packet> {
    let words: Vec<&str> = line.split(' ').collect();
    let ["ip", source, destination, protocol, _, port, marked] = words.as_slice() else {
        return None;
    };
    Some(Packet {
        source: (*source).to_owned(),
        destination: (*destination).to_owned(),
        protocol: protocol.parse().ok()?,
        port: port.parse().ok()?,
        marked: *marked == "marked",
    })
}

/// Runs a script as root in a domain.
pub(super) fn as_root(
    context: &Context<'_>,
    domain: &str,
    script: &str,
) -> Result<String, Failure> {
    context.host_ok(&[
        "bulkhead", "run", "--root", domain, "--", "sh", "-c", script,
    ])
}

/// Lets a domain that has the probe try to reach [`FAR`] each way. What was answered.
pub(super) fn attempt(
    context: &Context<'_>,
    domain: &str,
    seconds: u32,
) -> Result<String, Failure> {
    let told = as_root(context, domain, &attempt_script(seconds))?;
    Ok(told.trim().to_owned())
}

/// The words for it; a name of its own each time, so that no cache knows it.
fn attempt_script(seconds: u32) -> String {
    format!(
        "resolver=$(sed -n 's/^nameserver //p' /etc/resolv.conf | head -n 1); \
         /tmp/{PROBE} attempt {FAR} {PORT} ${{resolver:-{FAR}}} n$(date +%s%N).example {seconds}"
    )
}

/// A domain that tries to reach [`FAR`] each way, again and again, while other things are done.
pub(super) struct Restless<'a, 'b> {
    context: &'a Context<'b>,
    domain: &'static str,
}

/// Is there while a [`Restless`] domain is to go on.
const GOES_ON: &str = "/tmp/goes-on";

impl<'a, 'b> Restless<'a, 'b> {
    pub(super) fn begin(
        context: &'a Context<'b>,
        domain: &'static str,
    ) -> Result<Restless<'a, 'b>, Failure> {
        let once = attempt_script(1);
        let script = format!(
            "touch {GOES_ON}; \
             (while test -e {GOES_ON}; do {once}; done; touch {GOES_ON}.not) \
             > /dev/null 2>&1 < /dev/null &"
        );
        as_root(context, domain, &script)?;
        Ok(Restless { context, domain })
    }

    /// Until now it went on; it comes to its end.
    pub(super) fn end(self) -> Outcome {
        let end = format!("test ! -e {GOES_ON}.not && rm {GOES_ON}");
        as_root(self.context, self.domain, &end)?;
        until("the client has come to its end", || {
            let done = format!("test -e {GOES_ON}.not && rm {GOES_ON}.not && echo done; true");
            Ok(as_root(self.context, self.domain, &done)?.trim() == "done")
        })
    }
}

/// Does something until it comes true.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> Result<bool, Failure>) -> Outcome {
    for _ in 0..60 {
        if is_so()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Err(Failure::new(format!("after many tries still not: {what}")))
}

/// A gateway and its client, `work`, watched from the network domain that the gateway is behind.
pub(super) struct Gateway<'a, 'b> {
    pub context: &'a Context<'b>,
    pub capture: &'a Capture<'a, 'b>,
    /// What the tunnel itself sends.
    pub is_tunnel: &'a dyn Fn(&Packet) -> bool,
}

impl Gateway<'_, '_> {
    /// A domain tries each way, and gets no answer; nothing of it is seen.
    pub(super) fn nothing_passes(&self, state: &str, domain: &str) -> Outcome {
        let tried = || attempt(self.context, domain, 3);
        let answered = self.nothing_leaks(state, tried)?;
        check!(
            answered.is_empty(),
            "{state}: {domain} got answers by: {answered}"
        );
        Ok(())
    }

    /// While something is done, all that comes from the gateway is the tunnel's.
    pub(super) fn nothing_leaks<T>(
        &self,
        state: &str,
        act: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (outcome, seen) = self.capture.during(act)?;
        self.only_tunnel(&seen, state)?;
        Ok(outcome)
    }

    /// A file is fetched through the tunnel, and these ways are answered.
    pub(super) fn passes(&self, state: &str, sum: &str, ways: &str, seconds: u32) -> Outcome {
        until("the tunnel is up", || {
            Ok(attempt(self.context, "work", 3)? == ways)
        })?;
        let got = self.capture.during(|| {
            let answered = attempt(self.context, "work", seconds)?;
            check!(answered == ways, "{state}: work got answers by: {answered}");
            // A tunnel may let go of a connection; whoever fetches then tries once more.
            until("work has got the file", || {
                Ok(fetch(self.context, "work", FAR)?.as_deref() == Some(sum))
            })
        });
        let ((), seen) = got.map_err(|failure| Failure::new(format!("{state}: {failure}")))?;
        check!(
            seen.values().sum::<usize>() > 20,
            "{state}: the file did not come through the tunnel: {seen:#?}"
        );
        self.only_tunnel(&seen, state)
    }

    fn only_tunnel(&self, seen: &Seen, state: &str) -> Outcome {
        let is_other = |(packet, _): &(&Packet, &usize)| !(self.is_tunnel)(packet);
        let others: Vec<_> = seen.iter().filter(is_other).collect();
        let count: usize = seen.values().sum();
        eprintln!(
            "  {state}: {count} packets, {} of them not the tunnel's",
            others.iter().map(|(_, count)| *count).sum::<usize>()
        );
        check!(
            others.is_empty(),
            "{state}: outside of the tunnel went {others:#?}"
        );
        Ok(())
    }
}

/// The capture sees what it would see of a leak: all ways of a client without a gateway, marked.
pub(super) fn sees_everything(context: &Context<'_>, capture: &Capture<'_, '_>) -> Outcome {
    let (answered, seen) = capture.during(|| attempt(context, "work", 3))?;
    check!(
        answered == ALL,
        "without a gateway work got answers by: {answered}"
    );
    let work = address(context, "work", "card")?;
    let port: u16 = PORT.parse().unwrap_or_default();
    for (protocol, port, marked) in [
        (6, port, false),
        (17, port, true),
        (17, 53, true),
        (1, 0, true),
    ] {
        let expected = Packet {
            source: work.clone(),
            destination: FAR.to_owned(),
            protocol,
            port,
            marked,
        };
        check!(
            seen.contains_key(&expected),
            "the capture does not see {expected:?}: {seen:#?}"
        );
    }
    Ok(())
}

/// Plugs `work` in at a gateway, and waits until it knows.
pub(super) fn go_behind(context: &Context<'_>, gateway: &str) -> Outcome {
    context.host_ok(&["bulkhead", "prefs", "work", "net_domain", gateway])?;
    let server = address(context, gateway, "trunk")?;
    until("work asks its gateway for names", || {
        let asked = context.guest("work", &["cat", "/etc/resolv.conf"])?;
        Ok(asked.stdout_text().contains(&format!("{server}\n")))
    })
}

/// Keeps what domains say of their network, and removes them, for scenarios that come after.
pub(super) fn end(context: &Context<'_>, domains: &[&str]) {
    let state = "ip address; ip rule; ip route show table all; nft list ruleset; ps ax; \
                 cat /etc/resolv.conf; tail -n 50 /tmp/seen /tmp/n/*.log /home/gateway/torrc";
    for domain in domains {
        let command = ["bulkhead", "run", "--root", domain, "--", "sh", "-c", state];
        let log = ["bulkhead", "log", domain];
        for (name, command) in [("state", &command[..]), ("log", &log)] {
            if let Ok(output) = context.host(command) {
                let told = [output.stdout, output.stderr].concat();
                let _ = context.log(&format!("{domain}-{name}.txt"), &told);
            }
        }
    }
    let remove = format!(
        "for domain in work {0}; do bulkhead kill $domain; done; \
         bulkhead prefs work net_domain -; \
         for domain in {0}; do bulkhead remove --yes $domain; done",
        domains.join(" ")
    );
    let _ = context.host(&["sh", "-c", &remove]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_packets() {
        let found = packet("ip 10.0.0.1 10.0.0.2 17 5 53 marked").unwrap();
        assert_eq!((found.protocol, found.port, found.marked), (17, 53, true));
        assert!(packet("other [08, 06]").is_none());
        assert!(packet("ip 10.0.0.1").is_none());
    }
}
