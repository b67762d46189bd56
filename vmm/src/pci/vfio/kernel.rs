//! The part of Linux's VFIO interface that is used here (`linux/vfio.h`): legacy containers with a
//! type 1 IOMMU. All `unsafe` of this folder is in this file.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use bulkhead_vmm_api::PciAddress;

/// Every request is `_IO(';', 100 + n)`.
const fn request(number: libc::c_ulong) -> libc::c_ulong {
    (b';' as libc::c_ulong) << 8 | (100 + number)
}

const GET_API_VERSION: libc::c_ulong = request(0);
const CHECK_EXTENSION: libc::c_ulong = request(1);
const SET_IOMMU: libc::c_ulong = request(2);
const GROUP_GET_STATUS: libc::c_ulong = request(3);
const GROUP_SET_CONTAINER: libc::c_ulong = request(4);
const GROUP_GET_DEVICE_FD: libc::c_ulong = request(6);
const DEVICE_GET_INFO: libc::c_ulong = request(7);
const DEVICE_GET_REGION_INFO: libc::c_ulong = request(8);
const DEVICE_GET_IRQ_INFO: libc::c_ulong = request(9);
const DEVICE_SET_IRQS: libc::c_ulong = request(10);
const DEVICE_RESET: libc::c_ulong = request(11);
const IOMMU_MAP_DMA: libc::c_ulong = request(13);

const API_VERSION: i32 = 0;
const TYPE1V2_IOMMU: libc::c_ulong = 3;
const GROUP_VIABLE: u32 = 1;
const DEVICE_CAN_RESET: u32 = 1;
const DEVICE_IS_PCI: u32 = 1 << 1;
const REGION_READ: u32 = 1;
const REGION_WRITE: u32 = 1 << 1;
const REGION_MMAP: u32 = 1 << 2;
const REGION_HAS_CAPABILITIES: u32 = 1 << 3;
const REGION_CAPABILITY_SPARSE: u16 = 1;
const DMA_READ_WRITE: u32 = 3;
const IRQ_SET_NONE: u32 = 1;
const IRQ_SET_EVENTFD: u32 = 1 << 2;
const IRQ_SET_TRIGGER: u32 = 1 << 5;
/// The kernel describes regions in a few hundred bytes; more than this is not read.
const MAX_REGION_INFO: usize = 4096;
const REGION_INFO_SIZE: usize = 32;

/// The region of a PCI device's configuration space; BAR N is region N.
pub const CONFIG_REGION: u32 = 7;
/// A PCI device's interrupts by MSI.
pub const MSI_INDEX: u32 = 1;
/// A PCI device's interrupts by MSI-X.
pub const MSIX_INDEX: u32 = 2;

/// A part of the device's registers or of its configuration space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Where it lies in the device's file.
    pub offset: u64,
    /// Its length in bytes; 0: there is none.
    pub size: u64,
    /// Whether it can be read and written.
    pub accessible: bool,
    /// What of it can be mapped: offset in the region, length in bytes.
    pub mappable: Vec<(u64, u64)>,
}

/// An IOMMU's address space, which groups are attached to.
#[derive(Debug)]
pub struct Container(OwnedFd);

/// The devices that the IOMMU cannot tell apart.
#[derive(Debug)]
pub struct Group(OwnedFd);

/// An open device.
#[derive(Debug)]
pub struct Device {
    file: File,
    can_reset: bool,
}

/// A mapped part of a device's registers. Nothing in this process touches it: it is there for KVM.
#[derive(Debug)]
pub struct Mapping {
    address: *mut libc::c_void,
    length: usize,
}

// SAFETY: the address is never dereferenced; it is only named to KVM and unmapped in the end.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

fn result(value: libc::c_int) -> io::Result<i32> {
    if value < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

/// A request whose argument is a number, or none.
fn plain(fd: RawFd, request: libc::c_ulong, argument: libc::c_ulong) -> io::Result<i32> {
    // SAFETY: the requests that come here take a number; on a descriptor that is not VFIO's they fail.
    result(unsafe { libc::ioctl(fd, request, argument) })
}

/// A request that reads and writes a structure whose size is its first field, as VFIO's are.
fn exchange(fd: RawFd, request: libc::c_ulong, bytes: &mut [u8]) -> io::Result<i32> {
    let size = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    bytes
        .get_mut(..4)
        .ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(&size.to_le_bytes());
    // SAFETY: the kernel reads and writes no more than the size in the first field, which is that of
    // `bytes`; it checks that for itself.
    result(unsafe { libc::ioctl(fd, request, bytes.as_mut_ptr()) })
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, offset))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, offset))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, offset))
}

/// Zeroes where nothing is.
fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let found = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    found.copied().unwrap_or([0; N])
}

