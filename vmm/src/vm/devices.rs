//! Which devices a guest gets, in which order, and where they lie.
//!
//! A new device is added in [`add_all`], and nowhere else in the VM's construction.

use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_DEV_VFIO_GROUP, KVM_DEV_VFIO_GROUP_ADD, KVM_MEM_READONLY, kvm_create_device,
    kvm_device_attr, kvm_device_type_KVM_DEV_TYPE_VFIO, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, DeviceFd, IoEventAddress, NoDatamatch, VmFd};

use super::VmError;
use super::build::set_memory_slot;
use crate::arch::acpi::HighWindow;
use crate::arch::layout;
use crate::bus::Bus;
use crate::config::Prepared;
use crate::config::files::SocketPath;
use crate::devices::virtio::blk::Blk;
use crate::devices::virtio::console::Console;
use crate::devices::virtio::device::{DeviceFault, VirtioDevice};
use crate::devices::virtio::gpu::{Gpu, Stats};
use crate::devices::virtio::rng::Rng;
use crate::devices::virtio::transport::{BAR_SIZE, PORTS_SIZE, Placement, VirtioPci};
use crate::devices::virtio::vsock::Vsock;
use crate::exit::{ExitReason, ExitSignal};
use crate::irq::IrqRouter;
use crate::memory::host_window::HostVisibleWindow;
use crate::memory::{self, GuestMemory};
use crate::pci::root::{HostBridge, PciBus};
use crate::pci::shown::ConfigPage;
use crate::pci::vfio::function::{Attached, BarAccess, VfioFunction};
use crate::pci::vfio::host::Opened;
use crate::pci::vfio::kernel::Mapping;
use crate::pci::vfio::layout::{BarPlan, PAGE};

/// Adds every device of the configuration. Returns the counters of the GPU.
pub fn add_all(placer: &mut Placer, prepared: Prepared) -> Result<Option<Arc<Stats>>, VmError> {
    for (id, disk) in prepared.disks {
        placer.add(&format!("disk {id}"), Box::new(Blk::new(disk)))?;
    }
    if let Some(console) = prepared.console {
        placer.add("console", Box::new(Console::new(console.endpoint)))?;
        placer.keep_socket(console.socket);
    }
    placer.add("rng", Box::new(Rng::default()))?;
    if let Some(vsock) = prepared.vsock {
        let device = Vsock::new(vsock.cid, vsock.host.listener, vsock.guest);
        placer.add("vsock", Box::new(device))?;
        placer.keep_socket(vsock.host.path);
    }
    for net in prepared.nets {
        placer.add("net", Box::new(net))?;
    }
    for device in prepared.vfio {
        placer.add_passed(device)?;
    }
    let mut gpu_stats = None;
    if let Some(gpu) = &prepared.gpu {
        let device = Gpu::new(gpu);
        gpu_stats = Some(device.stats());
        placer.add("gpu", Box::new(device))?;
    }
    Ok(gpu_stats)
}

/// The largest BAR of a physical device that is put below 4 GiB, if it need not lie there.
const MAX_LOW_BAR: u64 = 64 << 20;

/// Gives devices their slots, addresses and interrupts.
pub struct Placer {
    vm: Arc<VmFd>,
    memory: GuestMemory,
    router: Arc<IrqRouter>,
    exit: ExitSignal,
    bus: PciBus,
    functions: Vec<(u64, Arc<Mutex<VirtioPci>>)>,
    windows: Vec<Arc<HostVisibleWindow>>,
    passed: Vec<Arc<Mutex<VfioFunction>>>,
    registers: Vec<Mapping>,
    /// KVM's view of the passed devices' groups.
    groups: Option<DeviceFd>,
    sockets: Vec<SocketPath>,
    next_slot: u32,
    next_bar: u64,
    next_port: u16,
    high_start: u64,
    next_high: u64,
    high_limit: u64,
}

/// What a placed set of devices consists of.
pub struct Placed {
    /// The bus.
    pub bus: Arc<PciBus>,
    /// Its virtio functions.
    pub functions: Vec<Arc<Mutex<VirtioPci>>>,
    /// Windows, to be kept for as long as the VM.
    pub windows: Vec<Arc<HostVisibleWindow>>,
    /// Physical devices on the bus.
    pub passed: Vec<Arc<Mutex<VfioFunction>>>,
    /// Their mapped registers, to be kept for as long as the VM.
    pub registers: Vec<Mapping>,
    /// KVM's view of their groups, to be kept as well.
    pub groups: Option<DeviceFd>,
    /// Sockets to remove in the end.
    pub sockets: Vec<SocketPath>,
    /// The range of addresses of the windows.
    pub high_window: Option<HighWindow>,
}

