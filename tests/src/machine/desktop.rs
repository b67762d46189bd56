//! The bootable disk image in a machine of its own: firmware, disk, display, keyboard and tablet,
//! and nothing else. What a person could do, tests do: look at the screen, press keys, pull the
//! plug.
//!
//! ```no_run
//! # use bulkhead_tests::machine::desktop::{Desktop, DesktopOptions};
//! # use std::time::Duration;
//! # fn test() -> Result<(), Box<dyn std::error::Error>> {
//! let options = DesktopOptions::new("bulkhead.raw", "/tmp/a-test");
//! let mut desktop = Desktop::start(&options)?; // makes the machine's disk, unless it is there
//! desktop.wait_for("bulkhead: session ready", Duration::from_secs(120))?;
//! desktop.press(&["meta_l"])?;
//! desktop.type_text("term\n")?;
//! desktop.screenshot("/tmp/a-test/menu.png".as_ref())?;
//! desktop.cut_power(); // the disk keeps what had reached it
//! let again = Desktop::start(&options)?;
//! # Ok(()) }
//! ```

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use bulkhead_image::emulator;
use serde_json::json;

use super::{
    MachineError, accelerator, accelerator::Accelerator, console_end, disk_copy, ended, io,
    keyboard, qemu, qmp::Qmp,
};

/// Firmware of Debian's package `ovmf`: its code, and a fresh copy of its settings.
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const FIRMWARE_SETTINGS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// The graphics device's name for QEMU.
const GPU: &str = "gpu";
/// The tablet's axes, whatever the display's size.
const AXIS: f64 = 32767.0;
/// What the image is told from outside, without a change to it: to log to the serial line too.
/// systemd's EFI stub appends this SMBIOS string to its command line.
const LOGGING: &str = "console=ttyS0 systemd.journald.forward_to_console=1 \
    systemd.journald.max_level_console=info";

/// How a desktop is booted.
#[derive(Debug, Clone)]
pub struct DesktopOptions {
    /// `bulkhead.raw`; it is only read.
    pub image: PathBuf,
    /// Where this machine's files lie: `disk.raw` (a copy of the image, made if it is not there),
    /// `firmware.fd`, `serial.log`.
    pub folder: PathBuf,
    /// The size of the disk that is made. Smaller than the image: its end is missing.
    pub disk_bytes: u64,
    /// Memory.
    pub memory_mib: u32,
    /// Processors.
    pub processors: u32,
    /// The display's size in pixels.
    pub size: (u32, u32),
    /// How many displays can be plugged in; 0: there is no graphics device at all. QEMU plugs in the first one.
    pub displays: u32,
    /// More words for the kernel, such as `bulkhead.backend=headless`.
    pub command_line: String,
    /// A shell script that runs inside as root when the machine is up; its output goes to the
    /// serial line. The image does not know of it: it comes as a systemd credential.
    pub script: Option<String>,
    /// More arguments for QEMU.
    pub qemu_arguments: Vec<String>,
    /// The accelerator, if not the best one that this machine has.
    pub accelerator: Option<Accelerator>,
}

impl DesktopOptions {
    /// A machine with a disk of 16 GiB that is made in `folder` from `image`.
    pub fn new(image: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self {
            image: image.into(),
            folder: folder.into(),
            disk_bytes: 16 << 30,
            memory_mib: 3072,
            processors: 2,
            size: (1280, 800),
            displays: 1,
            command_line: String::new(),
            script: None,
            qemu_arguments: Vec::new(),
            accelerator: None,
        }
    }

    /// The machine's disk.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk.raw")
    }
}

/// A mouse button.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Button {
    /// The usual one.
    Left,
    /// The other one.
    Right,
    /// The wheel's.
    Middle,
}

impl Button {
    fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
            Self::Middle => "middle",
        }
    }
}

/// A running desktop. Dropping it cuts its power.
pub struct Desktop {
    qemu: Child,
    qmp: Qmp,
    serial: PathBuf,
    size: (u32, u32),
    /// Which one pictures are of.
    display: u32,
    /// Where [`Desktop::wait_for`] goes on reading.
    read_bytes: usize,
    started: Instant,
}

