//! Who is connected through whom, and what went over each cable: the settings, and the link's counts.

use std::net::Ipv4Addr;

use bulkhead_protocol::DomainName;

use super::link::{Counter, PortStats};
use super::number::Number;
use crate::Result;
use crate::manager::Manager;

/// Which card of a domain it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortKind {
    /// To its network domain.
    Card,
    /// For its clients.
    Trunk,
}

impl PortKind {
    /// For D-Bus.
    pub fn name(self) -> &'static str {
        match self {
            PortKind::Card => "card",
            PortKind::Trunk => "trunk",
        }
    }
}

/// What a card's cable does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortState {
    /// The domain does not run.
    Off,
    /// The other side is there.
    Plugged,
    /// It is not.
    Unplugged,
    /// The domain runs without this card, and gets it when it starts again.
    NextStart,
    /// The link lost it: its card's end is closed.
    Gone,
}

impl PortState {
    /// For D-Bus.
    pub fn name(self) -> &'static str {
        match self {
            PortState::Off => "off",
            PortState::Plugged => "plugged",
            PortState::Unplugged => "unplugged",
            PortState::NextStart => "next-start",
            PortState::Gone => "gone",
        }
    }
}

/// One card of a domain. Everything is seen from the domain.
#[derive(Debug, Clone)]
pub struct PortInfo {
    /// Whose.
    pub domain: DomainName,
    /// Which of its cards.
    pub kind: PortKind,
    /// The domain's address, once it has one.
    pub address: Option<Ipv4Addr>,
    /// Behind whom it is, of a [`PortKind::Card`].
    pub net_domain: Option<DomainName>,
    /// Its VLAN on that one's trunk, of a [`PortKind::Card`].
    pub vlan: Option<u16>,
    /// Its cable.
    pub state: PortState,
    /// What the domain sent.
    pub sent: Counter,
    /// What it was sent.
    pub received: Counter,
    /// What it sent and the link did not pass on: reasons and how often.
    pub refused: Vec<(String, u64)>,
    /// What was for it and did not arrive: reasons and how often.
    pub lost: Vec<(String, u64)>,
    /// Why its network is not set up inside, where that is so.
    pub problem: String,
}

/// What the guest with a card has, as far as it runs.
struct Running {
    has_card: bool,
    has_trunk: bool,
    upstream: Option<Number>,
    problem: String,
}

impl Manager {
    /// All cards of all domains that have to do with the network.
    pub async fn network(&self) -> Result<Vec<PortInfo>> {
        let stats = self.net.link.stats().await?;
        let names = self.store.names()?;
        let mut ports = Vec::new();
        for name in &names {
            let Ok(config) = self.store.load(name) else {
                continue;
            };
            let number = self.store.number(name);
            let running = number.and_then(|number| self.running_with_cards(number));
            let runs = self.domain(name).is_ok_and(|d| d.machine().is_some());
            let (has_card, has_trunk) = running
                .as_ref()
                .map_or((false, false), |now| (now.has_card, now.has_trunk));
            // Where its card leads now, which may still be another than the settings say.
            let upstream = match running.as_ref().and_then(|now| now.upstream) {
                Some(upstream) => names
                    .iter()
                    .find(|name| self.store.number(name) == Some(upstream))
                    .cloned(),
                None => config.net_domain.clone(),
            };
            let port = |kind, plugged_in: bool, port_name: Option<String>| {
                let found = stats
                    .iter()
                    .find(|port| Some(&port.name) == port_name.as_ref());
                let state = match (runs, plugged_in, found) {
                    (false, ..) => PortState::Off,
                    (true, false, _) => PortState::NextStart,
                    (true, true, None) => PortState::Gone,
                    (true, true, Some(port)) if port.plugged => PortState::Plugged,
                    (true, true, Some(_)) => PortState::Unplugged,
                };
                let counted = found.filter(|_| plugged_in).cloned().unwrap_or_default();
                let problem = running.as_ref().map(|now| now.problem.clone());
                info(
                    name,
                    kind,
                    number,
                    state,
                    counted,
                    problem.unwrap_or_default(),
                )
            };
            if has_card || config.net_domain.is_some() {
                ports.push(PortInfo {
                    net_domain: upstream,
                    vlan: number.map(Number::vlan),
                    ..port(PortKind::Card, has_card, number.map(Number::card_port))
                });
            }
            if has_trunk || config.provides_network {
                ports.push(port(
                    PortKind::Trunk,
                    has_trunk,
                    number.map(Number::trunk_port),
                ));
            }
        }
        Ok(ports)
    }

    fn running_with_cards(&self, number: Number) -> Option<Running> {
        let guests = self.net.guests();
        let guest = guests.get(&number)?;
        Some(Running {
            has_card: guest.has_card,
            has_trunk: guest.has_trunk,
            upstream: guest.upstream,
            problem: guest.problem.clone(),
        })
    }
}

fn info(
    name: &DomainName,
    kind: PortKind,
    number: Option<Number>,
    state: PortState,
    counted: PortStats,
    problem: String,
) -> PortInfo {
    PortInfo {
        domain: name.clone(),
        kind,
        address: number.map(Number::address),
        net_domain: None,
        vlan: None,
        state,
        sent: counted.received,
        received: counted.sent,
        refused: counted.refused.into_iter().collect(),
        lost: counted.lost.into_iter().collect(),
        problem,
    }
}
