//! The whole desktop but for the virtual machines: `bulkhead session` with the real compositor
//! (headless), the real manager, panel and menu on a private session bus, driven by injected keys
//! and clicks. Pictures of each step are written to `target/ui-test/`: look at them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Key codes of Linux.
const ESCAPE: u32 = 1;
const ENTER: u32 = 28;
const DOWN: u32 = 108;
const LEFT_CTRL: u32 = 29;
const SUPER: u32 = 125;
const PATIENCE: Duration = Duration::from_secs(60);

/// Builds what a session starts, and gives its folder.
fn programs() -> &'static Path {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--bins", "--example", "vmm-without-vm"])
        .args([
            "-p",
            "bulkhead-compositor",
            "-p",
            "bulkheadd",
            "-p",
            "bulkhead-agent",
        ])
        .args([
            "-p",
            "bulkhead-icon",
            "-p",
            "bulkhead-cli",
            "-p",
            "bulkhead-rpc",
        ])
        .status()
        .unwrap();
    assert!(status.success());
    Path::new(env!("CARGO_BIN_EXE_bulkhead-ui"))
        .parent()
        .unwrap()
}

struct Desktop {
    folder: tempfile::TempDir,
    bin: PathBuf,
    bus: Child,
    address: String,
    session: Child,
    test: OwnedFd,
}

impl Desktop {
    /// A session with these desktop files in its template, and these domains.
    fn new(apps: &[(&str, &str)], domains: &[(&str, &str)]) -> Self {
        let bin = programs().to_owned();
        let folder = tempfile::tempdir().unwrap();
        let path = |path: &str| folder.path().join(path);
        let applications = path("images/templates/apps/apps/applications");
        for folder in [
            &applications,
            &path("images/guest"),
            &path("run"),
            &path("home"),
        ] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(path("images/guest/vmlinux"), b"\x7fELF kernel").unwrap();
        fs::write(path("images/guest/initramfs.cpio"), b"070701").unwrap();
        let mut root = vec![0; 8192];
        root[1024..1028].copy_from_slice(&0xe0f5_e1e2u32.to_le_bytes());
        root[1036] = 12;
        root[1060] = 2;
        fs::write(path("images/templates/apps/root.erofs"), root).unwrap();
        let description = "name = \"apps\"\ndisposable = true\n";
        fs::write(path("images/templates/apps/template.toml"), description).unwrap();
        for (id, lines) in apps {
            let text = format!("[Desktop Entry]\nType=Application\n{lines}\n");
            fs::write(applications.join(format!("{id}.desktop")), text).unwrap();
        }
        let mut bus = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(bus.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        let address = address.trim().to_owned();
        let mut session = Command::new(bin.join("bulkhead"));
        session
            .args(["session", "--backend", "headless", "--size", "1280x800"])
            .arg("--test-socket")
            .arg(path("run/test.sock"))
            .arg("--images")
            .arg(path("images"))
            .arg("--vmm")
            .arg(bin.join("examples/vmm-without-vm"))
            .stderr(fs::File::create(path("session.log")).unwrap());
        environment(&mut session, folder.path(), &address, &bin);
        let session = session.spawn().unwrap();
        let end = Instant::now() + PATIENCE;
        let test = loop {
            match connect(&path("run/test.sock")) {
                Some(test) => break test,
                None => assert!(Instant::now() < end, "no compositor"),
            }
            thread::sleep(Duration::from_millis(20));
        };
        let desktop = Desktop {
            folder,
            bin,
            bus,
            address,
            session,
            test,
        };
        desktop.wait("the session", || desktop.log().contains("session ready"));
        desktop.wait("panel and menu", || desktop.layers().len() == 2);
        for (name, label) in domains {
            desktop.cli(&["create", name, "--label", label]);
        }
        desktop
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("session.log")).unwrap_or_default()
    }

    fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(self.bin.join("bulkhead"));
        command.args(arguments);
        environment(&mut command, self.folder.path(), &self.address, &self.bin);
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "{arguments:?}: {error}\n{}",
            self.log()
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn state(&self, name: &str) -> String {
        let info: Value = serde_json::from_str(&self.cli(&["info", name, "--json"])).unwrap();
        info["state"].as_str().unwrap().to_owned()
    }

    fn op(&self, request: Value) -> Value {
        let bytes = request.to_string();
        // SAFETY: pointer and length are those of a live string, and the socket is open.
        let sent = unsafe {
            libc::send(
                self.test.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_NOSIGNAL,
            )
        };
        assert!(sent > 0);
        let mut buffer = vec![0_u8; 256 * 1024];
        // SAFETY: pointer and length are those of a live buffer, and the socket is open.
        let count = unsafe {
            libc::recv(
                self.test.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
            )
        };
        let count = usize::try_from(count).unwrap();
        let answer: Value = serde_json::from_slice(&buffer[..count]).unwrap();
        assert_eq!(answer["ok"], true, "{answer}");
        answer
    }