impl Desktop {
    /// Makes the machine's disk unless it is there, and switches the machine on.
    pub fn start(options: &DesktopOptions) -> Result<Self, MachineError> {
        let folder = &options.folder;
        fs::create_dir_all(folder).map_err(io("creating", folder))?;
        let disk = options.disk();
        if !disk.exists() {
            disk_copy::sparse(&options.image, &disk, options.disk_bytes)
                .map_err(io("copying the image to", &disk))?;
        }
        let settings = folder.join("firmware.fd");
        if !settings.exists() {
            fs::copy(FIRMWARE_SETTINGS, &settings).map_err(io(
                "copying the firmware's settings (Debian's package `ovmf`) to",
                &settings,
            ))?;
        }
        let serial = folder.join("serial.log");
        fs::write(&serial, "").map_err(io("creating", &serial))?;
        let socket = folder.join("qmp.sock");
        let _ = fs::remove_file(&socket);
        let errors_path = folder.join("qemu.err");
        let errors = File::create(&errors_path).map_err(io("creating", &errors_path))?;
        let mut command = emulator::command(qemu::program());
        command
            .args(arguments(options, &serial, &socket)?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors);
        qemu::die_with_parent(&mut command);
        let started = Instant::now();
        let mut qemu = command
            .spawn()
            .map_err(|error| MachineError::NoQemu(error.to_string()))?;
        let connected = Qmp::connect(&socket, Duration::from_secs(30), || {
            ended(&mut qemu).is_none()
        });
        match connected {
            Ok(qmp) => Ok(Self {
                qemu,
                qmp,
                serial,
                size: options.size,
                display: 0,
                read_bytes: 0,
                started,
            }),
            Err(error) => {
                let _ = qemu.kill();
                let _ = qemu.wait();
                let said = fs::read_to_string(&errors_path).unwrap_or_default();
                Err(MachineError::NoQemu(format!("{error} {said}")))
            }
        }
    }

