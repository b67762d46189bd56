//! What a network domain passes on: its clients' traffic to the way out and the answers back, with
//! its own address, as far as each client's rules allow it. Clients reach nothing of the network
//! domain itself but its DNS forwarder, and never each other.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;

use crate::cards;
use crate::gateway::{self, Gateway, Led};
use crate::nft;
use crate::rules::{Dns, Policy, chain};

/// Connections that one client has at a time, so that none takes the room of all others.
const CONNECTIONS: u32 = 2048;
/// Connections of all; one takes about 300 bytes of the guest's memory.
const ALL_CONNECTIONS: u32 = 65_536;
/// Where the questions of clients go whose rules are about names ([`crate::names`]).
pub const NAMES_PORT: u16 = 5300;
/// Domains' addresses.
const DOMAINS: &str = "10.137.0.0/16";
/// Ours; others in the guest are its own affair.
const TABLE: &str = "bulkhead";

/// What the rules depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// The network domain's address, which is its clients' gateway.
    pub address: Ipv4Addr,
    /// The interface that leads out, if there is one.
    pub way_out: Option<String>,
    /// The way out gets its address by DHCP.
    pub dhcp: bool,
    /// Clients go through a tunnel instead, and the way out is the tunnel's alone.
    pub gateway: Option<Gateway>,
    /// Each client's VLAN, and what it may reach.
    pub clients: Vec<(u16, Policy)>,
}

/// Whether this guest's template has a firewall. One without passes nothing on.
pub fn is_there() -> bool {
    nft::is_there()
}

impl Firewall {
    /// All rules, for `nft`. They take the place of those before at once; the addresses of names
    /// stay.
    pub fn rules(&self) -> String {
        let names: BTreeSet<String> = self
            .clients
            .iter()
            .flat_map(|(_, policy)| policy.names())
            .map(|name| name.set())
            .collect();
        let mut text =
            String::from("table ip bulkhead\nflush table ip bulkhead\ntable ip bulkhead {\n");
        text.push_str("    set clients { type ipv4_addr; size 4096; flags dynamic; }\n");
        text.extend(names.iter().map(|name| chain::set(name)));
        for (vlan, policy) in &self.clients {
            text.push_str(&chain::chain(*vlan, policy));
        }
        for (name, hook, lines) in [
            (
                "bounds",
                "filter hook prerouting priority filter; policy accept;",
                vec![format!(
                    "iifname \"vlan*\" ct state new add @clients {{ ip saddr ct count over \
                     {CONNECTIONS} }} counter drop"
                )],
            ),
            (
                "names",
                "nat hook prerouting priority dstnat; policy accept;",
                self.chosen_names(),
            ),
            (
                "input",
                "filter hook input priority filter; policy drop;",
                self.input(),
            ),
            (
                "forward",
                "filter hook forward priority filter; policy drop;",
                self.forward(),
            ),
            (
                "translate",
                "nat hook postrouting priority srcnat; policy accept;",
                self.translate(),
            ),
        ] {
            text.push_str(&format!("    chain {name} {{\n        type {hook}\n"));
            for line in lines {
                text.push_str(&format!("        {line}\n"));
            }
            text.push_str("    }\n");
        }
        if let Some(gateway) = self.gateway {
            let plain = self.answered(Dns::Forwarder);
            let chains = self.chains();
            text.push_str(&gateway.chains(
                self.way_out.as_deref(),
                self.dhcp,
                &Led {
                    asking: plain.as_deref(),
                    chains: chains.as_deref(),
                    address: self.address,
                },
            ));
        }
        text.push_str("}\n");
        text.push_str(self.gateway.map_or("", Gateway::other_tables));
        text
    }

    /// The only interface that clients' packets are passed on to.
    fn passes_to(&self) -> Option<&str> {
        match self.gateway {
            Some(gateway) => gateway.passes_to(),
            None => self.way_out.as_deref(),
        }
    }

