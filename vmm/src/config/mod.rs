//! From a configuration to open, checked files: everything that can be wrong with what the user
//! gave is found here, before the guest exists.

pub mod files;
pub mod images;

use std::fs::File;

use bulkhead_mac::{BadMac, Mac};
use bulkhead_ring::{MapError, Memory};
use bulkhead_vmm_api::{
    ConsoleConfig, DiskConfig, GpuConfig, GuestConnections, NetConfig, PciAddress, Source,
    VfioConfig, VmConfig,
};
use rustix::net::SocketType;

use crate::devices::virtio::blk::Disk;
use crate::devices::virtio::console::{Endpoint, terminal::RawMode};
use crate::devices::virtio::net::{Net, Port};
use crate::devices::virtio::vsock::GuestTarget;
use crate::pci::vfio::{VfioError, host::Opened};
use files::{FileError, Inherited, ListeningSocket, Named};

/// Most processors of a guest.
pub const MAX_CPUS: u8 = 64;
/// Least RAM that a kernel can start in.
pub const MIN_MEMORY_MIB: u32 = 16;
const DISK_ID_BYTES: usize = 20;

/// What is wrong with a configuration. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The number of processors.
    #[error("{cpus} processors: choose 1 to {MAX_CPUS}")]
    Cpus {
        /// The number asked for.
        cpus: u8,
    },
    /// The amount of memory.
    #[error("{memory_mib} MiB of memory: choose at least {MIN_MEMORY_MIB} and at most 1 TiB")]
    Memory {
        /// The amount asked for.
        memory_mib: u32,
    },
    /// The command line holds a zero byte.
    #[error("the kernel's command line holds a zero byte: remove it")]
    Cmdline,
    /// A disk's identifier.
    #[error("disk identifier {id:?}: use 1 to {DISK_ID_BYTES} ASCII characters")]
    DiskId {
        /// The identifier.
        id: String,
    },
    /// Two disks with the same identifier.
    #[error("two disks have the identifier {id:?}: give each its own")]
    SameDiskId {
        /// The identifier.
        id: String,
    },
    /// The network card's address.
    #[error("network: {0}")]
    Mac(#[from] BadMac),
    /// The network's longest packet.
    #[error("network: mtu {mtu}: choose 68 to 65521")]
    Mtu {
        /// The given size.
        mtu: u16,
    },
    /// What leads to the network.
    #[error("network: descriptor {fd} is no SOCK_SEQPACKET socket")]
    NetSocket {
        /// The descriptor.
        fd: i32,
    },
    /// What its packets go through.
    #[error("network: descriptor {fd}: {source}")]
    NetRing {
        /// The descriptor.
        fd: i32,
        /// Why it is none.
        source: MapError,
    },
    /// A physical device.
    #[error(transparent)]
    Vfio(#[from] VfioError),
    /// The guest's vsock address.
    #[error("vsock cid {cid}: choose 3 to 4294967294")]
    Cid {
        /// The address asked for.
        cid: u32,
    },
    /// The size of the host-visible window.
    #[error("gpu window_mib {window_mib}: choose a power of two from 1 to 65536")]
    Window {
        /// The size asked for.
        window_mib: u32,
    },
}

/// The vsock device's sockets.
#[derive(Debug)]
pub struct Vsock {
    /// The guest's address.
    pub cid: u32,
    /// Where the host connects to reach the guest.
    pub host: ListeningSocket,
    /// Where connections of the guest go.
    pub guest: GuestTarget,
}

/// A configuration whose files are open and checked.
#[derive(Debug)]
pub struct Prepared {
    /// The guest's name.
    pub name: String,
    /// Processors.
    pub cpus: u8,
    /// RAM in bytes.
    pub memory_bytes: u64,
    /// The KVM device, if handed over.
    pub kvm: Option<File>,
    /// The kernel.
    pub kernel: Named,
    /// The initramfs and its length.
    pub initramfs: Option<(Named, u64)>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Disks with their names for logs.
    pub disks: Vec<(String, Disk)>,
    /// Where serial output goes.
    pub serial: Option<File>,
    /// Where the console leads.
    pub console: Option<Console>,
    /// Sockets.
    pub vsock: Option<Vsock>,
    /// Network cards.
    pub nets: Vec<Net>,
    /// Physical devices.
    pub vfio: Vec<Opened>,
    /// Windows.
    pub gpu: Option<GpuConfig>,
    /// The control socket.
    pub control: Option<ListeningSocket>,
}

/// Where the console leads, and what must be undone at the end.
#[derive(Debug)]
pub struct Console {
    /// The device's side.
    pub endpoint: Endpoint,
    /// The terminal's earlier settings, restored when dropped.
    pub terminal: Option<RawMode>,
    /// The socket's path, removed when dropped.
    pub socket: Option<files::SocketPath>,
}

/// Opens and checks everything that `config` names.
pub fn prepare(config: VmConfig) -> Result<Prepared, ConfigError> {
    if config.cpus == 0 || config.cpus > MAX_CPUS {
        return Err(ConfigError::Cpus { cpus: config.cpus });
    }
    let memory_mib = config.memory_mib;
    if !(MIN_MEMORY_MIB..=1 << 20).contains(&memory_mib) {
        return Err(ConfigError::Memory { memory_mib });
    }
    if config.cmdline.contains('\0') {
        return Err(ConfigError::Cmdline);
    }
    let mut inherited = Inherited::default();
    let kernel = inherited.open("kernel", &config.kernel)?;
    let initramfs = match &config.initramfs {
        Some(source) => {
            let file = inherited.open("initramfs", source)?;
            let length = images::check_initramfs(&file)?;
            Some((file, length))
        }
        None => None,
    };
    let mut disks: Vec<(String, Disk)> = Vec::with_capacity(config.disks.len());
    for disk in &config.disks {
        if disks.iter().any(|(id, _)| *id == disk.id) {
            return Err(ConfigError::SameDiskId {
                id: disk.id.clone(),
            });
        }
        disks.push((disk.id.clone(), prepare_disk(&mut inherited, disk)?));
    }
    let kvm = match &config.kvm {
        Some(source) => Some(inherited.open_rw("KVM device", source)?.file),
        None => None,
    };
    let serial = match &config.serial {
        Some(source) => Some(inherited.create("serial log", source)?),
        None => None,
    };
    let vsock = match config.vsock {
        Some(vsock) => {
            if vsock.cid < 3 || vsock.cid == u32::MAX {
                return Err(ConfigError::Cid { cid: vsock.cid });
            }
            let host = inherited.listen("vsock socket", &vsock.host_socket)?;
            let guest = match vsock.guest_connections {
                Some(GuestConnections::PathPrefix(prefix)) => GuestTarget::PathPrefix(prefix),
                Some(GuestConnections::Fd(fd)) => {
                    GuestTarget::Socket(inherited.take("guest connections", fd)?)
                }
                None => GuestTarget::Refused,
            };
            Some(Vsock {
                cid: vsock.cid,
                host,
                guest,
            })
        }
        None => None,
    };
    let mut nets = Vec::with_capacity(config.nets.len());
    for net in &config.nets {
        nets.push(prepare_net(&mut inherited, net)?);
    }
    let mut vfio: Vec<Opened> = Vec::with_capacity(config.vfio.len());
    for device in &config.vfio {
        let opened = prepare_vfio(&mut inherited, device)?;
        if vfio.iter().any(|other| other.address == opened.address) {
            return Err(VfioError::Twice(opened.address).into());
        }
        vfio.push(opened);
    }
    if let Some(gpu) = &config.gpu
        && !(gpu.window_mib.is_power_of_two() && gpu.window_mib <= 65536)
    {
        return Err(ConfigError::Window {
            window_mib: gpu.window_mib,
        });
    }
    let control = match &config.control {
        Some(socket) => Some(inherited.listen("control socket", socket)?),
        None => None,
    };
    // Last, so that no error message is printed on a terminal in raw mode.
    let console = match &config.console {
        Some(console) => Some(prepare_console(&mut inherited, console)?),
        None => None,
    };
    Ok(Prepared {
        name: config.name,
        cpus: config.cpus,
        memory_bytes: u64::from(memory_mib) << 20,
        kvm,
        kernel,
        initramfs,
        cmdline: config.cmdline,
        disks,
        serial,
        console,
        vsock,
        nets,
        vfio,
        gpu: config.gpu,
        control,
    })
}

fn prepare_disk(inherited: &mut Inherited, disk: &DiskConfig) -> Result<Disk, ConfigError> {
    if disk.id.is_empty() || disk.id.len() > DISK_ID_BYTES || !disk.id.is_ascii() {
        return Err(ConfigError::DiskId {
            id: disk.id.clone(),
        });
    }
    let what = format!("disk {:?}", disk.id);
    let file = match (&disk.source, disk.read_only) {
        (Source::Path(_), false) => inherited.open_rw(&what, &disk.source)?,
        _ => inherited.open(&what, &disk.source)?,
    };
    file.lock(!disk.read_only)?;
    let bytes = images::check_disk(&file)?;
    Ok(Disk::new(file.file, bytes, disk.read_only, &disk.id))
}

fn prepare_net(inherited: &mut Inherited, net: &NetConfig) -> Result<Net, ConfigError> {
    let mac: Mac = net.mac.parse()?;
    // The least that IPv4 asks for (RFC 791), and what fits into a frame.
    if !(68..=65521).contains(&net.mtu) {
        return Err(ConfigError::Mtu { mtu: net.mtu });
    }
    let socket = inherited.take("network", net.socket)?;
    match rustix::net::sockopt::socket_type(&socket) {
        Ok(SocketType::SEQPACKET) => {
            let port = match net.ring {
                Some(fd) => {
                    let ring = inherited.take("network", fd)?;
                    let memory =
                        Memory::map(ring).map_err(|source| ConfigError::NetRing { fd, source })?;
                    Port::with_ring(socket, memory)
                }
                None => Port::new(socket),
            };
            Ok(Net::new(port, mac, net.mtu).with_offloads(net.offloads))
        }
        _ => Err(ConfigError::NetSocket { fd: net.socket }),
    }
}

fn prepare_vfio(inherited: &mut Inherited, device: &VfioConfig) -> Result<Opened, ConfigError> {
    let address: PciAddress = device.address.parse().map_err(VfioError::Address)?;
    Ok(match device.opened {
        Some(fds) => {
            let group = inherited.take("VFIO group", fds.group)?;
            let container = inherited.take("VFIO container", fds.container)?;
            Opened::handed_over(address, group, container)
        }
        None => Opened::open(address)?,
    })
}

fn prepare_console(
    inherited: &mut Inherited,
    console: &ConsoleConfig,
) -> Result<Console, ConfigError> {
    Ok(match console {
        ConsoleConfig::Fd(fd) => {
            let file = File::from(inherited.take("console", *fd)?);
            let terminal = RawMode::enter(&file);
            let output = Some(file.try_clone().map_err(|source| FileError::Host {
                what: "console".into(),
                source,
            })?);
            Console {
                endpoint: Endpoint::Files {
                    input: Some(file),
                    output,
                },
                terminal,
                socket: None,
            }
        }
        ConsoleConfig::Stdio => {
            let (input, output) = files::stdio()?;
            let terminal = RawMode::enter(&input);
            Console {
                endpoint: Endpoint::Files {
                    input: Some(input),
                    output: Some(output),
                },
                terminal,
                socket: None,
            }
        }
        ConsoleConfig::Path(path) => {
            let socket = bulkhead_vmm_api::Socket::Path(path.clone());
            let ListeningSocket { listener, path } = inherited.listen("console", &socket)?;
            Console {
                endpoint: Endpoint::Listener {
                    listener,
                    client: None,
                },
                terminal: None,
                socket: path,
            }
        }
    })
}
