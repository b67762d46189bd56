//! A client's rules in the words of nftables.
//!
//! Every packet of a connection passes here, whichever way it goes: rules look at where the
//! connection went first. A connection that a rule has let through bears the mark of all rules
//! together, so that it goes on although the addresses of a name have changed; other rules have
//! another mark, and look at it anew.

use super::policy::{Log, Policy};
use super::rule::{Action, Destination, Protocol, Rule};
use crate::cards;

/// So much of one client is written down; it may try as often as it likes.
const LOG_LIMIT: &str = "limit rate 30/minute burst 30 packets";

/// The chain's name.
pub fn name(vlan: u16) -> String {
    format!("client{vlan}")
}

/// The set of addresses of a name, filled while clients ask.
pub fn set(name: &str) -> String {
    format!("    set {name} {{ type ipv4_addr; flags timeout; size 4096; }}\n")
}

/// A client's chain.
pub fn chain(vlan: u16, policy: &Policy) -> String {
    let mut lines = Vec::new();
    if policy.is_open() {
        lines.extend(passed(vlan, policy.log, ""));
        lines.push("counter accept".to_owned());
    } else {
        let mark = mark(vlan, policy);
        lines.push(format!("ct mark {mark:#010x} counter accept"));
        for rule in &policy.rules {
            if let Some(what) = what(rule) {
                lines.extend(action(vlan, policy.log, rule, &what, mark));
            }
        }
        let rest = Rule {
            action: policy.default,
            destination: None,
            protocol: None,
            ports: None,
            icmp_type: None,
            expire: None,
            comment: None,
        };
        lines.extend(action(vlan, policy.log, &rest, "", mark));
    }
    let mut text = format!("    chain {} {{\n", name(vlan));
    for line in lines {
        text.push_str(&format!("        {line}\n"));
    }
    text.push_str("    }\n");
    text
}

/// What a rule does with what fits it.
fn action(vlan: u16, log: Log, rule: &Rule, what: &str, mark: u32) -> Vec<String> {
    let mut lines = Vec::new();
    match rule.action {
        Action::Accept => {
            lines.extend(passed(vlan, log, what));
            // A rule that ends is asked for each packet.
            let mark = match rule.expire {
                None => format!("ct mark set {mark:#010x} "),
                Some(_) => String::new(),
            };
            lines.push(format!("{what}counter {mark}accept"));
        }
        Action::Drop => {
            if log != Log::Off {
                lines.push(format!(
                    "{what}{LOG_LIMIT} log prefix \"client{vlan} dropped: \" level warn"
                ));
            }
            // As Qubes does: a program need not wait to learn that it may not. Nobody outside is told.
            lines.push(format!(
                "{what}iifname \"{}\" counter reject with icmp type admin-prohibited",
                cards::vlan_name(vlan)
            ));
            lines.push(format!("{what}counter drop"));
        }
    }
    lines
}

/// Writes down a connection that comes to be.
fn passed(vlan: u16, log: Log, what: &str) -> Option<String> {
    (log == Log::All).then(|| {
        format!("{what}ct state new {LOG_LIMIT} log prefix \"client{vlan} accepted: \" level warn")
    })
}

/// What fits a rule. The forwarder's answers are no packets that are passed on.
fn what(rule: &Rule) -> Option<String> {
    let mut text = match &rule.destination {
        Some(Destination::Dns) => return None,
        None | Some(Destination::Network(_, 0)) => String::new(),
        Some(Destination::Network(address, 32)) => format!("ct original ip daddr {address} "),
        Some(Destination::Network(address, bits)) => {
            format!("ct original ip daddr {address}/{bits} ")
        }
        Some(Destination::Name(name)) => format!("ct original ip daddr @{} ", name.set()),
    };
    match rule.protocol {
        Some(Protocol::Tcp) => text.push_str("ct original protocol tcp "),
        Some(Protocol::Udp) => text.push_str("ct original protocol udp "),
        Some(Protocol::Icmp) => text.push_str("ct original protocol icmp "),
        None => {}
    }
    match rule.ports {
        Some((first, last)) if first == last => {
            text.push_str(&format!("ct original proto-dst {first} "));
        }
        Some((first, last)) => text.push_str(&format!("ct original proto-dst {first}-{last} ")),
        None => {}
    }
    if let Some(kind) = rule.icmp_type {
        text.push_str(&format!("icmp type {kind} "));
    }
    if let Some(end) = rule.expire {
        text.push_str(&format!("meta time < {end} "));
    }
    Some(text)
}

