//! `bench-boot ROUNDS WAYLAND-SOCKET`: how long until the agent's ready line, ours beside QEMU's microvm.
//!
//! Runs in the test host. Both start the same kernel, initramfs and root with the same command line
//! and the same memory, in turns, and are timed from `exec` to the line `bulkhead-agent: ready` on
//! the serial port. Ours carries PCI, GPU and vsock; microvm carries only its disk. Which one goes first
//! changes from round to round: the second finds pages in memory that the first has just given back, and
//! where the host itself is emulated, memory that nobody has used yet costs far more.
//! Prints one JSON object with every sample in milliseconds. A guest of microvm was seen to stand still while
//! it boots (docs/testing.md): such a start is made again, and counted. One of ours would be a failure.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const IMAGES: &str = "/usr/share/bulkhead/images";
const READY: &str = "bulkhead-agent: ready";
const COMMAND_LINE: &str =
    "console=ttyS0 quiet panic=-1 cryptomgr.notests bulkhead.name=bench bulkhead.timings";
const GIVE_UP: Duration = Duration::from_secs(30);
/// So many starts of microvm may come to nothing.
const ACCIDENTS: usize = 2;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(5);
    let wayland = arguments.next();
    let (mut ours, mut microvm) = (Side::default(), Side::default());
    microvm.may_give_up = ACCIDENTS;
    for round in 0..rounds {
        let folder = std::env::temp_dir().join(format!("bench-boot-{round}"));
        let _ = std::fs::create_dir_all(&folder);
        let vsock = folder.join("vsock.sock");
        let mut own = || bulkhead(&vsock.to_string_lossy(), wayland.as_deref());
        let timed = if round % 2 == 0 {
            ours.start(&mut own)
                .and_then(|()| microvm.start(&mut qemu_microvm))
        } else {
            microvm
                .start(&mut qemu_microvm)
                .and_then(|()| ours.start(&mut own))
        };
        let _ = std::fs::remove_dir_all(&folder);
        if let Err(error) = timed {
            eprintln!("bench-boot: {error}");
            return ExitCode::from(1);
        }
        eprintln!(
            "round {round}: bulkhead-vmm {:?} ms, microvm {:?} ms",
            ours.samples.last(),
            microvm.samples.last()
        );
    }
    println!(
        "{}",
        serde_json::json!({
            "bulkhead_ms": ours.samples,
            "microvm_ms": microvm.samples,
            "microvm_gave_up": microvm.gave_up,
        })
    );
    ExitCode::SUCCESS
}

/// One of the two, and how it did.
#[derive(Default)]
struct Side {
    samples: Vec<u64>,
    /// Starts that never reached the line.
    gave_up: usize,
    /// How many of them are forgiven.
    may_give_up: usize,
}

impl Side {
    /// Takes one sample.
    fn start(&mut self, command: &mut dyn FnMut() -> Command) -> Result<(), String> {
        loop {
            match time(&mut command()) {
                Ok(sample) => {
                    self.samples.push(sample);
                    return Ok(());
                }
                Err(error) if self.gave_up < self.may_give_up => {
                    eprintln!("once more: {error}");
                    self.gave_up += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn bulkhead(vsock: &str, wayland: Option<&str>) -> Command {
    let mut command = Command::new("bulkhead-vmm");
    command
        .args(["run", "--name", "bench", "--memory", "256M", "--cpus", "1"])
        .args(["--kernel", &format!("{IMAGES}/guest/vmlinux")])
        .args(["--initramfs", &format!("{IMAGES}/guest/initramfs.cpio")])
        .args([
            "--disk",
            &format!("{IMAGES}/templates/apps/root.erofs,ro,id=root"),
        ])
        .args(["--cmdline", COMMAND_LINE])
        .args(["--vsock", &format!("cid=77,socket={vsock}")])
        .args(["--serial", "/dev/stdout"]);
    if let Some(socket) = wayland {
        command.args(["--gpu", &format!("wayland={socket}")]);
    }
    command
}

fn qemu_microvm() -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args([
            "-M",
            // With ACPI tables Debian's kernel 6.12.117 hangs in it ("ACPI: Core revision").
            "microvm,rtc=on,acpi=off,accel=kvm",
            "-cpu",
            "host",
            "-m",
            "256",
            "-smp",
            "1",
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args(["-serial", "stdio"])
        .args(["-kernel", &format!("{IMAGES}/guest/vmlinux")])
        .args(["-initrd", &format!("{IMAGES}/guest/initramfs.cpio")])
        .args(["-append", COMMAND_LINE])
        .args([
            "-drive",
            &format!(
                "if=none,id=root,readonly=on,format=raw,file={IMAGES}/templates/apps/root.erofs"
            ),
        ])
        .args(["-device", "virtio-blk-device,drive=root,serial=root"]);
    command
}

/// Milliseconds from spawn to the ready line; the process is killed afterwards.
fn time(command: &mut Command) -> Result<u64, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let mut child: Child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{name}: {error}"))?;
    let stdout = child.stdout.take().ok_or("no pipe")?;
    let (found, ready) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut seen = String::new();
        let mut lines = BufReader::new(stdout);
        let mut line = Vec::new();
        while matches!(lines.read_until(b'\n', &mut line), Ok(length) if length > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            line.clear();
            if text.contains(READY) {
                let _ = found.send(Instant::now());
                return seen;
            }
            seen.push_str(&text);
        }
        seen
    });
    let arrived = ready.recv_timeout(GIVE_UP);
    let _ = child.kill();
    let output = child.wait_with_output();
    let seen = reader.join().unwrap_or_default();
    match arrived {
        Ok(at) => Ok(u64::try_from((at - start).as_millis()).unwrap_or(u64::MAX)),
        Err(_) => Err(format!(
            "{name} never reached the ready line; it said:\n{seen}\n{}",
            output.map_or_else(
                |e| e.to_string(),
                |o| String::from_utf8_lossy(&o.stderr).into_owned()
            )
        )),
    }
}
