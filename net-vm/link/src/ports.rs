//! Which ports there are, and which belong together.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Instant;

use bulkhead_mac::Mac;

use crate::bucket::{MAX_RATE, MIN_RATE};
use crate::port::Port;
use crate::switch::{Client, Trunk};

/// Ports at a time.
pub const MAX_PORTS: usize = 1024;
/// The longest name of a port.
pub const MAX_NAME_BYTES: usize = 64;
const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;
/// The least that IPv4 asks for (RFC 791), and what fits into a frame with its tag.
const MTUS: std::ops::RangeInclusive<u16> = 68..=65521;

/// Why a port is not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// A name that is none.
    #[error(
        "{0:?} is no name of a port: use 1 to {MAX_NAME_BYTES} letters, digits, '.', '_', ':' and '-'"
    )]
    Name(String),
    /// The name is taken.
    #[error("there is a port {0} already: remove it first, or choose another name")]
    NameInUse(String),
    /// A client of itself.
    #[error("{0} cannot be its own trunk: give its two ports two names")]
    OwnTrunk(String),
    /// The limit.
    #[error("there are {MAX_PORTS} ports already: remove one first")]
    TooMany,
    /// No VLAN.
    #[error("VLAN {0}: choose 1 to 4094")]
    Vlan(u16),
    /// The VLAN is taken.
    #[error("VLAN {vlan} is that of {by}: choose another")]
    VlanInUse {
        /// The VLAN.
        vlan: u16,
        /// Who has it.
        by: String,
    },
    /// The card's address is taken.
    #[error("hardware address {mac} is that of {by}: choose another")]
    MacInUse {
        /// The address.
        mac: Mac,
        /// Who has it.
        by: String,
    },
    /// No address of one machine.
    #[error("{0} is no address for a client: choose one of a private network, like 10.137.0.2")]
    Address(Ipv4Addr),
    /// The address is taken.
    #[error("address {address} is that of {by}: choose another")]
    AddressInUse {
        /// The address.
        address: Ipv4Addr,
        /// Who has it.
        by: String,
    },
    /// A size of packets that cannot be.
    #[error("mtu {0}: choose 68 to 65521")]
    Mtu(u16),
    /// A rate that cannot be.
    #[error("rate {0}: choose {MIN_RATE} to {MAX_RATE} bytes a second, or leave it out")]
    Rate(u64),
}

/// One port as long as it is there: its place is used again, its number is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id {
    slot: u32,
    generation: u32,
}

impl Id {
    /// As one number.
    pub fn token(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// Back from one number.
    pub fn of_token(token: u64) -> Self {
        Self {
            slot: (token & u64::from(u32::MAX)) as u32,
            generation: (token >> 32) as u32,
        }
    }
}

/// Which side a port is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A network domain's.
    Trunk(Trunk),
    /// One of its clients'.
    Client(Client),
}

/// A port, and what the loop knows of it.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its network.
    pub network: usize,
    /// Its side and rules.
    pub side: Side,
    /// Its cable.
    pub port: Port,
    /// There may be packets to take.
    pub readable: bool,
    /// It stands in its network's list of clients to be read.
    pub queued: bool,
    /// How often it is still looked at before its card is asked to wake the loop, as it had nothing; it
    /// stands in a list then.
    pub looks: u8,
    /// It stands in the list of those whose card may have to be woken.
    pub touched: bool,
    /// The kernel tells when there is room in its socket.
    pub watched: bool,
    /// When its rate allows more.
    pub wake: Option<Instant>,
}

/// A trunk and its clients. It is there as long as one of them is.
#[derive(Debug)]
pub struct Network {
    name: String,
    /// The network domain's port.
    pub trunk: Option<Id>,
    /// Its clients by VLAN.
    pub clients: BTreeMap<u16, Id>,
    /// Clients that may have packets, in the order in which they are read.
    pub ready: VecDeque<Id>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    entry: Option<Entry>,
}

/// All ports.
#[derive(Debug, Default)]
pub struct Ports {
    slots: Vec<Slot>,
    networks: Vec<Option<Network>>,
}

impl Ports {
    /// A port.
    pub fn get(&self, id: Id) -> Option<&Entry> {
        let slot = self.slots.get(id.slot as usize)?;
        slot.entry
            .as_ref()
            .filter(|_| slot.generation == id.generation)
    }