/// Another number for other rules, never zero, which is a new connection's (FNV-1a).
fn mark(vlan: u16, policy: &Policy) -> u32 {
    let mut text = format!("{vlan} {}", policy.default.name());
    for rule in &policy.rules {
        text.push_str(&format!("\n{rule}"));
    }
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(default: Action, log: Log, rules: &[&str]) -> Policy {
        Policy {
            rules: rules
                .iter()
                .map(|rule| Rule::parse(rule, 0).unwrap())
                .collect(),
            default,
            log,
        }
    }

    fn lines(policy: &Policy) -> Vec<String> {
        let mark = format!("{:#010x}", mark(5, policy));
        let text = chain(5, policy).replace(&mark, "MARK");
        let lines = text.lines().map(|line| line.trim().to_owned());
        let is_told = |line: &String| line.contains("log prefix") || line.contains("reject");
        lines.filter(|line| !is_told(line)).collect()
    }

    #[test]
    fn rules_are_asked_in_their_order() {
        let policy = policy(
            Action::Drop,
            Log::Dropped,
            &[
                "drop dsthost=192.0.2.7",
                "accept dsthost=192.0.2.0/24 proto=tcp dstports=80-90",
                "accept dsthost=a.org proto=udp dstports=53",
                "accept specialtarget=dns",
                "accept proto=icmp icmptype=8 expire=77",
                "drop dsthost=0.0.0.0/0 proto=udp",
            ],
        );
        assert_eq!(
            lines(&policy),
            [
                "chain client5 {",
                "ct mark MARK counter accept",
                "ct original ip daddr 192.0.2.7 counter drop",
                "ct original ip daddr 192.0.2.0/24 ct original protocol tcp \
                 ct original proto-dst 80-90 counter ct mark set MARK accept",
                "ct original ip daddr @name.a.org ct original protocol udp \
                 ct original proto-dst 53 counter ct mark set MARK accept",
                "ct original protocol icmp icmp type 8 meta time < 77 counter accept",
                "ct original protocol udp counter drop",
                "counter drop",
                "}",
            ]
        );
    }

    #[test]
    fn without_rules_all_passes() {
        let open = policy(Action::Accept, Log::Dropped, &[]);
        assert_eq!(lines(&open), ["chain client5 {", "counter accept", "}"]);
        let closed = policy(Action::Drop, Log::Off, &[]);
        let expected = [
            "chain client5 {",
            "ct mark MARK counter accept",
            "counter drop",
            "}",
        ];
        assert_eq!(lines(&closed), expected);
        assert!(!chain(5, &closed).contains("log"));
    }

    #[test]
    fn what_is_written_down_is_bounded() {
        let refused =
            "ct original ip daddr 192.0.2.7 iifname \"vlan5\" counter reject with icmp type";
        let rules = ["drop dsthost=192.0.2.7"];
        assert!(chain(5, &policy(Action::Accept, Log::Off, &rules)).contains(refused));
        for (log, times) in [(Log::Off, 0), (Log::Dropped, 2), (Log::All, 3)] {
            let rules = ["drop dsthost=192.0.2.7", "accept dsthost=192.0.2.8"];
            let text = chain(5, &policy(Action::Drop, log, &rules));
            assert_eq!(text.matches("log prefix").count(), times, "{log:?}");
            assert_eq!(text.matches(LOG_LIMIT).count(), times, "{log:?}");
        }
    }

    #[test]
    fn other_rules_have_other_marks() {
        let marks: Vec<u32> = [
            policy(Action::Drop, Log::Off, &[]),
            policy(Action::Accept, Log::Off, &["drop"]),
            policy(Action::Drop, Log::Off, &["drop"]),
            policy(Action::Drop, Log::Off, &["drop expire=9"]),
        ]
        .iter()
        .flat_map(|policy| [mark(5, policy), mark(6, policy)])
        .collect();
        let different: std::collections::BTreeSet<_> = marks.iter().collect();
        assert_eq!(different.len(), marks.len());
    }
}
