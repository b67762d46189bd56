//! The configuration of one guest, as JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A file to read from or write to: a path, or a descriptor that the VMM inherited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Opened by the VMM.
    Path(PathBuf),
    /// Already open in the VMM's process; the VMM takes it over.
    Fd(i32),
}

/// A listening Unix stream socket: made by the VMM at a path, or inherited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Socket {
    /// The VMM creates (and at its end removes) the socket.
    Path(PathBuf),
    /// A listening socket already open in the VMM's process.
    Fd(i32),
}

/// Where the guest's `hvc0` goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsoleConfig {
    /// A connected stream socket, pipe or terminal, already open in the VMM's process.
    Fd(i32),
    /// A listening Unix socket that the VMM creates; one client at a time.
    Path(PathBuf),
    /// The VMM's own standard input and output; a terminal is put into raw mode.
    Stdio,
}

/// One virtio-blk disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// The serial that the guest sees in `/sys/block/*/serial`: at most 20 ASCII characters.
    pub id: String,
    /// The raw image.
    pub source: Source,
    /// Whether writes are refused.
    #[serde(default)]
    pub read_only: bool,
}

/// Where connections that the guest opens to the host (CID 2) are delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestConnections {
    /// Port N is connected to the Unix socket `PREFIX_N`.
    PathPrefix(PathBuf),
    /// A `SOCK_SEQPACKET` socket: for each connection the VMM sends one packet, the port as a
    /// little-endian `u32` with one end of a socket pair attached.
    Fd(i32),
}

/// The virtio-vsock device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockConfig {
    /// The guest's context identifier, 3 or more.
    pub cid: u32,
    /// Where the host connects to reach the guest (`CONNECT <port>\n`, answered `OK <n>\n`).
    pub host_socket: Socket,
    /// Where guest-initiated connections go; refused when absent.
    #[serde(default)]
    pub guest_connections: Option<GuestConnections>,
}

/// The virtio-net device: a card whose cable leads to the link between domains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetConfig {
    /// A connected `SOCK_SEQPACKET` socket, already open in the VMM's process. A packet of a single byte
    /// from the other side says whether something is plugged in (1) or not (0). Without a `ring` each
    /// other packet is a `virtio_net_hdr_v1` (12 bytes) and a frame.
    pub socket: i32,
    /// Memory through which packets go instead, already open as well (`bulkhead_ring`).
    #[serde(default)]
    pub ring: Option<i32>,
    /// The card's hardware address.
    pub mac: String,
    /// The longest packet of its network, in bytes: 68 to 65,521.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
    /// Whether the other side takes frames whose checksum or segmentation is left to it. Without it the
    /// guest's card offers neither.
    #[serde(default = "default_offloads")]
    pub offloads: bool,
}

fn default_offloads() -> bool {
    true
}

fn default_mtu() -> u16 {
    1500
}

/// A physical PCI device that belongs to the guest, by VFIO.
///
/// The guest's RAM is pinned for it, and counts against the process's limit of locked memory
/// (`RLIMIT_MEMLOCK`), once for each such device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VfioConfig {
    /// Its address on the host, as in `0000:01:00.0`.
    pub address: String,
    /// What is open already. When absent, the VMM looks into `/sys`, checks that the device is alone
    /// in its IOMMU group and bound to vfio-pci, and opens `/dev/vfio` itself; with descriptors, whoever
    /// opened them has checked that.
    #[serde(default)]
    pub opened: Option<VfioDescriptors>,
}

/// Descriptors of a legacy VFIO container, already open in the VMM's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VfioDescriptors {
    /// `/dev/vfio/N`, the device's IOMMU group.
    pub group: i32,
    /// `/dev/vfio/vfio`, a container that is this device's alone.
    pub container: i32,
}

/// Which implementation of the cross-domain protocol a virtio-gpu device has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuBackend {
    /// Bulkhead's own: one thread for all contexts, which never blocks.
    #[default]
    Native,
    /// rutabaga_gfx: a thread per context, behind the same checks.
    Rutabaga,
}

/// The virtio-gpu device, which carries Wayland to the host's compositor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuConfig {
    /// The domain's Wayland socket on the host.
    pub wayland: PathBuf,
    /// What speaks to it.
    #[serde(default)]
    pub backend: GpuBackend,
    /// With rutabaga: a context whose thread makes no progress for so long is closed.
    #[serde(default = "default_watchdog_ms")]
    pub watchdog_ms: u32,
    /// At most so many contexts (one per application) at a time.
    #[serde(default = "default_max_contexts")]
    pub max_contexts: u32,
    /// At most so many resources at a time.
    #[serde(default = "default_max_resources")]
    pub max_resources: u32,
    /// At most so much host memory in blobs at a time.
    #[serde(default = "default_max_blob_mib")]
    pub max_blob_mib: u32,
    /// Address space (not memory) of the host-visible window; a power of two.
    #[serde(default = "default_window_mib")]
    pub window_mib: u32,
}

