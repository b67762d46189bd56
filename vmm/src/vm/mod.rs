//! One virtual machine: built from a prepared configuration, run until the guest ends.

pub mod build;
pub mod devices;
pub mod run;

use std::sync::{Arc, Mutex};

use bulkhead_vmm_api::VmConfig;
use kvm_ioctls::{DeviceFd, VcpuFd};

use crate::arch::pvh::LoadError;
use crate::config::files::{ListeningSocket, SocketPath};
use crate::config::{self, ConfigError};
use crate::devices::power::Pm1;
use crate::devices::virtio::console::terminal::RawMode;
use crate::devices::virtio::gpu::Stats;
use crate::devices::virtio::transport::{TransportError, VirtioPci};
use crate::exit::{ExitReason, ExitSignal};
use crate::memory::GuestMemory;
use crate::memory::host_window::HostVisibleWindow;
use crate::pci::vfio::VfioError;
use crate::pci::vfio::function::VfioFunction;
use crate::pci::vfio::kernel::Mapping;
use crate::vcpu::Buses;

/// Why a guest could not be started or run.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The configuration is at fault.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The kernel or initramfs is at fault.
    #[error("{name} {source}")]
    Load {
        /// Which file.
        name: String,
        /// What is wrong.
        source: LoadError,
    },
    /// /dev/kvm is not there.
    #[error(
        "/dev/kvm does not exist: enable virtualization in the firmware and load the module \
         kvm-intel or kvm-amd"
    )]
    NoKvm,
    /// /dev/kvm may not be used.
    #[error("/dev/kvm: permission denied: add this user to the group that owns it, often `kvm`")]
    KvmPermission,
    /// KVM refused something that the VMM needs.
    #[error("KVM: {what}: {source}")]
    Kvm {
        /// What was attempted.
        what: &'static str,
        /// KVM's answer.
        source: kvm_ioctls::Error,
    },
    /// RAM could not be allocated.
    #[error("allocating {mib} MiB of guest memory: {why}: give the guest less memory")]
    Memory {
        /// How much.
        mib: u64,
        /// The reason.
        why: String,
    },
    /// The guest's address space cannot hold the window.
    #[error("the window of {mib} MiB does not fit into this processor's physical addresses")]
    Window {
        /// Its size.
        mib: u64,
    },
    /// A device could not be made.
    #[error("device {name}: {source}")]
    Device {
        /// Which one.
        name: String,
        /// The reason.
        source: TransportError,
    },
    /// A device's own setup failed.
    #[error("device {name}: {why}")]
    DeviceSetup {
        /// Which one.
        name: String,
        /// The reason, with what to do.
        why: String,
    },
    /// A physical device cannot be given to the guest.
    #[error(transparent)]
    Vfio(#[from] VfioError),
    /// The VM's own layout is at fault.
    #[error("layout: {0}")]
    Layout(String),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },
}

impl VmError {
    pub(crate) fn kvm(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |source| Self::Kvm { what, source }
    }

    pub(crate) fn host(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Host { what, source }
    }
}

/// A guest, ready to start.
///
/// Fields are dropped in this order: devices before the memory that they use, and the KVM objects
/// before the mappings behind their memory slots.
pub struct Vm {
    name: String,
    cpus: u8,
    vcpus: Vec<VcpuFd>,
    buses: Arc<Buses>,
    functions: Vec<Arc<Mutex<VirtioPci>>>,
    passed: Vec<Arc<Mutex<VfioFunction>>>,
    _groups: Option<DeviceFd>,
    pm1: Arc<Mutex<Pm1>>,
    exit: ExitSignal,
    control: Option<ListeningSocket>,
    gpu_stats: Option<Arc<Stats>>,
    _terminal: Option<RawMode>,
    _sockets: Vec<SocketPath>,
    memory: GuestMemory,
    _windows: Vec<Arc<HostVisibleWindow>>,
    _registers: Vec<Mapping>,
}

/// Runs the guest that `config` describes until it ends.
pub fn run(config: VmConfig) -> Result<ExitReason, VmError> {
    let signals = run::Signals::new().map_err(VmError::host("taking over signals"))?;
    let prepared = config::prepare(config)?;
    let vm = build::build(prepared)?;
    vm.run(&signals)
}
