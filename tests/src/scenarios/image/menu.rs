//! How quick the application menu is, measured on this machine itself by the compositor's own
//! clock: from the key to the picture that shows what it did.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};

use crate::check;
use crate::e2e::here::HereContext;
use crate::e2e::picture::Picture;
use crate::e2e::{Failure, Outcome, Place, Scenario};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "image-menu",
    about: "the menu opens within two frames and filters 2,000 entries within one (no emulation)",
    run: Place::Here(run),
};

/// Domains, each with a template of its own, and applications of each template.
const DOMAINS: [&str; 4] = ["work", "personal", "banking", "games"];
const APPLICATIONS: usize = 500;
/// One picture at 60 Hz.
const FRAME_US: f64 = 16_667.0;
const ROUNDS: usize = 15;
const KEY_LEFTMETA: u32 = 125;
const KEY_ESC: u32 = 1;
/// t, e, r, m (linux/input-event-codes.h).
const WORD: [u32; 4] = [20, 18, 19, 50];

/// A program that ends with this scenario.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(context: &HereContext<'_>) -> Outcome {
    let base = context.folder();
    for folder in [
        "run/bulkhead",
        "config/bulkhead/domains",
        "images/guest",
        "home",
    ] {
        fs::create_dir_all(base.join(folder))?;
    }
    for (index, name) in DOMAINS.iter().enumerate() {
        template(base, name, index)?;
        let label = ["red", "green", "blue", "orange"]
            .get(index)
            .unwrap_or(&"gray");
        let file = base.join(format!("config/bulkhead/domains/{name}.toml"));
        fs::write(
            file,
            format!("name = \"{name}\"\nlabel = \"{label}\"\ntemplate = \"{name}\"\n"),
        )?;
    }
    let mut bus = Command::new("dbus-daemon")
        .args(["--session", "--nofork", "--nopidfile", "--print-address"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut address = String::new();
    if let Some(output) = bus.stdout.take() {
        BufReader::new(output).read_line(&mut address)?;
    }
    let _bus = Running(bus);
    let start = |program: &str, arguments: &[String]| -> Result<Running, Failure> {
        let log = fs::File::create(base.join(format!("{program}.log")))?;
        let child = Command::new(context.program(program)?)
            .args(arguments)
            .env("DBUS_SESSION_BUS_ADDRESS", address.trim())
            .env("XDG_RUNTIME_DIR", base.join("run"))
            .env("XDG_CONFIG_HOME", base.join("config"))
            .env("XDG_DATA_HOME", base.join("data"))
            .env("XDG_CACHE_HOME", base.join("cache"))
            .env("XDG_STATE_HOME", base.join("state"))
            .env("HOME", base.join("home"))
            .env("WAYLAND_DISPLAY", base.join("run/host.sock"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Running(child))
    };
    let path = |name: &str| base.join(name).to_string_lossy().into_owned();
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|&word| word.to_owned())
            .collect::<Vec<_>>()
    };
    let _compositor = start(
        "bulkhead-compositor",
        &words(&[
            "--backend",
            "headless",
            "--size",
            "1280x800",
            "--control",
            &path("run/bulkhead/compositor.sock"),
            "--host-socket",
            &path("run/host.sock"),
            "--test-socket",
            &path("run/test.sock"),
        ]),
    )?;
    wait("the compositor", || base.join("run/test.sock").exists())?;
    let _manager = start(
        "bulkheadd",
        &words(&[
            "--compositor-control",
            &path("run/bulkhead/compositor.sock"),
            "--images",
            &path("images"),
        ]),
    )?;
    let _menu = start("bulkhead-ui", &words(&["menu"]))?;
    let test = Test::connect(&base.join("run/test.sock"))?;
    wait("the menu's process", || {
        test.menus().is_ok_and(|all| !all.is_empty())
    })?;
    // It asks for the applications, and the manager looks at their icons, before it is used.
    std::thread::sleep(Duration::from_secs(4));

    let mut opened = Vec::new();
    let mut filtered = Vec::new();
    for round in 0..ROUNDS {
        let before = test.shown()?;
        test.key(KEY_LEFTMETA, true)?;
        let tapped = test.key(KEY_LEFTMETA, false)?;
        opened.push(test.next_picture(before, tapped, true)?);
        if round == 0 {
            test.ask(&json!({"op": "screenshot", "path": path("menu.png")}))?;
        }
        std::thread::sleep(Duration::from_millis(150));
        for code in WORD {
            let before = test.shown()?;
            let pressed = test.key(code, true)?;
            filtered.push(test.next_picture(before, pressed, false)?);
            test.key(code, false)?;
            std::thread::sleep(Duration::from_millis(80));
        }
        if round == 0 {
            test.ask(&json!({"op": "screenshot", "path": path("filtered.png")}))?;
            let picture = Picture::open(&base.join("filtered.png")).map_err(Failure::new)?;
            // A domain's own colour stands beside its entries: an empty menu would be quick, too.
            let blue = picture.share_of(picture.area(), [0x34, 0x65, 0xa4], 6);
            check!(blue > 0.0005, "filtered.png shows no entry of `banking`");
        }
        test.key(KEY_ESC, true)?;
        test.key(KEY_ESC, false)?;
        wait("the menu to close", || {
            test.open_menus().is_ok_and(|n| n == 0)
        })?;
        std::thread::sleep(Duration::from_millis(100));
    }
    let figures = json!({
        "entries": DOMAINS.len() * APPLICATIONS,
        "open_us": spread(&mut opened),
        "filter_us": spread(&mut filtered),
        "frame_us": FRAME_US,
    });
    eprintln!("  {figures}");
    context.log("figures.json", figures.to_string().as_bytes())?;
    // Medians: this machine does other things as well, and a single value says little.
    let median = |name: &str| figures[name]["median"].as_f64().unwrap_or(f64::MAX);
    check!(
        median("open_us") <= 2.0 * FRAME_US,
        "the menu took {} us to open; two frames are {}",
        median("open_us"),
        2.0 * FRAME_US
    );
    check!(
        median("filter_us") <= FRAME_US,
        "the menu took {} us to filter; a frame is {FRAME_US}",
        median("filter_us")
    );
    Ok(())
}

