//! The device as a function of the guest's bus.

use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_vmm_api::PciAddress;
use rustix::process::{Resource, getrlimit};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

use super::VfioError;
use super::capabilities::{Messages, MsixTable, Physical};
use super::host::Opened;
use super::interrupts::Interrupts;
use super::kernel::{CONFIG_REGION, Container, Device, Group, Mapping, Region};
use super::layout::{self, BarPlan};
use super::registers::{self, Place};
use crate::bus::BusDevice;
use crate::memory::{self, GuestMemory};
use crate::pci::config_space::{BarKind, ConfigSpace, SIZE};
use crate::pci::msix::MsiSink;
use crate::pci::root::PciFunction;

const COMMAND: u64 = 4;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_MASTER: u16 = 1 << 2;
const COMMAND_NO_INTX: u16 = 1 << 10;

/// A device that has its address space and was reset, and that no guest can see yet.
pub struct Attached {
    address: PciAddress,
    device: Arc<Device>,
    config_region: Region,
    physical: Physical,
    messages: Messages,
    /// Its BARs with their regions.
    bars: Vec<(BarPlan, Region)>,
    group: Group,
    container: Container,
}

impl Attached {
    /// Joins group and container, shows guest RAM to the device at its guest addresses, and resets it.
    pub fn new(opened: Opened, memory: &GuestMemory) -> Result<Self, VfioError> {
        let Opened {
            address,
            group,
            container,
        } = opened;
        let kernel = |what| VfioError::kernel(address, what);
        if !container.is_known() {
            return Err(VfioError::NoType1(address));
        }
        if !group.is_viable().map_err(kernel("asking for its group"))? {
            return Err(VfioError::NotViable(address));
        }
        let joined = group.attach(&container).and_then(|()| container.enable());
        joined.map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM) => VfioError::NoInterruptRemapping(address),
            Some(libc::EBUSY) => VfioError::Busy(address),
            _ => kernel("giving its group an address space")(source),
        })?;
        // The device before the memory: it is quick, and says most of what can be wrong.
        let device = group.device(address).map_err(|source| {
            // The container can be held by a guest that is just ending.
            match source.raw_os_error() {
                Some(libc::EBUSY) => VfioError::Busy(address),
                _ => kernel("opening it")(source),
            }
        })?;
        if !device.can_reset() {
            return Err(VfioError::NoReset(address));
        }
        device.reset().map_err(kernel("resetting it"))?;
        let config_region = region(&device, CONFIG_REGION, address)?;
        let mut bytes = [0; SIZE];
        if config_region.size < SIZE as u64 {
            return Err(unusable(address, "its configuration space is too small"));
        }
        device
            .read(config_region.offset, &mut bytes)
            .map_err(kernel("reading its configuration space"))?;
        let physical = Physical::new(bytes);
        if !physical.is_endpoint() {
            return Err(unusable(address, "it is a bridge"));
        }
        let messages = physical.messages().ok_or(VfioError::NoMessages(address))?;
        let bars = bars(&device, &physical, messages, address)?;
        map_ram(&container, memory, address)?;
        Ok(Self {
            address,
            device: Arc::new(device),
            config_region,
            physical,
            messages,
            bars,
            group,
            container,
        })
    }

    /// The device.
    pub fn address(&self) -> PciAddress {
        self.address
    }

    /// The BARs for which the guest needs addresses.
    pub fn bars(&self) -> impl Iterator<Item = BarPlan> {
        self.bars.iter().map(|(plan, _)| *plan)
    }

    /// How many interrupt numbers of KVM it needs.
    pub fn interrupts(&self) -> u16 {
        Interrupts::count(self.messages)
    }

    /// The group's descriptor, for KVM.
    pub fn group_fd(&self) -> i32 {
        self.group.raw_fd()
    }

    /// Puts the device onto the guest's bus: `addresses` has one for each of [`Attached::bars`],
    /// `gsis` as many numbers as [`Attached::interrupts`] says.
    pub fn place(
        self,
        addresses: &[u64],
        gsis: &[u32],
        sink: Arc<dyn MsiSink>,
    ) -> Result<VfioFunction, VfioError> {
        let address = self.address;
        let wrong = |source| VfioError::ConfigSpace { address, source };
        let (mut config, capability) = self.physical.filtered(self.messages).map_err(wrong)?;
        let mut bars = Vec::with_capacity(self.bars.len());
        for ((plan, region), guest_address) in self.bars.into_iter().zip(addresses) {
            let kind = match plan.is_64bit {
                true => BarKind::High,
                false => BarKind::Low,
            };
            config
                .add_bar(plan.index, *guest_address, plan.size, kind)
                .map_err(wrong)?;
            bars.push(Bar {
                index: plan.index,
                guest_address: *guest_address,
                region,
            });
        }
        let interrupts =
            Interrupts::new(self.device.clone(), sink, gsis, self.messages, capability)
                .map_err(VfioError::kernel(address, "creating eventfds"))?;
        let function = VfioFunction {
            address,
            config,
            bars,
            table: match self.messages {
                Messages::Msix(table) => Some(table),
                Messages::Msi => None,
            },
            interrupts,
            is_master: false,
            is_stopped: false,
            device: self.device,
            config_region: self.config_region,
            _group: self.group,
            _container: self.container,
        };
        // Registers answer from now on, also those that the guest reaches without us: what a device
        // does not decode would be a fault of ours.
        function
            .write_command(false)
            .map_err(VfioError::kernel(address, "enabling its registers"))?;
        Ok(function)
    }
}

