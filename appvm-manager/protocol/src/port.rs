//! Numbers of TCP ports, as the argument of a call: one spelling each.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

/// The service by which one domain reaches a TCP port of another one's loopback. Its argument is the port.
pub const CONNECT_SERVICE: &str = "bulkhead.ConnectTcp";

/// 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TcpPort(NonZeroU16);

/// No port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no port: use a number from 1 to 65535")]
pub struct InvalidPort {
    /// What was given, shortened.
    pub given: String,
}

impl TcpPort {
    /// The number.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl FromStr for TcpPort {
    type Err = InvalidPort;

    /// Digits only, the first of them no zero: `+080` and `80` would be one port to the service, and two
    /// to a rule of the policy.
    fn from_str(untrusted_text: &str) -> Result<Self, InvalidPort> {
        let plain =
            untrusted_text.bytes().all(|b| b.is_ascii_digit()) && !untrusted_text.starts_with('0');
        let number = untrusted_text.parse().ok().filter(|_| plain);
        number.map(TcpPort).ok_or_else(|| InvalidPort {
            given: untrusted_text
                .chars()
                .take(40)
                .flat_map(char::escape_default)
                .collect(),
        })
    }
}

impl TryFrom<u16> for TcpPort {
    type Error = InvalidPort;

    fn try_from(number: u16) -> Result<Self, InvalidPort> {
        NonZeroU16::new(number)
            .map(TcpPort)
            .ok_or_else(|| InvalidPort {
                given: number.to_string(),
            })
    }
}

impl fmt::Display for TcpPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_one_spelling() {
        for (text, number) in [("1", 1), ("80", 80), ("65535", 65535)] {
            let port: TcpPort = text.parse().unwrap();
            assert_eq!((port.get(), port.to_string().as_str()), (number, text));
            assert_eq!(TcpPort::try_from(number), Ok(port));
        }
        for bad in [
            "",
            "0",
            "00",
            "080",
            "65536",
            "99999999999999999999",
            "-1",
            "+80",
            " 80",
            "80 ",
            "8_0",
            "0x50",
            "80+",
            "ssh",
            "٨٠",
            "80\n",
        ] {
            assert!(bad.parse::<TcpPort>().is_err(), "{bad:?}");
        }
        assert!(TcpPort::try_from(0).is_err());
        assert!("x".repeat(1000).parse::<TcpPort>().unwrap_err().given.len() <= 40);
    }
}
