//! A domain's number in the network, and what comes from it: address, VLAN, cards' addresses. Nobody
//! writes any of these by hand.

use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;

use bulkhead_mac::Mac;
use bulkhead_net::config::VLANS;
use bulkhead_protocol::DomainName;

use crate::dirs::private_dir;
use crate::store::{Store, new_file, sync_dir};
use crate::{Error, Result};

/// The file with a domain's number, beside its volumes: it goes where they go when the domain gets
/// another name, and with them when it is removed. A copy of the domain gets a number of its own.
const FILE: &str = "net-number";
/// It is written here first.
const DRAFT: &str = ".bulkhead-new-net-number";

/// A domain's number: 1 to 4094. It keeps it as long as it exists, and no other one has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(u16);

/// Addresses in each block of 256, without its first and last one, which older programs take for
/// the network itself and for all in it.
const A_BLOCK: u16 = 254;

impl Number {
    /// One that is in range.
    pub fn new(number: u16) -> Option<Self> {
        VLANS.contains(&number).then_some(Number(number))
    }

    /// The domain's address: 10.137.0.1 is that of the first.
    pub fn address(self) -> Ipv4Addr {
        let index = self.0.saturating_sub(1);
        let (block, place) = (index / A_BLOCK, index % A_BLOCK + 1);
        // Both fit: 4094 numbers are 17 blocks.
        Ipv4Addr::new(10, 137, block as u8, place as u8)
    }

    /// The domain's VLAN on the trunk of its network domain.
    pub fn vlan(self) -> u16 {
        self.0
    }

    /// The hardware address of the card that leads to its network domain.
    pub fn card_mac(self) -> Mac {
        self.mac(0)
    }

    /// The hardware address of the card that its clients are on.
    pub fn trunk_mac(self) -> Mac {
        self.mac(1)
    }

    /// The hardware address of the card that leads to the host's network.
    pub fn uplink_mac(self) -> Mac {
        self.mac(2)
    }

    /// Locally administered (IEEE 802, 8.2), of one card.
    fn mac(self, card: u8) -> Mac {
        let [high, low] = self.0.to_be_bytes();
        Mac([0x02, 0xb0, 0x1c, card, high, low])
    }

    /// What the link calls the card that leads to its network domain.
    pub fn card_port(self) -> String {
        format!("card-{}", self.0)
    }

    /// What the link calls the card that its clients are on.
    pub fn trunk_port(self) -> String {
        format!("trunk-{}", self.0)
    }
}

impl Store {
    /// A domain's number, if it has one.
    pub fn number(&self, name: &DomainName) -> Option<Number> {
        read(&self.data_dir(name))
    }

    /// A domain's number; the lowest that is free where it has none yet.
    pub fn assign_number(&self, name: &DomainName) -> Result<Number> {
        let _one_at_a_time = self.numbering();
        let dir = self.data_dir(name);
        let others = self.numbers_of_others(name)?;
        match read(&dir) {
            // Somebody may have copied a folder by hand.
            Some(number) if !others.contains(&number) => return Ok(number),
            Some(_) | None => {}
        }
        let free = VLANS.filter_map(Number::new).find(|n| !others.contains(n));
        let number = free.ok_or_else(|| {
            Error::Setting(
                "all 4094 addresses of the network are given away; remove domains".to_owned(),
            )
        })?;
        private_dir(&dir).map_err(Error::io("make the folder", &dir))?;
        let (draft, file) = (dir.join(DRAFT), dir.join(FILE));
        let mut open = new_file(&draft)?;
        writeln!(open, "{}", number.0)
            .and_then(|()| File::sync_all(&open))
            .and_then(|()| fs::rename(&draft, &file))
            .map_err(Error::io("write", &file))?;
        sync_dir(&dir)?;
        tracing::info!(domain = %name, address = %number.address(), "its address");
        Ok(number)
    }

    /// Also of what is left of earlier domains: what is put away may come back.
    fn numbers_of_others(&self, name: &DomainName) -> Result<Vec<Number>> {
        let own = self.data_dir(name);
        let data = own.parent().unwrap_or(&own);
        let entries = fs::read_dir(data).map_err(Error::io("read", data))?;
        let folders = entries.flatten().map(|entry| entry.path());
        Ok(folders
            .filter(|folder| *folder != own)
            .filter_map(|folder| read(&folder))
            .collect())
    }
}

