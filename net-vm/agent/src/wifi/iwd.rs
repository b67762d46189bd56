//! Asks iwd what the manager asks for, over the system's bus of the guest.

use std::time::Duration;

use zbus::Variant;

use super::bus::{IWD, Iwd, Objects, Properties};
use super::{Link, MAX_NETWORKS, MAX_SSID, Network, Request, Security, State};

/// iwd may still be on its way.
const START: Duration = Duration::from_secs(10);
/// A search through all channels takes a few seconds.
const SCAN: Duration = Duration::from_secs(15);
/// Joining, with a search before and several attempts.
const JOIN: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(200);

/// Why iwd does not do it, in words for people.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// iwd does not answer, or does not understand.
    #[error("iwd, which joins networks, does not answer: {0}")]
    Bus(#[from] zbus::Error),
    /// It does not have the card.
    #[error("iwd does not have the card {0}; `bulkhead log` of the domain may say why")]
    NoStation(String),
    /// Nobody sends it.
    #[error("no network of this name is in reach")]
    OutOfReach,
    /// It is not a known one.
    #[error("no network of this name is known")]
    NotKnown,
    /// The network asks for a passphrase.
    #[error("the network asks for a passphrase, and none was given")]
    NoPassphrase,
    /// The access point did not let us in.
    #[error("the network did not let the card in; most likely the passphrase is wrong")]
    WrongPassphrase,
    /// The same without a passphrase.
    #[error("the network did not let the card in")]
    NotLetIn,
    /// Of a kind that needs more.
    #[error(
        "the network asks for more than a passphrase (802.1X); put its description into /home/iwd of the domain, as iwd.network(5) says"
    )]
    Enterprise,
    /// Of a kind that protects nothing.
    #[error("the network is of an old kind (WEP), which iwd does not join")]
    Wep,
    /// It takes too long.
    #[error("joining the network takes longer than {} s", JOIN.as_secs())]
    Late,
}

/// Does it. How the card is then.
pub async fn perform(interface: &str, request: &Request) -> Result<State, Refused> {
    let iwd = open().await?;
    let station = station(&iwd, interface).await?;
    match request {
        Request::Show { scan } => {
            if *scan {
                search(&iwd, &station).await?;
            }
        }
        Request::Connect { ssid, passphrase } => {
            let joined = join(&iwd, &station, ssid, passphrase.as_deref());
            match tokio::time::timeout(JOIN, joined).await {
                Ok(joined) => joined?,
                Err(_) => return Err(Refused::Late),
            }
        }
        Request::Disconnect {} => {
            iwd.call(&station, "Station", "Disconnect").await?;
        }
        Request::Forget { ssid } => forget(&iwd, ssid).await?,
    }
    let objects = iwd.objects().await?;
    let in_reach = iwd.in_reach(&station).await?;
    let in_reach: Vec<(String, i16)> = in_reach
        .into_iter()
        .map(|(path, strength)| (path.to_string(), strength))
        .collect();
    Ok(describe(interface, &station, &objects, &in_reach))
}

/// The bus may still be on its way as well.
async fn open() -> Result<Iwd, Refused> {
    let end = tokio::time::Instant::now() + START;
    loop {
        match Iwd::open().await {
            Err(_) if tokio::time::Instant::now() < end => tokio::time::sleep(PAUSE).await,
            opened => return Ok(opened?),
        }
    }
}