    /// `{ "vlan5" : jump client5 }`, unless there is no client.
    fn chains(&self) -> Option<String> {
        let chains: Vec<String> = self
            .clients
            .iter()
            .map(|(vlan, _)| {
                let (interface, chain) = (cards::vlan_name(*vlan), chain::name(*vlan));
                format!("\"{interface}\" : jump {chain}")
            })
            .collect();
        (!chains.is_empty()).then(|| format!("{{ {} }}", chains.join(", ")))
    }

    /// The interfaces of clients whose questions for names are answered so.
    fn answered(&self, dns: Dns) -> Option<String> {
        interfaces(
            self.clients
                .iter()
                .filter(|(_, policy)| policy.dns() == dns),
        )
    }

    fn input(&self) -> Vec<String> {
        let address = self.address;
        let mut lines = vec![
            "iifname \"lo\" accept".to_owned(),
            "ct state established,related accept".to_owned(),
        ];
        for (dns, port) in [(Dns::Forwarder, 53), (Dns::Chosen, NAMES_PORT)] {
            let Some(interfaces) = self.answered(dns) else {
                continue;
            };
            for protocol in ["udp", "tcp"] {
                lines.push(format!(
                    "iifname {interfaces} ip daddr {address} {protocol} dport {port} accept"
                ));
            }
        }
        lines.extend(self.gateway.map(Gateway::input).unwrap_or_default());
        if let Some(way_out) = self.way_out.as_ref().filter(|_| self.dhcp) {
            lines.push(format!(
                "iifname \"{way_out}\" udp sport 67 udp dport 68 accept"
            ));
        }
        // Nobody waits for an answer that does not come.
        for protocol in ["udp", "tcp"] {
            lines.push(format!(
                "iifname \"vlan*\" ip daddr {address} {protocol} dport 53 counter reject"
            ));
        }
        lines.push("counter".to_owned());
        lines
    }

    fn chosen_names(&self) -> Vec<String> {
        let Some(interfaces) = self.answered(Dns::Chosen) else {
            return Vec::new();
        };
        let address = self.address;
        ["udp", "tcp"]
            .map(|protocol| {
                format!(
                    "iifname {interfaces} ip daddr {address} {protocol} dport 53 \
                     redirect to :{NAMES_PORT}"
                )
            })
            .to_vec()
    }

    fn forward(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let (Some(way_out), Some(chains)) = (self.passes_to(), self.chains()) {
            if self.gateway.is_some() {
                lines.push(gateway::BEFORE.to_owned());
            }
            lines.push("ct state invalid drop".to_owned());
            if self.dhcp && self.gateway.is_none() {
                // Nobody there has one of these.
                lines.push(format!(
                    "oifname \"{way_out}\" ip daddr {DOMAINS} counter drop"
                ));
            }
            lines.extend([
                format!("oifname \"{way_out}\" iifname vmap {chains}"),
                // Answers only, and from there: a connection that was begun does not go another way.
                format!("iifname \"{way_out}\" ct state established,related oifname vmap {chains}"),
            ]);
        }
        lines.push("counter".to_owned());
        lines
    }

    fn translate(&self) -> Vec<String> {
        let way_out = self.passes_to().into_iter();
        way_out
            .map(|way_out| format!("oifname \"{way_out}\" counter masquerade"))
            .collect()
    }

    /// Makes them count.
    pub fn load(&self) -> io::Result<()> {
        let rules = self.rules();
        let present = nft::present(TABLE)?;
        let gone = nft::leftovers(&present, &rules, TABLE);
        // In one step, and the former first: nothing may lead to what is taken away.
        nft::run(&format!("{rules}{gone}"))?;
        make_room()
    }
}

/// `{ "vlan5", "vlan7" }`, unless there is none.
fn interfaces<'a>(clients: impl Iterator<Item = &'a (u16, Policy)>) -> Option<String> {
    let names: Vec<String> = clients
        .map(|(vlan, _)| format!("\"{}\"", cards::vlan_name(*vlan)))
        .collect();
    (!names.is_empty()).then(|| format!("{{ {} }}", names.join(", ")))
}