impl Placer {
    /// An empty bus.
    pub fn new(
        vm: Arc<VmFd>,
        memory: GuestMemory,
        router: Arc<IrqRouter>,
        physical_address_bits: u32,
        exit: ExitSignal,
    ) -> Self {
        let mut bus = PciBus::default();
        let bridge = Arc::new(Mutex::new(HostBridge::default()));
        if bus.add(bridge).is_err() {
            unreachable!("an empty bus has a free slot");
        }
        let high_start = memory::end_of_ram(&memory);
        Self {
            vm,
            memory,
            router,
            exit,
            bus,
            functions: Vec::new(),
            windows: Vec::new(),
            passed: Vec::new(),
            registers: Vec::new(),
            groups: None,
            sockets: Vec::new(),
            // RAM has at most the first two slots.
            next_slot: 2,
            next_bar: layout::PCI_MEMORY,
            next_port: layout::PCI_PORTS,
            high_start,
            next_high: high_start,
            high_limit: 1u64.checked_shl(physical_address_bits).unwrap_or(u64::MAX),
        }
    }

    /// Adds a device; `name` is for logs and messages.
    pub fn add(&mut self, name: &str, device: Box<dyn VirtioDevice>) -> Result<(), VmError> {
        let setup = |why: String| VmError::DeviceSetup {
            name: name.to_owned(),
            why,
        };
        let bar = self.take_low(BAR_SIZE)?;
        let ports = self.take_ports()?;
        let window = match device.shared_memory() {
            Some(region) => Some(self.add_window(region.length)?),
            None => None,
        };
        let gsis: Vec<u32> = (0..=device.queue_sizes().len())
            .map(|_| self.router.allocate())
            .collect();
        let (exit, fault_name) = (self.exit.clone(), name.to_owned());
        let fault = DeviceFault::new(move |reason| {
            exit.end(ExitReason::DeviceFault(format!("{fault_name}: {reason}")));
        });
        let placement = Placement {
            bar,
            ports,
            window,
            gsis: &gsis,
            sink: self.router.clone(),
        };
        let function = VirtioPci::new(
            name.to_owned(),
            device,
            self.memory.clone(),
            placement,
            fault,
        )
        .map_err(|source| VmError::Device {
            name: name.to_owned(),
            source,
        })?;
        for (offset, port, eventfd) in function.doorbells() {
            for address in [
                IoEventAddress::Pio(u64::from(ports) + port),
                IoEventAddress::Mmio(bar + offset),
            ] {
                self.vm
                    .register_ioevent(eventfd, &address, NoDatamatch)
                    .map_err(VmError::kvm("connecting a doorbell"))?;
            }
        }
        let function = Arc::new(Mutex::new(function));
        self.bus
            .add(function.clone())
            .map_err(|error| setup(error.to_string()))?;
        self.functions.push((bar, function));
        Ok(())
    }

    /// Removes the socket when the VM ends.
    fn keep_socket(&mut self, socket: Option<SocketPath>) {
        self.sockets.extend(socket);
    }

    /// Reserves a window and places it above all RAM, aligned to its size.
    fn add_window(&mut self, length: u64) -> Result<(u64, Arc<HostVisibleWindow>), VmError> {
        let window =
            HostVisibleWindow::new(length).map_err(|error| VmError::Layout(error.to_string()))?;
        let address = self.take_high(length)?;
        let window = Arc::new(window);
        let slot = self.take_slot();
        set_memory_slot(&self.vm, slot, address, length, window.host_address())?;
        self.windows.push(window.clone());
        Ok((address, window))
    }

    /// Gives the guest a physical device.
    fn add_passed(&mut self, device: Opened) -> Result<(), VmError> {
        let attached = Attached::new(device, &self.memory)?;
        let address = attached.address();
        self.tell_kvm(attached.group_fd())?;
        let addresses = attached
            .bars()
            .map(|bar| self.take_bar(&bar))
            .collect::<Result<Vec<u64>, VmError>>()?;
        let gsis: Vec<u32> = (0..attached.interrupts())
            .map(|_| self.router.allocate())
            .collect();
        let function = attached.place(&addresses, &gsis, self.router.clone())?;
        for part in function.map_parts()? {
            let (slot, host) = (self.take_slot(), part.mapping.host_address());
            // Kept before KVM knows it.
            self.registers.push(part.mapping);
            set_memory_slot(&self.vm, slot, part.guest_address, part.length, host)?;
        }
        let function = Arc::new(Mutex::new(function));
        self.bus
            .add(function.clone())
            .map_err(|error| VmError::DeviceSetup {
                name: address.to_string(),
                why: error.to_string(),
            })?;
        tracing::info!(device = %address, "belongs to the guest");
        self.passed.push(function);
        Ok(())
    }

    /// Tells KVM of a group: it then knows whether the devices see the processor's caches.
    fn tell_kvm(&mut self, group: i32) -> Result<(), VmError> {
        let groups = match self.groups.take() {
            Some(groups) => groups,
            None => {
                let mut device = kvm_create_device {
                    type_: kvm_device_type_KVM_DEV_TYPE_VFIO,
                    ..Default::default()
                };
                self.vm
                    .create_device(&mut device)
                    .map_err(VmError::kvm("preparing for physical devices"))?
            }
        };
        // KVM reads the descriptor's number at this address during the call, and nothing after it.
        let attribute = kvm_device_attr {
            group: KVM_DEV_VFIO_GROUP,
            attr: u64::from(KVM_DEV_VFIO_GROUP_ADD),
            addr: &raw const group as u64,
            flags: 0,
        };
        let told = groups.set_device_attr(&attribute);
        self.groups = Some(groups);
        told.map_err(VmError::kvm("adding a physical device"))
    }

