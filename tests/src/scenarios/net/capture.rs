//! What arrives at a network domain from its clients, seen in that domain.

use std::collections::BTreeMap;
use std::time::Duration;

use super::link::PROBE;
use crate::check;
use crate::e2e::context::Context;
use crate::e2e::{Failure, Outcome};

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

/// Lets a domain try to reach an address each way (its resolver by a name as well). What was answered.
pub(super) fn attempt(
    context: &Context<'_>,
    domain: &str,
    address: &str,
    port: &str,
    seconds: u32,
) -> Result<String, Failure> {
    let told = as_root(context, domain, &attempts(address, port, seconds, 1))?;
    Ok(told.trim().to_owned())
}

/// The words for it; a name of its own each time, so that no cache knows it.
pub(super) fn attempts(address: &str, port: &str, seconds: u32, times: u32) -> String {
    format!(
        "for i in $(seq {times}); do \
         resolver=$(sed -n 's/^nameserver //p' /etc/resolv.conf | head -n 1); \
         /tmp/{PROBE} attempt {address} {port} ${{resolver:-{address}}} n$$-$i.example {seconds}; done"
    )
}

/// Does something until it comes true.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> Result<bool, Failure>) -> Outcome {
    for _ in 0..60 {
        if is_so()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Err(Failure::new(format!(
        "after half a minute still not: {what}"
    )))
}

/// Fails where a kind of packet came that none may be.
pub(super) fn only(seen: &Seen, state: &str, allowed: impl Fn(&Packet) -> bool) -> Outcome {
    let others: Vec<_> = seen.iter().filter(|(packet, _)| !allowed(packet)).collect();
    let count: usize = seen.values().sum();
    eprintln!(
        "  {state}: {count} packets of the tunnel, {} others",
        others.len()
    );
    check!(
        others.is_empty(),
        "{state}: outside of the tunnel went {others:#?}"
    );
    Ok(())
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
