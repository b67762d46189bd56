//! Why a device cannot be given to a guest. Each message says what to do.

use std::io;

use crate::pci::config_space::ConfigSpaceError;
use bulkhead_vmm_api::{BadAddress, PciAddress};

/// Why a device cannot be given to a guest.
#[derive(Debug, thiserror::Error)]
pub enum VfioError {
    /// The address is none.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// The same device twice.
    #[error("PCI device {0} is given twice: name it once")]
    Twice(PciAddress),
    /// There is no such device.
    #[error("there is no PCI device {0}: `lspci -D` lists those of this host")]
    NoDevice(PciAddress),
    /// No IOMMU covers the device.
    #[error(
        "PCI device {0} is not behind an IOMMU, so it could write to all of the host's memory: enable \
         the IOMMU in the firmware (VT-d, AMD-Vi) and, on Intel, add `intel_iommu=on` to the host's \
         command line"
    )]
    NoIommu(PciAddress),
    /// A driver of the host has the device.
    #[error(
        "PCI device {address} is in use by the host's driver {driver}; bind it to vfio-pci first: \
         {}",
        bind(address, true)
    )]
    InUseByDriver {
        /// The device.
        address: PciAddress,
        /// The driver's name.
        driver: String,
    },
    /// No driver has the device.
    #[error(
        "PCI device {address} has no driver; bind it to vfio-pci first: {}",
        bind(address, false)
    )]
    NoDriver {
        /// The device.
        address: PciAddress,
    },
    /// Other devices are in the group.
    #[error(
        "PCI device {address} cannot be kept apart from {others} (IOMMU group {group}): put the card \
         into another slot, one behind a port of its own"
    )]
    SharedGroup {
        /// The device.
        address: PciAddress,
        /// The group's number.
        group: u32,
        /// The other devices.
        others: String,
    },
    /// The kernel says that the group cannot be given away.
    #[error(
        "PCI device {0} is in an IOMMU group of which the host uses another device: bind all of them \
         to vfio-pci, or put the card into another slot"
    )]
    NotViable(PciAddress),
    /// Another process has the group open.
    #[error("PCI device {0} is in use by another guest: stop that one first")]
    Busy(PciAddress),
    /// A file of VFIO cannot be opened.
    #[error("PCI device {address}: {path}: {source}: {remedy}")]
    Open {
        /// The device.
        address: PciAddress,
        /// The file.
        path: String,
        /// The operating system's answer.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The container is not what we know.
    #[error(
        "PCI device {0}: the host's VFIO has no type 1 IOMMU interface of version 2: load the module \
         vfio_iommu_type1"
    )]
    NoType1(PciAddress),
    /// Interrupts are not remapped.
    #[error(
        "PCI device {0}: the host cannot confine its interrupts: enable interrupt remapping in the \
         firmware"
    )]
    NoInterruptRemapping(PciAddress),
    /// Guest RAM could not be locked.
    #[error(
        "PCI device {address} needs the guest's {needed_mib} MiB of memory locked, and this process may \
         lock {limit}: raise the limit (RLIMIT_MEMLOCK, `ulimit -l`, LimitMEMLOCK=), or give the guest \
         less memory"
    )]
    MemoryLock {
        /// The device.
        address: PciAddress,
        /// The guest's RAM.
        needed_mib: u64,
        /// The limit, in words.
        limit: String,
    },
    /// The device cannot be reset.
    #[error(
        "PCI device {0} cannot be reset, so one guest would inherit what another left in it: put the \
         card into a slot behind a port of its own, or choose another card"
    )]
    NoReset(PciAddress),
    /// The device has neither MSI-X nor MSI.
    #[error("PCI device {0} has neither MSI-X nor MSI interrupts: choose another card")]
    NoMessages(PciAddress),
    /// What the device or the kernel says about it makes no sense.
    #[error("PCI device {address}: {problem}: choose another card")]
    Unusable {
        /// The device.
        address: PciAddress,
        /// What is wrong.
        problem: &'static str,
    },
    /// The copy of its configuration space cannot be made.
    #[error("PCI device {address}: {source}")]
    ConfigSpace {
        /// The device.
        address: PciAddress,
        /// What does not fit.
        source: ConfigSpaceError,
    },
    /// The kernel refused something.
    #[error("PCI device {address}: {what}: {source}")]
    Kernel {
        /// The device.
        address: PciAddress,
        /// What was attempted.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl VfioError {
    /// For `map_err`: the kernel refused `what`.
    pub(super) fn kernel(
        address: PciAddress,
        what: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Kernel {
            address,
            what,
            source,
        }
    }
}

/// The commands of an administrator that give a device to vfio-pci.
fn bind(address: &PciAddress, has_driver: bool) -> String {
    let device = format!("/sys/bus/pci/devices/{address}");
    let unbind = if has_driver {
        format!("echo {address} > {device}/driver/unbind; ")
    } else {
        String::new()
    };
    format!(
        "modprobe vfio-pci; echo vfio-pci > {device}/driver_override; {unbind}echo {address} > \
         /sys/bus/pci/drivers_probe"
    )
}
