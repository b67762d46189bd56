//! Wi-Fi: iwd joins networks, and is asked by the manager through this program.
//!
//! Names of networks come from whoever is in reach of the radio, and are shown to people far away
//! from it: what is said here fits a form ([`State`]), and who shows it cleans it.

mod bus;
mod iwd;

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::run::{self, Wanted};

/// A longer request is none.
const MAX_REQUEST: u64 = 4096;
/// A longer state is none.
pub const MAX_BYTES: usize = 64 * 1024;
/// More networks are not told; the strongest come first.
pub const MAX_NETWORKS: usize = 100;
/// The longest name of a network, in bytes (IEEE 802.11, 9.4.2.2).
pub const MAX_SSID: usize = 32;
/// The longest passphrase: 63 characters, or a key of 64 digits.
const MAX_PASSPHRASE: usize = 64;
/// The shortest (IEEE 802.11, J.4.1).
const MIN_PASSPHRASE: usize = 8;

const IWD: &str = "/usr/libexec/iwd";
const BUS: &str = "/usr/bin/dbus-daemon";
const BUS_FOLDER: &str = "/run/dbus";
const BUS_SOCKET: &str = "/run/dbus/system_bus_socket";
/// Networks that iwd knows, with their passphrases: in root's part of the domain's volume.
const KNOWN: &str = "/home/iwd";
/// iwd's own settings.
const CONFIG: &str = "iwd";
/// How long iwd waits for its bus.
const BUS_PATIENCE: Duration = Duration::from_secs(10);

/// What the manager asks for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How it is.
    Show {
        /// Look anew what is in reach.
        scan: bool,
    },
    /// Join a network.
    Connect {
        /// Its name.
        ssid: String,
        /// What it asks for, if it is not known yet.
        passphrase: Option<String>,
    },
    /// Leave the network, and join none by itself until the domain starts again.
    Disconnect {},
    /// Forget a network and its passphrase.
    Forget {
        /// Its name.
        ssid: String,
    },
}

/// How a wireless card is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The interface.
    pub interface: String,
    /// What it does.
    pub link: Link,
    /// The networks in reach, the strongest first, and those that are only known.
    pub networks: Vec<Network>,
}

/// What a card does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// It has joined a network.
    Connected,
    /// It is about to.
    Connecting,
    /// It is going from one access point to another of the same network.
    Roaming,
    /// It is about to leave one.
    Disconnecting,
    /// It is in none.
    #[default]
    Disconnected,
}

impl Link {
    /// For D-Bus.
    pub fn name(self) -> &'static str {
        match self {
            Link::Connected => "connected",
            Link::Connecting => "connecting",
            Link::Roaming => "roaming",
            Link::Disconnecting => "disconnecting",
            Link::Disconnected => "disconnected",
        }
    }
}

/// What a network asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// Nothing; everybody reads along.
    #[default]
    Open,
    /// A key of the old kind, which protects nothing. iwd does not join such a network.
    Wep,
    /// A passphrase (WPA2 or WPA3).
    Passphrase,
    /// More than a passphrase (802.1X).
    Enterprise,
}

impl Security {
    /// For D-Bus.
    pub fn name(self) -> &'static str {
        match self {
            Security::Open => "open",
            Security::Wep => "wep",
            Security::Passphrase => "passphrase",
            Security::Enterprise => "enterprise",
        }
    }
}

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Its name: anything that whoever sends it wants.
    pub ssid: String,
    /// What it asks for.
    pub security: Security,
    /// How strong it is, in dBm, if it is in reach.
    pub signal_dbm: Option<i16>,
    /// It has been joined before.
    pub known: bool,
    /// The card is in it.
    pub connected: bool,
}