/// iwd's object for the card, once it has it.
async fn station(iwd: &Iwd, interface: &str) -> Result<String, Refused> {
    let found = async {
        loop {
            // Until iwd has its name on the bus this is an error.
            if let Ok(objects) = iwd.objects().await {
                let device = find(&objects, "Device", |device| {
                    word(device, "Name") == Some(interface)
                });
                match device {
                    Some((path, true)) => return path,
                    // It was switched off, or to be something else.
                    Some((path, false)) => {
                        let _ = iwd.set(&path, "Device", "Powered", true).await;
                    }
                    None => {}
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(START, found)
        .await
        .map_err(|_| Refused::NoStation(interface.to_owned()))
}

/// The first object with such an interface, and whether it is a station as well.
fn find(
    objects: &Objects,
    interface: &str,
    fits: impl Fn(&Properties) -> bool,
) -> Option<(String, bool)> {
    objects.iter().find_map(|(path, interfaces)| {
        let properties = interfaces.get(&format!("{IWD}.{interface}"))?;
        let is_station = interfaces.contains_key(&format!("{IWD}.Station"));
        fits(properties).then(|| (path.to_string(), is_station))
    })
}

/// Looks what is in reach.
async fn search(iwd: &Iwd, station: &str) -> Result<(), Refused> {
    // It may be searching already, which is as good.
    let _ = iwd.call(station, "Station", "Scan").await;
    let end = async {
        loop {
            tokio::time::sleep(PAUSE).await;
            let objects = iwd.objects().await?;
            let properties = properties(&objects, station, "Station");
            if !properties.is_some_and(|station| truth(station, "Scanning")) {
                return Ok(());
            }
        }
    };
    match tokio::time::timeout(SCAN, end).await {
        Ok(ended) => ended,
        // What was found so far is shown.
        Err(_) => Ok(()),
    }
}

async fn join(
    iwd: &Iwd,
    station: &str,
    ssid: &str,
    passphrase: Option<&str>,
) -> Result<(), Refused> {
    let network = match network(iwd, ssid).await? {
        Some(network) => network,
        None => {
            search(iwd, station).await?;
            network(iwd, ssid).await?.ok_or(Refused::OutOfReach)?
        }
    };
    match network.security {
        Security::Enterprise if !network.known => return Err(Refused::Enterprise),
        Security::Wep => return Err(Refused::Wep),
        Security::Passphrase if !network.known && passphrase.is_none() => {
            return Err(Refused::NoPassphrase);
        }
        _ => {}
    }
    if network.known && passphrase.is_some() && network.security == Security::Passphrase {
        // Otherwise iwd would use the one that it has.
        forget(iwd, ssid).await?;
    }
    iwd.answer_with(passphrase.map(str::to_owned)).await?;
    loop {
        let Err(error) = iwd.call(&network.path, "Network", "Connect").await else {
            return Ok(());
        };
        let zbus::Error::MethodError(name, ..) = &error else {
            return Err(error.into());
        };
        match name.as_str().strip_prefix(IWD).unwrap_or_default() {
            // It does something else, which ends.
            ".Busy" | ".InProgress" => tokio::time::sleep(PAUSE).await,
            ".AlreadyConnected" => return Ok(()),
            ".NoAgent" | ".Aborted" if passphrase.is_none() => return Err(Refused::NoPassphrase),
            ".NotConfigured" => return Err(Refused::Enterprise),
            ".NotFound" => return Err(Refused::OutOfReach),
            _ if network.security == Security::Passphrase => return Err(Refused::WrongPassphrase),
            _ => return Err(Refused::NotLetIn),
        }
    }
}

/// A network in reach.
struct InReach {
    path: String,
    security: Security,
    known: bool,
}

async fn network(iwd: &Iwd, ssid: &str) -> Result<Option<InReach>, Refused> {
    let objects = iwd.objects().await?;
    let found = objects.iter().filter_map(|(path, interfaces)| {
        let properties = interfaces.get(&format!("{IWD}.Network"))?;
        (word(properties, "Name") == Some(ssid)).then(|| InReach {
            path: path.to_string(),
            security: security(properties),
            known: properties.contains_key("KnownNetwork"),
        })
    });
    // One name may be sent with and without protection: that which is known, or else the safer.
    Ok(found.max_by_key(|network| (network.known, network.security != Security::Open)))
}

async fn forget(iwd: &Iwd, ssid: &str) -> Result<(), Refused> {
    let objects = iwd.objects().await?;
    let mut any = false;
    for (path, interfaces) in &objects {
        let known = interfaces.get(&format!("{IWD}.KnownNetwork"));
        if known.is_some_and(|known| word(known, "Name") == Some(ssid)) {
            iwd.call(path.as_str(), "KnownNetwork", "Forget").await?;
            any = true;
        }
    }
    any.then_some(()).ok_or(Refused::NotKnown)
}

/// How the card is, by what iwd offers.
fn describe(
    interface: &str,
    station: &str,
    objects: &Objects,
    in_reach: &[(String, i16)],
) -> State {
    let link = properties(objects, station, "Station").and_then(|station| word(station, "State"));
    let mut networks: Vec<Network> = in_reach
        .iter()
        .filter_map(|(path, strength)| {
            let properties = properties(objects, path, "Network")?;
            Some(Network {
                ssid: name(properties)?,
                security: security(properties),
                signal_dbm: Some(strength / 100),
                known: properties.contains_key("KnownNetwork"),
                connected: truth(properties, "Connected"),
            })
        })
        .collect();
    let mut known: Vec<Network> = objects
        .values()
        .filter_map(|interfaces| {
            let properties = interfaces.get(&format!("{IWD}.KnownNetwork"))?;
            let network = Network {
                ssid: name(properties)?,
                security: security(properties),
                known: true,
                ..Network::default()
            };
            let is_same =
                |other: &Network| other.ssid == network.ssid && other.security == network.security;
            (!networks.iter().any(is_same)).then_some(network)
        })
        .collect();
    known.sort_by(|one, other| one.ssid.cmp(&other.ssid));
    networks.append(&mut known);
    networks.truncate(MAX_NETWORKS);
    State {
        interface: interface.to_owned(),
        link: match link {
            Some("connected") => Link::Connected,
            Some("connecting") => Link::Connecting,
            Some("roaming") => Link::Roaming,
            Some("disconnecting") => Link::Disconnecting,
            _ => Link::Disconnected,
        },
        networks,
    }
}

fn properties<'a>(objects: &'a Objects, path: &str, interface: &str) -> Option<&'a Properties> {
    let (_, interfaces) = objects.iter().find(|(object, _)| object.as_str() == path)?;
    interfaces.get(&format!("{IWD}.{interface}"))
}

fn name(properties: &Properties) -> Option<String> {
    let name = word(properties, "Name")?;
    (!name.is_empty() && name.len() <= MAX_SSID).then(|| name.to_owned())
}

fn security(properties: &Properties) -> Security {
    match word(properties, "Type") {
        Some("open") => Security::Open,
        Some("wep") => Security::Wep,
        Some("8021x" | "hotspot") => Security::Enterprise,
        _ => Security::Passphrase,
    }
}

fn word<'a>(properties: &'a Properties, name: &str) -> Option<&'a str> {
    match &**properties.get(name)? {
        Variant::Str(text) => Some(text.as_str()),
        _ => None,
    }
}

