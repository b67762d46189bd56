//! Starts a `bulkhead-vmm` process: its configuration and everything that it is handed open.

use std::fs::File;
use std::io::{self, PipeReader, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use bulkhead_mac::Mac;
use bulkhead_vmm_api::{
    ConsoleConfig, DiskConfig, ExitStatus as VmmStatus, GpuConfig, GuestConnections, NetConfig,
    PciAddress, Socket, Source, VfioConfig, VmConfig, VsockConfig,
};
use tokio::process::{Child, Command};

use crate::config::DomainConfig;
use crate::images::GuestImages;

/// What a VMM is started with.
pub struct Launch<'a> {
    /// The program.
    pub program: &'a Path,
    /// The domain.
    pub config: &'a DomainConfig,
    /// Kernel, initramfs and root.
    pub images: GuestImages,
    /// The home volume.
    pub home: File,
    /// The guest's address on its vsock.
    pub cid: u32,
    /// Listens for connections to the guest.
    pub vsock: UnixListener,
    /// Receives connections from the guest.
    pub guest_connections: OwnedFd,
    /// Listens for control clients.
    pub control: UnixListener,
    /// Where the VMM makes the console's socket.
    pub console: PathBuf,
    /// The domain's Wayland socket.
    pub wayland: PathBuf,
    /// Added to the guest's command line.
    pub extra_cmdline: &'a str,
    /// Network cards.
    pub cards: Vec<Card>,
}

/// A network card of a guest.
pub struct Card {
    /// Where its cable leads.
    pub socket: OwnedFd,
    /// What its packets go through, if not through the socket.
    pub ring: Option<OwnedFd>,
    /// Its hardware address.
    pub mac: Mac,
    /// Whether the other end takes what a guest leaves to its card.
    pub offloads: bool,
}

impl Card {
    fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let ring = self.ring.as_ref().map(AsRawFd::as_raw_fd);
        std::iter::once(self.socket.as_raw_fd()).chain(ring)
    }

    fn config(&self) -> NetConfig {
        NetConfig {
            socket: self.socket.as_raw_fd(),
            ring: self.ring.as_ref().map(AsRawFd::as_raw_fd),
            mac: self.mac.to_string(),
            mtu: crate::net::MTU,
            offloads: self.offloads,
        }
    }
}

/// A VMM that was started.
pub struct Launched {
    /// The process; it is killed with the daemon.
    pub child: Child,
    /// What the guest writes to its serial port.
    pub serial: PipeReader,
    /// What the VMM says.
    pub messages: PipeReader,
}

/// The kernel's command line of a guest.
pub fn command_line(config: &DomainConfig, extra: &str) -> String {
    // quiet: each byte on the serial port is an exit from the guest.
    // cryptomgr.notests: the kernel's self-tests cost a tenth of the start.
    // panic=-1: a panic becomes a reboot, which the VMM reports by its exit status.
    let fixed = "console=ttyS0 quiet cryptomgr.notests panic=-1";
    let extra = extra.trim();
    let separator = if extra.is_empty() { "" } else { " " };
    let name = &config.name;
    // The guest keeps what it changes of its root with its home.
    let root = if config.kind.owns_root() {
        " bulkhead.root=own"
    } else {
        ""
    };
    // The guest loads drivers for what it has, and nothing else.
    let net = match (&config.net_domain, config.provides_network) {
        (_, true) => " bulkhead.net=trunk",
        (Some(_), false) => " bulkhead.net=card",
        (None, false) => "",
    };
    let pci = match config.pci.is_empty() {
        true => "",
        false => " bulkhead.pci",
    };
    format!("{fixed} bulkhead.name={name}{root}{net}{pci}{separator}{extra}")
}

fn device(address: PciAddress) -> VfioConfig {
    VfioConfig {
        address: address.to_string(),
        opened: None,
    }
}