/// Why something about Wi-Fi cannot be said or done.
#[derive(Debug, thiserror::Error)]
pub enum WifiError {
    /// Too much.
    #[error("it says more than {MAX_BYTES} bytes of its networks")]
    TooLong,
    /// No JSON of this form.
    #[error("what it says of its networks cannot be read")]
    Unreadable,
    /// Something in it cannot be.
    #[error("what it says of its networks is not possible: {0}")]
    Impossible(&'static str),
    /// A name that no network has.
    #[error("the name of a network has 1 to {MAX_SSID} bytes")]
    Ssid,
    /// A passphrase that no network has.
    #[error(
        "a passphrase has {MIN_PASSPHRASE} to 63 characters of ASCII, or is a key of 64 hexadecimal digits"
    )]
    Passphrase,
}

impl Request {
    /// Whether it can be asked for.
    pub fn check(&self) -> Result<(), WifiError> {
        let (ssid, passphrase) = match self {
            Request::Show { .. } | Request::Disconnect {} => return Ok(()),
            Request::Connect { ssid, passphrase } => (ssid, passphrase.as_deref()),
            Request::Forget { ssid } => (ssid, None),
        };
        if ssid.is_empty() || ssid.len() > MAX_SSID || ssid.contains('\0') {
            return Err(WifiError::Ssid);
        }
        let Some(passphrase) = passphrase else {
            return Ok(());
        };
        let is_key = || passphrase.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_printable = passphrase.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        match passphrase.len() {
            MIN_PASSPHRASE..MAX_PASSPHRASE if is_printable => Ok(()),
            MAX_PASSPHRASE if is_key() => Ok(()),
            _ => Err(WifiError::Passphrase),
        }
    }
}

impl State {
    /// From a guest's words.
    pub fn parse(untrusted_words: &[u8]) -> Result<Self, WifiError> {
        if untrusted_words.len() > MAX_BYTES {
            return Err(WifiError::TooLong);
        }
        let state: State =
            serde_json::from_slice(untrusted_words).map_err(|_| WifiError::Unreadable)?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let interface = &state.interface;
        if interface.is_empty() || interface.len() > 32 || !interface.bytes().all(is_plain) {
            return Err(WifiError::Impossible("the interface's name"));
        }
        if state.networks.len() > MAX_NETWORKS {
            return Err(WifiError::Impossible("their number"));
        }
        for network in &state.networks {
            let ssid = &network.ssid;
            if ssid.is_empty() || ssid.len() > MAX_SSID || ssid.contains('\0') {
                return Err(WifiError::Impossible("a name"));
            }
            if network
                .signal_dbm
                .is_some_and(|dbm| !(-200..=100).contains(&dbm))
            {
                return Err(WifiError::Impossible("a strength"));
            }
        }
        Ok(state)
    }
}

/// Whether an interface is that of a wireless card.
pub fn is_wireless(class: &Path, interface: &str) -> bool {
    class.join(interface).join("phy80211").exists()
}

