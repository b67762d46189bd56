//! How domains reach the network through other domains (docs/net.md).
//!
//! Each domain that has to do with the network has a [`number`], from which its addresses come. When
//! it starts it gets a card to its network domain, and, if it is one, a card for its clients; the
//! other ends of both go to the [`link`]. When its agent is ready the [`guest`] is told how to set
//! them up, and so is its network domain. No frame comes through this process, and no address from
//! a guest.

mod firewall;
pub mod graph;
mod guest;
mod link;
pub mod number;
mod physical;
mod settings;
mod status;
mod uplink;

use std::collections::BTreeMap;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_mac::Mac;
use bulkhead_net::Config;
use bulkhead_net::config::{Card, Client, Trunk};
use bulkhead_net::fixed::Fixed;
use bulkhead_net::rules::Policy;
use bulkhead_protocol::DomainName;
use bulkhead_ring::Memory;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::config::DomainConfig;
use crate::manager::Manager;
use crate::{Error, Result, vmm};
use link::{Cable, Link, Place};
use number::Number;
use uplink::Uplink;

pub use link::{Counter, LinkError};
pub use physical::PhysicalInfo;
pub use status::{PortInfo, PortKind, PortState};
pub use uplink::Programs;

/// The longest packet of the network between domains, in bytes: Ethernet's.
pub const MTU: u16 = 1500;
/// No network domain's port: what leads there is not plugged in.
const NOWHERE: &str = "nowhere";

/// A guest with cards.
#[derive(Debug)]
struct Guest {
    name: DomainName,
    vsock: PathBuf,
    /// It has a card of its own.
    has_card: bool,
    /// Where that card leads.
    upstream: Option<Number>,
    /// It has a card for clients.
    has_trunk: bool,
    /// It has physical devices, or what stands in for a card.
    has_devices: bool,
    /// What stands in for a card.
    uplink: Option<Uplink>,
    /// The address of its physical card.
    fixed: Option<Fixed>,
    /// What it may reach; its network domain is told.
    policy: Policy,
    /// Its agent takes commands.
    ready: bool,
    /// Why its network is not as it should be.
    problem: String,
    /// What it was told last, whether it did so or not.
    told: Option<Config>,
    /// Held by whoever tells it something.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// All guests with cards.
pub struct Net {
    link: Link,
    programs: Programs,
    guests: Mutex<BTreeMap<Number, Guest>>,
}

impl Net {
    /// With the link's program, and those of ways to the host's network.
    pub fn new(link: PathBuf, programs: Programs) -> Self {
        Net {
            link: Link::new(link),
            programs,
            guests: Mutex::default(),
        }
    }

    fn guests(&self) -> MutexGuard<'_, BTreeMap<Number, Guest>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest of a domain.
    fn number_of(&self, name: &DomainName) -> Option<Number> {
        let guests = self.guests();
        let found = guests.iter().find(|(_, guest)| guest.name == *name);
        found.map(|(number, _)| *number)
    }

    /// The domains that run behind a domain which does.
    pub fn clients(&self, name: &DomainName) -> Vec<DomainName> {
        let Some(number) = self.number_of(name) else {
            return Vec::new();
        };
        let guests = self.guests();
        let behind = guests
            .values()
            .filter(|guest| guest.upstream == Some(number));
        behind.map(|guest| guest.name.clone()).collect()
    }
}

/// What a guest is told, and where it is reached.
fn description(
    guests: &BTreeMap<Number, Guest>,
    number: Number,
) -> Option<(DomainName, PathBuf, Config)> {
    let guest = guests.get(&number).filter(|guest| guest.ready)?;
    let clients = guests
        .iter()
        .filter(|(_, other)| other.upstream == Some(number))
        .map(|(client, other)| Client {
            vlan: client.vlan(),
            address: client.address(),
            policy: other.policy.clone(),
        });
    let config = Config {
        card: guest.upstream.map(|upstream| Card {
            mac: number.card_mac(),
            address: number.address(),
            gateway: upstream.address(),
            mtu: MTU,
        }),
        trunk: guest.has_trunk.then(|| Trunk {
            mac: number.trunk_mac(),
            address: number.address(),
            mtu: MTU,
            clients: clients.collect(),
        }),
        // A domain with a card to another one has no other way out.
        physical: guest.has_devices && guest.has_trunk && !guest.has_card,
        fixed: guest.fixed.clone(),
        names: guest.uplink.as_ref().map(|_| uplink::NAMES),
    };
    Some((guest.name.clone(), guest.vsock.clone(), config))
}

fn client_place(number: Number, upstream: Option<Number>) -> Place {
    Place::Client {
        trunk: upstream.map_or_else(|| NOWHERE.to_owned(), Number::trunk_port),
        vlan: number.vlan(),
        mac: number.card_mac().to_string(),
        address: number.address(),
    }
}

/// A cable: the other end and the card's.
fn cable() -> Result<(OwnedFd, OwnedFd)> {
    let ends = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    );
    ends.map_err(|error| Error::Net(LinkError::Broken(error.into())))
}

