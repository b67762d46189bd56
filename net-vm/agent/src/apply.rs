//! Makes a guest's network as a description says, whatever it was before.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use bulkhead_mac::Mac;

use crate::cards::{self, CLASS};
use crate::config::{Card, Config, Trunk};
use crate::dns;
use crate::firewall::{self, Firewall};
use crate::gateway::{self, Gateway};
use crate::names::policies;
use crate::routes::{self, Route};
use crate::run::Wanted;
use crate::settings::{SettingError, behave, set};
use crate::sys::Network;
use crate::wifi;

/// A card that the machine has is there at once; its driver may still be on its way.
const PATIENCE: Duration = Duration::from_secs(5);
/// What could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A card is missing.
    #[error("this guest has no network card {0}; was it started before it got one?")]
    NoCard(Mac),
    /// The kernel refused something.
    #[error("{what} of {interface}: {source}")]
    Interface {
        /// What was to be set.
        what: &'static str,
        /// Of which interface.
        interface: String,
        /// Why not.
        source: io::Error,
    },
    /// A file of the kernel's.
    #[error("{file}: {source}", file = .file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// One of its settings.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The firewall's rules.
    #[error("the firewall cannot be set up, so nothing is passed on: {0}")]
    Firewall(io::Error),
    /// What other programs are told.
    #[error("{0} cannot be set up: {1}")]
    Program(&'static str, io::Error),
    /// No socket.
    #[error("the network cannot be set up: {0}")]
    Network(io::Error),
}

/// Makes the guest's network so.
pub fn apply(config: &Config) -> Result<(), ApplyError> {
    let network = Network::open().map_err(ApplyError::Network)?;
    let card = config
        .card
        .as_ref()
        .map(|card| find(card.mac))
        .transpose()?;
    let physical = config.physical.then(|| find_physical(config)).flatten();
    let way_out = card.as_ref().or(physical.as_ref());
    let chosen_names = choose_names(config)
        .map_err(|error| ApplyError::Program("the rules about names", error))?;
    // Before there is anything that could be passed on.
    let passes_on = set_up_firewall(config, way_out, physical.is_some())?;
    set("ipv4/ip_forward", if passes_on { "1" } else { "0" })?;
    if let (Some(name), Some(card)) = (&card, &config.card) {
        set_up_card(&network, name, card)?;
    }
    if let Some(name) = &physical {
        // Its address is the DHCP client's to set.
        behave(name)?;
        network.up(name).map_err(on(name, "the start"))?;
    }
    if let Some(trunk) = &config.trunk {
        set_up_trunk(&network, trunk)?;
    }
    if config.trunk.is_some() {
        let is_wireless = |name: &String| wifi::is_wireless(Path::new(CLASS), name);
        let wanted = Wanted {
            wireless: physical.clone().filter(is_wireless),
            physical,
            fixed: config.fixed.clone(),
            names: config.names,
            forwards_dns: firewall::is_there(),
            chosen_names,
        };
        let told = wanted.tell();
        told.map_err(|error| ApplyError::Program("the template's services", error))?;
    }
    Ok(())
}

/// Writes down whose questions for names depend on rules, and gives the address that answers them.
fn choose_names(config: &Config) -> io::Result<Option<Ipv4Addr>> {
    let Some(trunk) = config.trunk.as_ref().filter(|_| firewall::is_there()) else {
        return Ok(None);
    };
    Ok(policies::write(trunk)?.then_some(trunk.address))
}

/// Loads the rules of a network domain whose template has a firewall. Whether it passes on what its
/// clients send.
fn set_up_firewall(
    config: &Config,
    way_out: Option<&String>,
    dhcp: bool,
) -> Result<bool, ApplyError> {
    let gateway = Gateway::of_template();
    // A gateway without a firewall is none: it fails below.
    let has_firewall = firewall::is_there() || gateway.is_some();
    let Some(trunk) = config.trunk.as_ref().filter(|_| has_firewall) else {
        return Ok(false);
    };
    let firewall = Firewall {
        address: trunk.address,
        way_out: way_out.cloned(),
        dhcp,
        clients: trunk
            .clients
            .iter()
            .map(|client| (client.vlan, client.policy.clone()))
            .collect(),
        gateway,
    };
    let loaded = firewall.load();
    if loaded.is_err() {
        set("ipv4/ip_forward", "0")?;
    }
    loaded.map_err(ApplyError::Firewall)?;
    if gateway.is_some() {
        // Its owner writes into it as soon as the guest has started.
        let made = gateway::make_folder();
        made.map_err(|error| ApplyError::Program("the gateway's folder", error))?;
    }
    Ok(match gateway {
        Some(gateway) => gateway.passes_to().is_some(),
        None => way_out.is_some(),
    })
}

