//! The physical devices that belong to a domain, by their addresses on the host's PCI bus.

use std::collections::BTreeSet;

use bulkhead_protocol::DomainName;
use bulkhead_vmm_api::{BadAddress, PciAddress};
use serde::{Deserialize, Serialize};

/// The most devices of one domain. Each counts the guest's memory once against the limit of locked
/// memory.
pub const MAX_DEVICES: usize = 16;

/// The devices of one domain, sorted and each once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<PciAddress>", into = "Vec<PciAddress>")]
pub struct PciDevices(BTreeSet<PciAddress>);

/// Why devices cannot be a domain's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PciError {
    /// A word that is no address.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// More than anyone has.
    #[error("more than {MAX_DEVICES} PCI devices are too many for one domain")]
    TooMany,
    /// One device, two domains.
    #[error(
        "PCI device {address} of `{of}` belongs to domain `{other}` already; take it from there \
         first with `bulkhead prefs {other} pci`"
    )]
    Shared {
        /// The device.
        address: PciAddress,
        /// Who is to have it.
        of: DomainName,
        /// Who has it.
        other: DomainName,
    },
}

impl PciDevices {
    /// From words as a person or a file has them.
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, PciError> {
        let devices: Vec<PciAddress> = words
            .into_iter()
            .take(MAX_DEVICES + 1)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        devices.try_into()
    }

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = PciAddress> {
        self.0.iter().copied()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<PciAddress>> for PciDevices {
    type Error = PciError;

    fn try_from(devices: Vec<PciAddress>) -> Result<Self, PciError> {
        match devices.len() {
            0..=MAX_DEVICES => Ok(PciDevices(devices.into_iter().collect())),
            _ => Err(PciError::TooMany),
        }
    }
}

impl From<PciDevices> for Vec<PciAddress> {
    fn from(devices: PciDevices) -> Self {
        devices.0.into_iter().collect()
    }
}

/// Whether each device is that of one domain only, as far as the `changed` ones are concerned. What
/// others say is not theirs to answer for.
pub fn check<'a>(
    all: impl IntoIterator<Item = (&'a DomainName, &'a PciDevices)> + Clone,
    changed: &[DomainName],
) -> Result<(), PciError> {
    for (of, devices) in all.clone() {
        if !changed.contains(of) {
            continue;
        }
        for (other, theirs) in all.clone() {
            if other == of {
                continue;
            }
            if let Some(address) = devices.0.intersection(&theirs.0).next() {
                return Err(PciError::Shared {
                    address: *address,
                    of: of.clone(),
                    other: other.clone(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(words: &[&str]) -> PciDevices {
        PciDevices::from_words(words.iter().copied()).unwrap()
    }

    #[test]
    fn devices_are_addresses_each_once() {
        let some = devices(&["0000:02:00.0", "0000:01:00.0", "0000:02:00.0"]);
        let shown: Vec<String> = some.iter().map(|device| device.to_string()).collect();
        assert_eq!(shown, ["0000:01:00.0", "0000:02:00.0"]);
        assert!(PciDevices::from_words([]).unwrap().is_empty());
        let error = PciDevices::from_words(["01:00.0"]).unwrap_err().to_string();
        assert!(error.contains("write it as 0000:01:00.0"), "{error}");
        let many: Vec<String> = (0..17).map(|n| format!("0000:01:{n:02x}.0")).collect();
        let many = PciDevices::from_words(many.iter().map(String::as_str));
        assert_eq!(many, Err(PciError::TooMany));
    }

    #[test]
    fn a_device_belongs_to_one_domain() {
        let name = |text: &str| text.parse::<DomainName>().unwrap();
        let all = [
            (name("net"), devices(&["0000:01:00.0"])),
            (name("usb"), devices(&["0000:02:00.0"])),
            (name("other"), devices(&["0000:01:00.0", "0000:03:00.0"])),
        ];
        let all = all.iter().map(|(name, devices)| (name, devices));
        assert_eq!(check(all.clone(), &[name("usb")]), Ok(()));
        let error = check(all, &[name("other")]).unwrap_err().to_string();
        assert!(
            error.contains("0000:01:00.0 of `other` belongs to domain `net` already"),
            "{error}"
        );
    }
}
