//! One device: taken from the host's driver, given back.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use bulkhead_vmm_api::PciAddress;
use serde::{Deserialize, Serialize};

const DRIVER: &str = "vfio-pci";
/// Base classes and subclasses of PCI (PCI Code and ID Assignment Specification): network controllers,
/// and USB controllers.
const NETWORK: u32 = 0x02;
const USB: u32 = 0x0c03;
/// Nobody but root.
const PRIVATE: u32 = 0o600;

/// Where the kernel shows devices; other folders are for tests.
#[derive(Debug, Clone)]
pub struct Host {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
    /// Whose groups of kept devices are; `None` leaves them as they are.
    pub owner: Option<u32>,
}

/// What a device is, whatever its place: vendor, device and class, as `sysfs` has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity(String);

/// Why a device is not kept.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It is not there.
    #[error("there is no PCI device {0}; see `lspci -D`")]
    Missing(PciAddress),
    /// It must stay the host's.
    #[error(
        "PCI device {0} is neither a network card nor a USB controller (class {1}): the broker takes \
         nothing else from the host"
    )]
    Class(PciAddress, String),
    /// No IOMMU.
    #[error(
        "PCI device {0} has no IOMMU group: switch the IOMMU on in the firmware (VT-d, AMD-Vi) and, with \
         Intel, on the kernel's command line (intel_iommu=on)"
    )]
    NoIommu(PciAddress),
    /// It is another one than the one that was kept.
    #[error(
        "PCI device {0} is another one than before ({1}, it was {2}): if it is the right one, remove it \
         from its domain and give it again"
    )]
    Changed(PciAddress, String, String),
    /// It was taken away and is still in use.
    #[error(
        "PCI device {0} is on its way back to the host, and its guest still has it: end that first"
    )]
    Leaving(PciAddress),
    /// vfio-pci does not take it.
    #[error(
        "the driver vfio-pci did not take PCI device {0}; does the kernel have the module vfio-pci?"
    )]
    NotTaken(PciAddress),
    /// A file of the kernel's.
    #[error("PCI device {0}: {1}: {2}")]
    File(PciAddress, PathBuf, io::Error),
}

impl Host {
    /// The machine's own.
    pub fn of_kernel(owner: u32) -> Self {
        Host {
            sys: PathBuf::from("/sys"),
            dev: PathBuf::from("/dev"),
            owner: Some(owner),
        }
    }

    fn folder(&self, address: PciAddress) -> PathBuf {
        self.sys.join("bus/pci/devices").join(address.to_string())
    }

    fn driver(&self, address: PciAddress) -> Option<String> {
        let link = fs::read_link(self.folder(address).join("driver")).ok()?;
        Some(link.file_name()?.to_str()?.to_owned())
    }

    /// Its group's file, which is there while vfio-pci has it.
    fn group(&self, address: PciAddress) -> Option<PathBuf> {
        let link = fs::read_link(self.folder(address).join("iommu_group")).ok()?;
        let number: u32 = link.file_name()?.to_str()?.parse().ok()?;
        Some(self.dev.join("vfio").join(number.to_string()))
    }

    /// What it is.
    pub fn identity(&self, address: PciAddress) -> Result<Identity, DeviceError> {
        let folder = self.folder(address);
        if !folder.exists() {
            return Err(DeviceError::Missing(address));
        }
        let mut words = Vec::new();
        for name in ["vendor", "device", "class"] {
            let file = folder.join(name);
            let text = fs::read_to_string(&file);
            let text = text.map_err(|error| DeviceError::File(address, file, error))?;
            words.push(text.trim().to_owned());
        }
        Ok(Identity(words.join(" ")))
    }

    /// Whether it may be taken from the host, and is the one that is meant, if one is.
    pub fn check(
        &self,
        address: PciAddress,
        meant: Option<&Identity>,
    ) -> Result<Identity, DeviceError> {
        let identity = self.identity(address)?;
        if let Some(meant) = meant.filter(|meant| **meant != identity) {
            let (now, before) = (identity.0, meant.0.clone());
            return Err(DeviceError::Changed(address, now, before));
        }
        let class = identity.0.rsplit(' ').next().unwrap_or_default();
        let number = u32::from_str_radix(class.trim_start_matches("0x"), 16).unwrap_or(0);
        if number >> 16 != NETWORK && number >> 8 != USB {
            return Err(DeviceError::Class(address, class.to_owned()));
        }
        match self.group(address) {
            Some(_) => Ok(identity),
            None => Err(DeviceError::NoIommu(address)),
        }
    }

    /// Takes it from the host's driver. One that is kept already stays as it is.
    pub fn take(&self, address: PciAddress) -> Result<(), DeviceError> {
        let before = self.driver(address);
        if before.as_deref() != Some(DRIVER) {
            let taken = self.move_to(address, DRIVER);
            if taken.is_err() || self.driver(address).as_deref() != Some(DRIVER) {
                // The host goes on with it.
                let _ = self.move_to(address, "");
                taken?;
                return Err(DeviceError::NotTaken(address));
            }
            tracing::info!(device = %address, before, "taken from the host");
        }
        let (Some(owner), Some(group)) = (self.owner, self.group(address)) else {
            return Ok(());
        };
        chown(&group, Some(owner), None).map_err(|error| DeviceError::File(address, group, error))
    }

