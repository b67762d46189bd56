//! The command line, which maps onto [`VmConfig`].

use std::fs::File;
use std::io::Read;
use std::os::fd::FromRawFd;
use std::path::PathBuf;

use bulkhead_vmm_api::{
    ConsoleConfig, DiskConfig, GpuBackend, GpuConfig, GuestConnections, Socket, Source, VfioConfig,
    VmConfig, VsockConfig,
};
use clap::{Args, Parser, Subcommand};

/// A configuration is far smaller.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Boots and runs one guest on KVM.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a guest until it ends
    Run(Box<RunArguments>),
}

const AFTER_HELP: &str = "\
EXAMPLE
  bulkhead-vmm run --kernel vmlinux --initramfs initramfs.cpio \\
      --disk root.erofs,ro,id=root --disk home.img,id=home --memory 512M --cpus 2 \\
      --cmdline 'console=hvc0 quiet' --console stdio

EXIT STATUS
  0  the guest powered itself off
  1  bad configuration, or the host failed: the reason is on standard error
  3  the guest asked for a reboot
  4  the guest crashed
  5  killed: control socket or signal
  6  a device was stopped because the guest broke its rules

CONTROL
  One JSON object per line on the control socket:
    {\"cmd\":\"status\"}  pause  resume  power-button  kill

ENVIRONMENT
  BULKHEAD_LOG  what to log to standard error: error, warn (default), info, debug, or per
                module, as in bulkhead_vmm::devices=debug";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
struct RunArguments {
    /// Read the whole configuration from a JSON file, or from an open descriptor (fd:N)
    #[arg(long, value_name = "FILE|fd:N", exclusive = true)]
    config: Option<String>,

    /// The guest's name, for logs
    #[arg(long, default_value = "guest")]
    name: String,

    /// An uncompressed ELF kernel (vmlinux) with a PVH note
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    kernel: Option<PathBuf>,

    /// A cpio archive; uncompressed starts fastest
    #[arg(long, value_name = "FILE")]
    initramfs: Option<PathBuf>,

    /// The kernel's command line
    #[arg(long, value_name = "TEXT", default_value = "")]
    cmdline: String,

    /// A raw disk image: PATH[,ro][,id=NAME]. NAME is the serial that the guest sees and
    /// defaults to disk0, disk1, …
    #[arg(long = "disk", value_name = "PATH[,ro][,id=NAME]")]
    disks: Vec<String>,

    /// Guest memory: a number with M or G
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_memory)]
    memory: u32,

    /// Virtual processors
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u8,

    /// The guest's hvc0: stdio, fd:N (a connected stream), or the path of a socket to listen on
    #[arg(long, value_name = "stdio|fd:N|PATH")]
    console: Option<String>,

    /// Append the guest's ttyS0 output to a file
    #[arg(long, value_name = "FILE")]
    serial: Option<PathBuf>,

    /// Sockets to the guest: cid=N,socket=PATH[,guest=PREFIX]. Connect to PATH and write
    /// "CONNECT port"; the guest's own connections go to PREFIX_port
    #[arg(long, value_name = "cid=N,socket=PATH[,guest=PREFIX]")]
    vsock: Option<String>,

    /// Windows: wayland=PATH[,backend=native|rutabaga]. PATH is the compositor's socket for this
    /// guest
    #[arg(long, value_name = "wayland=PATH[,backend=NAME]")]
    gpu: Option<String>,

    /// A physical PCI device that the guest gets; it must be bound to vfio-pci, alone in its IOMMU
    /// group, and this process must be allowed to lock as much memory as the guest has. ADDRESS is
    /// as in 0000:01:00.0
    #[arg(long = "vfio", value_name = "ADDRESS")]
    vfio: Vec<String>,

    /// Listen for control commands on this path
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
}

impl Arguments {
    /// The configuration that the arguments describe.
    pub fn into_config(self) -> Result<VmConfig, String> {
        let Command::Run(arguments) = self.command;
        match &arguments.config {
            Some(place) => read_config(place),
            None => arguments.build(),
        }
    }
}

impl RunArguments {
    fn build(self) -> Result<VmConfig, String> {
        let disks = self
            .disks
            .iter()
            .enumerate()
            .map(|(index, text)| parse_disk(index, text));
        Ok(VmConfig {
            name: self.name,
            cpus: self.cpus,
            memory_mib: self.memory,
            kvm: None,
            kernel: Source::Path(self.kernel.ok_or("--kernel is missing")?),
            initramfs: self.initramfs.map(Source::Path),
            cmdline: self.cmdline,
            disks: disks.collect::<Result<_, _>>()?,
            serial: self.serial.map(Source::Path),
            console: self.console.as_deref().map(parse_console).transpose()?,
            vsock: self.vsock.as_deref().map(parse_vsock).transpose()?,
            nets: Vec::new(),
            vfio: self
                .vfio
                .into_iter()
                .map(|address| VfioConfig {
                    address,
                    opened: None,
                })
                .collect(),
            gpu: self.gpu.as_deref().map(parse_gpu).transpose()?,
            control: self.control.map(Socket::Path),
        })
    }
}