    fn key(&self, code: u32) {
        self.op(json!({"op": "key", "code": code, "pressed": true}));
        self.op(json!({"op": "key", "code": code, "pressed": false}));
    }

    fn click(&self, x: f64, y: f64) {
        self.op(json!({"op": "pointer_move", "x": x, "y": y}));
        for pressed in [true, false] {
            self.op(json!({"op": "pointer_button", "button": 272, "pressed": pressed}));
        }
    }

    /// The surfaces that show something, by their names.
    fn layers(&self) -> Vec<String> {
        let answer = self.op(json!({"op": "layers"}));
        let shown = |layer: &&Value| layer["mapped"] == true && layer["frames"].as_u64() > Some(0);
        answer["layers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(shown)
            .map(|layer| {
                let part = |key: &str| layer[key].as_str().unwrap().to_owned();
                format!("{} {}", part("layer"), part("namespace"))
            })
            .collect()
    }

    fn shows(&self, layer: &str) -> bool {
        self.layers().iter().any(|shown| shown == layer)
    }

    /// Taps Super, and gives the time until the menu has been drawn.
    fn open_menu(&self) -> Duration {
        let start = Instant::now();
        self.key(SUPER);
        self.wait("the menu", || self.shows(MENU));
        start.elapsed()
    }

    fn close_menu(&self) {
        self.key(ESCAPE);
        self.wait("the menu's end", || !self.shows(MENU));
    }

    fn settle(&self) {
        self.op(json!({"op": "settle", "quiet_ms": 150, "timeout_ms": 3000}));
    }

    /// A picture, and its pixels.
    fn picture(&self, name: &str) -> Picture {
        let folder = self.bin.parent().unwrap().join("ui-test");
        fs::create_dir_all(&folder).unwrap();
        self.settle();
        let file = folder.join(format!("{name}.png"));
        self.op(json!({"op": "screenshot", "path": file}));
        let decoder = png::Decoder::new(BufReader::new(fs::File::open(file).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut bytes).unwrap();
        Picture {
            stride: frame.line_size,
            samples: frame.color_type.samples(),
            bytes,
        }
    }

    fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done() {
            assert!(
                Instant::now() < end,
                "{what}: {:?}\n{}",
                self.layers(),
                self.log()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The processes of panel and menu.
    fn ui_processes(&self) -> Vec<PathBuf> {
        let own = self.session.id().to_string();
        let children = format!("/proc/{own}/task/{own}/children");
        fs::read_to_string(children)
            .unwrap()
            .split_whitespace()
            .map(|pid| Path::new("/proc").join(pid))
            .filter(|process| {
                fs::read_to_string(process.join("comm")).is_ok_and(|name| name == "bulkhead-ui\n")
            })
            .collect()
    }
}

const ASK: &str = "overlay bulkhead-ask";
const NOTICE: &str = "overlay bulkhead-notice";
const MENU: &str = "overlay bulkhead-menu";
const POPUP: &str = "overlay bulkhead-panel-popup";

struct Picture {
    stride: usize,
    samples: usize,
    bytes: Vec<u8>,
}

impl Picture {
    fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = y * self.stride + x * self.samples;
        self.bytes[at..at + 3].try_into().unwrap()
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        // SAFETY: no pointers; the session is our child and has not been waited for.
        unsafe { libc::kill(self.session.id() as i32, libc::SIGTERM) };
        let _ = self.session.wait();
        let _ = self.bus.kill();
        let _ = self.bus.wait();
        if thread::panicking() {
            let _ = writeln!(std::io::stderr(), "--- the session said:\n{}", self.log());
        }
    }
}

fn environment(command: &mut Command, folder: &Path, address: &str, bin: &Path) {
    command
        .env("DBUS_SESSION_BUS_ADDRESS", address)
        .env("HOME", folder.join("home"))
        .env("XDG_RUNTIME_DIR", folder.join("run"))
        .env("XDG_CONFIG_HOME", folder.join("config"))
        .env("XDG_DATA_HOME", folder.join("data"))
        .env("XDG_STATE_HOME", folder.join("state"))
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .env("TMPDIR", folder)
        .env("BULKHEAD_TEST_AGENT", bin.join("bulkhead-agent"))
        .env_remove("BULKHEAD_POWER_DIR")
        .env_remove("WAYLAND_DISPLAY")
        .stdin(Stdio::null());
}

/// A connection of the compositor's kind: packets.
fn connect(path: &Path) -> Option<OwnedFd> {
    // SAFETY: plain system calls; results are checked, the address is initialised.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0);
        let fd = OwnedFd::from_raw_fd(fd);
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as u16;
        let bytes = path.as_os_str().as_encoded_bytes();
        for (to, from) in address.sun_path.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        let length = size_of::<libc::sockaddr_un>() as u32;
        let connected = libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length);
        (connected == 0).then_some(fd)
    }
}

#[test]
fn from_the_menu_to_a_running_application_and_its_end() {
    let desktop = Desktop::new(
        &[
            ("foot", "Name=Foot\nGenericName=Terminal\nExec=sleep 1000"),
            (
                "thunar",
                "Name=Thunar\nGenericName=File Manager\nExec=sleep 1000",
            ),
            ("broken", "Name=Broken\nExec=no-such-program"),
        ],
        &[("personal", "green"), ("work", "red")],
    );
    let picture = desktop.picture("1-empty");
    assert_eq!(picture.pixel(4, 4), [0x1a, 0x1c, 0x1f]);

    // Typed, chosen, launched: the domain starts by itself.
    desktop.open_menu();
    desktop.op(json!({"op": "type", "text": "term"}));
    let picture = desktop.picture("2-menu");
    let green = [0x73, 0xd2, 0x16];
    assert!((200..700).any(|y| picture.pixel(341, y) == green));
    desktop.key(DOWN);
    desktop.key(ENTER);
    desktop.wait("the menu's end", || !desktop.shows(MENU));
    desktop.wait("work", || desktop.state("work") == "running");
    assert_eq!(desktop.state("personal"), "halted");

    // In a new disposable.
    desktop.open_menu();
    desktop.op(json!({"op": "type", "text": "work thun"}));
    desktop.op(json!({"op": "key", "code": LEFT_CTRL, "pressed": true}));
    desktop.key(ENTER);
    desktop.op(json!({"op": "key", "code": LEFT_CTRL, "pressed": false}));
    desktop.wait("a disposable", || {
        let list = desktop.cli(&["list"]);
        list.lines()
            .any(|line| line.contains("disp") && line.contains("running"))
    });

    // What cannot be launched says why, without taking the keyboard.
    desktop.open_menu();
    desktop.op(json!({"op": "type", "text": "broken work"}));
    desktop.key(ENTER);
    desktop.wait("a notice", || desktop.shows("overlay bulkhead-notice"));
    desktop.picture("3-notice");

    // Escape, and the menu's button.
    desktop.click(50.0, 16.0);
    desktop.wait("the menu", || desktop.shows(MENU));
    desktop.close_menu();

    // The running domains: the first row is the disposable's, the second one work's.
    desktop.settle();
    desktop.click(1008.0, 16.0);
    desktop.wait("the domains", || desktop.shows(POPUP));
    desktop.picture("4-domains");
    desktop.settle();
    for _ in 0..2 {
        assert_eq!(desktop.state("work"), "running");
        desktop.click(1240.0, 150.0);
        desktop.picture("5-kill");
    }
    desktop.wait("work's end", || desktop.state("work") == "halted");

    // Switching off asks, and here it says that it cannot.
    desktop.click(1240.0, 16.0);
    desktop.settle();
    desktop.click(1050.0, 105.0);
    desktop.settle();
    desktop.click(1050.0, 105.0);
    desktop.wait("a refusal", || {
        desktop.log().contains("BULKHEAD_POWER_DIR is not set")
    });
    desktop.picture("6-power");
}

#[test]
fn the_menu_is_quick_whatever_the_template_holds_and_idle_costs_nothing() {
    let apps: Vec<(String, String)> = (0..3000)
        .map(|number| {
            let name = format!("App\u{202e} {number} {}", "long ".repeat(40));
            let lines = format!("Name={name}\nKeywords={}\nExec=x", "word;".repeat(50));
            (format!("app{number:05}"), lines)
        })
        .collect();
    let apps: Vec<(&str, &str)> = apps
        .iter()
        .map(|(id, lines)| (id.as_str(), lines.as_str()))
        .collect();
    let domains = ["a", "b", "c", "d"].map(|name| (name, "blue"));
    let desktop = Desktop::new(&apps, &domains);
    let list: Vec<Value> = serde_json::from_str(&desktop.cli(&["apps", "--json"])).unwrap();
    assert_eq!(list.len(), 4 * 512);
    desktop.settle();
    let mut times: Vec<Duration> = (0..8)
        .map(|_| {
            let time = desktop.open_menu();
            desktop.close_menu();
            time
        })
        .collect();
    desktop.open_menu();
    desktop.op(json!({"op": "type", "text": "app 17"}));
    desktop.picture("7-many");
    desktop.close_menu();
    times.sort();
    let median = times[times.len() / 2];
    eprintln!(
        "menu opens with {} entries, until it is drawn: median {median:?}, {times:?}",
        list.len()
    );
    // Two frames at 60 Hz are the goal, measured with optimised programs on an idle machine; here
    // other tests run beside it.
    assert!(median < Duration::from_millis(200), "{times:?}");

    desktop.settle();
    let processes = desktop.ui_processes();
    assert_eq!(processes.len(), 2);
    let switches = |process: &PathBuf| -> u64 {
        fs::read_dir(process.join("task"))
            .unwrap()
            .map(|task| {
                let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
                let line = status
                    .lines()
                    .find(|line| line.starts_with("voluntary_ctxt_switches"));
                let count = line.unwrap().split_whitespace().next_back().unwrap();
                count.parse::<u64>().unwrap()
            })
            .sum()
    };
    // The clock's minute may begin meanwhile, which redraws the panel; and other tests run beside it.
    let mut woken = Vec::new();
    let quiet = (0..3).any(|_| {
        let before: Vec<u64> = processes.iter().map(switches).collect();
        thread::sleep(Duration::from_secs(4));
        let after = processes.iter().map(switches);
        woken = after
            .zip(before)
            .map(|(after, before)| after - before)
            .collect();
        woken.iter().all(|count| *count < 8)
    });
    assert!(quiet, "{processes:?} woke {woken:?} times in 4 s");
    eprintln!("wake-ups in 4 s: {woken:?}");
}

/// A question stands over everything, and is not answered by who was typing when it came.
#[test]
fn a_question_is_answered_on_purpose_only() {
    let desktop = Desktop::new(&[], &[("work", "red"), ("personal", "green")]);
    let socket = desktop.folder.path().join("call-work.sock");
    for name in ["work", "personal"] {
        desktop.cli(&["start", name]);
    }
    desktop.wait("the domain's door", || socket.exists());
    let report = desktop.folder.path().join("report.pdf");
    fs::write(&report, [0; 4000]).unwrap();
    let copy = || {
        let mut command = Command::new(desktop.bin.join("bulkhead-rpc"));
        std::os::unix::process::CommandExt::arg0(&mut command, "bulkhead-copy");
        command
            .arg(&report)
            .env("BULKHEAD_CALL_SOCKET", &socket)
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    };
    let open = || desktop.cli(&["ask", "list"]).contains("report.pdf");

    // A tap on Super before that reaches nobody.
    desktop.wait("the manager", || {
        desktop.log().contains("connected to the compositor")
    });
    desktop.open_menu();
    let mut copying = copy();
    desktop.wait("the question", || desktop.shows(ASK));
    desktop.wait("the menu's end", || !desktop.shows(MENU));
    // Neither before a target is chosen, nor as long as keys are being pressed.
    desktop.key(ENTER);
    desktop.key(DOWN);
    for _ in 0..4 {
        thread::sleep(Duration::from_millis(400));
        desktop.key(ENTER);
    }
    assert!(open(), "a question was answered by typing");
    // The user does not get out of it by the menu.
    desktop.key(SUPER);
    desktop.picture("8-question");
    assert!(!desktop.shows(MENU));
    thread::sleep(Duration::from_millis(1500));
    desktop.key(ENTER);
    desktop.wait("the answer", || !desktop.shows(ASK));
    desktop.wait("the notice", || desktop.shows(NOTICE));
    desktop.picture("9-crossed");
    // There is no service in this test's domains.
    assert!(!copying.wait().unwrap().success());
    let log = desktop.cli(&["transfers", "--json"]);
    let log: Value = serde_json::from_str(&log).unwrap();
    assert_eq!(log[0]["target"], "personal", "{log}");
    assert_eq!(log[0]["verdict"], "failed", "{log}");

    let mut copying = copy();
    desktop.wait("the question", || desktop.shows(ASK));
    desktop.key(ESCAPE);
    assert_eq!(copying.wait().unwrap().code(), Some(126));
    desktop.wait("the end of the question", || !desktop.shows(ASK));
    assert!(desktop.cli(&["transfers"]).contains("refused by the user"));

    // With the caller goes the question.
    let mut copying = copy();
    desktop.wait("the question", || desktop.shows(ASK));
    copying.kill().unwrap();
    copying.wait().unwrap();
    desktop.wait("the end of the question", || !desktop.shows(ASK));

    // Of another kind: a port instead of files.
    let policy = desktop.folder.path().join("config/bulkhead/policy.d");
    fs::create_dir_all(&policy).unwrap();
    let rule = "bulkhead.ConnectTcp +8080 work personal ask\n";
    fs::write(policy.join("30-user.policy"), rule).unwrap();
    let mut connecting = Command::new(desktop.bin.join("bulkhead-rpc"))
        .args(["personal", "bulkhead.ConnectTcp+8080"])
        .env("BULKHEAD_CALL_SOCKET", &socket)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    desktop.wait("the question", || desktop.shows(ASK));
    thread::sleep(Duration::from_millis(1500));
    desktop.picture("10-port");
    desktop.key(ESCAPE);
    assert_eq!(connecting.wait().unwrap().code(), Some(126));
}
