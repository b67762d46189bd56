//! A physical card's address as a person writes it down, where no DHCP server is to be asked.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::address::{MAX_SERVERS, is_of_a_machine};

/// An address, and the way to the rest: `192.0.2.15/24 gateway=192.0.2.1 dns=192.0.2.53,192.0.2.54`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fixed {
    /// The card's address.
    pub address: Ipv4Addr,
    /// How many bits of it are its network's: 1 to 32.
    pub prefix: u8,
    /// Through whom everything else is reached.
    pub gateway: Option<Ipv4Addr>,
    /// Who is asked for names: at most [`MAX_SERVERS`].
    pub servers: Vec<Ipv4Addr>,
}

/// Why a text is no address of a card.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no fixed address: write it as 192.0.2.15/24 gateway=192.0.2.1 dns=192.0.2.53, with up to \
     {MAX_SERVERS} servers"
)]
pub struct InvalidFixed(String);

impl Fixed {
    /// How dhcpcd is told (dhcpcd.conf(5)).
    pub fn for_client(&self, card: &str) -> String {
        let mut text = format!(
            "interface {card}\nstatic ip_address={}/{}\n",
            self.address, self.prefix
        );
        if let Some(gateway) = self.gateway {
            text.push_str(&format!("static routers={gateway}\n"));
        }
        if !self.servers.is_empty() {
            let servers: Vec<String> = self.servers.iter().map(ToString::to_string).collect();
            text.push_str(&format!(
                "static domain_name_servers={}\n",
                servers.join(" ")
            ));
        }
        text
    }
}

fn parse(text: &str) -> Option<Fixed> {
    let machine = |text: &str| {
        let address = text.parse::<Ipv4Addr>().ok();
        address.filter(|address| is_of_a_machine(*address))
    };
    let mut words = text.split_ascii_whitespace();
    let (address, prefix) = words.next()?.split_once('/')?;
    let mut fixed = Fixed {
        address: machine(address)?,
        prefix: prefix.parse().ok().filter(|bits| (1..=32).contains(bits))?,
        gateway: None,
        servers: Vec::new(),
    };
    for word in words {
        match word.split_once('=')? {
            ("gateway", gateway) if fixed.gateway.is_none() => {
                fixed.gateway = Some(machine(gateway).filter(|to| *to != fixed.address)?);
            }
            ("dns", servers) if fixed.servers.is_empty() => {
                fixed.servers = servers.split(',').map(machine).collect::<Option<_>>()?;
            }
            _ => return None,
        }
    }
    (fixed.servers.len() <= MAX_SERVERS).then_some(fixed)
}

impl FromStr for Fixed {
    type Err = InvalidFixed;

    fn from_str(text: &str) -> Result<Self, InvalidFixed> {
        parse(text).ok_or_else(|| InvalidFixed(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)?;
        if let Some(gateway) = self.gateway {
            write!(f, " gateway={gateway}")?;
        }
        let servers: Vec<String> = self.servers.iter().map(ToString::to_string).collect();
        match servers.is_empty() {
            true => Ok(()),
            false => write!(f, " dns={}", servers.join(",")),
        }
    }
}

impl TryFrom<String> for Fixed {
    type Error = InvalidFixed;

    fn try_from(text: String) -> Result<Self, InvalidFixed> {
        text.parse()
    }
}

impl From<Fixed> for String {
    fn from(fixed: Fixed) -> String {
        fixed.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_is_read() {
        for text in [
            "192.0.2.15/24",
            "192.0.2.15/24 gateway=192.0.2.1",
            "192.0.2.15/31 gateway=192.0.2.1 dns=192.0.2.53,198.51.100.53",
            "192.0.2.15/24 dns=192.0.2.53",
        ] {
            assert_eq!(text.parse::<Fixed>().unwrap().to_string(), text);
        }
        let text = "192.0.2.15/24 gateway=192.0.2.1 dns=192.0.2.53,192.0.2.54";
        assert_eq!(
            text.parse::<Fixed>().unwrap().for_client("eth1"),
            "interface eth1\nstatic ip_address=192.0.2.15/24\nstatic routers=192.0.2.1\n\
             static domain_name_servers=192.0.2.53 192.0.2.54\n"
        );
    }

    #[test]
    fn nonsense_is_none() {
        for text in [
            "",
            "192.0.2.15",
            "192.0.2.15/0",
            "192.0.2.15/33",
            "127.0.0.1/8",
            "224.0.0.1/4",
            "192.0.2.15/24 192.0.2.1",
            "192.0.2.15/24 gateway=192.0.2.15",
            "192.0.2.15/24 gateway=192.0.2.1 gateway=192.0.2.2",
            "192.0.2.15/24 dns=",
            "192.0.2.15/24 dns=192.0.2.1,",
            "192.0.2.15/24 dns=192.0.2.1,192.0.2.2,192.0.2.3,192.0.2.4",
            "192.0.2.15/24 mtu=1500",
        ] {
            let error = text.parse::<Fixed>().unwrap_err().to_string();
            assert!(
                error.contains("write it as 192.0.2.15/24"),
                "{text}: {error}"
            );
        }
    }
}
