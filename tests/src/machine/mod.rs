//! The test host: a whole machine in QEMU with a usable /dev/kvm, in which our programs run for
//! real and real guests run in them.
//!
//! [`Machine::boot`] starts one and [`Machine::exec`] runs a command in it as the desktop user;
//! what commands write to `/out` lies in [`Machine::out`]. Dropping a machine ends it. On a
//! processor with nested virtualization QEMU uses KVM, elsewhere it emulates a processor with SVM
//! ([`accelerator`]). [`desktop`] boots the finished disk image instead, as a person would.
//!
//! *Trusts*: the images that `bulkhead-image` built. *Must never*: reach a network, or leave a
//! QEMU process behind.

pub mod accelerator;
mod connection;
pub mod desktop;
pub mod disk_copy;
mod examine;
mod exec;
mod keyboard;
mod qemu;
pub mod qmp;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    sync::Arc,
    time::{Duration, Instant},
};

pub use bulkhead_host_init::protocol::{Exit, User};
use bulkhead_host_init::protocol::{Frame, Kind};
use bulkhead_image::builder::HostImages;

pub use accelerator::{Accelerator, best as best_accelerator};
use connection::Connection;
pub use examine::FROZEN;
use examine::Traces;
pub use exec::{Exec, Output, Process};

/// How long an emulated machine may take to its first command.
const BOOT_TIMEOUT: Duration = Duration::from_secs(90);

/// How long a machine may take to end when asked.
const POWER_OFF_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a machine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A file or process of the machine.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// QEMU is not installed or does not start.
    #[error(
        "QEMU does not start ({0}); install Debian's package `qemu-system-x86` or run `cargo xtask setup`"
    )]
    NoQemu(String),
    /// The machine's own kernel panicked.
    #[error("the test host's kernel panicked:\n{console}")]
    Panicked {
        /// The end of its console.
        console: String,
    },
    /// The machine did not come up or went away.
    #[error("the test host {what}; the end of its console:\n{console}")]
    Gone {
        /// What happened.
        what: String,
        /// The end of its console.
        console: String,
    },
    /// A command could not be started.
    #[error("the test host cannot run {command}: {reason}")]
    NotStarted {
        /// The command.
        command: String,
        /// Why.
        reason: String,
    },
    /// A command did not end in time.
    #[error(
        "{command} did not end within {seconds} s and was killed; it had said:\n{said}\n{state}"
    )]
    TimedOut {
        /// The command.
        command: String,
        /// The limit.
        seconds: u64,
        /// The end of what it wrote until then.
        said: String,
        /// What the machine did at that moment, as far as it could be seen.
        state: String,
    },
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> MachineError {
    let path = path.to_path_buf();
    move |source| MachineError::Io {
        action,
        path,
        source,
    }
}

/// What kind of machine to boot.
#[derive(Debug, Clone)]
pub struct BootOptions {
    /// What to boot from.
    pub images: HostImages,
    /// Memory of the machine.
    pub memory_mib: u32,
    /// Processors of the machine.
    pub processors: u32,
    /// The folder that is /out inside; one that vanishes with the machine if not given.
    pub out: Option<PathBuf>,
    /// A folder that is readable at /share inside.
    pub share: Option<PathBuf>,
    /// Where the machine's console goes; a file that vanishes with the machine if not given.
    pub console: Option<PathBuf>,
    /// More words for the kernel's command line.
    pub command_line: String,
    /// More arguments for QEMU, such as further devices.
    pub qemu_arguments: Vec<String>,
    /// The accelerator, if not the best one that this machine has.
    pub accelerator: Option<Accelerator>,
}

impl BootOptions {
    /// A machine that is large enough for a desktop and a few guests.
    #[must_use]
    pub fn new(images: HostImages) -> Self {
        Self {
            images,
            memory_mib: 3072,
            processors: 2,
            out: None,
            share: None,
            console: None,
            command_line: String::new(),
            qemu_arguments: Vec::new(),
            accelerator: None,
        }
    }
}

/// A running machine.
pub struct Machine {
    qemu: Child,
    connection: Arc<Connection>,
    traces: Traces,
    out: PathBuf,
    boot_time: Duration,
    accelerator: Accelerator,
    _folder: tempfile::TempDir,
}

impl Machine {
    /// Boots a machine and waits until it takes commands.
    ///
    /// Emulated machines die of a stray exception in the *outer* kernel now and then (about once
    /// in 300 boots): that, and nothing else, is tried a second time.
    pub fn boot(options: &BootOptions) -> Result<Self, MachineError> {
        match Self::boot_once(options) {
            Err(MachineError::Panicked { .. }) => Self::boot_once(options),
            result => result,
        }
    }