    /// A port.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        let generation = slot.generation;
        slot.entry.as_mut().filter(|_| generation == id.generation)
    }

    /// Two ports that are not the same, one of them to be changed.
    pub fn pair_mut(&mut self, one: Id, other: Id) -> Option<(&Entry, &mut Entry)> {
        let places = [one.slot as usize, other.slot as usize];
        let [a, b] = self.slots.get_disjoint_mut(places).ok()?;
        let is_now = a.generation == one.generation && b.generation == other.generation;
        Some((a.entry.as_ref()?, b.entry.as_mut()?)).filter(|_| is_now)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &Entry)> {
        self.slots.iter().enumerate().filter_map(|(slot, place)| {
            let id = Id {
                slot: slot as u32,
                generation: place.generation,
            };
            Some((id, place.entry.as_ref()?))
        })
    }

    /// The port of this name.
    pub fn by_name(&self, name: &str) -> Option<Id> {
        self.iter()
            .find(|(_, entry)| entry.name == name)
            .map(|(id, _)| id)
    }

    /// A network.
    pub fn network(&self, index: usize) -> Option<&Network> {
        self.networks.get(index)?.as_ref()
    }

    /// A network.
    pub fn network_mut(&mut self, index: usize) -> Option<&mut Network> {
        self.networks.get_mut(index)?.as_mut()
    }

    /// One more than the greatest index of a network.
    pub fn network_count(&self) -> usize {
        self.networks.len()
    }

    /// The name of the trunk to which a network belongs, whether it is there or not.
    pub fn trunk_name(&self, network: usize) -> &str {
        self.network(network).map_or("", |network| &network.name)
    }

    /// Whether a trunk could be added.
    pub fn check_trunk(&self, name: &str, trunk: Trunk) -> Result<(), AddError> {
        self.check_name(name)?;
        if !MTUS.contains(&trunk.mtu) {
            return Err(AddError::Mtu(trunk.mtu));
        }
        self.check_mac(self.find_network(name), trunk.mac)
    }

    /// Whether a client could be added.
    pub fn check_client(
        &self,
        name: &str,
        trunk: &str,
        client: Client,
        rate: Option<u64>,
    ) -> Result<(), AddError> {
        self.check_name(name)?;
        check_spelling(trunk)?;
        if name == trunk {
            return Err(AddError::OwnTrunk(name.into()));
        }
        if !VLANS.contains(&client.vlan) {
            return Err(AddError::Vlan(client.vlan));
        }
        let address = client.address;
        let [first, ..] = address.octets();
        if first == 0 || first == 127 || first >= 224 {
            return Err(AddError::Address(address));
        }
        if let Some(rate) = rate.filter(|rate| !(MIN_RATE..=MAX_RATE).contains(rate)) {
            return Err(AddError::Rate(rate));
        }
        let network = self.find_network(trunk);
        self.check_mac(network, client.mac)?;
        for (entry, other) in self.clients_of(network) {
            let by = || entry.name.clone();
            if other.vlan == client.vlan {
                let vlan = client.vlan;
                return Err(AddError::VlanInUse { vlan, by: by() });
            }
            if other.address == address {
                return Err(AddError::AddressInUse { address, by: by() });
            }
        }
        Ok(())
    }

    /// Adds a port that was checked, to the network of `trunk`.
    pub fn add(&mut self, name: &str, trunk: &str, side: Side, port: Port) -> Id {
        let index = self.find_network(trunk).unwrap_or_else(|| {
            let free = self.networks.iter().position(Option::is_none);
            free.unwrap_or_else(|| {
                self.networks.push(None);
                self.networks.len() - 1
            })
        });
        let entry = Entry {
            name: name.into(),
            network: index,
            side,
            port,
            readable: false,
            queued: false,
            looks: 0,
            touched: false,
            watched: false,
            wake: None,
        };
        let id = self.place(entry);
        if let Some(place) = self.networks.get_mut(index) {
            let network = place.get_or_insert_with(|| Network {
                name: trunk.into(),
                trunk: None,
                clients: BTreeMap::new(),
                ready: VecDeque::with_capacity(MAX_PORTS),
            });
            match side {
                Side::Trunk(_) => network.trunk = Some(id),
                Side::Client(client) => {
                    network.clients.insert(client.vlan, id);
                }
            }
        }
        id
    }

    fn place(&mut self, entry: Entry) -> Id {
        let free = self.slots.iter().position(|slot| slot.entry.is_none());
        let slot = free.unwrap_or(self.slots.len());
        match self.slots.get_mut(slot) {
            Some(place) => {
                place.entry = Some(entry);
                let generation = place.generation;
                Id {
                    slot: slot as u32,
                    generation,
                }
            }
            None => {
                self.slots.push(Slot {
                    generation: 0,
                    entry: Some(entry),
                });
                Id {
                    slot: slot as u32,
                    generation: 0,
                }
            }
        }
    }

    /// Removes a port with all that waits for it.
    pub fn remove(&mut self, id: Id) -> Option<Entry> {
        self.get(id)?;
        let slot = self.slots.get_mut(id.slot as usize)?;
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        let place = self.networks.get_mut(entry.network)?;
        if let Some(network) = place {
            match entry.side {
                Side::Trunk(_) => network.trunk = None,
                Side::Client(client) => {
                    network.clients.remove(&client.vlan);
                    network.ready.retain(|other| *other != id);
                }
            }
            if network.trunk.is_none() && network.clients.is_empty() {
                *place = None;
            }
        }
        Some(entry)
    }

    fn find_network(&self, trunk: &str) -> Option<usize> {
        let named =
            |place: &Option<Network>| place.as_ref().is_some_and(|network| network.name == trunk);
        self.networks.iter().position(named)
    }

    fn check_name(&self, name: &str) -> Result<(), AddError> {
        check_spelling(name)?;
        if self.by_name(name).is_some() {
            return Err(AddError::NameInUse(name.into()));
        }
        if self.iter().count() >= MAX_PORTS {
            return Err(AddError::TooMany);
        }
        Ok(())
    }

    fn clients_of(&self, network: Option<usize>) -> impl Iterator<Item = (&Entry, Client)> {
        let all = network.and_then(|index| self.network(index));
        let ids = all.into_iter().flat_map(|network| network.clients.values());
        ids.filter_map(|id| {
            let entry = self.get(*id)?;
            match entry.side {
                Side::Client(client) => Some((entry, client)),
                Side::Trunk(_) => None,
            }
        })
    }

    fn check_mac(&self, network: Option<usize>, mac: Mac) -> Result<(), AddError> {
        let trunk = network
            .and_then(|index| self.network(index)?.trunk)
            .and_then(|id| self.get(id));
        let by_trunk =
            trunk.filter(|entry| matches!(entry.side, Side::Trunk(trunk) if trunk.mac == mac));
        let by_client = self
            .clients_of(network)
            .find(|(_, client)| client.mac == mac)
            .map(|(entry, _)| entry);
        match by_trunk.or(by_client) {
            Some(entry) => Err(AddError::MacInUse {
                mac,
                by: entry.name.clone(),
            }),
            None => Ok(()),
        }
    }
}