fn default_watchdog_ms() -> u32 {
    5000
}
fn default_max_contexts() -> u32 {
    64
}
fn default_max_resources() -> u32 {
    4096
}
fn default_max_blob_mib() -> u32 {
    1024
}
fn default_window_mib() -> u32 {
    4096
}

impl GpuConfig {
    /// A device for `wayland` with default quotas.
    pub fn new(wayland: PathBuf) -> Self {
        Self {
            wayland,
            backend: GpuBackend::default(),
            watchdog_ms: default_watchdog_ms(),
            max_contexts: default_max_contexts(),
            max_resources: default_max_resources(),
            max_blob_mib: default_max_blob_mib(),
            window_mib: default_window_mib(),
        }
    }
}

fn default_cpus() -> u8 {
    1
}
fn default_memory_mib() -> u32 {
    512
}

/// Everything the VMM needs to know to run one guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmConfig {
    /// The domain's name, used in logs only.
    pub name: String,
    /// Virtual processors.
    #[serde(default = "default_cpus")]
    pub cpus: u8,
    /// Guest RAM.
    #[serde(default = "default_memory_mib")]
    pub memory_mib: u32,
    /// The KVM device, open for reading and writing; `/dev/kvm` when absent.
    #[serde(default)]
    pub kvm: Option<Source>,
    /// An ELF `vmlinux` with a PVH note.
    pub kernel: Source,
    /// A (preferably uncompressed) cpio archive.
    #[serde(default)]
    pub initramfs: Option<Source>,
    /// The kernel's command line.
    #[serde(default)]
    pub cmdline: String,
    /// Disks, in the order in which the guest finds them.
    #[serde(default)]
    pub disks: Vec<DiskConfig>,
    /// Where the guest's `ttyS0` output goes; dropped when absent.
    #[serde(default)]
    pub serial: Option<Source>,
    /// The guest's `hvc0`.
    #[serde(default)]
    pub console: Option<ConsoleConfig>,
    /// Sockets between host and guest.
    #[serde(default)]
    pub vsock: Option<VsockConfig>,
    /// Network cards, in the order in which the guest finds them.
    #[serde(default)]
    pub nets: Vec<NetConfig>,
    /// Physical devices, in the order in which the guest finds them.
    #[serde(default)]
    pub vfio: Vec<VfioConfig>,
    /// Windows.
    #[serde(default)]
    pub gpu: Option<GpuConfig>,
    /// The control socket.
    #[serde(default)]
    pub control: Option<Socket>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_configuration_parses() {
        let text = r#"{ "name":"work", "cpus":2, "memory_mib":512, "kernel":{"path":"/k"},
            "initramfs":{"fd":5}, "cmdline":"quiet",
            "disks":[{"id":"root","source":{"path":"/r"},"read_only":true}],
            "serial":{"path":"/s"}, "console":"stdio",
            "vsock":{"cid":3,"host_socket":{"path":"/v"},"guest_connections":{"path_prefix":"/p"}},
            "nets":[{"socket":8,"mac":"02:00:00:00:00:01"}],
            "vfio":[{"address":"0000:01:00.0"},
                    {"address":"0000:02:00.0","opened":{"group":10,"container":11}}],
            "gpu":{"wayland":"/w"}, "control":{"fd":9} }"#;
        let config: VmConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.console, Some(ConsoleConfig::Stdio));
        assert_eq!(config.nets.first().map(|net| net.mtu), Some(1500));
        let opened = config.vfio.last().and_then(|device| device.opened);
        assert_eq!(opened.map(|fds| (fds.group, fds.container)), Some((10, 11)));
        assert_eq!(config.gpu, Some(GpuConfig::new("/w".into())));
        let again: VmConfig =
            serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn small_configurations_have_defaults_and_typos_are_refused() {
        let config: VmConfig =
            serde_json::from_str(r#"{"name":"a","kernel":{"path":"/k"}}"#).unwrap();
        assert_eq!((config.cpus, config.memory_mib), (1, 512));
        let gpu: GpuConfig =
            serde_json::from_str(r#"{"wayland":"/w","backend":"rutabaga"}"#).unwrap();
        assert_eq!(gpu.backend, GpuBackend::Rutabaga);
        assert!(
            serde_json::from_str::<VmConfig>(r#"{"name":"a","kernel":{"path":"/k"},"cpu":2}"#)
                .is_err()
        );
    }
}
