//! Puts a VM together: memory, interrupt controllers, devices, processors, kernel.

use std::os::fd::{FromRawFd, IntoRawFd};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::devices::{self, Placer};
use super::{LoadError, Vm, VmError};
use crate::arch::{acpi, cpuid, elf, layout, pvh, registers};
use crate::bus::{Bus, BusDevice};
use crate::config::Prepared;
use crate::devices::power::{PM1_LENGTH, Pm1, ResetPort};
use crate::devices::rtc::Rtc;
use crate::devices::serial::{self, SerialPort};
use crate::exit::ExitSignal;
use crate::irq::IrqRouter;
use crate::memory::{self, GuestMemory, reader};
use crate::pci::root::Ecam;
use crate::vcpu::Buses;

/// Builds everything; the guest has not started when this returns.
pub fn build(mut prepared: Prepared) -> Result<Vm, VmError> {
    let kvm = open_kvm(prepared.kvm.take())?;
    let exit = ExitSignal::new().map_err(VmError::host("creating an eventfd"))?;
    let memory = memory::allocate(prepared.memory_bytes).map_err(|error| VmError::Memory {
        mib: prepared.memory_bytes >> 20,
        why: error.to_string(),
    })?;
    let mut stages = Stages::default();
    let kernel = load_kernel(&memory, &mut prepared)?;
    stages.reached("kernel and initramfs loaded");

    let vm = Arc::new(create_vm(&kvm)?);
    add_ram(&vm, &memory)?;
    vm.create_irq_chip()
        .map_err(VmError::kvm("creating interrupt controllers"))?;
    let pit = kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    };
    vm.create_pit2(pit)
        .map_err(VmError::kvm("creating the timer"))?;
    let shared_cpuid = cpuid::host_cpuid(&kvm, prepared.cpus).map_err(VmError::kvm("CPUID"))?;

    stages.reached("KVM's machine made");
    let mut buses = Buses {
        ports: Bus::default(),
        memory: Bus::default(),
    };
    let pm1 = add_legacy_devices(&vm, &mut buses.ports, prepared.serial.take(), &exit)?;
    let mut placer = Placer::new(
        vm.clone(),
        memory.clone(),
        Arc::new(IrqRouter::new(vm.clone())),
        cpuid::physical_address_bits(&shared_cpuid),
        exit.clone(),
    );
    let control = prepared.control.take();
    let terminal = prepared
        .console
        .as_mut()
        .and_then(|console| console.terminal.take());
    let (name, cpus) = (prepared.name.clone(), prepared.cpus);
    let gpu_stats = devices::add_all(&mut placer, prepared)?;
    let placed = placer.finish(&mut buses.memory)?;
    stages.reached("devices made");
    let ecam = Arc::new(Mutex::new(Ecam(placed.bus)));
    buses
        .memory
        .insert(layout::ECAM, layout::ECAM_LEN, ecam)
        .map_err(|error| VmError::Layout(error.to_string()))?;
    let rsdp = acpi::write_tables(&memory, cpus, placed.high_window)
        .map_err(|error| VmError::Layout(error.to_string()))?;
    pvh::write_start_info(&memory, &kernel.cmdline, kernel.initramfs, rsdp).map_err(|source| {
        VmError::Load {
            name: kernel.name,
            source,
        }
    })?;
    let vcpus = create_vcpus(&vm, cpus, &shared_cpuid, kernel.entry)?;
    stages.reached("processors made");
    Ok(Vm {
        name,
        cpus,
        vcpus,
        buses: Arc::new(buses),
        functions: placed.functions,
        passed: placed.passed,
        _groups: placed.groups,
        pm1,
        gpu_stats,
        exit,
        control,
        _terminal: terminal,
        _sockets: placed.sockets,
        memory,
        _windows: placed.windows,
        _registers: placed.registers,
    })
}

/// Tells in the log (level debug) how long each stage took.
struct Stages(Instant);

