//! What the manager says of a guest's network: all of it, each time.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use bulkhead_mac::Mac;
use serde::{Deserialize, Serialize};

use crate::address::is_of_a_machine;
use crate::fixed::Fixed;
use crate::rules::{MAX_RULES, Policy};

/// A longer description is none: a hundred clients with as many rules as there may be.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// VLANs of IEEE 802.1Q that can be given away.
pub const VLANS: RangeInclusive<u16> = 1..=4094;
/// The least that IPv4 asks for (RFC 791), and the most that the link carries.
pub const MTUS: RangeInclusive<u16> = 68..=65521;

/// A guest's cards and what is to be reached through them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The card that leads to its network domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<Card>,
    /// The card that its clients are on, if it is a network domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk: Option<Trunk>,
    /// It has physical devices; a network card among them is its way out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub physical: bool,
    /// The physical card's address, if no DHCP server is to be asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<Fixed>,
    /// Who is asked for names, whatever a DHCP server says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Ipv4Addr>,
}

/// A client's card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Its hardware address, by which it is found.
    pub mac: Mac,
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Its network domain's address, behind which everything else is.
    pub gateway: Ipv4Addr,
    /// The longest packet, in bytes: 68 to 65,521.
    pub mtu: u16,
}

/// A network domain's card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trunk {
    /// Its hardware address, by which it is found.
    pub mac: Mac,
    /// The guest's address, which is its clients' gateway.
    pub address: Ipv4Addr,
    /// The longest packet, in bytes: 68 to 65,521.
    pub mtu: u16,
    /// The clients that are there now; the VLANs of all others are taken away.
    pub clients: Vec<Client>,
}

/// A client on a trunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its VLAN (IEEE 802.1Q): 1 to 4094.
    pub vlan: u16,
    /// Its address.
    pub address: Ipv4Addr,
    /// What it may reach.
    #[serde(default)]
    pub policy: Policy,
}

/// Why a description cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Too much of it.
    #[error("the description is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// No JSON of this form.
    #[error("the description cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// No address of one machine.
    #[error("{0} is no address of a machine")]
    Address(Ipv4Addr),
    /// An address for two.
    #[error("{0} is the address of two machines")]
    SameAddress(Ipv4Addr),
    /// No VLAN.
    #[error("VLAN {0}: 1 to 4094 are possible")]
    Vlan(u16),
    /// A VLAN for two.
    #[error("VLAN {0} is that of two clients")]
    SameVlan(u16),
    /// Too many rules.
    #[error("the client of VLAN {0} has more than {MAX_RULES} rules")]
    Rules(u16),
    /// A size of packets that cannot be.
    #[error("mtu {0}: 68 to 65521 are possible")]
    Mtu(u16),
    /// Two ways out.
    #[error("a guest with a card to its network domain has no other way out")]
    TwoWaysOut,
    /// One card for both.
    #[error("{0} is the hardware address of two cards")]
    SameMac(Mac),
}

impl Config {
    /// From JSON, checked.
    pub fn parse(text: &[u8]) -> Result<Self, ConfigError> {
        if text.len() > MAX_BYTES {
            return Err(ConfigError::TooLong);
        }
        let config: Config = serde_json::from_slice(text)?;
        config.check()?;
        Ok(config)
    }