    /// Gives it back to the host's driver. While a guest has it, this waits for the guest's end.
    pub fn give_back(&self, address: PciAddress) -> Result<(), DeviceError> {
        if self.driver(address).as_deref() != Some(DRIVER) {
            return Ok(());
        }
        if let Some(group) = self.group(address).filter(|_| self.owner.is_some()) {
            let closed = chown(&group, Some(0), None)
                .and_then(|()| fs::set_permissions(&group, fs::Permissions::from_mode(PRIVATE)));
            closed.map_err(|error| DeviceError::File(address, group, error))?;
        }
        self.move_to(address, "")?;
        tracing::info!(device = %address, driver = self.driver(address), "given back to the host");
        Ok(())
    }

    /// Lets another driver have it; `""` is the one that the kernel chooses.
    fn move_to(&self, address: PciAddress, driver: &str) -> Result<(), DeviceError> {
        let folder = self.folder(address);
        let name = address.to_string();
        // The kernel takes an empty line for: none.
        let wanted = format!("{driver}\n");
        self.write(address, &folder.join("driver_override"), &wanted)?;
        if self.driver(address).is_some() {
            self.write(address, &folder.join("driver/unbind"), &name)?;
        }
        self.write(address, &self.sys.join("bus/pci/drivers_probe"), &name)
    }

    fn write(&self, address: PciAddress, file: &Path, text: &str) -> Result<(), DeviceError> {
        fs::write(file, text).map_err(|error| DeviceError::File(address, file.to_owned(), error))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Folders that look like the kernel's; nothing in them moves by itself.
    pub(crate) fn host(devices: &[(&str, &str, bool)]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let host = Host {
            sys: root.path().join("sys"),
            dev: root.path().join("dev"),
            owner: None,
        };
        for driver in ["e1000e", DRIVER] {
            fs::create_dir_all(host.sys.join("bus/pci/drivers").join(driver)).unwrap();
        }
        for (number, (address, class, has_group)) in devices.iter().enumerate() {
            let folder = host.sys.join("bus/pci/devices").join(address);
            fs::create_dir_all(&folder).unwrap();
            for (name, text) in [
                ("vendor", "0x8086\n"),
                ("device", "0x10d3\n"),
                ("class", class),
            ] {
                fs::write(folder.join(name), text).unwrap();
            }
            symlink("../../drivers/e1000e", folder.join("driver")).unwrap();
            if *has_group {
                symlink(format!("../groups/{number}"), folder.join("iommu_group")).unwrap();
            }
        }
        (root, host)
    }

    /// As the kernel does when a driver was asked to take a device.
    pub(crate) fn now_has(host: &Host, address: &str, driver: &str) {
        let link = host
            .sys
            .join("bus/pci/devices")
            .join(address)
            .join("driver");
        fs::remove_file(&link).unwrap();
        symlink(format!("../../drivers/{driver}"), link).unwrap();
    }

    #[test]
    fn only_cards_and_usb_controllers_behind_an_iommu_may_be_taken() {
        let (_root, host) = host(&[
            ("0000:01:00.0", "0x020000\n", true),
            ("0000:02:00.0", "0x0c0330\n", true),
            ("0000:03:00.0", "0x028000\n", false),
            ("0000:04:00.0", "0x010802\n", true),
            ("0000:05:00.0", "0x0c0500\n", true),
        ]);
        for (address, expected) in [
            ("0000:01:00.0", ""),
            ("0000:02:00.0", ""),
            ("0000:03:00.0", "has no IOMMU group"),
            (
                "0000:04:00.0",
                "neither a network card nor a USB controller (class 0x010802)",
            ),
            ("0000:05:00.0", "neither"),
            ("0000:06:00.0", "there is no PCI device 0000:06:00.0"),
        ] {
            let told = match host.check(address.parse().unwrap(), None) {
                Ok(_) => String::new(),
                Err(error) => error.to_string(),
            };
            assert!(
                told.contains(expected) && told.is_empty() == expected.is_empty(),
                "{told}"
            );
        }
        let address = "0000:01:00.0".parse().unwrap();
        let identity = host.identity(address).unwrap();
        assert!(host.check(address, Some(&identity)).is_ok());
        let other = Identity("0x8086 0x10d3 0x030000".into());
        let error = host.check(address, Some(&other)).unwrap_err();
        assert!(
            error.to_string().contains("another one than before"),
            "{error}"
        );
    }

    #[test]
    fn a_device_that_is_not_taken_stays_the_hosts() {
        let (_root, host) = host(&[("0000:01:00.0", "0x020000\n", true)]);
        let address = "0000:01:00.0".parse().unwrap();
        let error = host.take(address).unwrap_err();
        assert!(matches!(error, DeviceError::NotTaken(_)), "{error}");
        let wanted = host
            .sys
            .join("bus/pci/devices/0000:01:00.0/driver_override");
        assert_eq!(fs::read_to_string(&wanted).unwrap(), "\n");
        // The unbinding was asked for, as was the search for a driver.
        let asked = |file: &str| fs::read_to_string(host.sys.join("bus/pci").join(file)).unwrap();
        assert_eq!(asked("drivers/e1000e/unbind"), "0000:01:00.0");
        assert_eq!(asked("drivers_probe"), "0000:01:00.0");
        // One that is taken already is left as it is.
        now_has(&host, "0000:01:00.0", DRIVER);
        fs::remove_file(&wanted).unwrap();
        host.take(address).unwrap();
        assert!(!wanted.exists());
        host.give_back(address).unwrap();
        assert_eq!(fs::read_to_string(&wanted).unwrap(), "\n");
    }
}
