//! The D-Bus interface `org.bulkhead.Network1`: who reaches the network through whom. On the same
//! object as `org.bulkhead.Manager1`.

use std::sync::Arc;

use bulkhead_net::problem::Problem;
use bulkhead_net::rules::Rule;
use bulkhead_net::wifi;
use zbus::interface;

use super::convert::{Dict, Result, text, texts};
use crate::manager::Manager;
use crate::net::{Counter, PhysicalInfo, PortInfo};
use crate::settings;

/// The interface on the bus.
pub struct Network {
    manager: Arc<Manager>,
}

impl Network {
    /// In front of this manager.
    pub fn new(manager: Arc<Manager>) -> Self {
        Network { manager }
    }

    async fn wifi(&self, name: &str, request: wifi::Request) -> Result<(Dict, Vec<Dict>)> {
        let state = self.manager.wifi(&name.parse()?, &request).await?;
        let card = Dict::from([
            ("untrusted_interface".into(), text(state.interface.as_str())),
            ("untrusted_link".into(), text(state.link.name())),
        ]);
        Ok((card, state.networks.iter().map(wireless).collect()))
    }
}

#[interface(name = "org.bulkhead.Network1")]
impl Network {
    /// The network cards of all domains: domain, kind (s: card or trunk), state (s: off, plugged,
    /// unplugged, next-start, gone); address (s); of a card net_domain (s) and vlan (q);
    /// sent_frames, sent_bytes, received_frames, received_bytes (t); refused and lost (t), and
    /// refused_reasons and lost_reasons (as: a reason and how often); problem (s), where its network
    /// could not be set up inside. All is seen from the domain; addresses, VLANs and counts are not
    /// its own words.
    #[zbus(out_args("ports"))]
    async fn list_ports(&self) -> Result<Vec<Dict>> {
        let ports = self.manager.network().await?;
        Ok(ports.iter().map(port).collect())
    }

    /// The network domains with physical devices: domain (s), devices (as: PCI addresses, or passt,
    /// which stands in for one), runs (b);
    /// problem (s), where a running one does not say how its card is. The rest is its own words,
    /// which fit their form and may be lies: untrusted_interface and untrusted_driver (s),
    /// untrusted_carrier (b), untrusted_address (s: with the length of its network's part),
    /// untrusted_gateway (s), untrusted_servers (as: for names), untrusted_lease_left_s (t),
    /// untrusted_wireless (b), untrusted_problems (as: missing firmware, devices without a driver).
    #[zbus(out_args("cards"))]
    async fn list_physical_cards(&self) -> Result<Vec<Dict>> {
        let cards = self.manager.physical_cards().await?;
        Ok(cards.iter().map(physical).collect())
    }

    /// How the wireless card of a network domain is, which looks anew what is in reach if `scan` is
    /// true (it takes some seconds): untrusted_interface (s), untrusted_link (s: connected,
    /// connecting, roaming, disconnecting, disconnected). Networks, the strongest first and then those
    /// that are only known: untrusted_ssid (s, without control characters; its own name is
    /// untrusted_name), untrusted_security (s: open, wep, passphrase, enterprise),
    /// untrusted_signal_dbm (n) of those in reach, untrusted_known and untrusted_connected (b). All of
    /// it is what the domain says, and names are what anybody near it sends.
    #[zbus(out_args("card", "networks"))]
    async fn list_wifi(&self, name: &str, scan: bool) -> Result<(Dict, Vec<Dict>)> {
        self.wifi(name, wifi::Request::Show { scan }).await
    }

    /// Joins a wireless network. An empty passphrase is none: the network is known already, or asks
    /// for none. Answers as ListWifi does.
    #[zbus(out_args("card", "networks"))]
    async fn connect_wifi(
        &self,
        name: &str,
        ssid: String,
        passphrase: String,
    ) -> Result<(Dict, Vec<Dict>)> {
        let passphrase = (!passphrase.is_empty()).then_some(passphrase);
        self.wifi(name, wifi::Request::Connect { ssid, passphrase })
            .await
    }

    /// Leaves the wireless network, and joins none by itself. Answers as ListWifi does.
    #[zbus(out_args("card", "networks"))]
    async fn disconnect_wifi(&self, name: &str) -> Result<(Dict, Vec<Dict>)> {
        self.wifi(name, wifi::Request::Disconnect {}).await
    }

    /// Forgets a wireless network and its passphrase. Answers as ListWifi does.
    #[zbus(out_args("card", "networks"))]
    async fn forget_wifi(&self, name: &str, ssid: String) -> Result<(Dict, Vec<Dict>)> {
        self.wifi(name, wifi::Request::Forget { ssid }).await
    }

    /// What a domain may reach. Its rules: number (u, from 1), action (s: accept or drop), what
    /// (s: the rest of it, as `bulkhead firewall` takes it), ended (b), left_s (t: for how many
    /// seconds it still counts, if it ends). And: domain, net_domain, default (s: accept or drop),
    /// log (s: off, dropped or all).
    #[zbus(out_args("rules", "rest"))]
    async fn get_firewall(&self, name: &str) -> Result<(Vec<Dict>, Dict)> {
        let name = name.parse()?;
        let policy = self.manager.firewall(&name)?;
        let net_domain = self.manager.net_domain(&name)?;
        let now = settings::now();
        let rules = policy.rules.iter().zip(1..);
        let rules = rules.map(|(one, number)| rule(one, number, now)).collect();
        let mut rest = Dict::from([
            ("domain".into(), text(name.as_str())),
            ("default".into(), text(policy.default.name())),
            ("log".into(), text(policy.log.name())),
        ]);
        if let Some(net_domain) = net_domain {
            rest.insert("net_domain".into(), text(net_domain.as_str()));
        }
        Ok((rules, rest))
    }

