//! A guest under our VMM or under QEMU, and what it is told on its console.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use bulkhead_image::cpio::CpioWriter;
use serde_json::json;

use super::fail;
use super::guest::ANSWER;

const IMAGES: &str = "/usr/share/bulkhead/images";
/// Rootless, so that nothing but the console and the cards differs: the first process is ours.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 cryptomgr.notests rdinit=/bench-init";
const MEMORY_MIB: u32 = 192;
const PATIENCE: Duration = Duration::from_secs(90);
const MAX_PROCESSORS: usize = libc::CPU_SETSIZE as usize;
/// What this program is linked with, for a guest's memory.
const LIBRARIES: [&str; 3] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib/x86_64-linux-gnu/libgcc_s.so.1",
];
/// How QEMU names the threads of a guest's processors, and how our VMM does.
const PROCESSOR_THREADS: [&str; 2] = ["CPU ", "cpu"];

/// A card of a guest, under QEMU or ours.
pub enum Card {
    /// Ours: the cable's socket and its ring.
    Cable([OwnedFd; 2]),
    /// QEMU's: what follows `-netdev`, without its name.
    Netdev(String),
}

/// What a guest is started with.
pub struct Plan<'a> {
    /// Its name, for its files and for errors.
    pub name: &'a str,
    /// Its initramfs.
    pub initramfs: &'a Path,
    /// Its cards: hardware address, cable, longest packet.
    pub cards: Vec<(String, Card, u16)>,
    /// The processor that all guests' processors share, if they must.
    pub processor: Option<usize>,
}

/// A running guest; it ends with this.
pub struct Guest {
    name: String,
    /// That of its processors, if they have one.
    processor: Option<usize>,
    child: Child,
    console: ChildStdin,
    answers: Receiver<String>,
}

/// The guests' initramfs with this program and its libraries behind it.
pub fn initramfs(folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join("initramfs.cpio");
    let mut bytes = std::fs::read(format!("{IMAGES}/guest/initramfs-net.cpio"))?;
    // The kernel reads one archive after another; each begins at a multiple of four.
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let mut archive = CpioWriter::new(bytes);
    for directory in ["lib64", "lib", "lib/x86_64-linux-gnu"] {
        archive.directory(directory)?;
    }
    for library in LIBRARIES {
        archive.file(
            library.trim_start_matches('/'),
            0o755,
            &std::fs::read(library)?,
        )?;
    }
    archive.file("bench-init", 0o755, &std::fs::read("/proc/self/exe")?)?;
    std::fs::write(&path, archive.finish()?)?;
    Ok(path)
}

impl Guest {
    /// Under our VMM.
    pub fn ours(plan: Plan<'_>, folder: &Path) -> io::Result<Guest> {
        let mut cables = Vec::new();
        let mut nets = Vec::new();
        for (mac, card, mtu) in plan.cards {
            let Card::Cable(cable) = card else {
                return Err(fail("our cards have cables"));
            };
            let [socket, ring] = cable.each_ref().map(AsRawFd::as_raw_fd);
            nets.push(json!({"socket": socket, "ring": ring, "mac": mac, "mtu": mtu}));
            cables.extend(cable);
        }
        let config = json!({
            "name": plan.name,
            "cpus": 1,
            "memory_mib": MEMORY_MIB,
            "kernel": {"path": format!("{IMAGES}/guest/vmlinux")},
            "initramfs": {"path": plan.initramfs},
            "cmdline": COMMAND_LINE,
            "disks": [{
                "id": "root",
                "source": {"path": root()},
                "read_only": true,
            }],
            "serial": {"path": folder.join(format!("{}.serial", plan.name))},
            "console": "stdio",
            "nets": nets,
        });
        let file = folder.join(format!("{}.json", plan.name));
        std::fs::write(&file, config.to_string())?;
        let mut command = Command::new("bulkhead-vmm");
        command.args(["run", "--config"]).arg(&file);
        inherit(&mut command, &cables);
        // Which of them are for its processors the VMM knows by itself.
        if plan.processor.is_some() {
            run_on(&mut command, 0..MAX_PROCESSORS);
        }
        Guest::start(plan.name, plan.processor, command, folder)
    }

    /// Under QEMU, as close to ours as it can be: PCI, MSI-X, no device that nobody uses.
    pub fn qemu(plan: Plan<'_>, folder: &Path) -> io::Result<Guest> {
        let name = plan.name;
        let mut command = Command::new("qemu-system-x86_64");
        let mut add = |option: &str, value: String| {
            command.args([option, &value]);
        };
        add("-M", "q35,accel=kvm,smbus=off,sata=off".into());
        add("-cpu", "host".into());
        add("-m", MEMORY_MIB.to_string());
        add("-smp", "1".into());
        add("-name", format!("{name},debug-threads=on"));
        add("-display", "none".into());
        let serial = folder.join(format!("{name}.serial"));
        add("-serial", format!("file:{}", serial.display()));
        add("-kernel", format!("{IMAGES}/guest/vmlinux"));
        add("-initrd", plan.initramfs.display().to_string());
        add("-append", COMMAND_LINE.into());
        add(
            "-drive",
            format!(
                "if=none,id=root,readonly=on,format=raw,file={}",
                root().display()
            ),
        );
        add("-device", "virtio-blk-pci,drive=root,serial=root".into());
        add("-device", "virtio-serial-pci".into());
        add("-chardev", "stdio,id=console,signal=off".into());
        add("-device", "virtconsole,chardev=console".into());
        for (number, (mac, card, mtu)) in plan.cards.into_iter().enumerate() {
            let Card::Netdev(netdev) = card else {
                return Err(fail("QEMU's cards have no cables"));
            };
            let (kind, rest) = netdev.split_once(',').unwrap_or((&netdev, ""));
            add("-netdev", format!("{kind},id=n{number},{rest}"));
            let device = "virtio-net-pci,disable-legacy=on,romfile=";
            add(
                "-device",
                format!("{device},netdev=n{number},mac={mac},host_mtu={mtu}"),
            );
        }
        command.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
        // No processor of the guest may ever have run in another place.
        if let Some(processor) = plan.processor {
            run_on(&mut command, processor..processor + 1);
        }
        let guest = Guest::start(name, plan.processor, command, folder)?;
        guest.place_devices()?;
        Ok(guest)
    }