    /// The time since the machine was switched on.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// All that came over the serial line.
    #[must_use]
    pub fn serial_log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.serial).unwrap_or_default()).into_owned()
    }

    /// Waits for a line on the serial line that contains `text`, and returns it. The next call
    /// goes on behind it: a second wait for the same text means a second such line.
    pub fn wait_for(&mut self, text: &str, timeout: Duration) -> Result<String, MachineError> {
        let deadline = Instant::now() + timeout;
        loop {
            let is_running = ended(&mut self.qemu).is_none();
            let log = fs::read(&self.serial).unwrap_or_default();
            let new = log.get(self.read_bytes..).unwrap_or_default();
            if let Some((line, length)) = line_with(new, text) {
                self.read_bytes += length;
                return Ok(line);
            }
            if new.windows(12).any(|part| part == b"Kernel panic") {
                let console = console_end(&self.serial);
                return Err(MachineError::Panicked { console });
            }
            if !is_running || Instant::now() > deadline {
                let what = if is_running {
                    format!("said nothing with `{text}` within {} s", timeout.as_secs())
                } else {
                    format!("ended before it said `{text}`")
                };
                return Err(self.gone(&what));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Pictures are of this display from now on, counted from 0.
    pub fn look_at(&mut self, display: u32) {
        self.display = display;
    }

    /// The desktop that the pointer moves on has another size.
    pub fn set_size(&mut self, size: (u32, u32)) {
        self.size = size;
    }

    /// Writes what the display shows to a PNG file.
    pub fn screenshot(&mut self, file: &Path) -> Result<(), MachineError> {
        let file = std::path::absolute(file).map_err(io("finding", file))?;
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(io("creating", folder))?;
        }
        let arguments = json!({
            "filename": file, "format": "png", "device": GPU, "head": self.display,
        });
        self.qmp.command("screendump", arguments).map(drop)
    }

    /// Presses keys one after the other and lets them go in reverse: `["meta_l"]`,
    /// `["alt", "tab"]`. The names are QEMU's (`QKeyCode`).
    pub fn press(&mut self, keys: &[&str]) -> Result<(), MachineError> {
        for key in keys {
            self.key(key, true)?;
        }
        for key in keys.iter().rev() {
            self.key(key, false)?;
        }
        Ok(())
    }

    /// Presses one key down, or lets it go.
    pub fn key(&mut self, key: &str, down: bool) -> Result<(), MachineError> {
        let event = json!({ "type": "key", "data": {
            "down": down, "key": { "type": "qcode", "data": key } } });
        self.send(&[event])?;
        // Slower than a person, so that each key is an event of its own inside.
        std::thread::sleep(Duration::from_millis(15));
        Ok(())
    }

    /// Types text as on an American keyboard; `\n` is Enter.
    pub fn type_text(&mut self, text: &str) -> Result<(), MachineError> {
        for letter in text.chars() {
            let keys = keyboard::keys(letter)
                .ok_or_else(|| MachineError::NoQemu(format!("no key types {letter:?}")))?;
            self.press(&keys)?;
        }
        Ok(())
    }

    /// Moves the pointer to a pixel of the display.
    pub fn pointer(&mut self, x: u32, y: u32) -> Result<(), MachineError> {
        let axis = |name: &str, at: u32, size: u32| {
            let value = (f64::from(at) + 0.5) * AXIS / f64::from(size.max(1));
            json!({ "type": "abs", "data": { "axis": name, "value": value as u32 } })
        };
        let events = [axis("x", x, self.size.0), axis("y", y, self.size.1)];
        self.send(&events)?;
        std::thread::sleep(Duration::from_millis(15));
        Ok(())
    }

    /// Presses a button down, or lets it go.
    pub fn button(&mut self, button: Button, down: bool) -> Result<(), MachineError> {
        let event = json!({ "type": "btn", "data": { "down": down, "button": button.name() } });
        self.send(&[event])?;
        std::thread::sleep(Duration::from_millis(15));
        Ok(())
    }

    /// Moves to a pixel and clicks.
    pub fn click(&mut self, x: u32, y: u32) -> Result<(), MachineError> {
        self.pointer(x, y)?;
        self.button(Button::Left, true)?;
        self.button(Button::Left, false)
    }

    /// Drags with the left button, in a few steps as a hand does.
    pub fn drag(&mut self, from: (u32, u32), to: (u32, u32)) -> Result<(), MachineError> {
        const STEPS: i64 = 8;
        self.pointer(from.0, from.1)?;
        self.button(Button::Left, true)?;
        for step in 1..=STEPS {
            let between = |a: u32, b: u32| {
                let way = (i64::from(b) - i64::from(a)) * step / STEPS;
                u32::try_from(i64::from(a) + way).unwrap_or(0)
            };
            self.pointer(between(from.0, to.0), between(from.1, to.1))?;
        }
        self.button(Button::Left, false)
    }

    /// Any other command of QEMU's control socket.
    pub fn qmp(
        &mut self,
        command: &str,
        arguments: serde_json::Value,
    ) -> Result<serde_json::Value, MachineError> {
        self.qmp.command(command, arguments)
    }

    /// How often the machine has started anew.
    pub fn restarts(&mut self) -> Result<usize, MachineError> {
        self.qmp.count("RESET")
    }

    /// Whether QEMU holds the machine because its disk cannot be written.
    fn cannot_write(&mut self) -> bool {
        self.is_on()
            && self
                .qmp
                .command("query-status", json!({}))
                .is_ok_and(|status| status["status"] == "io-error")
    }

    /// Whether the machine is on.
    pub fn is_on(&mut self) -> bool {
        ended(&mut self.qemu).is_none()
    }

    /// Waits until the machine has switched itself off.
    pub fn wait_for_power_off(&mut self, timeout: Duration) -> Result<(), MachineError> {
        let deadline = Instant::now() + timeout;
        while self.is_on() {
            if Instant::now() > deadline {
                let what = format!("did not switch off within {} s", timeout.as_secs());
                return Err(self.gone(&what));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Pulls the plug. What had reached the disk stays there.
    pub fn cut_power(mut self) {
        self.kill();
    }

    fn kill(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }

    fn send(&mut self, events: &[serde_json::Value]) -> Result<(), MachineError> {
        let arguments = json!({ "events": events });
        self.qmp.command("input-send-event", arguments).map(drop)
    }

    fn gone(&mut self, what: &str) -> MachineError {
        let mut what = what.to_owned();
        if self.cannot_write() {
            what += " (QEMU has stopped it, because it could not write to its disk: is this computer's disk full?)";
        }
        MachineError::Gone {
            what,
            console: console_end(&self.serial),
        }
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The first whole line with `text`, and the bytes up to its end.
fn line_with(log: &[u8], text: &str) -> Option<(String, usize)> {
    let mut end = 0;
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        end += line.len();
        let line = String::from_utf8_lossy(line);
        if line.ends_with('\n') && line.contains(text) {
            return Some((line.trim().to_owned(), end));
        }
    }
    None
}

fn arguments(
    options: &DesktopOptions,
    serial: &Path,
    socket: &Path,
) -> Result<Vec<String>, MachineError> {
    let accelerator = options.accelerator.unwrap_or_else(accelerator::best);
    let mut arguments: Vec<String> = accelerator::arguments(accelerator)
        .into_iter()
        .map(str::to_owned)
        .collect();
    let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    add("-machine", "q35".to_owned());
    add("-smp", options.processors.to_string());
    add("-m", format!("{}M", options.memory_mib));
    add("-display", "none".to_owned());
    let firmware = |unit: u8, file: &Path, more: &str| {
        let file = qemu::escaped(file);
        format!("if=pflash,format=raw,unit={unit},file={file}{more}")
    };
    add("-drive", firmware(0, FIRMWARE.as_ref(), ",readonly=on"));
    add(
        "-drive",
        firmware(1, &options.folder.join("firmware.fd"), ""),
    );
    let disk = qemu::escaped(&options.disk());
    add(
        "-drive",
        format!("if=none,id=disk,file={disk},format=raw,discard=unmap"),
    );
    add(
        "-device",
        "virtio-blk-pci,drive=disk,bootindex=1".to_owned(),
    );
    let (width, height) = options.size;
    let displays = options.displays;
    if displays > 0 {
        add(
            "-device",
            format!("virtio-gpu-pci,id={GPU},max_outputs={displays},xres={width},yres={height}"),
        );
    }
    for device in ["virtio-keyboard-pci", "virtio-tablet-pci", "virtio-rng-pci"] {
        add("-device", device.to_owned());
    }
    add("-serial", format!("file:{}", qemu::escaped(serial)));
    let socket = qemu::escaped(socket);
    add("-qmp", format!("unix:{socket},server=on,wait=off"));
    for file in told(options)? {
        add("-smbios", format!("type=11,path={}", qemu::escaped(&file)));
    }
    add("-nodefaults", "-no-user-config".to_owned());
    arguments.extend(options.qemu_arguments.iter().cloned());
    Ok(arguments)
}

/// Files with what the machine is told by its firmware tables: the kernel's further words, and
/// the script with the unit that runs it.
fn told(options: &DesktopOptions) -> Result<Vec<PathBuf>, MachineError> {
    const UNIT: &str = "[Unit]\nDescription=A test's script\nAfter=bulkhead-session.service\n\
        [Service]\nType=oneshot\nImportCredential=bulkhead-test.script\n\
        ExecStart=/bin/sh ${CREDENTIALS_DIRECTORY}/bulkhead-test.script\n\
        SyslogIdentifier=test\n";
    let mut line = format!("{LOGGING} {}", options.command_line);
    let mut texts = Vec::new();
    if let Some(script) = &options.script {
        line.push_str(" systemd.wants=bulkhead-test.service");
        texts.push(format!(
            "io.systemd.credential:systemd.extra-unit.bulkhead-test.service={UNIT}"
        ));
        texts.push(format!(
            "io.systemd.credential:bulkhead-test.script={script}"
        ));
    }
    texts.push(format!("io.systemd.stub.kernel-cmdline-extra={line}"));
    let mut files = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        let file = options.folder.join(format!("told-{number}"));
        fs::write(&file, text).map_err(io("writing", &file))?;
        files.push(file);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_are_found() {
        assert_eq!(line_with(b"a ready", "ready"), None);
        assert_eq!(
            line_with(b"x\na ready\r\nmore", "ready"),
            Some(("a ready".to_owned(), 11))
        );
    }

    #[test]
    fn the_machine_has_no_network_and_only_its_own_disk() {
        let folder = tempfile::tempdir().unwrap();
        let options = DesktopOptions {
            script: Some("echo a,b".to_owned()),
            ..DesktopOptions::new("/image.raw", folder.path())
        };
        let line = arguments(&options, "/s".as_ref(), "/q".as_ref())
            .unwrap()
            .join(" ");
        assert!(
            !line.contains("net") && !line.contains("image.raw"),
            "{line}"
        );
        assert!(line.contains("disk.raw"), "{line}");
        let script = fs::read_to_string(folder.path().join("told-1")).unwrap();
        assert!(script.ends_with("=echo a,b"), "{script}");
    }
}