impl Default for Stages {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Stages {
    fn reached(&mut self, stage: &str) {
        let elapsed_us = self.0.elapsed().as_micros();
        tracing::debug!(elapsed_us, "{stage}");
        self.0 = Instant::now();
    }
}

fn open_kvm(handed_over: Option<std::fs::File>) -> Result<Kvm, VmError> {
    let kvm = match handed_over {
        // SAFETY: the descriptor is open and ours; if it is not KVM, its ioctls fail.
        Some(file) => unsafe { Kvm::from_raw_fd(file.into_raw_fd()) },
        None => Kvm::new().map_err(|error| match error.errno() {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => VmError::NoKvm,
            libc::EACCES | libc::EPERM => VmError::KvmPermission,
            _ => VmError::Kvm {
                what: "opening /dev/kvm",
                source: error,
            },
        })?,
    };
    if kvm.get_api_version() != 12 {
        let source = kvm_ioctls::Error::new(libc::EPROTO);
        return Err(VmError::Kvm {
            what: "this is not the KVM that is known here",
            source,
        });
    }
    Ok(kvm)
}

fn create_vm(kvm: &Kvm) -> Result<VmFd, VmError> {
    let vm = loop {
        match kvm.create_vm() {
            // Creating threads for the VM can be interrupted by a signal.
            Err(error) if error.errno() == libc::EINTR => {}
            other => break other.map_err(VmError::kvm("creating a VM"))?,
        }
    };
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
        .map_err(VmError::kvm("setting the identity map"))?;
    vm.set_tss_address(layout::KVM_TSS)
        .map_err(VmError::kvm("setting the task segment"))?;
    Ok(vm)
}

struct Kernel {
    name: String,
    entry: u64,
    cmdline: String,
    initramfs: Option<pvh::LoadedInitramfs>,
}

fn load_kernel(memory: &GuestMemory, prepared: &mut Prepared) -> Result<Kernel, VmError> {
    let because = |name: &str| {
        let name = name.to_owned();
        move |source| VmError::Load { name, source }
    };
    let name = prepared.kernel.name.clone();
    let (loaded, kernel) = elf::place(memory, &prepared.kernel.file).map_err(because(&name))?;
    let mut pieces = kernel;
    let of_kernel = pieces.len();
    let mut initramfs_name = &name;
    let initramfs = match &prepared.initramfs {
        Some((file, length)) => {
            initramfs_name = &file.name;
            let placed = pvh::place_initramfs(memory, &loaded, &file.file, *length);
            let (placed, piece) = placed.map_err(because(&file.name))?;
            pieces.push(piece);
            Some(placed)
        }
        None => None,
    };
    reader::read(memory, &pieces).map_err(|failed| {
        let name = if failed.piece < of_kernel {
            &name
        } else {
            initramfs_name
        };
        because(name)(LoadError::Truncated(failed.why.to_string()))
    })?;
    let cmdline = std::mem::take(&mut prepared.cmdline);
    Ok(Kernel {
        name,
        entry: loaded.entry,
        cmdline,
        initramfs,
    })
}

fn add_ram(vm: &VmFd, memory: &GuestMemory) -> Result<(), VmError> {
    for (slot, region) in memory.iter().enumerate() {
        let address = region
            .get_host_address(MemoryRegionAddress(0))
            .map_err(|error| VmError::Layout(error.to_string()))?;
        set_memory_slot(
            vm,
            slot as u32,
            region.start_addr().0,
            region.len(),
            address as u64,
        )?;
    }
    Ok(())
}

/// Shows a range of this process's memory to the guest.
pub(super) fn set_memory_slot(
    vm: &VmFd,
    slot: u32,
    guest_phys_addr: u64,
    memory_size: u64,
    userspace_addr: u64,
) -> Result<(), VmError> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr,
        memory_size,
        userspace_addr,
    };
    // SAFETY: the range is a mapping of this process that `Vm` keeps for longer than the VM, and
    // that holds nothing but guest memory.
    unsafe { vm.set_user_memory_region(region) }.map_err(VmError::kvm("adding guest memory"))
}

fn add_legacy_devices(
    vm: &Arc<VmFd>,
    ports: &mut Bus,
    serial_log: Option<std::fs::File>,
    exit: &ExitSignal,
) -> Result<Arc<Mutex<Pm1>>, VmError> {
    let line = EventFd::new(EFD_NONBLOCK).map_err(VmError::host("creating an eventfd"))?;
    vm.register_irqfd(&line, layout::IRQ_SERIAL)
        .map_err(VmError::kvm("connecting the serial port"))?;
    let serial = Arc::new(Mutex::new(SerialPort::new(serial::Line(line), serial_log)));
    let pm1 = Arc::new(Mutex::new(Pm1::new(Box::new(vm.clone()), exit.clone())));
    let reset = Arc::new(Mutex::new(ResetPort::new(exit.clone())));
    let rtc = Arc::new(Mutex::new(Rtc::default()));
    let mut insert = |port: u16, length, device: Arc<Mutex<dyn BusDevice>>| {
        ports
            .insert(u64::from(port), length, device)
            .map_err(|error| VmError::Layout(error.to_string()))
    };
    insert(layout::PORT_SERIAL, serial::LENGTH, serial)?;
    insert(layout::PORT_PM1, PM1_LENGTH, pm1.clone())?;
    insert(layout::PORT_I8042, ResetPort::LENGTH, reset)?;
    insert(layout::PORT_CMOS, Rtc::LENGTH, rtc)?;
    Ok(pm1)
}

fn create_vcpus(
    vm: &VmFd,
    cpus: u8,
    shared_cpuid: &[kvm_bindings::kvm_cpuid_entry2],
    entry: u64,
) -> Result<Vec<VcpuFd>, VmError> {
    let mut vcpus = Vec::with_capacity(usize::from(cpus));
    for id in 0..cpus {
        let vcpu = vm
            .create_vcpu(u64::from(id))
            .map_err(VmError::kvm("creating a processor"))?;
        let cpuid = cpuid::cpu_cpuid(shared_cpuid, id)
            .map_err(|error| VmError::Layout(format!("CPUID: {error:?}")))?;
        vcpu.set_cpuid2(&cpuid)
            .map_err(VmError::kvm("setting CPUID"))?;
        registers::set_msrs(&vcpu);
        if id == 0 {
            registers::set_boot_state(&vcpu, entry, layout::START_INFO)
                .map_err(VmError::kvm("setting registers"))?;
        }
        vcpus.push(vcpu);
    }
    Ok(vcpus)
}