    /// An address for a physical device's BAR: below 4 GiB where it fits, as some drivers expect.
    fn take_bar(&mut self, bar: &BarPlan) -> Result<u64, VmError> {
        // Two devices never share a page.
        let size = bar.size.max(PAGE);
        if bar.is_64bit && size > MAX_LOW_BAR {
            self.take_high(size)
        } else {
            self.take_low(size)
        }
    }

    /// A range of addresses below 4 GiB, aligned to its size.
    fn take_low(&mut self, size: u64) -> Result<u64, VmError> {
        let full = || VmError::Layout("no room for another BAR".into());
        let address = self.next_bar.checked_next_multiple_of(size);
        let address = address.ok_or_else(full)?;
        let end = address.checked_add(size).ok_or_else(full)?;
        if end > layout::PCI_MEMORY + layout::PCI_MEMORY_LEN {
            return Err(full());
        }
        self.next_bar = end;
        Ok(address)
    }

    /// A virtio function's ports, aligned to their number.
    fn take_ports(&mut self) -> Result<u16, VmError> {
        let first = self.next_port;
        let used = u64::from(first - layout::PCI_PORTS);
        if used + PORTS_SIZE > u64::from(layout::PCI_PORTS_LEN) {
            return Err(VmError::Layout("no ports for another device".into()));
        }
        self.next_port += PORTS_SIZE as u16;
        Ok(first)
    }

    /// A range of addresses above all RAM, aligned to its size.
    fn take_high(&mut self, size: u64) -> Result<u64, VmError> {
        let too_big = || VmError::Window { mib: size >> 20 };
        let address = self
            .next_high
            .checked_next_multiple_of(size)
            .ok_or_else(too_big)?;
        let end = address.checked_add(size).ok_or_else(too_big)?;
        if end > self.high_limit {
            return Err(too_big());
        }
        self.next_high = end;
        Ok(address)
    }

    fn take_slot(&mut self) -> u32 {
        let slot = self.next_slot;
        self.next_slot += 1;
        slot
    }

    /// Lets the guest read the functions' configuration space without us, where KVM can (on x86 since
    /// Linux 3.7).
    fn show_configuration(&mut self) -> Result<(), VmError> {
        if !self.vm.check_extension(Cap::ReadonlyMem) {
            return Ok(());
        }
        let (vm, next_slot) = (&self.vm, &mut self.next_slot);
        self.bus.show(|offset| {
            let mut page =
                ConfigPage::new().map_err(VmError::host("memory for configuration space"))?;
            let slot = *next_slot;
            *next_slot += 1;
            let region = kvm_userspace_memory_region {
                slot,
                flags: KVM_MEM_READONLY,
                guest_phys_addr: layout::ECAM + offset,
                memory_size: PAGE,
                userspace_addr: page.host_address(),
            };
            // SAFETY: the bus keeps the page for as long as the VM; it holds what the guest may read.
            unsafe { vm.set_user_memory_region(region) }
                .map_err(VmError::kvm("showing configuration space"))?;
            let vm = vm.clone();
            page.is_shown(move || {
                let nothing = kvm_userspace_memory_region {
                    memory_size: 0,
                    ..region
                };
                // SAFETY: this only takes the range away again.
                if let Err(error) = unsafe { vm.set_user_memory_region(nothing) } {
                    tracing::warn!(%error, "configuration space stays shown");
                }
            });
            Ok(page)
        })
    }

    /// Puts all functions on the memory bus.
    pub fn finish(mut self, memory_bus: &mut Bus) -> Result<Placed, VmError> {
        self.show_configuration()?;
        let mut functions = Vec::with_capacity(self.functions.len());
        for (bar, function) in self.functions {
            memory_bus
                .insert(bar, BAR_SIZE, function.clone())
                .map_err(|error| VmError::Layout(error.to_string()))?;
            functions.push(function);
        }
        for function in &self.passed {
            let ranges: Vec<_> = function
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .ranges()
                .collect();
            for (index, address, length) in ranges {
                let access = BarAccess {
                    function: function.clone(),
                    index,
                };
                memory_bus
                    .insert(address, length, Arc::new(Mutex::new(access)))
                    .map_err(|error| VmError::Layout(error.to_string()))?;
            }
        }
        let high_window = (self.next_high > self.high_start).then(|| HighWindow {
            start: self.high_start,
            length: self.next_high - self.high_start,
        });
        Ok(Placed {
            bus: Arc::new(self.bus),
            functions,
            windows: self.windows,
            passed: self.passed,
            registers: self.registers,
            groups: self.groups,
            sockets: self.sockets,
            high_window,
        })
    }
}
