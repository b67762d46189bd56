//! QEMU's command line.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use bulkhead_host_init::protocol::PORT_NAME;
use bulkhead_image::{emulator, layout::Layout};

use super::{BootOptions, MachineError, accelerator, accelerator::Accelerator, io};

/// The emulator. The newer one, if one was fetched, is for emulation: with KVM both do the same.
pub(super) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| emulator::program(&Layout::of_this_workspace().cache()))
}

/// The kernel's command line: no waiting and no questions. `panic=-1` with `-no-reboot` ends QEMU
/// when the outer kernel panics.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 cryptomgr.notests";

/// Files of one machine.
pub(super) struct Places<'a> {
    pub out: &'a Path,
    pub console: &'a Path,
    pub socket: &'a Path,
    pub monitor: &'a Path,
}

/// Starts QEMU.
pub(super) fn start(
    options: &BootOptions,
    accelerator: Accelerator,
    places: &Places<'_>,
) -> Result<Child, MachineError> {
    let errors_path = places.socket.with_extension("err");
    let errors = fs::File::create(&errors_path).map_err(io("creating", &errors_path))?;
    let mut command = emulator::command(program());
    command
        .args(arguments(options, accelerator, places))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors);
    die_with_parent(&mut command);
    command
        .spawn()
        .map_err(|error| MachineError::NoQemu(error.to_string()))
}

/// A machine must not outlive whoever booted it, even if that is killed.
pub(super) fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only one plain system call.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(command, || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        });
    }
}

fn arguments(options: &BootOptions, accelerator: Accelerator, places: &Places<'_>) -> Vec<String> {
    let mut arguments: Vec<String> = accelerator::arguments(accelerator)
        .into_iter()
        .map(str::to_owned)
        .collect();
    let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    add("-machine", "q35".to_owned());
    add("-smp", options.processors.to_string());
    add("-m", format!("{}M", options.memory_mib));
    add("-display", "none".to_owned());
    add("-serial", format!("file:{}", escaped(places.console)));
    add("-kernel", options.images.kernel.display().to_string());
    add("-initrd", options.images.initramfs.display().to_string());
    add(
        "-append",
        format!("{COMMAND_LINE} {}", options.command_line),
    );
    for (serial, file) in &options.images.disks {
        let file = escaped(file);
        add(
            "-drive",
            format!("if=none,id={serial},file={file},format=raw,readonly=on"),
        );
        add(
            "-device",
            format!("virtio-blk-pci,drive={serial},serial={serial}"),
        );
    }
    add("-device", "virtio-rng-pci".to_owned());
    add("-device", "virtio-serial-pci".to_owned());
    add(
        "-chardev",
        format!("socket,id=exec,path={}", escaped(places.socket)),
    );
    add(
        "-device",
        format!("virtserialport,chardev=exec,name={PORT_NAME}"),
    );
    add(
        "-qmp",
        format!("unix:{},server=on,wait=off", escaped(places.monitor)),
    );
    let shares = [
        ("out", Some(places.out), ""),
        ("share", options.share.as_deref(), ",readonly=on"),
    ];
    for (tag, folder, more) in shares {
        if let Some(folder) = folder {
            let folder = escaped(folder);
            let rest = format!("security_model=none,multidevs=remap{more}");
            add("-fsdev", format!("local,id={tag},path={folder},{rest}"));
            add(
                "-device",
                format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
            );
        }
    }
    arguments.extend(["-nodefaults".to_owned(), "-no-reboot".to_owned()]);
    arguments.extend(options.qemu_arguments.iter().cloned());
    arguments
}

/// A comma ends a value in QEMU's options; two of them are one.
pub(super) fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_image::builder::HostImages;

    #[test]
    fn paths_cannot_add_options() {
        let options = BootOptions {
            share: Some("/a,readonly=off".into()),
            ..BootOptions::new(HostImages {
                kernel: "k".into(),
                initramfs: "i".into(),
                disks: vec![("root", "/r,x=y".into())],
            })
        };
        let places = Places {
            out: "/o".as_ref(),
            console: "/c".as_ref(),
            socket: "/s".as_ref(),
            monitor: "/m".as_ref(),
        };
        let line = arguments(&options, Accelerator::Kvm, &places).join(" ");
        assert!(
            line.contains("file=/r,,x=y,format=raw,readonly=on"),
            "{line}"
        );
        assert!(
            line.contains("path=/a,,readonly=off,security_model"),
            "{line}"
        );
        assert!(!line.contains("netdev"), "{line}");
    }
}