fn set_up_card(network: &Network, name: &str, card: &Card) -> Result<(), ApplyError> {
    set_up(network, name, card.mtu, Some(card.address))?;
    let wanted = [Route::to(card.gateway), Route::through(card.gateway)];
    set_routes(network, name, &wanted)?;
    dns::ask(&[card.gateway]).map_err(|error| ApplyError::Program("DNS", error))
}

fn set_up_trunk(network: &Network, trunk: &Trunk) -> Result<(), ApplyError> {
    let name = find(trunk.mac)?;
    // The card itself has no address: what has no tag is nobody's.
    set_up(network, &name, trunk.mtu, None)?;
    let present = cards::vlans(Path::new(CLASS), &name);
    for vlan in &present {
        if !trunk.clients.iter().any(|client| client.vlan == *vlan) {
            let vlan = cards::vlan_name(*vlan);
            let removed = network.remove_vlan(&vlan);
            removed.map_err(on(&vlan, "the end"))?;
        }
    }
    for client in &trunk.clients {
        let vlan = cards::vlan_name(client.vlan);
        if !present.contains(&client.vlan) {
            let added = network.add_vlan(&name, client.vlan);
            added.map_err(on(&vlan, "the beginning"))?;
        }
        set_up(network, &vlan, trunk.mtu, Some(trunk.address))?;
        set_routes(network, &vlan, &[Route::to(client.address)])?;
    }
    Ok(())
}

/// The network card among the physical devices. There need not be one.
fn find_physical(config: &Config) -> Option<String> {
    let trunk = config.trunk.as_ref().map(|trunk| trunk.mac);
    let card = config.card.as_ref().map(|card| card.mac);
    let ours: Vec<Mac> = trunk.into_iter().chain(card).collect();
    let end = Instant::now() + PATIENCE;
    loop {
        match cards::other_than(Path::new(CLASS), &ours) {
            None if Instant::now() < end => thread::sleep(Duration::from_millis(20)),
            found => return found,
        }
    }
}

fn find(mac: Mac) -> Result<String, ApplyError> {
    let end = Instant::now() + PATIENCE;
    loop {
        match cards::by_mac(Path::new(CLASS), mac) {
            Some(name) => return Ok(name),
            None if Instant::now() >= end => return Err(ApplyError::NoCard(mac)),
            None => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn set_up(
    network: &Network,
    name: &str,
    mtu: u16,
    address: Option<Ipv4Addr>,
) -> Result<(), ApplyError> {
    behave(name)?;
    let sized = network.set_mtu(name, mtu);
    sized.map_err(on(name, "the longest packet"))?;
    if let Some(address) = address {
        let present = network.address(name).map_err(on(name, "the address"))?;
        if present != Some(address) {
            let set = network.set_address(name, address);
            set.map_err(on(name, "the address"))?;
        }
    }
    network.up(name).map_err(on(name, "the start"))
}

/// Leaves these routes over an interface, and no other.
fn set_routes(network: &Network, name: &str, wanted: &[Route]) -> Result<(), ApplyError> {
    let file = Path::new(routes::FILE);
    let text = fs::read_to_string(file).map_err(at(file))?;
    let present = routes::over(&text, name);
    // Those through a gateway go before the way to it, and come after it.
    let through = |route: &&Route| route.gateway != Ipv4Addr::UNSPECIFIED;
    let is_too_much = |route: &&Route| !wanted.contains(route);
    let (far, near): (Vec<&Route>, Vec<&Route>) =
        present.iter().filter(is_too_much).partition(through);
    for route in far.into_iter().chain(near) {
        match network.remove_route(name, *route) {
            Ok(()) => {}
            // It went with the one before.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => return Err(on(name, "an old route")(error)),
        }
    }
    for route in wanted.iter().filter(|route| !present.contains(route)) {
        match network.add_route(name, *route) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            Err(error) => return Err(on(name, "a route")(error)),
        }
    }
    Ok(())
}

fn at(file: &Path) -> impl FnOnce(io::Error) -> ApplyError + '_ {
    move |source| ApplyError::File {
        file: file.to_owned(),
        source,
    }
}

fn on<'a>(interface: &'a str, what: &'static str) -> impl FnOnce(io::Error) -> ApplyError + 'a {
    move |source| ApplyError::Interface {
        what,
        interface: interface.to_owned(),
        source,
    }
}
