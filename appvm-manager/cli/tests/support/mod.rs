//! A private session bus, images and a daemon for the tests.

// Each test program uses a part of this.
#![allow(dead_code)]

pub mod compositor;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Builds what these tests start; Cargo only builds this crate's own program for them.
pub fn programs() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let status = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--package",
                "bulkhead-agent",
                "--package",
                "bulkheadd",
                "--package",
                "bulkhead-icon",
                "--package",
                "bulkhead-link",
                "--package",
                "bulkhead-rpc",
            ])
            .args(["--bins", "--example", "vmm-without-vm"])
            .status()
            .unwrap();
        assert!(status.success());
        Path::new(env!("CARGO_BIN_EXE_bulkhead"))
            .parent()
            .unwrap()
            .to_owned()
    })
}

/// How long anything may take to come to be. A busy machine may need most of it; a test that passes waits
/// no longer than it has to.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Machine {
    folder: tempfile::TempDir,
    bus: Child,
    address: String,
    /// Added to the environment of everything.
    pub variables: Vec<(String, PathBuf)>,
    pub daemon: Option<Child>,
}

impl Machine {
    /// A bus, images and a daemon.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut bus = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(bus.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        for path in ["images/guest", "images/templates/apps", "run"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
        }
        let images = folder.path().join("images");
        fs::write(images.join("guest/vmlinux"), b"\x7fELF kernel").unwrap();
        for file in ["initramfs.cpio", "initramfs-net.cpio"] {
            fs::write(images.join("guest").join(file), b"070701").unwrap();
        }
        let mut root = vec![0; 8192];
        root[1024..1028].copy_from_slice(&0xe0f5_e1e2u32.to_le_bytes());
        root[1036] = 12;
        root[1060] = 2;
        fs::write(images.join("templates/apps/root.erofs"), root).unwrap();
        let address = address.trim().to_owned();
        let mut machine = Machine {
            folder,
            bus,
            address,
            variables: Vec::new(),
            daemon: None,
        };
        machine.start_daemon(&[]);
        machine
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn environment(&self, command: &mut Command) {
        command
            .env("DBUS_SESSION_BUS_ADDRESS", &self.address)
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env_remove("BULKHEAD_POWER_DIR")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env("TMPDIR", self.folder.path())
            .env("BULKHEAD_TEST_AGENT", programs().join("bulkhead-agent"))
            .env("BULKHEAD_TEST_VARIABLE", "inherited");
    }

    pub fn start_daemon(&mut self, arguments: &[&str]) {
        fs::create_dir_all(self.path("home")).unwrap();
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.path("daemon.log"))
            .unwrap();
        let mut command = Command::new(programs().join("bulkheadd"));
        command
            .arg("--images")
            .arg(self.path("images"))
            .arg("--vmm")
            .arg(programs().join("examples/vmm-without-vm"))
            .args(["--start-timeout", "10"])
            .args(arguments)
            .stderr(log);
        self.environment(&mut command);
        self.daemon = Some(command.spawn().unwrap());
        let end = Instant::now() + PATIENCE;
        while !self.run(&["list"]).status.success() {
            assert!(Instant::now() < end, "{}", self.daemon_log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn daemon_log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
        command.args(arguments).stdin(Stdio::null());
        self.environment(&mut command);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed; gives what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "{arguments:?}: {stderr}\n{}",
            self.daemon_log()
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail with `status`; gives its one line of error.
    pub fn fails(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            output.status.code(),
            Some(status),
            "{arguments:?}: {stderr}"
        );
        assert!(stderr.starts_with("bulkhead: "), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        stderr
    }

    pub fn state(&self, name: &str) -> String {
        let text = self.ok(&["info", name, "--json"]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["state"].as_str().unwrap().to_owned()
    }

    pub fn wait_for_state(&self, name: &str, state: &str) {
        let end = Instant::now() + PATIENCE;
        while self.state(name) != state {
            assert!(Instant::now() < end, "{} is {}", name, self.state(name));
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn vmm_pid(&self, name: &str) -> i64 {
        let text = self.ok(&["info", name, "--json"]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["pid"].as_i64().unwrap()
    }

    /// What is left of a domain's sockets.
    pub fn sockets(&self) -> usize {
        fs::read_dir(self.path("run/bulkhead/domains"))
            .unwrap()
            .count()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for mut child in self.daemon.take().into_iter() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.bus.kill();
        let _ = self.bus.wait();
        if thread::panicking() {
            eprintln!("--- the daemon said:\n{}", self.daemon_log());
        }
    }
}

pub fn signal(pid: i64, number: i32) {
    // SAFETY: no pointers; the process is one that this test started.
    unsafe { libc::kill(pid as i32, number) };
}

pub fn is_alive(pid: i64) -> bool {
    // A zombie that nobody waits for counts as dead.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

pub fn wait_until_dead(pid: i64) {
    let end = Instant::now() + PATIENCE;
    while is_alive(pid) {
        assert!(Instant::now() < end, "process {pid} lives");
        thread::sleep(Duration::from_millis(20));
    }
}