impl Container {
    /// A container from an open `/dev/vfio/vfio`.
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Whether it speaks the interface that is known here.
    pub fn is_known(&self) -> bool {
        let fd = self.0.as_raw_fd();
        plain(fd, GET_API_VERSION, 0).is_ok_and(|version| version == API_VERSION)
            && plain(fd, CHECK_EXTENSION, TYPE1V2_IOMMU).is_ok_and(|known| known == 1)
    }

    /// Chooses the kind of IOMMU; a group must be attached.
    pub fn enable(&self) -> io::Result<()> {
        plain(self.0.as_raw_fd(), SET_IOMMU, TYPE1V2_IOMMU).map(drop)
    }

    /// Shows `length` bytes of this process's memory at `host_address` to the devices, at
    /// `device_address`, and pins them. The pages stay the devices' until the container is closed,
    /// even if they are unmapped here.
    pub fn map(&self, host_address: u64, device_address: u64, length: u64) -> io::Result<()> {
        let mut bytes = [0; 32];
        for (field, value) in
            bytes
                .chunks_exact_mut(8)
                .skip(1)
                .zip([host_address, device_address, length])
        {
            field.copy_from_slice(&value.to_le_bytes());
        }
        bytes[4..8].copy_from_slice(&DMA_READ_WRITE.to_le_bytes());
        exchange(self.0.as_raw_fd(), IOMMU_MAP_DMA, &mut bytes).map(drop)
    }
}

impl Group {
    /// A group from an open `/dev/vfio/N`.
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Whether no device of the group is in use by the host.
    pub fn is_viable(&self) -> io::Result<bool> {
        let mut bytes = [0; 8];
        exchange(self.0.as_raw_fd(), GROUP_GET_STATUS, &mut bytes)?;
        Ok(u32_at(&bytes, 4) & GROUP_VIABLE != 0)
    }

    /// Attaches the group to a container.
    pub fn attach(&self, container: &Container) -> io::Result<()> {
        let container: RawFd = container.0.as_raw_fd();
        // SAFETY: the request reads one `int` at this address.
        result(unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                GROUP_SET_CONTAINER,
                &raw const container,
            )
        })
        .map(drop)
    }

    /// Opens a device of the group.
    pub fn device(&self, address: PciAddress) -> io::Result<Device> {
        let name = std::ffi::CString::new(address.to_string())?;
        // SAFETY: the request reads a string that ends with a zero.
        let fd =
            result(unsafe { libc::ioctl(self.0.as_raw_fd(), GROUP_GET_DEVICE_FD, name.as_ptr()) })?;
        // SAFETY: a new descriptor, owned by nobody else.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: sets a flag of a descriptor of ours.
        result(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
        let mut bytes = [0; 16];
        exchange(fd, DEVICE_GET_INFO, &mut bytes)?;
        let flags = u32_at(&bytes, 4);
        if flags & DEVICE_IS_PCI == 0 {
            return Err(io::Error::other("it is not a PCI device"));
        }
        Ok(Device {
            file,
            can_reset: flags & DEVICE_CAN_RESET != 0,
        })
    }

    /// The descriptor, for KVM.
    pub fn raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Device {
    /// Whether [`Device::reset`] can work.
    pub fn can_reset(&self) -> bool {
        self.can_reset
    }

    /// Brings the device into its first state.
    pub fn reset(&self) -> io::Result<()> {
        plain(self.file.as_raw_fd(), DEVICE_RESET, 0).map(drop)
    }

    /// A region by its number.
    pub fn region(&self, index: u32) -> io::Result<Region> {
        let mut bytes = vec![0; REGION_INFO_SIZE];
        bytes[8..12].copy_from_slice(&index.to_le_bytes());
        exchange(self.file.as_raw_fd(), DEVICE_GET_REGION_INFO, &mut bytes)?;
        let wanted = u32_at(&bytes, 0) as usize;
        if wanted > REGION_INFO_SIZE {
            if wanted > MAX_REGION_INFO {
                return Err(io::Error::other("a region's description is too long"));
            }
            bytes = vec![0; wanted];
            bytes[8..12].copy_from_slice(&index.to_le_bytes());
            exchange(self.file.as_raw_fd(), DEVICE_GET_REGION_INFO, &mut bytes)?;
        }
        Ok(parse_region(&bytes))
    }

    /// How many interrupts of a kind the device has.
    pub fn interrupts(&self, index: u32) -> io::Result<u32> {
        let mut bytes = [0; 16];
        bytes[8..12].copy_from_slice(&index.to_le_bytes());
        exchange(self.file.as_raw_fd(), DEVICE_GET_IRQ_INFO, &mut bytes)?;
        Ok(u32_at(&bytes, 12))
    }

    /// Lets the interrupts of a kind signal these descriptors, one each from the first on.
    pub fn connect_interrupts(&self, index: u32, eventfds: &[RawFd]) -> io::Result<()> {
        let count = u32::try_from(eventfds.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut bytes = irq_set(index, IRQ_SET_EVENTFD | IRQ_SET_TRIGGER, count);
        bytes.extend(eventfds.iter().flat_map(|fd| fd.to_le_bytes()));
        exchange(self.file.as_raw_fd(), DEVICE_SET_IRQS, &mut bytes).and_then(|left| {
            // A positive answer is the number that could be had, of which none is there now.
            if left == 0 {
                Ok(())
            } else {
                Err(io::Error::other("the host has too few interrupts left"))
            }
        })
    }

    /// Switches all interrupts of a kind off.
    pub fn disconnect_interrupts(&self, index: u32) -> io::Result<()> {
        let mut bytes = irq_set(index, IRQ_SET_NONE | IRQ_SET_TRIGGER, 0);
        exchange(self.file.as_raw_fd(), DEVICE_SET_IRQS, &mut bytes).map(drop)
    }

    /// Reads at a place of the device's file, which must lie within a region.
    pub fn read(&self, at: u64, data: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(data, at)
    }

    /// Writes at a place of the device's file, which must lie within a region.
    pub fn write(&self, at: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, at)
    }

    /// Maps `length` bytes of a region from `offset` on.
    pub fn map(&self, region: &Region, offset: u64, length: u64) -> io::Result<Mapping> {
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let at = region.offset.checked_add(offset);
        let at = at.ok_or(io::ErrorKind::InvalidInput)?;
        let at = libc::off_t::try_from(at).map_err(invalid)?;
        let length = usize::try_from(length).map_err(invalid)?;
        // SAFETY: a fresh mapping at an address that the kernel chooses; nothing is replaced.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                self.file.as_raw_fd(),
                at,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { address, length })
    }
}