struct Bar {
    index: usize,
    guest_address: u64,
    region: Region,
}

/// A part of a device's registers that the guest reaches without us.
pub struct MappedPart {
    /// Where the guest sees it.
    pub guest_address: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Where it lies in this process.
    pub mapping: Mapping,
}

/// A physical device on the guest's bus.
///
/// Fields are dropped in this order: the device before its group, the group before the container.
pub struct VfioFunction {
    address: PciAddress,
    config: ConfigSpace,
    bars: Vec<Bar>,
    table: Option<MsixTable>,
    interrupts: Interrupts,
    /// Whether the device may read and write guest memory.
    is_master: bool,
    is_stopped: bool,
    device: Arc<Device>,
    config_region: Region,
    _group: Group,
    _container: Container,
}

impl VfioFunction {
    /// Guest address and length of each BAR.
    pub fn ranges(&self) -> impl Iterator<Item = (usize, u64, u64)> {
        self.bars
            .iter()
            .map(|bar| (bar.index, bar.guest_address, bar.region.size))
    }

    /// Maps what of the BARs the guest may reach without us.
    pub fn map_parts(&self) -> Result<Vec<MappedPart>, VfioError> {
        let mut parts = Vec::new();
        for bar in &self.bars {
            let trapped = registers::trapped(self.table.as_ref(), bar.index);
            let size = bar.region.size;
            for (offset, length) in layout::mapped_parts(size, &bar.region.mappable, &trapped) {
                let mapping = self
                    .device
                    .map(&bar.region, offset, length)
                    .map_err(VfioError::kernel(self.address, "mapping its registers"))?;
                parts.push(MappedPart {
                    guest_address: bar.guest_address + offset,
                    length,
                    mapping,
                });
            }
        }
        Ok(parts)
    }

    /// Takes the device away from the guest: no interrupts, no access to memory, its first state.
    pub fn stop(&mut self) {
        if std::mem::replace(&mut self.is_stopped, true) {
            return;
        }
        self.interrupts.stop();
        self.is_master = false;
        let stopped = self.write_command(false).and_then(|()| self.device.reset());
        if let Err(error) = stopped {
            // The kernel resets it once more when the last descriptor is closed.
            tracing::warn!(device = %self.address, "could not be reset: {error}");
        }
    }

    /// The device's own command register: memory is decoded for as long as the guest has the device,
    /// the wire for interrupts stays off.
    fn write_command(&self, is_master: bool) -> std::io::Result<()> {
        let mut command = COMMAND_MEMORY | COMMAND_NO_INTX;
        if is_master {
            command |= COMMAND_MASTER;
        }
        self.device
            .write(self.config_region.offset + COMMAND, &command.to_le_bytes())
    }

    fn read_bar(&self, index: usize, untrusted_offset: u64, data: &mut [u8]) {
        match self.place_of(index, untrusted_offset, data.len()) {
            (Place::Table(offset), _) => self.interrupts.read_table(offset, data),
            (Place::Pending(offset), _) => self.interrupts.read_pending(offset, data),
            (Place::Device, at) => {
                if let Err(error) = self.device.read(at, data) {
                    tracing::debug!(device = %self.address, "BAR {index}: {error}");
                    data.fill(0xff);
                }
            }
            (Place::Nowhere, _) => data.fill(0xff),
        }
    }

