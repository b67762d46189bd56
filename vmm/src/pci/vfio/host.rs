//! Which devices of the host can be given away, and their descriptors.
//!
//! Standalone, the VMM looks in `/sys` and opens `/dev/vfio` itself. Behind a broker it gets the
//! descriptors; what only `/sys` can tell (who else is in the group) has then been the broker's to
//! check, and the kernel still refuses a group of which the host uses a device.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bulkhead_vmm_api::PciAddress;

use super::VfioError;
use super::kernel::{Container, Group};

const DRIVER: &str = "vfio-pci";
/// Base class and subclass of a bridge to another bus: bridges own no memory that is the host's.
const CLASS_PCI_BRIDGE: u32 = 0x0604;

/// A device whose group and container are open, and not joined yet.
#[derive(Debug)]
pub struct Opened {
    /// The device.
    pub address: PciAddress,
    /// Its group.
    pub group: Group,
    /// An address space for it.
    pub container: Container,
}

impl Opened {
    /// From descriptors that were handed over: `/dev/vfio/N` and `/dev/vfio/vfio`.
    pub fn handed_over(address: PciAddress, group: OwnedFd, container: OwnedFd) -> Self {
        Self {
            address,
            group: Group::new(group),
            container: Container::new(container),
        }
    }

    /// Opens a device of this host.
    pub fn open(address: PciAddress) -> Result<Self, VfioError> {
        let number = check(Path::new("/sys"), address)?;
        let group = open_file(address, &format!("/dev/vfio/{number}"))?;
        let container = open_file(address, "/dev/vfio/vfio")?;
        Ok(Self::handed_over(address, group, container))
    }
}

/// Whether the device can be given away, by what `sys` says. Returns its group's number.
fn check(sys: &Path, address: PciAddress) -> Result<u32, VfioError> {
    let device = sys.join("bus/pci/devices").join(address.to_string());
    if !device.exists() {
        return Err(VfioError::NoDevice(address));
    }
    let group = link_name(&device.join("iommu_group"))
        .and_then(|name| name.parse().ok())
        .ok_or(VfioError::NoIommu(address))?;
    match link_name(&device.join("driver")) {
        Some(driver) if driver == DRIVER => {}
        Some(driver) => return Err(VfioError::InUseByDriver { address, driver }),
        None => return Err(VfioError::NoDriver { address }),
    }
    let others = others_of(&device.join("iommu_group/devices"), address);
    if !others.is_empty() {
        return Err(VfioError::SharedGroup {
            address,
            group,
            others: others.join(", "),
        });
    }
    Ok(group)
}

/// The devices of a group but for this one and bridges. A member that cannot be read counts.
fn others_of(devices: &Path, address: PciAddress) -> Vec<String> {
    let own = address.to_string();
    let mut others: Vec<String> = fs::read_dir(devices)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| class_of(&entry.path()) != Some(CLASS_PCI_BRIDGE))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| *name != own)
        .collect();
    others.sort();
    others
}

/// Base class and subclass.
fn class_of(device: &Path) -> Option<u32> {
    let text = fs::read_to_string(device.join("class")).ok()?;
    let class = u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()?;
    Some(class >> 8)
}

/// The last part of what a link leads to.
fn link_name(link: &Path) -> Option<String> {
    let target: PathBuf = fs::read_link(link).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

fn open_file(address: PciAddress, path: &str) -> Result<OwnedFd, VfioError> {
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).write(true).open(path);
    let file = file.map_err(|source| match source.raw_os_error() {
        Some(libc::EBUSY) => VfioError::Busy(address),
        _ => VfioError::Open {
            address,
            path: path.to_owned(),
            remedy: remedy(source.kind()),
            source,
        },
    })?;
    Ok(file.into())
}

fn remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => "load the modules vfio-pci and vfio_iommu_type1",
        io::ErrorKind::PermissionDenied => "give this user access to it",
        _ => "check the host's kernel log",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const CARD: &str = "0000:01:00.0";

    struct Sys(tempfile::TempDir);

    impl Sys {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }
        fn device(&self, name: &str, class: &str, driver: Option<&str>) {
            let device = self.0.path().join("bus/pci/devices").join(name);
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("class"), format!("{class}\n")).unwrap();
            if let Some(driver) = driver {
                symlink(format!("/bus/pci/drivers/{driver}"), device.join("driver")).unwrap();
            }
        }
        fn group(&self, number: u32, members: &[&str]) {
            let group = self.0.path().join(format!("kernel/iommu_groups/{number}"));
            fs::create_dir_all(group.join("devices")).unwrap();
            for member in members {
                let device = self.0.path().join("bus/pci/devices").join(member);
                symlink(&group, device.join("iommu_group")).unwrap();
                symlink(&device, group.join("devices").join(member)).unwrap();
            }
        }
        fn check(&self) -> Result<u32, VfioError> {
            check(self.0.path(), CARD.parse().unwrap())
        }
        fn refusal(&self) -> String {
            self.check().unwrap_err().to_string()
        }
    }

    #[test]
    fn a_card_behind_its_own_port_is_taken() {
        let sys = Sys::new();
        sys.device(CARD, "0x020000", Some(DRIVER));
        sys.device("0000:00:08.0", "0x060400", Some("pcieport"));
        sys.group(7, &[CARD, "0000:00:08.0"]);
        assert_eq!(sys.check().unwrap(), 7);
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        let sys = Sys::new();
        assert!(sys.refusal().contains("lspci"));
        sys.device(CARD, "0x020000", None);
        assert!(sys.refusal().contains("intel_iommu=on"));
        sys.group(3, &[CARD]);
        let told = sys.refusal();
        assert!(
            told.contains("has no driver") && !told.contains("unbind"),
            "{told}"
        );

        let sys = Sys::new();
        sys.device(CARD, "0x020000", Some("e1000e"));
        sys.group(3, &[CARD]);
        let told = sys.refusal();
        assert!(
            told.contains("in use by the host's driver e1000e"),
            "{told}"
        );
        assert!(told.contains("driver/unbind"), "{told}");

        let sys = Sys::new();
        sys.device(CARD, "0x020000", Some(DRIVER));
        sys.device("0000:01:00.1", "0x010802", Some("nvme"));
        sys.group(3, &[CARD, "0000:01:00.1"]);
        let told = sys.refusal();
        assert!(
            told.contains("0000:01:00.1") && told.contains("group 3"),
            "{told}"
        );
    }
}