fn check_spelling(name: &str) -> Result<(), AddError> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_good) {
        let shown = name.chars().take(MAX_NAME_BYTES).collect();
        return Err(AddError::Name(shown));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bulkhead_ring::Memory;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::port::Cable;

    fn add(ports: &mut Ports, name: &str, number: u8) -> Id {
        let client = Client {
            mac: Mac([2, 0, 0, 0, 0, number]),
            address: Ipv4Addr::new(10, 137, 0, number),
            vlan: number.into(),
        };
        assert_eq!(ports.check_client(name, "net", client, None), Ok(()));
        let flags = SocketFlags::CLOEXEC;
        let (socket, _) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let ring = Memory::map(Memory::create().unwrap()).unwrap();
        let cable = Cable::new(socket, ring).unwrap();
        let port = Port::client(cable, None, Instant::now());
        ports.add(name, "net", Side::Client(client), port)
    }

    #[test]
    fn what_was_said_of_a_removed_port_is_not_said_of_the_next_one() {
        let mut ports = Ports::default();
        let old = add(&mut ports, "work", 9);
        let stays = add(&mut ports, "other", 10);
        for id in [old, stays] {
            ports.network_mut(0).unwrap().ready.push_back(id);
        }
        assert_eq!(Id::of_token(old.token()), old);
        assert_eq!(ports.remove(old).unwrap().name, "work");
        assert_eq!(ports.network(0).unwrap().ready, [stays]);
        let new = add(&mut ports, "work", 9);
        assert_eq!(new.slot, old.slot);
        // An event that the kernel had told before.
        assert!(ports.get(Id::of_token(old.token())).is_none());
        assert!(ports.get_mut(old).is_none() && ports.remove(old).is_none());
        assert_eq!(ports.get(new).unwrap().name, "work");
        assert_eq!(ports.by_name("work"), Some(new));
    }

    #[test]
    fn a_network_goes_with_its_last_port() {
        let mut ports = Ports::default();
        let one = add(&mut ports, "one", 9);
        let two = add(&mut ports, "two", 10);
        assert_eq!(ports.trunk_name(0), "net");
        ports.remove(one);
        assert!(ports.network(0).is_some());
        ports.remove(two);
        assert!(ports.network(0).is_none());
        let three = add(&mut ports, "three", 9);
        assert_eq!(ports.get(three).unwrap().network, 0);
    }
}
