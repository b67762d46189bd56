//! The D-Bus interface `org.bulkhead.Network1`: who reaches the network through whom. On the same
//! object as `org.bulkhead.Manager1`.

use std::sync::Arc;

use zbus::interface;

use super::convert::{Dict, Result, text, texts};
use crate::manager::Manager;
use crate::net::{Counter, PhysicalInfo, PortInfo};

/// The interface on the bus.
pub struct Network {
    manager: Arc<Manager>,
}

impl Network {
    /// In front of this manager.
    pub fn new(manager: Arc<Manager>) -> Self {
        Network { manager }
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

    /// The network domains with physical devices: domain (s), devices (as: PCI addresses), runs (b);
    /// problem (s), where a running one does not say how its card is. The rest is its own words,
    /// which fit their form and may be lies: untrusted_interface and untrusted_driver (s),
    /// untrusted_carrier (b), untrusted_address (s: with the length of its network's part),
    /// untrusted_gateway (s), untrusted_servers (as: for names), untrusted_lease_left_s (t).
    #[zbus(out_args("cards"))]
    async fn list_physical_cards(&self) -> Result<Vec<Dict>> {
        let cards = self.manager.physical_cards().await?;
        Ok(cards.iter().map(physical).collect())
    }
}

fn physical(card: &PhysicalInfo) -> Dict {
    let devices: Vec<String> = card.devices.iter().map(|d| d.to_string()).collect();
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