fn read_config(place: &str) -> Result<VmConfig, String> {
    let file = match place.strip_prefix("fd:") {
        Some(number) => {
            let fd: i32 = number
                .parse()
                .map_err(|_| format!("--config {place}: not a number"))?;
            // SAFETY: asks for the flags of a number, which is harmless.
            if fd < 0 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
                return Err(format!("--config {place}: this descriptor is not open"));
            }
            // SAFETY: open, and handed over to be read by us.
            unsafe { File::from_raw_fd(fd) }
        }
        None => File::open(place).map_err(|error| format!("configuration {place:?}: {error}"))?,
    };
    let mut text = String::new();
    file.take(MAX_CONFIG_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| format!("configuration {place:?}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("configuration {place:?}: {error}"))
}

fn parse_memory(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is not a size: write it as 512M or 2G");
    let (number, factor) = match text.strip_suffix(['M', 'm']) {
        Some(number) => (number, 1),
        None => (text.strip_suffix(['G', 'g']).ok_or_else(wrong)?, 1024),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(factor).ok_or_else(wrong)
}

fn parse_disk(index: usize, text: &str) -> Result<DiskConfig, String> {
    let mut parts = text.split(',');
    let path = parts.next().filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| format!("--disk {text:?}: the path is missing"))?;
    let mut disk = DiskConfig {
        id: format!("disk{index}"),
        source: Source::Path(path.into()),
        read_only: false,
    };
    for part in parts {
        match part.split_once('=') {
            None if part == "ro" => disk.read_only = true,
            Some(("id", id)) => disk.id = id.to_owned(),
            _ => return Err(format!("--disk {text:?}: unknown option {part:?}")),
        }
    }
    Ok(disk)
}

fn parse_console(text: &str) -> Result<ConsoleConfig, String> {
    Ok(match text.strip_prefix("fd:") {
        Some(number) => ConsoleConfig::Fd(
            number
                .parse()
                .map_err(|_| format!("--console {text}: not a number"))?,
        ),
        None if text == "stdio" => ConsoleConfig::Stdio,
        None => ConsoleConfig::Path(text.into()),
    })
}

fn parse_vsock(text: &str) -> Result<VsockConfig, String> {
    let (mut cid, mut socket, mut guest) = (None, None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("cid", value)) => {
                cid = Some(
                    value
                        .parse()
                        .map_err(|_| format!("--vsock {text:?}: bad cid"))?,
                );
            }
            Some(("socket", value)) => socket = Some(Socket::Path(value.into())),
            Some(("guest", value)) => guest = Some(GuestConnections::PathPrefix(value.into())),
            _ => return Err(format!("--vsock {text:?}: unknown option {part:?}")),
        }
    }
    Ok(VsockConfig {
        cid: cid.ok_or_else(|| format!("--vsock {text:?}: cid=N is missing"))?,
        host_socket: socket.ok_or_else(|| format!("--vsock {text:?}: socket=PATH is missing"))?,
        guest_connections: guest,
    })
}

fn parse_gpu(text: &str) -> Result<GpuConfig, String> {
    let mut config = None;
    let mut backend = GpuBackend::default();
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("wayland", path)) if !path.is_empty() => {
                config = Some(GpuConfig::new(path.into()));
            }
            Some(("backend", "native")) => backend = GpuBackend::Native,
            Some(("backend", "rutabaga")) => backend = GpuBackend::Rutabaga,
            _ => {
                return Err(format!(
                    "--gpu {text:?}: {part:?} is not understood: write \
                     wayland=PATH[,backend=native|rutabaga]"
                ));
            }
        }
    }
    let mut config = config.ok_or_else(|| format!("--gpu {text:?}: write wayland=PATH"))?;
    config.backend = backend;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<VmConfig, String> {
        let words = ["bulkhead-vmm", "run"]
            .into_iter()
            .chain(line.split_whitespace());
        Arguments::try_parse_from(words)
            .map_err(|error| error.to_string())?
            .into_config()
    }

    #[test]
    fn the_example_means_what_it_says() {
        let config = parse(
            "--kernel k --initramfs i --disk r,ro,id=root --disk h --memory 2G --cpus 2 \
             --console stdio --vsock cid=3,socket=/v,guest=/g --gpu wayland=/w --control /c \
             --vfio 0000:01:00.0",
        )
        .unwrap();
        assert_eq!(config.memory_mib, 2048);
        assert_eq!(config.disks[0].id, "root");
        assert!(config.disks[0].read_only && !config.disks[1].read_only);
        assert_eq!(config.disks[1].id, "disk1");
        assert_eq!(config.vsock.unwrap().cid, 3);
        assert_eq!(config.vfio[0].address, "0000:01:00.0");
        assert_eq!(config.gpu.unwrap().backend, GpuBackend::Native);
        let config = parse("--kernel k --gpu wayland=/w,backend=rutabaga").unwrap();
        let gpu = config.gpu.unwrap();
        assert_eq!(
            (gpu.wayland, gpu.backend),
            ("/w".into(), GpuBackend::Rutabaga)
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (line, part) in [
            ("--kernel k --memory 5", "512M"),
            ("--kernel k --disk x,rw", "\"rw\""),
            ("--kernel k --vsock cid=3", "socket=PATH"),
            ("--kernel k --gpu x", "wayland=PATH"),
            ("--kernel k --gpu backend=rutabaga", "wayland=PATH"),
            (
                "--kernel k --gpu wayland=/w,backend=x",
                "backend=native|rutabaga",
            ),
            ("", "--kernel"),
        ] {
            let message = parse(line).unwrap_err();
            assert!(message.contains(part), "{line}: {message}");
        }
    }
}