fn read(dir: &Path) -> Option<Number> {
    let text = fs::read_to_string(dir.join(FILE)).ok()?;
    Number::new(text.trim().parse().ok()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bulkhead_protocol::Label;

    use super::*;
    use crate::config::DomainConfig;
    use crate::dirs::Dirs;

    fn store(base: &Path) -> Store {
        let below = |name: &str| base.join(name);
        Store::open(Dirs {
            config: below("config"),
            data: below("data"),
            logs: below("logs"),
            runtime: below("runtime"),
            templates: below("templates"),
            icons: below("icons"),
        })
        .unwrap()
    }

    fn name(text: &str) -> DomainName {
        text.parse().unwrap()
    }

    fn create(store: &Store, domain: &str) {
        let mut config = DomainConfig::new(name(domain), Label::Red);
        config.home_size_mib = 16;
        store.create(&config, None).unwrap();
    }

    #[test]
    fn everything_differs_from_number_to_number() {
        let all: Vec<Number> = VLANS.filter_map(Number::new).collect();
        assert_eq!(all.len(), 4094);
        let addresses: BTreeSet<_> = all.iter().map(|n| n.address()).collect();
        let macs: BTreeSet<_> = all
            .iter()
            .flat_map(|n| [n.card_mac(), n.trunk_mac()])
            .collect();
        assert_eq!((addresses.len(), macs.len()), (4094, 2 * 4094));
        for number in all {
            let [a, b, _, place] = number.address().octets();
            assert_eq!((a, b), (10, 137));
            assert!((1..=254).contains(&place));
            // The link and the guest read it.
            assert_eq!(
                number.card_mac().to_string().parse::<Mac>().unwrap(),
                number.card_mac()
            );
        }
        let at = |number| Number::new(number).unwrap().address();
        assert_eq!(at(1), Ipv4Addr::new(10, 137, 0, 1));
        assert_eq!(at(254), Ipv4Addr::new(10, 137, 0, 254));
        assert_eq!(at(255), Ipv4Addr::new(10, 137, 1, 1));
        assert_eq!(at(4094), Ipv4Addr::new(10, 137, 16, 30));
        assert!(Number::new(0).is_none() && Number::new(4095).is_none());
    }

    #[test]
    fn numbers_stay_with_their_domains() {
        let folder = tempfile::tempdir().unwrap();
        let first = store(folder.path());
        for domain in ["net", "work"] {
            create(&first, domain);
        }
        assert_eq!(first.number(&name("work")), None);
        let net = first.assign_number(&name("net")).unwrap();
        let work = first.assign_number(&name("work")).unwrap();
        assert_eq!((net, work), (Number(1), Number(2)));
        assert_eq!(first.assign_number(&name("net")).unwrap(), net);
        // Another manager, another name, a copy.
        let second = store(folder.path());
        second.rename(&name("net"), &name("sys-net")).unwrap();
        assert_eq!(second.number(&name("sys-net")), Some(net));
        second.clone_domain(&name("work"), &name("copy")).unwrap();
        assert_eq!(second.number(&name("copy")), None);
        assert_eq!(second.assign_number(&name("copy")).unwrap(), Number(3));
        // Only that of a domain that is gone is given away again.
        second.remove(&name("work")).unwrap();
        create(&second, "new");
        assert_eq!(second.assign_number(&name("new")).unwrap(), work);
        create(&second, "newer");
        assert_eq!(second.assign_number(&name("newer")).unwrap(), Number(4));
    }

    #[test]
    fn two_domains_never_have_one_number() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        for domain in ["a", "b", "c"] {
            create(&store, domain);
        }
        let a = store.assign_number(&name("a")).unwrap();
        let copied = store.data_dir(&name("a")).join(FILE);
        fs::copy(&copied, store.data_dir(&name("b")).join(FILE)).unwrap();
        assert_ne!(store.assign_number(&name("b")).unwrap(), a);
        assert_eq!(store.assign_number(&name("a")).unwrap(), a);
        for nonsense in ["", "0", "4095", "-1", "x", "99999999999"] {
            fs::write(store.data_dir(&name("c")).join(FILE), nonsense).unwrap();
            assert_eq!(store.number(&name("c")), None);
            assert_eq!(store.assign_number(&name("c")).unwrap(), Number(3));
        }
    }
}
