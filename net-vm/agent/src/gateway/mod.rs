//! Gateways: network domains whose clients reach the outside through a tunnel, or not at all.
//!
//! The template says that a guest is one ([`FILE`]), not the manager: so it is one from its first set
//! of rules on, whatever it is asked for, and where the file cannot be understood nothing passes. The
//! rules here never pass a client's packet on to the card that leads to the tunnel's other end, with
//! the tunnel or without; they do not depend on whether it is up.

pub mod tor;
pub mod wireguard;

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::{dns, run};

/// Says which gateway this guest is: `wireguard` or `tor`. Without it, it is none.
const FILE: &str = "/etc/bulkhead/gateway";
/// What a gateway's owner has told it, and what it keeps: root's part of the volume.
pub const FOLDER: &str = "/home/gateway";

/// Forwarded first of all: connections fit what the tunnel carries, which is less than clients think.
pub const BEFORE: &str = "tcp flags & (syn|rst) == syn tcp option maxseg size set rt mtu";

/// What a gateway that takes clients' connections itself is told of them.
#[derive(Debug, Clone, Copy)]
pub struct Led<'a> {
    /// The interfaces of clients whose questions for names are answered, whatever they ask.
    pub asking: Option<&'a str>,
    /// The rules of each client by its interface, as `nft` maps them.
    pub chains: Option<&'a str>,
    /// The address at which clients ask.
    pub address: Ipv4Addr,
}

/// How clients' packets go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// Into the interface of a WireGuard tunnel.
    WireGuard,
    /// As Tor's own connections.
    Tor,
    /// Not at all: nobody knows what the template means.
    Closed,
}

impl Gateway {
    /// What this guest's template says.
    pub fn of_template() -> Option<Self> {
        match std::fs::read_to_string(FILE) {
            Ok(word) => Some(Self::from_word(word.trim())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => Some(Gateway::Closed),
        }
    }

    fn from_word(word: &str) -> Self {
        match word {
            "wireguard" => Gateway::WireGuard,
            "tor" => Gateway::Tor,
            _ => Gateway::Closed,
        }
    }

    /// The only interface that clients' packets are passed on to.
    pub fn passes_to(self) -> Option<&'static str> {
        match self {
            Gateway::WireGuard => Some(wireguard::INTERFACE),
            Gateway::Tor | Gateway::Closed => None,
        }
    }

    /// What reaches the guest itself, besides what reaches every network domain.
    pub fn input(self) -> Vec<String> {
        match self {
            Gateway::Tor => tor::input(),
            Gateway::WireGuard | Gateway::Closed => Vec::new(),
        }
    }

    /// The port on the loopback where the guest's own questions for names are answered.
    pub fn names_port(self) -> u16 {
        match self {
            Gateway::Tor => tor::NAMES,
            Gateway::WireGuard | Gateway::Closed => dns::PORT,
        }
    }

    /// More chains of the firewall's table: what the guest itself may send, and where to.
    pub fn chains(self, card: Option<&str>, dhcp: bool, led: &Led<'_>) -> String {
        let mut output = String::from(
            "        oifname \"lo\" accept\n        \
             oifname \"vlan*\" ct state established,related accept\n",
        );
        if let Some(card) = card {
            match self {
                Gateway::WireGuard => output.push_str(&wireguard::output(card)),
                Gateway::Tor => output.push_str(&tor::output(card)),
                Gateway::Closed => {}
            }
            if dhcp {
                output.push_str(&format!(
                    "        oifname \"{card}\" udp sport 68 udp dport 67 accept\n"
                ));
            }
        }
        if let Some(tunnel) = self.passes_to() {
            output.push_str(&format!("        oifname \"{tunnel}\" accept\n"));
        }
        let redirect = match self {
            Gateway::Tor => tor::redirect(led),
            Gateway::WireGuard | Gateway::Closed => String::new(),
        };
        format!(
            "    chain output {{
        type filter hook output priority filter; policy drop;
{output}        counter
    }}
{redirect}"
        )
    }

    /// A table against IPv6, which no tunnel here has.
    pub fn other_tables(self) -> &'static str {
        "\
table ip6 bulkhead
delete table ip6 bulkhead
table ip6 bulkhead {
    chain input {
        type filter hook input priority filter; policy drop;
        iifname \"lo\" accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
    }
    chain output {
        type filter hook output priority filter; policy drop;
        oifname \"lo\" accept
    }
}
"
    }
}

/// The text of a file in [`FOLDER`], if it is there. Nobody but root may have written it.
fn owners_file(name: &str, most: u64) -> io::Result<Option<String>> {
    use std::os::unix::fs::MetadataExt;
    let path = Path::new(FOLDER).join(name);
    let about = match std::fs::symlink_metadata(&path) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let wrong = |what: &str| Err(io::Error::other(format!("{} {what}", path.display())));
    if !about.is_file() {
        return wrong("is no file");
    }
    if about.uid() != 0 || about.mode() & 0o022 != 0 {
        return wrong("can be written by others than root: chown root, chmod 600");
    }
    if about.len() > most {
        return wrong("is too long");
    }
    std::fs::read_to_string(&path).map(Some)
}