    fn write_bar(&mut self, index: usize, untrusted_offset: u64, untrusted_data: &[u8]) {
        match self.place_of(index, untrusted_offset, untrusted_data.len()) {
            (Place::Table(offset), _) => self.interrupts.write_table(offset, untrusted_data),
            (Place::Device, at) => {
                if let Err(error) = self.device.write(at, untrusted_data) {
                    tracing::debug!(device = %self.address, "BAR {index}: {error}");
                }
            }
            (Place::Pending(_) | Place::Nowhere, _) => {}
        }
    }

    /// What lies at an offset of a BAR, and, if the device is asked, where that is in its file.
    fn place_of(&self, index: usize, untrusted_offset: u64, length: usize) -> (Place, u64) {
        let Some(bar) = self.bars.iter().find(|bar| bar.index == index) else {
            return (Place::Nowhere, 0);
        };
        let (table, region) = (self.table.as_ref(), &bar.region);
        let place = registers::place(table, index, region.size, untrusted_offset, length);
        (place, region.offset.saturating_add(untrusted_offset))
    }
}

impl PciFunction for VfioFunction {
    fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn write_config(&mut self, offset: usize, untrusted_data: &[u8]) {
        self.config.write(offset, untrusted_data);
        let is_master = self.config.dword(COMMAND as usize) as u16 & COMMAND_MASTER != 0;
        if is_master != self.is_master {
            match self.write_command(is_master) {
                Ok(()) => self.is_master = is_master,
                Err(error) => tracing::debug!(device = %self.address, "command: {error}"),
            }
        }
        self.interrupts.follow(&self.config);
    }
}

impl Drop for VfioFunction {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One BAR on the bus of memory addresses.
pub struct BarAccess {
    /// The device.
    pub function: Arc<Mutex<VfioFunction>>,
    /// The BAR.
    pub index: usize,
}

impl BusDevice for BarAccess {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let function = self.function.lock();
        let function = function.unwrap_or_else(PoisonError::into_inner);
        function.read_bar(self.index, offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let function = self.function.lock();
        let mut function = function.unwrap_or_else(PoisonError::into_inner);
        function.write_bar(self.index, offset, data);
    }
}

fn unusable(address: PciAddress, problem: &'static str) -> VfioError {
    VfioError::Unusable { address, problem }
}

fn region(device: &Device, index: u32, address: PciAddress) -> Result<Region, VfioError> {
    device
        .region(index)
        .map_err(VfioError::kernel(address, "asking for its registers"))
}

/// The device's BARs, and whether table and pending bits lie in them.
fn bars(
    device: &Device,
    physical: &Physical,
    messages: Messages,
    address: PciAddress,
) -> Result<Vec<(BarPlan, Region)>, VfioError> {
    let mut regions = Vec::with_capacity(6);
    for index in 0..6 {
        regions.push(region(device, index, address)?);
    }
    let sizes = std::array::from_fn(|index| regions.get(index).map_or(0, |region| region.size));
    let plans = layout::plan(physical.bar_registers(), sizes)
        .map_err(|problem| unusable(address, problem))?;
    let bars: Vec<(BarPlan, Region)> = plans
        .into_iter()
        .filter_map(|plan| Some((plan, regions.get(plan.index)?.clone())))
        .collect();
    if bars.iter().any(|(_, region)| !region.accessible) {
        return Err(unusable(
            address,
            "its registers cannot be read and written",
        ));
    }
    if let Messages::Msix(table) = messages
        && !registers::holds(bars.iter().map(|(plan, _)| plan), &table)
    {
        return Err(unusable(
            address,
            "its MSI-X table lies outside of its BARs",
        ));
    }
    Ok(bars)
}

/// Shows all RAM of the guest to the device. This pins it: every page exists from now on.
fn map_ram(
    container: &Container,
    memory: &GuestMemory,
    address: PciAddress,
) -> Result<(), VfioError> {
    for region in memory.iter() {
        let host = region
            .get_host_address(MemoryRegionAddress(0))
            .map_err(|_| unusable(address, "guest memory has no address"))?;
        let (start, length) = (region.start_addr().0, region.len());
        container
            .map(host as u64, start, length)
            .map_err(|source| match source.raw_os_error() {
                Some(libc::ENOMEM) => VfioError::MemoryLock {
                    address,
                    needed_mib: memory::total_bytes(memory) >> 20,
                    limit: memory_lock_limit(),
                },
                _ => VfioError::kernel(address, "showing it guest memory")(source),
            })?;
    }
    Ok(())
}

fn memory_lock_limit() -> String {
    match getrlimit(Resource::Memlock).current {
        Some(bytes) => format!("{} MiB", bytes >> 20),
        None => "any amount, which the host does not have".to_owned(),
    }
}