    /// Whether it can be followed.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.card.is_some() && self.physical {
            return Err(ConfigError::TwoWaysOut);
        }
        if let Some(card) = &self.card {
            check_mtu(card.mtu)?;
            check_address(card.address)?;
            check_address(card.gateway)?;
            if card.address == card.gateway {
                return Err(ConfigError::SameAddress(card.address));
            }
        }
        let Some(trunk) = &self.trunk else {
            return Ok(());
        };
        check_mtu(trunk.mtu)?;
        check_address(trunk.address)?;
        if let Some(card) = self.card.as_ref().filter(|card| card.mac == trunk.mac) {
            return Err(ConfigError::SameMac(card.mac));
        }
        let mut addresses = BTreeSet::from([trunk.address]);
        // What is reached through the other card cannot be a client as well.
        addresses.extend(self.card.as_ref().map(|card| card.gateway));
        let mut vlans = BTreeSet::new();
        for client in &trunk.clients {
            if !VLANS.contains(&client.vlan) {
                return Err(ConfigError::Vlan(client.vlan));
            }
            if client.policy.rules.len() > MAX_RULES {
                return Err(ConfigError::Rules(client.vlan));
            }
            check_address(client.address)?;
            if !vlans.insert(client.vlan) {
                return Err(ConfigError::SameVlan(client.vlan));
            }
            if !addresses.insert(client.address) {
                return Err(ConfigError::SameAddress(client.address));
            }
        }
        Ok(())
    }
}

fn check_mtu(mtu: u16) -> Result<(), ConfigError> {
    match MTUS.contains(&mtu) {
        true => Ok(()),
        false => Err(ConfigError::Mtu(mtu)),
    }
}

fn check_address(address: Ipv4Addr) -> Result<(), ConfigError> {
    match is_of_a_machine(address) {
        true => Ok(()),
        false => Err(ConfigError::Address(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = r#"{
        "card": {"mac":"02:00:00:00:00:05","address":"10.137.0.5","gateway":"10.137.0.1","mtu":1500},
        "trunk": {"mac":"02:00:00:00:01:05","address":"10.137.0.5","mtu":1500,
                  "clients":[{"vlan":7,"address":"10.137.0.7"},{"vlan":9,"address":"10.137.0.9"}]}
    }"#;

    #[test]
    fn what_is_written_is_read_back() {
        let config = Config::parse(BOTH.as_bytes()).unwrap();
        assert_eq!(config.trunk.as_ref().unwrap().clients.len(), 2);
        let again = serde_json::to_vec(&config).unwrap();
        assert_eq!(Config::parse(&again).unwrap(), config);
        assert_eq!(Config::parse(b"{}").unwrap(), Config::default());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (from, to, expected) in [
            ("\"vlan\":9", "\"vlan\":7", "VLAN 7 is that of two"),
            ("\"vlan\":9", "\"vlan\":0", "VLAN 0"),
            ("\"vlan\":9", "\"vlan\":4095", "VLAN 4095"),
            ("\"vlan\":9", "\"vlan\":70000", "cannot be read"),
            (
                "10.137.0.9",
                "10.137.0.7",
                "10.137.0.7 is the address of two",
            ),
            (
                "10.137.0.9",
                "10.137.0.5",
                "10.137.0.5 is the address of two",
            ),
            (
                "10.137.0.9",
                "10.137.0.1",
                "10.137.0.1 is the address of two",
            ),
            (
                "\"gateway\":\"10.137.0.1\"",
                "\"gateway\":\"10.137.0.5\"",
                "of two machines",
            ),
            ("10.137.0.9", "224.0.0.1", "no address of a machine"),
            ("10.137.0.9", "127.0.0.1", "no address of a machine"),
            ("10.137.0.9", "10.137.0", "cannot be read"),
            ("\"mtu\":1500}", "\"mtu\":67}", "mtu 67"),
            ("02:00:00:00:01:05", "02:00:00:00:00:05", "of two cards"),
            (
                "02:00:00:00:01:05",
                "03:00:00:00:01:05",
                "no hardware address",
            ),
            ("02:00:00:00:01:05", "2:0:0:0:1:5", "no hardware address"),
            ("\"mtu\"", "\"speed\"", "unknown field `speed`"),
            ("{\n", "{\"physical\":true,\n", "no other way out"),
        ] {
            assert!(BOTH.contains(from), "{from}");
            let error = Config::parse(BOTH.replacen(from, to, 1).as_bytes()).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(expected), "{to}: {error}");
        }
        let long = vec![b' '; MAX_BYTES + 1];
        assert!(matches!(Config::parse(&long), Err(ConfigError::TooLong)));
    }
}