/// A cable through memory: the link's end and the card.
fn cable_to_link(mac: Mac) -> Result<(Cable, vmm::Card)> {
    let broken = |error| Error::Net(LinkError::Broken(error));
    let (socket, cards) = cable()?;
    let ring = Memory::create().map_err(broken)?;
    let card = vmm::Card {
        socket: cards,
        ring: Some(ring.try_clone().map_err(broken)?),
        mac,
        offloads: true,
    };
    Ok((Cable { socket, ring }, card))
}

/// Whether a guest is told what it was told before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    Always,
    IfNew,
}

type Started = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

impl Manager {
    /// Starts the network domain of a domain that is about to start, and those that it is behind.
    /// Boxed, since each of these starts is one like this one.
    pub(crate) fn start_net_domain(self: &Arc<Self>, config: &DomainConfig) -> Started {
        let (manager, config) = (self.clone(), config.clone());
        Box::pin(async move {
            let Some(net) = &config.net_domain else {
                return Ok(());
            };
            // People may have written anything into the files; a loop would wait for itself.
            manager.check_net_start(&config)?;
            let started = manager.ensure_running(net).await;
            started.map(drop).map_err(|error| Error::NetDomain {
                name: config.name.clone(),
                net: net.clone(),
                reason: error.to_string(),
            })
        })
    }

    /// The cards of a domain that is about to start, plugged in.
    pub(crate) async fn plug_in(&self, config: &DomainConfig) -> Result<Vec<vmm::Card>> {
        let name = &config.name;
        if config.net_domain.is_none() && !config.provides_network {
            return Ok(Vec::new());
        }
        let number = self.store.assign_number(name)?;
        let upstream = config.net_domain.as_ref();
        let upstream = upstream.map(|net| self.store.assign_number(net));
        let upstream = upstream.transpose()?;
        // First, so that whatever fails from here on is unplugged by the guest's name.
        let guest = Guest {
            name: name.clone(),
            vsock: self.dirs.runtime_of(name).join("vsock.sock"),
            has_card: upstream.is_some(),
            upstream,
            has_trunk: config.provides_network,
            has_devices: !config.pci.is_empty() || config.host_network,
            uplink: None,
            fixed: config.card_address.clone(),
            policy: config.firewall(),
            ready: false,
            problem: String::new(),
            told: None,
            turn: Arc::default(),
        };
        self.net.guests().insert(number, guest);
        let mut cards = Vec::new();
        if upstream.is_some() {
            let (cable, card) = cable_to_link(number.card_mac())?;
            let place = client_place(number, upstream);
            self.net.link.add(&number.card_port(), place, cable).await?;
            cards.push(card);
        }
        if config.provides_network {
            let mac = number.trunk_mac();
            let (cable, card) = cable_to_link(mac)?;
            let place = Place::Trunk {
                mac: mac.to_string(),
            };
            self.net
                .link
                .add(&number.trunk_port(), place, cable)
                .await?;
            cards.push(card);
        }
        if config.host_network {
            let (links, guests) = cable()?;
            let uplink = Uplink::start(&self.net.programs, name, links)?;
            if let Some(guest) = self.net.guests().get_mut(&number) {
                guest.uplink = Some(uplink);
            }
            cards.push(vmm::Card {
                socket: guests,
                ring: None,
                mac: number.uplink_mac(),
                offloads: false,
            });
        }
        Ok(cards)
    }

    /// Sets up the network of a guest whose agent is ready, and tells its network domain of it. A
    /// guest that does not let itself be set up runs without.
    pub(crate) async fn set_up_network(&self, name: &DomainName) {
        let Some(number) = self.net.number_of(name) else {
            return;
        };
        let upstream = {
            let mut guests = self.net.guests();
            let Some(guest) = guests.get_mut(&number) else {
                return;
            };
            guest.ready = true;
            guest.upstream
        };
        if let Some(upstream) = upstream {
            self.tell_guest_of_network(upstream).await;
        }
        self.tell_guest_of_network(number).await;
    }