    fn boot_once(options: &BootOptions) -> Result<Self, MachineError> {
        let start = Instant::now();
        let temporary = std::env::temp_dir();
        let folder = tempfile::Builder::new()
            .prefix("bulkhead-host-")
            .tempdir()
            .map_err(io("creating a folder in", &temporary))?;
        let out = options
            .out
            .clone()
            .unwrap_or_else(|| folder.path().join("out"));
        prepare_out(&out)?;
        let console = options
            .console
            .clone()
            .unwrap_or_else(|| folder.path().join("console.log"));
        if let Some(parent) = console.parent() {
            fs::create_dir_all(parent).map_err(io("creating", parent))?;
        }
        fs::write(&console, "").map_err(io("creating", &console))?;

        let accelerator = options.accelerator.unwrap_or_else(accelerator::best);
        let socket = folder.path().join("exec.sock");
        let monitor = folder.path().join("qmp.sock");
        let listener =
            std::os::unix::net::UnixListener::bind(&socket).map_err(io("listening at", &socket))?;
        let places = qemu::Places {
            out: &out,
            console: &console,
            socket: &socket,
            monitor: &monitor,
        };
        let mut qemu = qemu::start(options, accelerator, &places)?;
        let deadline = start + BOOT_TIMEOUT;
        let connection = match Connection::accept(&listener, deadline, || is_running(&mut qemu)) {
            Ok(connection) => Arc::new(connection),
            Err(error) => {
                let _ = qemu.kill();
                let _ = qemu.wait();
                let errors = fs::read_to_string(folder.path().join("exec.err")).unwrap_or_default();
                return Err(MachineError::NoQemu(format!("{error} {errors}")));
            }
        };
        let mut machine = Self {
            qemu,
            connection,
            traces: Traces { console, monitor },
            out,
            boot_time: Duration::ZERO,
            accelerator,
            _folder: folder,
        };
        loop {
            if machine.connection.is_ready() {
                machine.boot_time = start.elapsed();
                return Ok(machine);
            }
            if !is_running(&mut machine.qemu) {
                return Err(machine.gone("ended while booting"));
            }
            if Instant::now() > deadline {
                return Err(machine.gone("did not take commands in time"));
            }
            machine
                .connection
                .wait_for_change(Duration::from_millis(100));
        }
    }

    /// The time from the start of QEMU to the first command.
    #[must_use]
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// What makes the machine run.
    #[must_use]
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// The folder that is /out inside.
    #[must_use]
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// What the machine's kernel and PID 1 wrote to the console.
    #[must_use]
    pub fn console_log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.traces.console).unwrap_or_default()).into_owned()
    }

    /// Whether the machine still runs.
    pub fn is_alive(&mut self) -> bool {
        is_running(&mut self.qemu) && self.connection.is_open()
    }

    /// Runs a command to its end and collects its output.
    pub fn exec(&self, exec: &Exec) -> Result<Output, MachineError> {
        self.spawn(exec)?.wait()
    }

    /// Runs a command to its end and passes its output on as it comes.
    pub fn exec_streaming(
        &self,
        exec: &Exec,
        stdout: &mut dyn std::io::Write,
        stderr: &mut dyn std::io::Write,
    ) -> Result<Exit, MachineError> {
        self.spawn(exec)?.stream(stdout, stderr)
    }

    /// Starts a command.
    pub fn spawn(&self, exec: &Exec) -> Result<Process, MachineError> {
        Process::start(Arc::clone(&self.connection), exec, self.traces.clone())
    }

    /// Ends the machine in order: what was written to /out is complete, and belongs to us.
    pub fn power_off(mut self) -> Result<(), MachineError> {
        let _ = self.connection.send(&Frame::new(0, Kind::PowerOff, []));
        let deadline = Instant::now() + POWER_OFF_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = ended(&mut self.qemu) {
                own_again(&self.out);
                return if status.success() {
                    Ok(())
                } else {
                    Err(self.gone("ended badly"))
                };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(self.gone("did not end when asked"))
    }

    fn gone(&self, what: &str) -> MachineError {
        let console = console_end(&self.traces.console);
        if console.contains("Kernel panic") {
            MachineError::Panicked { console }
        } else {
            MachineError::Gone {
                what: what.to_owned(),
                console,
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.connection.close();
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        own_again(&self.out);
    }
}

fn is_running(child: &mut Child) -> bool {
    ended(child).is_none()
}

fn ended(child: &mut Child) -> Option<ExitStatus> {
    child.try_wait().ok().flatten()
}

fn console_end(console: &Path) -> String {
    end_of(&String::from_utf8_lossy(
        &fs::read(console).unwrap_or_default(),
    ))
}

/// The last lines of a text.
fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines
        .get(lines.len().saturating_sub(40)..)
        .unwrap_or_default()
        .join("\n")
}

/// The user inside writes here with a user number of its own.
fn prepare_out(out: &Path) -> Result<(), MachineError> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(out).map_err(io("creating", out))?;
    fs::set_permissions(out, fs::Permissions::from_mode(0o777)).map_err(io("opening", out))
}

/// When we are root, what the user inside wrote belongs to its user number: take it back. As
/// anybody else, QEMU could not give it away in the first place.
fn own_again(folder: &Path) {
    use std::os::unix::fs::{MetadataExt, lchown};
    let Ok(own) = fs::metadata("/proc/self") else {
        return;
    };
    if own.uid() != 0 {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let _ = lchown(entry.path(), Some(own.uid()), Some(own.gid()));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            own_again(&entry.path());
        }
    }
}