/// A template of many applications that look like real ones.
fn template(base: &Path, name: &str, seed: usize) -> Outcome {
    let folder = base.join("images/templates").join(name);
    let applications = folder.join("apps/applications");
    fs::create_dir_all(&applications)?;
    fs::create_dir_all(folder.join("apps/icons"))?;
    // An EROFS head is all that the manager looks at before it starts something.
    let mut root = vec![0; 8192];
    root[1024..1028].copy_from_slice(&0xe0f5_e1e2u32.to_le_bytes());
    root[1036] = 12;
    root[1060] = 2;
    fs::write(folder.join("root.erofs"), root)?;
    fs::write(
        folder.join("template.toml"),
        format!("name = \"{name}\"\ndescription = \"{name}\"\nsuite = \"trixie\"\n"),
    )?;
    const KINDS: [&str; 10] = [
        "Terminal", "Editor", "Viewer", "Player", "Manager", "Calendar", "Browser", "Monitor",
        "Recorder", "Designer",
    ];
    for number in 0..APPLICATIONS {
        let kind = KINDS[(number + seed) % KINDS.len()];
        let text = format!(
            "[Desktop Entry]\nType=Application\nName={kind} {number} of {name}\n\
             GenericName={kind}\nComment=Something to work with\nKeywords=tool;{name};n{number};\n\
             Exec=app{number} %U\nCategories=Utility;\n"
        );
        fs::write(applications.join(format!("app{number}.desktop")), text)?;
    }
    Ok(())
}

/// The compositor's interface for tests.
struct Test(OwnedFd);

impl Test {
    fn connect(path: &Path) -> Result<Self, Failure> {
        let to = |error: rustix::io::Errno| Failure::new(format!("{}: {error}", path.display()));
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(to)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path).map_err(to)?).map_err(to)?;
        Ok(Self(socket))
    }

    fn ask(&self, request: &Value) -> Result<Value, Failure> {
        let to = |error: rustix::io::Errno| Failure::new(format!("the compositor: {error}"));
        rustix::net::send(&self.0, request.to_string().as_bytes(), SendFlags::NOSIGNAL)
            .map_err(to)?;
        let mut answer = vec![0; 1 << 17];
        let (_, length) =
            rustix::net::recv(&self.0, &mut answer[..], RecvFlags::empty()).map_err(to)?;
        let answer: Value = serde_json::from_slice(answer.get(..length).unwrap_or_default())?;
        if answer["ok"] == true {
            return Ok(answer);
        }
        Err(Failure::new(format!("{request}: {answer}")))
    }

    /// Presses a key or lets it go, and returns when that was.
    fn key(&self, code: u32, pressed: bool) -> Result<u64, Failure> {
        let answer = self.ask(&json!({"op": "key", "code": code, "pressed": pressed}))?;
        Ok(answer["time_us"].as_u64().unwrap_or(0))
    }

    fn menus(&self) -> Result<Vec<Value>, Failure> {
        let answer = self.ask(&json!({"op": "layers"}))?;
        let layers = answer["layers"].as_array().cloned().unwrap_or_default();
        let is_menu = |layer: &Value| {
            layer["namespace"]
                .as_str()
                .is_some_and(|name| name.contains("menu"))
        };
        Ok(layers.into_iter().filter(is_menu).collect())
    }

    /// The menu's surfaces that a person sees: its process keeps one of a pixel.
    fn open_menus(&self) -> Result<usize, Failure> {
        let seen = |layer: &Value| layer["mapped"] == true && layer["width"].as_u64() > Some(1);
        Ok(self.menus()?.iter().filter(|layer| seen(layer)).count())
    }

    /// When the last picture of the menu was shown.
    fn shown(&self) -> Result<u64, Failure> {
        let times = self.menus()?.into_iter();
        Ok(times
            .filter_map(|layer| layer["shown_us"].as_u64())
            .max()
            .unwrap_or(0))
    }

    /// Microseconds from `since` until a picture later than `before` was shown, and, if asked for,
    /// the menu is open.
    fn next_picture(&self, before: u64, since: u64, open: bool) -> Result<f64, Failure> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let shown = self.shown()?;
            if shown > before && shown >= since && (!open || self.open_menus()? > 0) {
                return Ok((shown - since) as f64);
            }
            check!(
                Instant::now() < deadline,
                "the menu showed nothing new within 5 s of a key"
            );
            // Asking too often would slow what is measured.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn wait(what: &str, mut done: impl FnMut() -> bool) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        check!(Instant::now() < deadline, "waited 20 s for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn spread(samples: &mut [f64]) -> Value {
    samples.sort_by(f64::total_cmp);
    let at = |share: usize| samples.get((samples.len() - 1) * share / 100).copied();
    json!({ "min": at(0), "median": at(50), "p90": at(90), "max": at(100) })
}
