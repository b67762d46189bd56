//! The address of a PCI function, as Linux writes it: `0000:01:00.0`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Domain, bus, device and function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PciAddress {
    domain: u16,
    bus: u8,
    device: u8,
    function: u8,
}

/// A text that is no address of a PCI function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address of a PCI device: write it as 0000:01:00.0, as `lspci -D` does")]
pub struct BadAddress(String);

impl FromStr for PciAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        parse(text).ok_or_else(|| BadAddress(text.chars().take(40).collect()))
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (rest, function) = text.rsplit_once('.')?;
    let mut parts = rest.split(':');
    let address = PciAddress {
        domain: u16::try_from(hex(parts.next()?, 4)?).ok()?,
        bus: u8::try_from(hex(parts.next()?, 2)?).ok()?,
        device: u8::try_from(hex(parts.next()?, 2)?).ok()?,
        function: u8::try_from(hex(function, 1)?).ok()?,
    };
    let is_whole = parts.next().is_none() && address.device < 32 && address.function < 8;
    is_whole.then_some(address)
}

/// Exactly so many hexadecimal digits: the text becomes part of a path, and has one spelling.
fn hex(text: &str, digits: usize) -> Option<u32> {
    let is_plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_plain.then(|| u32::from_str_radix(text, 16).ok())?
}

impl TryFrom<String> for PciAddress {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Self, BadAddress> {
        text.parse()
    }
}

impl From<PciAddress> for String {
    fn from(address: PciAddress) -> String {
        address.to_string()
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_spelling() {
        let address: PciAddress = "0000:0A:1f.7".parse().unwrap();
        assert_eq!(address.to_string(), "0000:0a:1f.7");
        for wrong in [
            "",
            "01:00.0",
            "0000:01:00",
            "0000:01:20.0",
            "0000:01:00.8",
            "0000:01:00.0 ",
            "0000:+1:00.0",
            "0000:01:00.0/../..",
            "00000:01:00.0",
            "0000:01:00:00.0",
        ] {
            let error = wrong.parse::<PciAddress>().unwrap_err().to_string();
            assert!(error.contains("0000:01:00.0"), "{error}");
        }
    }
}