impl Launch<'_> {
    /// Starts it. Must be called on a thread that lives as long as the daemon, because the
    /// kernel ties the child's life to the thread that made it.
    pub fn spawn(self) -> io::Result<Launched> {
        let (serial, serial_writer) = io::pipe()?;
        let (messages, messages_writer) = io::pipe()?;
        // Raised from fds that stay open until the process runs.
        let disk = |id: &str, file: &File, read_only| DiskConfig {
            id: id.into(),
            source: Source::Fd(file.as_raw_fd()),
            read_only,
        };
        // A guest without a display has no way to the desktop's compositor.
        let gpu = self.config.kind.has_windows().then(|| GpuConfig {
            backend: self.config.gpu_backend,
            ..GpuConfig::new(self.wayland.clone())
        });
        let machine = VmConfig {
            name: self.config.name.to_string(),
            cpus: self.config.cpus,
            memory_mib: self.config.memory_mib,
            kernel: Source::Fd(self.images.kernel.as_raw_fd()),
            initramfs: Some(Source::Fd(self.images.initramfs.as_raw_fd())),
            cmdline: command_line(self.config, self.extra_cmdline),
            disks: vec![
                disk("root", &self.images.root, true),
                disk("home", &self.home, false),
            ],
            serial: Some(Source::Fd(serial_writer.as_raw_fd())),
            console: Some(ConsoleConfig::Path(self.console.clone())),
            vsock: Some(VsockConfig {
                cid: self.cid,
                host_socket: Socket::Fd(self.vsock.as_raw_fd()),
                guest_connections: Some(GuestConnections::Fd(self.guest_connections.as_raw_fd())),
            }),
            nets: self.cards.iter().map(Card::config).collect(),
            gpu,
            control: Some(Socket::Fd(self.control.as_raw_fd())),
            kvm: None,
            // Bound to vfio-pci, and its group this user's, by the administrator.
            vfio: self.config.pci.iter().map(device).collect(),
        };
        let json = serde_json::to_vec(&machine).map_err(io::Error::other)?;
        let memfd = rustix::fs::memfd_create("vm-config", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut config = File::from(memfd);
        config.write_all(&json)?;
        config.rewind()?;
        let inherited: Vec<RawFd> = [
            self.images.kernel.as_raw_fd(),
            self.images.initramfs.as_raw_fd(),
            self.images.root.as_raw_fd(),
            self.home.as_raw_fd(),
            serial_writer.as_raw_fd(),
            self.vsock.as_raw_fd(),
            self.guest_connections.as_raw_fd(),
            self.control.as_raw_fd(),
            config.as_raw_fd(),
        ]
        .into_iter()
        .chain(self.cards.iter().flat_map(Card::descriptors))
        .collect();
        let mut command = Command::new(self.program);
        command
            .args(["run", "--config", &format!("fd:{}", config.as_raw_fd())])
            .stdin(Stdio::null())
            .stdout(messages_writer.try_clone()?)
            .stderr(messages_writer)
            // Ctrl-C in the daemon's terminal is the daemon's business.
            .process_group(0)
            .kill_on_drop(true);
        crate::child::tie(&mut command, inherited);
        Ok(Launched {
            child: command.spawn()?,
            serial,
            messages,
        })
    }
}

/// Why a VMM's process ended, in words, and whether that is how guests end.
pub fn explain(status: ExitStatus, last_message: Option<String>) -> (bool, String) {
    use std::os::unix::process::ExitStatusExt;
    let detail = last_message
        .map(|message| format!(": {message}"))
        .unwrap_or_default();
    match status.code().map(|code| (code, VmmStatus::from_code(code))) {
        Some((_, Some(VmmStatus::PoweredOff))) => (true, "the guest switched itself off".into()),
        Some((_, Some(VmmStatus::HostError))) => (false, format!("its VMM failed{detail}")),
        Some((_, Some(VmmStatus::Reboot))) => (
            false,
            "its guest restarted, as kernels do after a panic".into(),
        ),
        Some((_, Some(VmmStatus::Crashed))) => (false, "its guest crashed".into()),
        Some((_, Some(VmmStatus::Killed))) => (false, "its VMM was told to end".into()),
        Some((_, Some(VmmStatus::DeviceFault))) => {
            (false, format!("its guest broke a device's rules{detail}"))
        }
        Some((code, None)) => (false, format!("its VMM ended with status {code}{detail}")),
        None => {
            let signal = status.signal().unwrap_or(0);
            (
                false,
                format!("its VMM was ended by signal {signal}{detail}"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use bulkhead_protocol::Label;

    use super::*;
    use crate::config::Kind;

    #[test]
    fn exit_statuses_have_words() {
        assert!(explain(ExitStatus::from_raw(0), None).0);
        let (orderly, reason) = explain(ExitStatus::from_raw(1 << 8), Some("no /dev/kvm".into()));
        assert_eq!(
            (orderly, reason.as_str()),
            (false, "its VMM failed: no /dev/kvm")
        );
        assert!(
            explain(ExitStatus::from_raw(9), None)
                .1
                .contains("signal 9")
        );
        assert!(
            explain(ExitStatus::from_raw(77 << 8), None)
                .1
                .contains("status 77")
        );
    }

    #[test]
    fn command_lines() {
        let mut config = DomainConfig::new("work".parse().unwrap(), Label::Red);
        assert!(command_line(&config, "").ends_with(" bulkhead.name=work"));
        assert!(command_line(&config, " x=1 ").ends_with(" bulkhead.name=work x=1"));
        config.kind = Kind::Standalone;
        let line = command_line(&config, "x=1");
        assert!(line.ends_with(" bulkhead.name=work bulkhead.root=own x=1"));
        config.net_domain = Some("net".parse().unwrap());
        assert!(command_line(&config, "").ends_with(" bulkhead.net=card"));
        config.provides_network = true;
        assert!(command_line(&config, "").ends_with(" bulkhead.net=trunk"));
        config.pci = crate::pci::PciDevices::from_words(["0000:01:00.0"]).unwrap();
        let line = command_line(&config, "");
        assert!(line.ends_with(" bulkhead.net=trunk bulkhead.pci"), "{line}");
    }
}