    /// Takes away the cards of a guest that has ended, or did not come to be.
    pub(crate) async fn unplug(self: &Arc<Self>, name: &DomainName) {
        let Some(number) = self.net.number_of(name) else {
            return;
        };
        let removed = self.net.guests().remove(&number);
        self.net.link.unplug(&number.card_port()).await;
        self.net.link.unplug(&number.trunk_port()).await;
        if let Some(upstream) = removed.and_then(|guest| guest.upstream) {
            // The end does not wait for another guest.
            let manager = self.clone();
            tokio::spawn(async move { manager.tell_guest_of_network(upstream).await });
        }
    }

    /// Waits until the network domain of a domain that runs was told what holds now. Its trouble with
    /// that, if it has any.
    pub async fn settle_network(&self, name: &DomainName) -> Option<(DomainName, String)> {
        let number = self.net.number_of(name)?;
        let upstream = self.net.guests().get(&number)?.upstream?;
        self.tell_guest(upstream, Telling::IfNew).await;
        let guests = self.net.guests();
        let guest = guests.get(&upstream)?;
        (!guest.problem.is_empty()).then(|| (guest.name.clone(), guest.problem.clone()))
    }

    /// Tells a guest everything about its network, as it is when its turn comes.
    async fn tell_guest_of_network(&self, number: Number) {
        self.tell_guest(number, Telling::Always).await;
    }

    async fn tell_guest(&self, number: Number, telling: Telling) {
        let turn = self
            .net
            .guests()
            .get(&number)
            .map(|guest| &guest.turn)
            .cloned();
        let Some(turn) = turn else { return };
        let _one_at_a_time = turn.lock().await;
        let described = description(&self.net.guests(), number);
        let Some((name, vsock, config)) = described else {
            return;
        };
        if let Some(guest) = self.net.guests().get_mut(&number) {
            if telling == Telling::IfNew && guest.told.as_ref() == Some(&config) {
                return;
            }
            guest.told = Some(config.clone());
        }
        let problem = match guest::configure(vsock, &config).await {
            Ok(()) => String::new(),
            Err(error) => format!("its network is not set up: {error}"),
        };
        if let Some(guest) = self.net.guests().get_mut(&number) {
            if !problem.is_empty() {
                tracing::warn!(domain = %name, problem, "the network");
            }
            guest.problem = problem;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(name: &str, upstream: Option<u16>, has_trunk: bool) -> Guest {
        Guest {
            name: name.parse().unwrap(),
            vsock: PathBuf::from("/v"),
            has_card: upstream.is_some(),
            upstream: upstream.and_then(Number::new),
            has_trunk,
            has_devices: false,
            uplink: None,
            fixed: None,
            policy: Policy::default(),
            ready: true,
            problem: String::new(),
            told: None,
            turn: Arc::default(),
        }
    }

    fn with_devices(guest: Guest) -> Guest {
        Guest {
            has_devices: true,
            ..guest
        }
    }

    #[test]
    fn guests_are_told_of_their_own_network_only() {
        let number = |n| Number::new(n).unwrap();
        let programs = Programs {
            passt: PathBuf::new(),
            relay: PathBuf::new(),
        };
        let net = Net::new(PathBuf::new(), programs);
        net.guests().extend([
            (number(1), with_devices(guest("net", None, true))),
            (number(2), guest("firewall", Some(1), true)),
            (number(3), with_devices(guest("work", Some(2), false))),
            (number(4), guest("personal", Some(2), false)),
        ]);
        let told = |n| description(&net.guests(), number(n)).map(|(_, _, config)| config);
        let all = [1, 2, 3, 4].map(|n| told(n).unwrap());
        for config in &all {
            config.check().unwrap();
        }
        let [first, firewall, work, _] = all;
        assert!(first.card.is_none() && work.trunk.is_none());
        // A way out is what network domains without another one have.
        assert!(first.physical && !firewall.physical && !work.physical);
        let vlans = |config: &Config| {
            let trunk = config.trunk.clone().unwrap();
            trunk.clients.iter().map(|c| c.vlan).collect::<Vec<_>>()
        };
        assert_eq!((vlans(&first), vlans(&firewall)), (vec![2], vec![3, 4]));
        // What clients take for their gateway is the address that it has itself.
        let gateway = firewall.trunk.unwrap().address;
        assert_eq!(work.card.unwrap().gateway, gateway);
        assert_eq!(firewall.card.unwrap().address, gateway);
        assert_eq!(net.clients(&"firewall".parse().unwrap()).len(), 2);
        assert!(net.clients(&"work".parse().unwrap()).is_empty());
        // Nobody runs anything in a guest whose agent is not ready.
        if let Some(guest) = net.guests().get_mut(&number(3)) {
            guest.ready = false;
        }
        assert!(told(3).is_none() && told(5).is_none());
    }
}