/// Makes [`FOLDER`], where nobody but root writes.
pub(crate) fn make_folder() -> io::Result<()> {
    // Programs that are not root's go through it to what is theirs.
    run::root_folder(Path::new(FOLDER), 0o711)?;
    std::fs::create_dir_all(run::FOLDER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::Firewall;
    use crate::rules::{Action, Policy};

    fn closed() -> Policy {
        Policy {
            default: Action::Drop,
            ..Policy::default()
        }
    }

    fn rules(gateway: Gateway, way_out: Option<&str>, dhcp: bool) -> String {
        Firewall {
            address: [10, 137, 0, 2].into(),
            way_out: way_out.map(str::to_owned),
            dhcp,
            gateway: Some(gateway),
            clients: vec![(5, Policy::default()), (7, closed())],
        }
        .rules()
    }

    /// The rules of a chain that let something through, or change where it goes.
    fn rules_of(text: &str, chain: &str) -> Vec<String> {
        let begin = format!("    chain {chain} {{\n");
        let Some((_, rest)) = text.split_once(&begin) else {
            return Vec::new();
        };
        let (inside, _) = rest.split_once("    }\n").unwrap();
        let lines = inside.lines().map(str::trim);
        let does = |line: &&str| !line.starts_with("type ") && *line != "counter";
        lines.filter(does).map(str::to_owned).collect()
    }

    #[test]
    fn a_word_that_nobody_knows_closes_everything() {
        assert_eq!(Gateway::from_word("wireguard"), Gateway::WireGuard);
        assert_eq!(Gateway::from_word("tor"), Gateway::Tor);
        for word in ["", "Tor", "wireguard tor", "none"] {
            assert_eq!(Gateway::from_word(word), Gateway::Closed);
        }
        let text = rules(Gateway::Closed, Some("eth0"), false);
        assert!(rules_of(&text, "forward").is_empty());
        assert!(!text.contains("eth0") && !text.contains("masquerade"));
    }

    #[test]
    fn clients_packets_are_passed_on_to_the_tunnel_alone() {
        for (card, dhcp) in [(None, false), (Some("eth0"), false), (Some("eth1"), true)] {
            let text = rules(Gateway::WireGuard, card, dhcp);
            assert_eq!(
                rules_of(&text, "forward"),
                [
                    "tcp flags & (syn|rst) == syn tcp option maxseg size set rt mtu",
                    "ct state invalid drop",
                    "oifname \"wg0\" iifname vmap { \"vlan5\" : jump client5, \"vlan7\" : jump client7 }",
                    "iifname \"wg0\" ct state established,related oifname vmap \
                     { \"vlan5\" : jump client5, \"vlan7\" : jump client7 }",
                ]
            );
            assert_eq!(
                rules_of(&text, "translate"),
                ["oifname \"wg0\" counter masquerade"]
            );
            let text = rules(Gateway::Tor, card, dhcp);
            assert!(rules_of(&text, "forward").is_empty());
            assert!(rules_of(&text, "translate").is_empty());
        }
    }

    #[test]
    fn the_card_carries_what_the_tunnel_sends() {
        let text = rules(Gateway::WireGuard, Some("eth0"), false);
        assert_eq!(
            rules_of(&text, "output"),
            [
                "oifname \"lo\" accept",
                "oifname \"vlan*\" ct state established,related accept",
                "oifname \"eth0\" meta l4proto udp meta mark 0x62756c6b counter accept",
                "oifname \"wg0\" accept",
            ]
        );
        let text = rules(Gateway::Tor, Some("eth1"), true);
        assert_eq!(
            rules_of(&text, "output")[2..],
            [
                "oifname \"eth1\" meta l4proto tcp meta skuid \"debian-tor\" counter accept",
                "oifname \"eth1\" udp sport 68 udp dport 67 accept",
            ]
        );
        for gateway in [Gateway::WireGuard, Gateway::Tor, Gateway::Closed] {
            let text = rules(gateway, None, false);
            assert!(!text.contains("eth"), "{text}");
            // Three here, and three of IPv6.
            assert_eq!(text.matches("policy drop").count(), 6);
        }
    }

    #[test]
    fn tor_takes_connections_and_names() {
        let text = rules(Gateway::Tor, Some("eth0"), false);
        assert_eq!(
            rules_of(&text, "lead"),
            [
                "iifname { \"vlan5\" } udp dport 53 counter redirect to :5353",
                "iifname \"vlan*\" meta l4proto tcp counter redirect to :9040",
            ]
        );
        assert_eq!(
            rules_of(&text, "others"),
            [
                "iifname \"vlan*\" meta l4proto != { tcp, udp } counter drop",
                "iifname \"vlan*\" udp dport != 53 counter drop",
            ]
        );
        // As far as each client's rules go.
        assert_eq!(
            rules_of(&text, "chosen"),
            [
                "ip daddr 10.137.0.2 tcp dport 53 return",
                "meta l4proto tcp iifname vmap \
                 { \"vlan5\" : jump client5, \"vlan7\" : jump client7 }",
            ]
        );
        let input = rules_of(&text, "input");
        assert!(input.contains(&"iifname \"vlan*\" ct status dnat tcp dport 9040 accept".into()));
        assert!(input.contains(&"iifname \"vlan*\" ct status dnat udp dport 5353 accept".into()));
    }
}