fn truth(properties: &Properties, name: &str) -> bool {
    matches!(
        properties.get(name).map(|value| &**value),
        Some(Variant::Bool(true))
    )
}

#[cfg(test)]
mod tests {
    use zbus::{OwnedObjectPath, OwnedVariant, Str};

    use super::*;

    fn object(
        path: &str,
        interface: &str,
        words: &[(&str, &str)],
        truths: &[&str],
    ) -> (
        OwnedObjectPath,
        std::collections::HashMap<String, Properties>,
    ) {
        let mut properties = Properties::new();
        for (key, value) in words {
            let value = OwnedVariant::from(Str::from((*value).to_owned()));
            properties.insert((*key).to_owned(), value);
        }
        for key in truths {
            properties.insert((*key).to_owned(), OwnedVariant::from(true));
        }
        let path = OwnedObjectPath::try_from(path.to_owned()).unwrap();
        (path, [(format!("{IWD}.{interface}"), properties)].into())
    }

    #[test]
    fn what_iwd_says_becomes_a_state_that_fits_its_form() {
        let long = "x".repeat(33);
        let objects: Objects = [
            object("/a", "Station", &[("State", "connected")], &[]),
            object(
                "/a/1",
                "Network",
                &[("Name", "home"), ("Type", "psk"), ("KnownNetwork", "/k")],
                &["Connected"],
            ),
            object(
                "/a/2",
                "Network",
                &[("Name", "caf\u{e9}"), ("Type", "open")],
                &[],
            ),
            object("/a/3", "Network", &[("Name", &long), ("Type", "open")], &[]),
            object(
                "/k",
                "KnownNetwork",
                &[("Name", "home"), ("Type", "psk")],
                &[],
            ),
            object(
                "/l",
                "KnownNetwork",
                &[("Name", "far"), ("Type", "8021x")],
                &[],
            ),
        ]
        .into();
        let in_reach = [
            ("/a/1", -4200),
            ("/a/2", -7000),
            ("/a/3", -7100),
            ("/gone", -7200),
        ];
        let in_reach = in_reach.map(|(path, strength)| (path.to_owned(), strength));
        let state = describe("wlan0", "/a", &objects, &in_reach);
        let text = serde_json::to_vec(&state).unwrap();
        assert_eq!(State::parse(&text).unwrap(), state);
        assert_eq!(state.link, Link::Connected);
        let told: Vec<_> = state
            .networks
            .iter()
            .map(|n| {
                (
                    n.ssid.as_str(),
                    n.signal_dbm,
                    n.known,
                    n.connected,
                    n.security,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("home", Some(-42), true, true, Security::Passphrase),
                ("caf\u{e9}", Some(-70), false, false, Security::Open),
                ("far", None, true, false, Security::Enterprise),
            ]
        );
    }
}
