//! What a network domain says of its physical card: written in the guest, read by the manager.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::address::MAX_SERVERS;
use crate::cards::CLASS;
use crate::lease::Lease;
use crate::problem::{self, MAX_PROBLEMS, Problem};
use crate::run::Wanted;

/// A longer state is none.
pub const MAX_BYTES: usize = 4096;
/// The kernel's limit of interfaces' names, and one of ours for drivers'.
const MAX_NAME: usize = 32;

/// The state of a physical card.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The interface, if the guest has found one.
    pub interface: Option<String>,
    /// The guest's driver.
    pub driver: Option<String>,
    /// Whether a cable is plugged in.
    pub carrier: bool,
    /// The card's address, and how many bits of it are its network's.
    pub address: Option<(Ipv4Addr, u8)>,
    /// Through whom everything else is reached.
    pub gateway: Option<Ipv4Addr>,
    /// Who is asked for names.
    pub servers: Vec<Ipv4Addr>,
    /// For how many seconds the address still counts.
    pub lease_left_s: u64,
    /// It is wireless.
    #[serde(default)]
    pub wireless: bool,
    /// What is wrong with the devices.
    #[serde(default)]
    pub problems: Vec<Problem>,
}

/// Why a guest's words are no state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Too many of them.
    #[error("it says more than {MAX_BYTES} bytes of its card")]
    TooLong,
    /// No JSON of this form.
    #[error("what it says of its card cannot be read")]
    Unreadable,
    /// A name with letters that none has, or too long.
    #[error("a name that it gives is none")]
    Name,
    /// A problem that is none.
    #[error("what it says is wrong with its devices is none of what can be")]
    Problem,
    /// Numbers that cannot be.
    #[error("a number that it gives is not possible")]
    Number,
}

impl State {
    /// What is so in this guest.
    pub fn now() -> Self {
        let wanted = Wanted::now().unwrap_or_default();
        let Some(interface) = wanted.physical else {
            return State {
                problems: problem::all(),
                ..State::default()
            };
        };
        let folder = Path::new(CLASS).join(&interface);
        let driver = fs::read_link(folder.join("device/driver")).ok();
        let driver = driver.and_then(|link| Some(link.file_name()?.to_str()?.to_owned()));
        let carrier = fs::read_to_string(folder.join("carrier")).unwrap_or_default();
        let lease = Lease::now();
        State {
            wireless: wanted.wireless.as_ref() == Some(&interface),
            problems: problem::all(),
            interface: Some(interface),
            driver,
            carrier: carrier.trim() == "1",
            address: lease.as_ref().map(|lease| (lease.address, lease.prefix)),
            gateway: lease.as_ref().and_then(|lease| lease.gateway),
            lease_left_s: lease.as_ref().map_or(0, Lease::left_s),
            servers: lease.map(|lease| lease.servers).unwrap_or_default(),
        }
    }

    /// From a guest's words.
    pub fn parse(untrusted_words: &[u8]) -> Result<Self, StateError> {
        if untrusted_words.len() > MAX_BYTES {
            return Err(StateError::TooLong);
        }
        let state: State =
            serde_json::from_slice(untrusted_words).map_err(|_| StateError::Unreadable)?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        for name in [&state.interface, &state.driver].into_iter().flatten() {
            if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_plain) {
                return Err(StateError::Name);
            }
        }
        let problems = &state.problems;
        if problems.len() > MAX_PROBLEMS || !problems.iter().all(Problem::is_plain) {
            return Err(StateError::Problem);
        }
        let is_long = state.address.is_some_and(|(_, prefix)| prefix > 32);
        if is_long || state.servers.len() > MAX_SERVERS || state.lease_left_s > u32::MAX.into() {
            return Err(StateError::Number);
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_is_checked() {
        let state = State {
            interface: Some("eth1".to_owned()),
            driver: Some("virtio_net".to_owned()),
            carrier: true,
            address: Some((Ipv4Addr::new(192, 0, 2, 15), 24)),
            gateway: Some(Ipv4Addr::new(192, 0, 2, 2)),
            servers: vec![Ipv4Addr::new(192, 0, 2, 3)],
            lease_left_s: 86400,
            wireless: true,
            problems: vec![
                Problem::Firmware {
                    device: "0000:00:05.0".to_owned(),
                    file: "iwlwifi-cc-a0-77.ucode".to_owned(),
                },
                Problem::NoDriver {
                    device: "0000:00:06.0".to_owned(),
                    id: "14e4:43a0".to_owned(),
                },
            ],
        };
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(State::parse(text.as_bytes()).unwrap(), state);
        for (from, to) in [
            ("eth1", "eth1\\u001b[31m"),
            ("virtio_net", ""),
            ("virtio_net", &"x".repeat(33)),
            ("24", "33"),
            ("24", "-1"),
            ("86400", "4294967296"),
            (
                "192.0.2.3\"",
                "192.0.2.3\",\"192.0.2.3\",\"192.0.2.3\",\"192.0.2.3\"",
            ),
            ("192.0.2.2", "192.0.2"),
            ("iwlwifi-cc-a0-77.ucode", "../a"),
            ("iwlwifi-cc-a0-77.ucode", "a\\u001b[31m"),
            ("0000:00:06.0", "a b"),
            ("14e4:43a0", &"x".repeat(101)),
            ("no_driver", "on_fire"),
            ("carrier", "more"),
            ("{", ""),
            ("true", &" ".repeat(MAX_BYTES)),
        ] {
            assert!(text.contains(from), "{from}");
            let changed = text.replacen(from, to, 1);
            assert!(State::parse(changed.as_bytes()).is_err(), "{changed}");
        }
    }
}