    fn start(
        name: &str,
        processor: Option<usize>,
        mut command: Command,
        folder: &Path,
    ) -> io::Result<Guest> {
        let errors = File::create(folder.join(format!("{name}.errors")))?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(|error| fail(format!("{name}: {error}")))?;
        let (Some(console), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(fail("no pipes"));
        };
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(output);
            let mut line = Vec::new();
            while matches!(lines.read_until(b'\n', &mut line), Ok(length) if length > 0) {
                let text = String::from_utf8_lossy(&line);
                if let Some(answer) = text.trim().strip_prefix(ANSWER) {
                    let _ = sender.send(answer.trim().to_owned());
                }
                line.clear();
            }
        });
        Ok(Guest {
            name: name.to_owned(),
            processor,
            child,
            console,
            answers,
        })
    }

    /// What runs this guest.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it takes commands.
    pub fn wait(&self) -> io::Result<()> {
        match self.answer()?.as_str() {
            "ready" => self.place_devices(),
            other => Err(fail(format!("{}: {other}", self.name))),
        }
    }

    /// Lets it do something, and returns its answer.
    pub fn tell(&mut self, command: &str) -> io::Result<String> {
        writeln!(self.console, "{command}")?;
        let answer = self.answer()?;
        match answer.strip_prefix("error ") {
            None => Ok(answer),
            Some(error) => Err(fail(format!("{}: {command}: {error}", self.name))),
        }
    }

    fn answer(&self) -> io::Result<String> {
        self.answers.recv_timeout(PATIENCE).map_err(|why| {
            let what = match why {
                RecvTimeoutError::Timeout => "does not answer",
                RecvTimeoutError::Disconnected => "has ended",
            };
            fail(format!("{} {what}", self.name))
        })
    }

    /// Keeps all threads but those of the guest's processors off the processor that is theirs.
    fn place_devices(&self) -> io::Result<()> {
        let Some(processor) = self.processor else {
            return Ok(());
        };
        let folder = PathBuf::from(format!("/proc/{}/task", self.child.id()));
        let name = |thread: &Path| std::fs::read_to_string(thread.join("comm"));
        let threads = || -> io::Result<Vec<PathBuf>> {
            let entries = std::fs::read_dir(&folder)?;
            entries.map(|entry| Ok(entry?.path())).collect()
        };
        for _ in 0..200 {
            let is_processor = |thread: &PathBuf| {
                name(thread).is_ok_and(|name| {
                    PROCESSOR_THREADS
                        .iter()
                        .any(|known| name.starts_with(known))
                })
            };
            let (processors, others): (Vec<_>, Vec<_>) =
                threads()?.into_iter().partition(is_processor);
            if processors.is_empty() {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            for thread in others {
                let number = thread.file_name().and_then(|n| n.to_str()?.parse().ok());
                match set_affinity(number.unwrap_or(0), others_than(processor)) {
                    // QEMU's helpers come and go.
                    Err(gone) if gone.raw_os_error() == Some(libc::ESRCH) => {}
                    other => other?,
                }
            }
            return Ok(());
        }
        Err(fail(format!("{} has no thread for a processor", self.name)))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn root() -> PathBuf {
    Path::new(IMAGES).join("templates/net/root.erofs")
}

/// Leaves descriptors open in a program under the same numbers.
pub fn inherit(command: &mut Command, descriptors: &[OwnedFd]) {
    let numbers: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    // SAFETY: between fork and exec only plain system calls, on descriptors that the parent keeps
    // open until the program was started.
    unsafe {
        command.pre_exec(move || {
            for number in &numbers {
                if libc::fcntl(*number, libc::F_SETFD, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

fn run_on(command: &mut Command, processors: Range<usize>) {
    // SAFETY: between fork and exec only one plain system call on memory of its own.
    unsafe {
        command.pre_exec(move || set_affinity(0, processors.clone()));
    }
}

/// Keeps this thread, and whatever it starts from now on, off a processor.
pub fn stay_off(processor: usize) -> io::Result<()> {
    set_affinity(0, others_than(processor))
}

fn others_than(processor: usize) -> impl Iterator<Item = usize> {
    (0..MAX_PROCESSORS).filter(move |other| *other != processor)
}

/// Where a thread may run; those that do not exist do not count.
fn set_affinity(thread: i32, processors: impl Iterator<Item = usize>) -> io::Result<()> {
    // SAFETY: a cpu_set_t is plain old data, for which zeroes are valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for processor in processors {
        // SAFETY: the set is ours; the macro ignores numbers beyond it.
        unsafe { libc::CPU_SET(processor, &mut set) };
    }
    // SAFETY: the set is borrowed for the call, with its size.
    match unsafe { libc::sched_setaffinity(thread, size_of_val(&set), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
