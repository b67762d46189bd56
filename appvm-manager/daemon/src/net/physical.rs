//! The physical cards of network domains: which devices these have, and what they say of their card.

use std::path::PathBuf;

use bulkhead_net::state::State;
use bulkhead_net::wifi;
use bulkhead_protocol::DomainName;

use super::guest;
use crate::manager::Manager;
use crate::pci::PciDevices;
use crate::{Error, Result};

/// A network domain with devices.
#[derive(Debug, Clone)]
pub struct PhysicalInfo {
    /// Whose.
    pub domain: DomainName,
    /// Its devices, by its settings.
    pub devices: PciDevices,
    /// passt stands in for a card.
    pub host_network: bool,
    /// Whether it runs.
    pub runs: bool,
    /// What its guest says of its card: it fits the form, and may be a lie.
    pub untrusted_state: Option<State>,
    /// Why nothing is known of it, where it runs.
    pub problem: String,
}

impl Manager {
    /// All network domains with devices. Those that run are asked, all at the same time.
    pub async fn physical_cards(&self) -> Result<Vec<PhysicalInfo>> {
        let mut asked = Vec::new();
        for name in self.store.names()? {
            let Ok(config) = self.store.load(&name) else {
                continue;
            };
            let has_way_out = !config.pci.is_empty() || config.host_network;
            if !has_way_out || !config.provides_network {
                continue;
            }
            let vsock = self.ready_with_devices(&name);
            let info = PhysicalInfo {
                runs: self.domain(&name).is_ok_and(|d| d.machine().is_some()),
                domain: name,
                devices: config.pci,
                host_network: config.host_network,
                untrusted_state: None,
                problem: String::new(),
            };
            asked.push(tokio::spawn(async move {
                let Some(vsock) = vsock else { return info };
                match guest::physical_card(vsock).await {
                    Ok(state) => PhysicalInfo {
                        untrusted_state: Some(state),
                        ..info
                    },
                    Err(error) => PhysicalInfo {
                        problem: format!("the state of its card is not known: {error}"),
                        ..info
                    },
                }
            }));
        }
        let mut cards = Vec::new();
        for card in asked {
            // A task that was ended has nothing to say.
            cards.extend(card.await);
        }
        Ok(cards)
    }

    /// Asks a network domain with a wireless card for something. How its card is then: that fits its
    /// form, and may be a lie.
    pub async fn wifi(&self, name: &DomainName, request: &wifi::Request) -> Result<wifi::State> {
        let config = self.store.load(name)?;
        let wrong = |reason: String| Error::Wifi {
            name: name.clone(),
            reason,
        };
        if config.pci.is_empty() || !config.provides_network {
            return Err(wrong(
                "it is no network domain with a device of its own".to_owned(),
            ));
        }
        let Some(vsock) = self.ready_with_devices(name) else {
            return Err(Error::NotRunning(name.clone()));
        };
        let state = guest::wifi(vsock, request).await;
        state.map_err(|error| wrong(error.to_string()))
    }

    /// Where the guest of a domain is reached, if it can have a card and be asked.
    fn ready_with_devices(&self, name: &DomainName) -> Option<PathBuf> {
        let number = self.net.number_of(name)?;
        let guests = self.net.guests();
        let guest = guests.get(&number)?;
        let may_have_card = guest.ready && guest.has_devices && guest.has_trunk;
        may_have_card.then(|| guest.vsock.clone())
    }
}