/// A small guest's kernel has room for less than two clients' connections.
fn make_room() -> io::Result<()> {
    for (file, value) in [
        ("/proc/sys/net/netfilter/nf_conntrack_max", ALL_CONNECTIONS),
        (
            "/proc/sys/net/netfilter/nf_conntrack_buckets",
            ALL_CONNECTIONS / 4,
        ),
    ] {
        // Each change of the latter makes a new table.
        let value = value.to_string();
        if std::fs::read_to_string(file)?.trim() != value {
            std::fs::write(file, value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Action, Rule};

    fn policy(default: Action, rules: &[&str]) -> Policy {
        Policy {
            rules: rules
                .iter()
                .map(|rule| Rule::parse(rule, 0).unwrap())
                .collect(),
            default,
            ..Policy::default()
        }
    }

    fn firewall(way_out: Option<&str>, dhcp: bool) -> Firewall {
        Firewall {
            address: Ipv4Addr::new(10, 137, 0, 1),
            way_out: way_out.map(str::to_owned),
            dhcp,
            gateway: None,
            clients: vec![
                (5, Policy::default()),
                (7, policy(Action::Drop, &["accept dsthost=a.org"])),
                (8, policy(Action::Drop, &[])),
            ],
        }
    }

    /// The lines of a chain of the rules.
    fn lines(text: &str, chain: &str) -> Vec<String> {
        let lines = text.lines().map(str::trim);
        let from = lines.skip_while(|line| *line != format!("chain {chain} {{"));
        let lines = from.skip(2).take_while(|line| *line != "}");
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn only_clients_go_out_and_only_one_way() {
        let text = firewall(Some("eth1"), true).rules();
        let chains =
            "{ \"vlan5\" : jump client5, \"vlan7\" : jump client7, \"vlan8\" : jump client8 }";
        assert_eq!(
            lines(&text, "forward"),
            [
                "ct state invalid drop".to_owned(),
                "oifname \"eth1\" ip daddr 10.137.0.0/16 counter drop".to_owned(),
                format!("oifname \"eth1\" iifname vmap {chains}"),
                format!("iifname \"eth1\" ct state established,related oifname vmap {chains}"),
                "counter".to_owned(),
            ]
        );
        assert_eq!(
            lines(&text, "translate"),
            ["oifname \"eth1\" counter masquerade"]
        );
        assert!(lines(&text, "bounds")[0].contains("{ ip saddr ct count over 2048 } counter drop"));
        assert_eq!(text.matches("policy drop").count(), 2);
        assert!(text.contains("set name.a.org {"));
    }

    #[test]
    fn clients_ask_as_their_rules_say() {
        let text = firewall(Some("eth1"), true).rules();
        assert_eq!(
            lines(&text, "input"),
            [
                "iifname \"lo\" accept",
                "ct state established,related accept",
                "iifname { \"vlan5\" } ip daddr 10.137.0.1 udp dport 53 accept",
                "iifname { \"vlan5\" } ip daddr 10.137.0.1 tcp dport 53 accept",
                "iifname { \"vlan7\" } ip daddr 10.137.0.1 udp dport 5300 accept",
                "iifname { \"vlan7\" } ip daddr 10.137.0.1 tcp dport 5300 accept",
                "iifname \"eth1\" udp sport 67 udp dport 68 accept",
                "iifname \"vlan*\" ip daddr 10.137.0.1 udp dport 53 counter reject",
                "iifname \"vlan*\" ip daddr 10.137.0.1 tcp dport 53 counter reject",
                "counter",
            ]
        );
        assert_eq!(
            lines(&text, "names"),
            ["udp", "tcp"].map(|protocol| format!(
                "iifname {{ \"vlan7\" }} ip daddr 10.137.0.1 {protocol} dport 53 redirect to :5300"
            ))
        );
        assert!(!firewall(Some("eth0"), false).rules().contains("dport 68"));
    }

    #[test]
    fn without_a_way_out_nothing_is_passed_on() {
        let text = firewall(None, false).rules();
        assert!(!text.contains("masquerade") && !text.contains("oifname"));
        assert_eq!(lines(&text, "forward"), ["counter"]);
        assert_eq!(text.matches("policy drop").count(), 2);
        let nobody = Firewall {
            clients: Vec::new(),
            ..firewall(Some("eth1"), true)
        };
        assert_eq!(lines(&nobody.rules(), "forward"), ["counter"]);
    }
}
