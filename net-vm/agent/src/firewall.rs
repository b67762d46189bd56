//! What a network domain passes on: its clients' traffic to the way out and the answers back, with
//! its own address. Clients reach nothing of the network domain itself but its DNS forwarder, and
//! never each other.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::gateway::{self, Gateway};

const PROGRAM: &str = "/usr/sbin/nft";
/// Connections that one client has at a time, so that none takes the room of all others.
const CONNECTIONS: u32 = 2048;
/// Connections of all; one takes about 300 bytes of the guest's memory.
const ALL_CONNECTIONS: u32 = 65_536;
/// So much of its words is shown.
const MAX_WORDS: u64 = 500;

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
}

/// Whether this guest's template has a firewall. One without passes nothing on.
pub fn is_there() -> bool {
    Path::new(PROGRAM).exists()
}

impl Firewall {
    /// All rules, for `nft`. They take the place of those before at once.
    pub fn rules(&self) -> String {
        let address = self.address;
        let mut input = format!(
            "\
        iifname \"lo\" accept
        ct state established,related accept
        iifname \"vlan*\" ip daddr {address} udp dport 53 accept
        iifname \"vlan*\" ip daddr {address} tcp dport 53 accept
"
        );
        if let Some(way_out) = self.way_out.as_ref().filter(|_| self.dhcp) {
            input.push_str(&format!(
                "        iifname \"{way_out}\" udp sport 67 udp dport 68 accept\n"
            ));
        }
        let (mut forward, mut nat) = (String::new(), String::new());
        let (mut before, mut answers) = ("", String::new());
        let (mut chains, mut tables) = (String::new(), "");
        let mut passes_to = self.way_out.as_deref();
        if let Some(gateway) = self.gateway {
            input.push_str(&gateway.input());
            chains = gateway.chains(self.way_out.as_deref(), self.dhcp);
            tables = gateway.other_tables();
            passes_to = gateway.passes_to();
            if let Some(tunnel) = passes_to {
                before = gateway::BEFORE;
                // Answers only: a connection that was begun does not go another way.
                answers = format!("iifname \"{tunnel}\" oifname \"vlan*\" ");
            }
        }
        if let Some(way_out) = passes_to {
            forward = format!(
                "\
{before}        {answers}ct state established,related counter accept
        ct state invalid drop
        iifname \"vlan*\" oifname \"{way_out}\" counter accept
"
            );
            nat = format!("        oifname \"{way_out}\" counter masquerade\n");
        }
        format!(
            "\
table ip bulkhead
delete table ip bulkhead
table ip bulkhead {{
    set clients {{
        type ipv4_addr
        size 4096
        flags dynamic
    }}
    chain bounds {{
        type filter hook prerouting priority filter; policy accept;
        iifname \"vlan*\" ct state new add @clients {{ ip saddr ct count over {CONNECTIONS} }} counter drop
    }}
    chain input {{
        type filter hook input priority filter; policy drop;
{input}        counter
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
{forward}        counter
    }}
    chain translate {{
        type nat hook postrouting priority srcnat; policy accept;
{nat}    }}
{chains}}}
{tables}"
        )
    }

    /// Makes them count.
    pub fn load(&self) -> io::Result<()> {
        load(&self.rules())?;
        make_room()
    }
}

/// Gives `nft` these words, which count all at once or not at all.
pub(crate) fn load(rules: &str) -> io::Result<()> {
    let mut child = Command::new(PROGRAM)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rules.as_bytes())?;
    }
    let mut words = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(MAX_WORDS).read_to_end(&mut words)?;
    }
    match child.wait()?.success() {
        true => Ok(()),
        false => Err(io::Error::other(
            String::from_utf8_lossy(&words).trim().to_owned(),
        )),
    }
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

    fn rules(way_out: Option<&str>, dhcp: bool) -> String {
        Firewall {
            address: Ipv4Addr::new(10, 137, 0, 1),
            way_out: way_out.map(str::to_owned),
            dhcp,
            gateway: None,
        }
        .rules()
    }

    #[test]
    fn only_clients_go_out_and_only_one_way() {
        let text = rules(Some("eth1"), true);
        let accepts: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| line.ends_with("accept"))
            .collect();
        assert_eq!(
            accepts,
            [
                "iifname \"lo\" accept",
                "ct state established,related accept",
                "iifname \"vlan*\" ip daddr 10.137.0.1 udp dport 53 accept",
                "iifname \"vlan*\" ip daddr 10.137.0.1 tcp dport 53 accept",
                "iifname \"eth1\" udp sport 67 udp dport 68 accept",
                "ct state established,related counter accept",
                "iifname \"vlan*\" oifname \"eth1\" counter accept",
            ]
        );
        assert!(text.contains("oifname \"eth1\" counter masquerade"));
        assert!(
            text.contains("iifname \"vlan*\" ct state new add @clients { ip saddr ct count over")
        );
        assert_eq!(text.matches("policy drop").count(), 2);
        assert!(!rules(Some("eth0"), false).contains("dport 68"));
    }

    #[test]
    fn without_a_way_out_nothing_is_passed_on() {
        let text = rules(None, false);
        assert!(!text.contains("masquerade") && !text.contains("oifname"));
        assert_eq!(text.matches("policy drop").count(), 2);
    }
}