/// Does what is asked for on standard input, and writes how it is then.
pub fn answer() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = Vec::new();
    let read = io::stdin()
        .lock()
        .take(MAX_REQUEST + 1)
        .read_to_end(&mut text)?;
    if read as u64 > MAX_REQUEST {
        return Err("the request is too long".into());
    }
    // What serde says could name a part of the passphrase.
    let request: Request =
        serde_json::from_slice(&text).map_err(|_| "the request cannot be read")?;
    request.check()?;
    let wanted = Wanted::now().unwrap_or_default();
    let Some(interface) = wanted.wireless else {
        let why = match wanted.physical {
            Some(_) => "the network card of this domain is not wireless",
            None => "this domain has no wireless card that works",
        };
        return Err(why.into());
    };
    if !Path::new(IWD).exists() {
        return Err("the template has no iwd; the template net-wifi has it".into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let state = runtime.block_on(iwd::perform(&interface, &request))?;
    println!("{}", serde_json::to_string(&state)?);
    Ok(())
}

/// Becomes the bus on which iwd is asked, once there is a wireless card.
pub fn bus() -> io::Result<()> {
    Wanted::wait_for("bus", |wanted| wanted.wireless)?;
    std::fs::create_dir_all(BUS_FOLDER)?;
    // That of a bus before.
    let _ = std::fs::remove_file(BUS_SOCKET);
    let error = Command::new(BUS)
        .args(["--system", "--nofork", "--nopidfile"])
        .exec();
    Err(io::Error::new(error.kind(), format!("{BUS}: {error}")))
}

/// iwd's settings. The card stays the interface that it is; addresses are the DHCP client's.
const SETTINGS: &str = "\
# Written by bulkhead-net.
[General]
EnableNetworkConfiguration=false

[DriverQuirks]
DefaultInterface=?*
";

/// Becomes iwd, for this card only, once there is one.
pub fn daemon() -> io::Result<()> {
    let card = Wanted::wait_for("iwd", |wanted| wanted.wireless)?;
    let end = Instant::now() + BUS_PATIENCE;
    while std::os::unix::net::UnixStream::connect(BUS_SOCKET).is_err() {
        if Instant::now() >= end {
            return Err(io::Error::other("there is no bus"));
        }
        thread::sleep(Duration::from_millis(50));
    }
    run::root_folder(Path::new(KNOWN), 0o700)?;
    let settings = run::file(CONFIG);
    std::fs::create_dir_all(&settings)?;
    run::replace(&settings.join("main.conf"), SETTINGS)?;
    let error = Command::new(IWD)
        .args(["--interfaces", &card])
        .env("STATE_DIRECTORY", KNOWN)
        .env("CONFIGURATION_DIRECTORY", &settings)
        .exec();
    Err(io::Error::new(error.kind(), format!("{IWD}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_of_networks_is_checked() {
        let state = State {
            interface: "wlan0".to_owned(),
            link: Link::Connected,
            networks: vec![
                Network {
                    ssid: "caf\u{e9} \u{1b}[31m".to_owned(),
                    security: Security::Passphrase,
                    signal_dbm: Some(-51),
                    known: true,
                    connected: true,
                },
                Network {
                    ssid: "far".to_owned(),
                    known: true,
                    ..Network::default()
                },
            ],
        };
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(State::parse(text.as_bytes()).unwrap(), state);
        for (from, to) in [
            ("wlan0", "wlan 0"),
            ("wlan0", ""),
            ("-51", "-201"),
            ("-51", "40000"),
            ("\"far\"", "\"\""),
            ("\"far\"", "\"fa\\u0000r\""),
            ("far", &"x".repeat(33)),
            ("passphrase", "none"),
            ("connected", "gone"),
            ("\"known\"", "\"more\""),
            (
                "}]",
                &format!(
                    "}}{}]",
                    format!(",{}", serde_json::to_string(&state.networks[1]).unwrap()).repeat(99)
                ),
            ),
            ("far", &" ".repeat(MAX_BYTES)),
        ] {
            assert!(text.contains(from), "{from}");
            let changed = text.replacen(from, to, 1);
            assert!(State::parse(changed.as_bytes()).is_err(), "{changed}");
        }
    }

    #[test]
    fn passphrases_are_those_that_networks_have() {
        let connect = |ssid: &str, passphrase: &str| {
            let request = Request::Connect {
                ssid: ssid.to_owned(),
                passphrase: Some(passphrase.to_owned()),
            };
            request.check().is_ok()
        };
        assert!(connect("home", "eightlet") && connect("home", &"f".repeat(64)));
        for (ssid, passphrase) in [
            ("home", "seven77"),
            ("home", &"x".repeat(64)[..]),
            ("home", &"f".repeat(65)),
            ("home", "eight\nlet"),
            ("home", "pass\u{e4}phrase"),
            ("", "eightlet"),
            ("a\0b", "eightlet"),
            (&"x".repeat(33), "eightlet"),
        ] {
            assert!(!connect(ssid, passphrase), "{ssid} {passphrase}");
        }
    }
}