    /// Waits until the network domain of a domain that runs was told what this one may reach now.
    /// Where that failed, the network domain and why; two empty texts otherwise.
    #[zbus(out_args("net_domain", "problem"))]
    async fn settle_firewall(&self, name: &str) -> Result<(String, String)> {
        let problem = self.manager.settle_network(&name.parse()?).await;
        let (name, problem) = problem.unzip();
        Ok((
            name.map(|name| name.to_string()).unwrap_or_default(),
            problem.unwrap_or_default(),
        ))
    }

    /// Adds a rule before the one of a number, or with 0 behind all. Rules that have ended go. Gives
    /// its number.
    #[zbus(out_args("number"))]
    async fn add_firewall_rule(&self, name: &str, rule: &str, before: u32) -> Result<u32> {
        let before = (before != 0).then_some(before as usize);
        let number = self
            .manager
            .add_firewall_rule(&name.parse()?, rule, before)?;
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// Removes rules by their numbers.
    async fn remove_firewall_rules(&self, name: &str, numbers: Vec<u32>) -> Result<()> {
        let numbers: Vec<usize> = numbers.iter().map(|number| *number as usize).collect();
        Ok(self
            .manager
            .remove_firewall_rules(&name.parse()?, &numbers)?)
    }
}

fn wireless(network: &wifi::Network) -> Dict {
    let shown = crate::text::clean(&network.ssid, wifi::MAX_SSID);
    let mut dict = Dict::from([
        ("untrusted_ssid".into(), text(shown)),
        ("untrusted_name".into(), text(network.ssid.as_str())),
        ("untrusted_security".into(), text(network.security.name())),
        ("untrusted_known".into(), network.known.into()),
        ("untrusted_connected".into(), network.connected.into()),
    ]);
    if let Some(dbm) = network.signal_dbm {
        dict.insert("untrusted_signal_dbm".into(), dbm.into());
    }
    dict
}

fn rule(rule: &Rule, number: u32, now: u64) -> Dict {
    let shown = rule.to_string();
    let what = shown.split_once(' ').map_or("", |(_, what)| what);
    let mut dict = Dict::from([
        ("number".into(), number.into()),
        ("action".into(), text(rule.action.name())),
        ("what".into(), text(what)),
        ("ended".into(), rule.has_ended(now).into()),
    ]);
    if let Some(end) = rule.expire {
        dict.insert("left_s".into(), end.saturating_sub(now).into());
    }
    dict
}

fn physical(card: &PhysicalInfo) -> Dict {
    let mut devices: Vec<String> = card.devices.iter().map(|d| d.to_string()).collect();
    devices.extend(card.host_network.then(|| "passt".to_owned()));
    let mut dict = Dict::from([
        ("domain".into(), text(card.domain.as_str())),
        ("devices".into(), texts(&devices)),
        ("runs".into(), card.runs.into()),
    ]);
    if !card.problem.is_empty() {
        dict.insert("problem".into(), text(card.problem.as_str()));
    }
    let Some(state) = &card.untrusted_state else {
        return dict;
    };
    let address = state
        .address
        .map(|(address, bits)| format!("{address}/{bits}"));
    let gateway = state.gateway.map(|gateway| gateway.to_string());
    for (key, value) in [
        ("untrusted_interface", &state.interface),
        ("untrusted_driver", &state.driver),
        ("untrusted_address", &address),
        ("untrusted_gateway", &gateway),
    ] {
        if let Some(value) = value {
            dict.insert(key.into(), text(value.as_str()));
        }
    }
    let servers: Vec<String> = state.servers.iter().map(ToString::to_string).collect();
    dict.insert("untrusted_servers".into(), texts(&servers));
    let problems: Vec<String> = state.problems.iter().map(Problem::told).collect();
    dict.insert("untrusted_problems".into(), texts(&problems));
    dict.insert("untrusted_wireless".into(), state.wireless.into());
    dict.insert("untrusted_carrier".into(), state.carrier.into());
    dict.insert("untrusted_lease_left_s".into(), state.lease_left_s.into());
    dict
}

fn port(port: &PortInfo) -> Dict {
    let mut dict = Dict::from([
        ("domain".into(), text(port.domain.as_str())),
        ("kind".into(), text(port.kind.name())),
        ("state".into(), text(port.state.name())),
    ]);
    if let Some(address) = port.address {
        dict.insert("address".into(), text(address.to_string()));
    }
    if let Some(net) = &port.net_domain {
        dict.insert("net_domain".into(), text(net.as_str()));
    }
    if let Some(vlan) = port.vlan {
        dict.insert("vlan".into(), vlan.into());
    }
    let mut count = |name: &str, counter: Counter| {
        dict.insert(format!("{name}_frames"), counter.frames.into());
        dict.insert(format!("{name}_bytes"), counter.bytes.into());
    };
    count("sent", port.sent);
    count("received", port.received);
    for (name, counts) in [("refused", &port.refused), ("lost", &port.lost)] {
        let all: u64 = counts
            .iter()
            .fold(0, |all, (_, count)| all.saturating_add(*count));
        let reasons: Vec<String> = counts
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        dict.insert(name.into(), all.into());
        dict.insert(format!("{name}_reasons"), texts(&reasons));
    }
    if !port.problem.is_empty() {
        dict.insert("problem".into(), text(port.problem.as_str()));
    }
    dict
}
