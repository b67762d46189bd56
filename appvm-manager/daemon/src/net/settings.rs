//! What may be set, and what becomes of a running domain when it is.

use std::sync::Arc;

use bulkhead_protocol::DomainName;

use super::graph::{self, Graph, GraphError, Node};
use super::{Number, client_place};
use crate::config::DomainConfig;
use crate::manager::Manager;
use crate::{Error, Result, pci};

impl Manager {
    /// All domains as their files say. A file that is wrong speaks of nobody.
    fn net_graph(&self) -> Result<Graph> {
        let names = self.store.names()?;
        let nodes = names.into_iter().filter_map(|name| {
            let config = self.store.load(&name).ok()?;
            Some((name, Node::from(&config)))
        });
        Ok(nodes.collect())
    }

    /// Whether domains can have these settings, beside all others.
    pub(crate) fn check_net(&self, changed: &[&DomainConfig]) -> Result<()> {
        let mut all = self.net_graph()?;
        for config in changed {
            all.insert(config.name.clone(), Node::from(*config));
        }
        let names: Vec<DomainName> = changed.iter().map(|config| config.name.clone()).collect();
        graph::check(&all, &names)?;
        self.check_pci(changed, &names)
    }

    /// Whether no two domains have one device.
    fn check_pci(&self, changed: &[&DomainConfig], names: &[DomainName]) -> Result<()> {
        let others: Vec<DomainConfig> = self
            .store
            .names()?
            .iter()
            .filter(|name| !names.contains(name))
            .filter_map(|name| self.store.load(name).ok())
            .collect();
        let all = others.iter().chain(changed.iter().copied());
        pci::check(all.map(|config| (&config.name, &config.pci)), names)
            .map_err(|error| Error::Setting(error.to_string()))
    }

    /// Fails where a domain is the network domain of others.
    pub(crate) fn check_no_net_users(&self, name: &DomainName) -> Result<()> {
        Ok(graph::check_unused(&self.net_graph()?, name)?)
    }

    /// Whether the network domains of a domain that is about to start can be started.
    pub(super) fn check_net_start(&self, config: &DomainConfig) -> Result<()> {
        let mut all = self.net_graph()?;
        all.insert(config.name.clone(), Node::from(config));
        graph::way(&all, &config.name)?;
        Ok(())
    }

    /// Fails where others that run reach the network through a domain.
    pub(crate) fn check_no_net_clients(&self, name: &DomainName) -> Result<()> {
        let clients = self.net.clients(name);
        if clients.is_empty() {
            return Ok(());
        }
        let users: Vec<String> = clients.iter().map(|name| format!("`{name}`")).collect();
        Err(Error::NetInUse {
            name: name.clone(),
            users: users.join(", "),
        })
    }

    /// Settings of a domain were written: it gets its address, and a running one is plugged in
    /// elsewhere if it is to be.
    pub(crate) fn net_settings_changed(
        self: &Arc<Self>,
        old: Option<&DomainConfig>,
        new: &DomainConfig,
    ) {
        if (new.net_domain.is_some() || new.provides_network)
            && let Err(error) = self.store.assign_number(&new.name)
        {
            // It is tried again at its start, which then says so.
            tracing::warn!(domain = %new.name, %error, "no address");
        }
        let devices_before = old.map(|old| old.pci.clone()).unwrap_or_default();
        if devices_before != new.pci {
            self.devices_changed();
        }
        if old.is_some_and(|old| old.firewall() != new.firewall())
            && let Some(upstream) = self.firewall_changed(new)
        {
            let manager = self.clone();
            tokio::spawn(async move { manager.tell_guest_of_network(upstream).await });
        }
        if old.is_some_and(|old| old.net_domain != new.net_domain) {
            let (manager, new) = (self.clone(), new.clone());
            tokio::spawn(async move {
                if let Err(error) = manager.move_to_net_domain(&new).await {
                    tracing::error!(domain = %new.name, %error, "not plugged in elsewhere");
                }
            });
        }
    }

    /// A running domain may reach something else now. The network domain that is to be told.
    fn firewall_changed(&self, config: &DomainConfig) -> Option<Number> {
        let number = self.net.number_of(&config.name)?;
        let mut guests = self.net.guests();
        let guest = guests.get_mut(&number)?;
        guest.policy = config.firewall();
        guest.upstream
    }

    /// Lets the card of a running domain lead to its network domain, which is started if need be.
    /// A domain that runs without a card gets one at its next start.
    async fn move_to_net_domain(self: &Arc<Self>, config: &DomainConfig) -> Result<()> {
        let has_card = |number: &Number| {
            let guests = self.net.guests();
            guests.get(number).is_some_and(|guest| guest.has_card)
        };
        let Some(number) = self.net.number_of(&config.name).filter(has_card) else {
            return Ok(());
        };
        let started = self.start_net_domain(config).await;
        let upstream = config.net_domain.as_ref();
        let upstream = upstream.map(|net| self.store.assign_number(net));
        let upstream = upstream.transpose()?;
        let before = {
            let mut guests = self.net.guests();
            // It may have ended meanwhile.
            let Some(guest) = guests.get_mut(&number) else {
                return Ok(());
            };
            std::mem::replace(&mut guest.upstream, upstream)
        };
        let place = client_place(number, upstream);
        let plugged = self.net.link.replug(&number.card_port(), place).await;
        for other in [before, upstream, Some(number)].into_iter().flatten() {
            self.tell_guest_of_network(other).await;
        }
        tracing::info!(
            domain = %config.name,
            net_domain = config.net_domain.as_ref().map(tracing::field::display),
            "plugged in elsewhere"
        );
        started?;
        Ok(plugged?)
    }
}

impl From<GraphError> for Error {
    fn from(error: GraphError) -> Self {
        Error::Setting(error.to_string())
    }
}