impl Mapping {
    /// Where the mapping lies in this process, for KVM's memory slot.
    pub fn host_address(&self) -> u64 {
        self.address as u64
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: a whole mapping of ours, in which no Rust object lives.
        unsafe { libc::munmap(self.address, self.length) };
    }
}

/// `struct vfio_irq_set` without its data; its first field is filled in later.
fn irq_set(index: u32, flags: u32, count: u32) -> Vec<u8> {
    [0, flags, index, 0, count]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect()
}

/// `struct vfio_region_info` and the capabilities after it.
fn parse_region(bytes: &[u8]) -> Region {
    let flags = u32_at(bytes, 4);
    let size = u64_at(bytes, 16);
    let mut region = Region {
        offset: u64_at(bytes, 24),
        size,
        accessible: flags & (REGION_READ | REGION_WRITE) == REGION_READ | REGION_WRITE,
        mappable: Vec::new(),
    };
    if flags & REGION_MMAP == 0 {
        return region;
    }
    region.mappable = vec![(0, size)];
    if flags & REGION_HAS_CAPABILITIES == 0 {
        return region;
    }
    let mut at = u32_at(bytes, 12) as usize;
    // The list is the kernel's, but a circle must not hang us.
    for _ in 0..16 {
        if at < REGION_INFO_SIZE || at + 8 > bytes.len() {
            break;
        }
        if u16_at(bytes, at) == REGION_CAPABILITY_SPARSE {
            let count = u32_at(bytes, at + 8) as usize;
            let areas = bytes.get(at + 16..).unwrap_or_default().chunks_exact(16);
            region.mappable = areas
                .take(count)
                .map(|area| (u64_at(area, 0), u64_at(area, 8)))
                .collect();
        }
        at = u32_at(bytes, at + 4) as usize;
    }
    region
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(flags: u32, capability: u32, rest: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [REGION_INFO_SIZE as u32, flags, 0, capability] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(0x4000u64.to_le_bytes());
        bytes.extend(0x100_0000u64.to_le_bytes());
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn regions_are_read_with_their_holes() {
        let plain = parse_region(&info(7, 0, &[]));
        assert_eq!(plain.mappable, [(0, 0x4000)]);
        assert!(plain.accessible);
        assert_eq!(parse_region(&info(3, 0, &[])).mappable, []);
        let mut sparse = Vec::new();
        sparse.extend([1, 0, 1, 0, 0, 0, 0, 0]); // sparse, no next
        sparse.extend([2, 0, 0, 0, 0, 0, 0, 0]); // two areas
        for word in [0u64, 0x1000, 0x2000, 0x2000] {
            sparse.extend(word.to_le_bytes());
        }
        let region = parse_region(&info(15, 32, &sparse));
        assert_eq!(region.mappable, [(0, 0x1000), (0x2000, 0x2000)]);
        // A list that leads to itself ends; one that leads out of the structure too.
        let circle = [9, 0, 1, 0, 32, 0, 0, 0];
        assert_eq!(parse_region(&info(15, 32, &circle)).mappable, [(0, 0x4000)]);
        assert_eq!(parse_region(&info(15, 4000, &[])).mappable, [(0, 0x4000)]);
        parse_region(&[]);
    }

    #[test]
    fn requests_have_the_kernels_numbers() {
        assert_eq!(GET_API_VERSION, 0x3b64);
        assert_eq!(IOMMU_MAP_DMA, 0x3b71);
    }
}
