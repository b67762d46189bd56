//! Applications, windows, templates and power: what panel, menu and command line ask the daemon
//! for, on a private session bus. The files of the template are hostile where they can be.

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Machine, compositor, programs, wait_until_dead};

fn desktop_file(machine: &Machine, id: &str, lines: &str) {
    let folder = machine.path("images/templates/apps/apps/applications");
    fs::create_dir_all(&folder).unwrap();
    let text = format!("[Desktop Entry]\nType=Application\n{lines}\n");
    fs::write(folder.join(format!("{id}.desktop")), text).unwrap();
}

fn icon(machine: &Machine, name: &str, bytes: &[u8]) {
    let folder = machine.path("images/templates/apps/apps/icons");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}

fn json(machine: &Machine, arguments: &[&str]) -> Vec<Value> {
    let mut all = arguments.to_vec();
    all.push("--json");
    serde_json::from_str(&machine.ok(&all)).unwrap()
}

/// `GetIcon`, without knowing what it answers.
fn get_icon(machine: &Machine, icon: &str) -> (bool, String) {
    let mut command = std::process::Command::new("dbus-send");
    command
        .args([
            "--session",
            "--print-reply",
            "--dest=org.bulkhead.Manager",
            "/org/bulkhead/Manager",
            "org.bulkhead.Manager1.GetIcon",
        ])
        .arg(format!("string:{icon}"));
    machine.environment(&mut command);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

const RED: &[u8] = b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'>\
    <rect width='8' height='8' fill='#f00'/></svg>";

#[test]
fn applications_of_every_domain() {
    let machine = Machine::new();
    desktop_file(
        &machine,
        "touch",
        "Name=Touch\nGenericName=Toucher\nComment=Makes a file\nKeywords=file;new;\nIcon=red\n\
         Exec=touch %F launched\nCategories=Utility;",
    );
    desktop_file(&machine, "hidden", "Name=Hidden\nNoDisplay=true\nExec=true");
    desktop_file(&machine, "gone", "Name=Gone\nExec=no-such-program-anywhere");
    icon(&machine, "red.svg", RED);
    machine.ok(&["create", "work", "--label", "red"]);
    machine.ok(&["create", "home", "--label", "green"]);

    let apps = json(&machine, &["apps"]);
    let names: Vec<_> = apps
        .iter()
        .map(|app| {
            (
                app["domain"].as_str().unwrap(),
                app["name"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        names,
        [
            ("home", "Gone"),
            ("home", "Touch"),
            ("work", "Gone"),
            ("work", "Touch")
        ]
    );
    let touch = &apps[3];
    assert_eq!(touch["colour"], "#cc0000");
    assert_eq!(touch["keywords"], serde_json::json!(["file", "new"]));
    assert_eq!(touch["template"], "apps");
    assert_eq!(touch["disposable"], false);
    assert!(machine.ok(&["apps", "work"]).contains("Toucher"));
    assert_eq!(json(&machine, &["apps", "home"]).len(), 2);
    machine.fails(1, &["apps", "nothing"]);

    // The real decoder.
    let (fine, text) = get_icon(&machine, touch["icon"].as_str().unwrap());
    assert!(fine && text.contains("uint16 48"), "{text}");
    let red = "ff 00 00 ff ".repeat(4);
    assert!(text.contains(red.trim()), "{text}");
    let cache = machine.path("cache/bulkhead/icons-1");
    assert_eq!(fs::read_dir(cache).unwrap().count(), 1);
    for bad in ["", "../../../etc/passwd", &"0".repeat(64)] {
        let (fine, text) = get_icon(&machine, bad);
        assert!(!fine && text.contains("Error.NoIcon"), "{bad}: {text}");
    }

    // The domain starts by itself; the answer comes when the program runs.
    assert_eq!(machine.ok(&["launch", "work", "touch"]), "work\n");
    assert_eq!(machine.state("work"), "running");
    let error = machine.fails(1, &["launch", "work", "nothing"]);
    assert!(
        error.contains("`work` has no application `nothing`"),
        "{error}"
    );
    let error = machine.fails(1, &["launch", "work", "gone"]);
    assert!(error.contains("no-such-program-anywhere"), "{error}");
    let error = machine.fails(1, &["launch", "work", "touch", "--disposable"]);
    assert!(error.contains("does not allow disposables"), "{error}");
    machine.fails(1, &["launch", "nothing", "touch"]);
}

#[test]
fn hostile_files_neither_slow_nor_mislead() {
    let machine = Machine::new();
    machine.ok(&["create", "work", "--label", "red"]);
    machine.ok(&["create", "home"]);
    for number in 0..10_000 {
        let name = format!("zz{number:05}");
        desktop_file(&machine, &name, "Name=Many\nExec=x\nIcon=/etc/passwd");
    }
    desktop_file(
        &machine,
        "aa",
        "Name=Bank\u{202e}exe.knab\nExec=../../bin/x",
    );
    desktop_file(
        &machine,
        "ab",
        "Name=Ba\u{200b}nk\u{2066}!\nExec=x\nIcon=../../../secret",
    );
    desktop_file(&machine, "ac", "Name=\u{202e}\nExec=x");
    desktop_file(&machine, "ad", "Name=Shell\nExec=sh -c \"$(reboot)\"");
    desktop_file(&machine, "ae", "Name=Icon\nExec=x\nIcon=bomb");
    fs::write(machine.path("secret.png"), "s").unwrap();
    let applications = machine.path("images/templates/apps/apps/applications");
    symlink("/etc/passwd", applications.join("af.desktop")).unwrap();
    // Each use draws the one before twice.
    let mut bomb = String::from(
        "<svg xmlns='http://www.w3.org/2000/svg' \
        xmlns:xlink='http://www.w3.org/1999/xlink' width='8' height='8'><g id='u0'><rect \
        width='8' height='8'/></g>",
    );
    for level in 1..40 {
        let below = format!("<use xlink:href='#u{}'/>", level - 1);
        bomb += &format!("<g id='u{level}'>{below}{below}</g>");
    }
    icon(&machine, "bomb.svg", (bomb + "</svg>").as_bytes());

    let start = Instant::now();
    let apps = json(&machine, &["apps"]);
    let first = start.elapsed();
    let start = Instant::now();
    assert_eq!(json(&machine, &["apps"]).len(), apps.len());
    let second = start.elapsed();
    assert!(first < Duration::from_secs(5), "{first:?}");
    assert!(second < Duration::from_secs(2), "{second:?}");
    // 512 files of each template are read; four of them are wrong.
    let of_work: Vec<_> = apps.iter().filter(|app| app["domain"] == "work").collect();
    assert_eq!(of_work.len(), 512 - 4);
    assert_eq!(apps.len(), 2 * of_work.len());
    assert!(machine.daemon_log().contains("more than 512 desktop files"));
    let ids: Vec<_> = of_work
        .iter()
        .map(|app| app["app"].as_str().unwrap())
        .collect();
    for wrong in ["aa", "ac", "ad", "af"] {
        assert!(!ids.contains(&wrong), "{wrong}");
    }
    let app = |id: &str| of_work.iter().find(|app| app["app"] == id).unwrap();
    assert_eq!(app("ab")["name"], "Ba nk !");
    assert_eq!(app("ab")["icon"], "");

    // The bomb's worker ends by itself, once, and the daemon answers others meanwhile.
    let bomb = app("ae")["icon"].as_str().unwrap().to_owned();
    let start = Instant::now();
    thread::scope(|scope| {
        let asked = scope.spawn(|| get_icon(&machine, &bomb));
        machine.ok(&["list"]);
        let (fine, text) = asked.join().unwrap();
        assert!(!fine && text.contains("Error.NoIcon"), "{text}");
    });
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    let start = Instant::now();
    get_icon(&machine, &bomb);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(machine.daemon_log().matches("no icon").count(), 1);
}

/// Answers the daemon's requests with success until it has seen `op`; gives that one.
fn serve_until(requests: &mut UnixStream, op: &str) -> Value {
    loop {
        let request = compositor::receive(requests).unwrap();
        requests.write_all(b"{\"ok\":true,\"windows\":[]}").unwrap();
        if request["op"] == op {
            return request;
        }
    }
}

struct Desktop {
    events: UnixStream,
    requests: UnixStream,
}

impl Desktop {
    /// A compositor to which the daemon has come.
    fn new(machine: &Machine) -> Self {
        let listener = compositor::listen(&machine.path("run/bulkhead/compositor.sock"));
        let mut events = compositor::accept(&listener);
        let mut requests = compositor::accept(&listener);
        serve_until(&mut events, "subscribe");
        serve_until(&mut requests, "windows");
        Desktop { events, requests }
    }

    fn tell(&mut self, event: &str) {
        self.events.write_all(event.as_bytes()).unwrap();
    }
}

/// Waits until a list of windows is as it should be.
fn wait_for_windows(machine: &Machine, right: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let windows = json(machine, &["windows"]);
        if right(&windows) {
            return windows;
        }
        assert!(Instant::now() < end, "{windows:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn windows_and_their_signals() {
    let machine = Machine::new();
    machine.ok(&["create", "work", "--label", "red"]);
    let error = machine.fails(1, &["windows", "--activate", "7"]);
    assert!(error.contains("no compositor"), "{error}");
    machine.ok(&["start", "work"]);
    let mut desktop = Desktop::new(&machine);
    let mut monitor = std::process::Command::new("dbus-monitor");
    let log = machine.path("signals.log");
    monitor
        .args([
            "--session",
            "--profile",
            "type='signal',sender='org.bulkhead.Manager'",
        ])
        .stdout(fs::File::create(&log).unwrap());
    machine.environment(&mut monitor);
    let mut monitor = monitor.spawn().unwrap();
    let signals = |name: &str| fs::read_to_string(&log).unwrap().matches(name).count();
    // The monitor says nothing when it is ready: it is when it sees one.
    let end = Instant::now() + Duration::from_secs(5);
    while signals("MenuRequested") == 0 {
        assert!(Instant::now() < end);
        desktop.tell(r#"{"event":"menu","time_us":5}"#);
        thread::sleep(Duration::from_millis(50));
    }

    for number in 1..=50 {
        desktop.tell(&format!(
            r#"{{"event":"window_mapped","domain":"work","id":{number},"title":"t\u202e{number}","app_id":"foot"}}"#
        ));
    }
    desktop.tell(r#"{"event":"window_mapped","domain":"unknown","id":99,"title":"x"}"#);
    desktop.tell(r#"{"event":"focus","domain":"work","id":7,"time_us":1}"#);
    let windows = wait_for_windows(&machine, |windows| {
        windows.len() == 50 && windows[6]["focused"] == true
    });
    assert_eq!(windows[6]["title"], "t 7");
    assert_eq!(windows[6]["label"], "red");
    assert_eq!(windows[6]["colour"], "#cc0000");
    assert!(machine.ok(&["windows"]).contains("t 7"));
    desktop.tell(r#"{"event":"title","domain":"work","id":7,"title":"new","app_id":"foot"}"#);
    desktop.tell(r#"{"event":"window_closed","domain":"work","id":8}"#);
    wait_for_windows(&machine, |windows| {
        windows.len() == 49 && windows[6]["title"] == "new"
    });
    let end = Instant::now() + Duration::from_secs(5);
    while signals("FocusChanged") < 2 || signals("WindowMapped") < 51 {
        assert!(
            Instant::now() < end,
            "{}",
            fs::read_to_string(&log).unwrap()
        );
        thread::sleep(Duration::from_millis(20));
    }
    // Fifty windows are not fifty signals.
    assert!(
        (1..20).contains(&signals("WindowsChanged")),
        "{}",
        signals("WindowsChanged")
    );
    monitor.kill().unwrap();
    monitor.wait().unwrap();

    let mut requests = desktop.requests.try_clone().unwrap();
    let served = thread::spawn(move || {
        let ids = ["activate_window", "close_window"]
            .map(|op| serve_until(&mut requests, op)["id"].clone());
        // The third is refused.
        compositor::receive(&mut requests).unwrap();
        requests
            .write_all(br#"{"ok":false,"error":"no window 99"}"#)
            .unwrap();
        ids
    });
    machine.ok(&["windows", "--activate", "7"]);
    machine.ok(&["windows", "--close", "9"]);
    let error = machine.fails(1, &["windows", "--close", "99"]);
    assert!(error.contains("the compositor: no window 99"), "{error}");
    assert_eq!(served.join().unwrap(), [7, 9]);
    // The compositor ends, and every window with it.
    fs::remove_file(machine.path("run/bulkhead/compositor.sock")).unwrap();
    drop(desktop);
    wait_for_windows(&machine, <[_]>::is_empty);
}

#[test]
fn a_disposable_goes_with_its_last_window() {
    let machine = Machine::new();
    desktop_file(&machine, "short", "Name=Short\nExec=true");
    desktop_file(&machine, "long", "Name=Long\nExec=sleep 1000");
    let description = machine.path("images/templates/apps/template.toml");
    fs::write(&description, "name = \"apps\"\ndisposable = true\n").unwrap();
    machine.ok(&["create", "work", "--label", "red", "--memory", "256M"]);
    assert_eq!(json(&machine, &["apps"])[0]["disposable"], true);

    let gone = |name: &str| {
        let end = Instant::now() + support::PATIENCE;
        while machine.run(&["info", name]).status.success() {
            assert!(Instant::now() < end, "{name} stays");
            thread::sleep(Duration::from_millis(50));
        }
        assert!(!machine.path("data/bulkhead/domains").join(name).exists());
        assert!(
            !machine
                .path(&format!("config/bulkhead/domains/{name}.toml"))
                .exists()
        );
    };
    // Its command ends, and no window comes.
    let name = machine.ok(&["launch", "work", "short", "--disposable"]);
    gone(name.trim());

    let name = machine.ok(&["launch", "work", "long", "--disposable"]);
    let name = name.trim();
    assert!(name.starts_with("disp"), "{name}");
    let info: Value = serde_json::from_str(&machine.ok(&["info", name, "--json"])).unwrap();
    assert_eq!(
        (&info["label"], &info["memory_mib"]),
        (&"red".into(), &256.into())
    );
    assert_eq!(info["kind"], "disposable");
    // Its applications are listed, but not as a source of more of its kind.
    let own = json(&machine, &["apps", name]);
    assert_eq!(own[0]["disposable"], false);
    machine.fails(1, &["launch", name, "long", "--disposable"]);
    let pid = machine.vmm_pid(name);
    machine.ok(&["stop", name]);
    gone(name);
    wait_until_dead(pid);

    // What a daemon leaves behind when it is killed, the next one removes.
    let mut machine = machine;
    let name = machine.ok(&["launch", "work", "long", "--disposable"]);
    let mut daemon = machine.daemon.take().unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    machine.start_daemon(&[]);
    let list = machine.ok(&["list"]);
    assert!(
        list.contains("work") && !list.contains(name.trim()),
        "{list}"
    );
}

/// Starts the daemon again, now with a folder for its wish to switch the machine off.
fn may_switch_off(machine: &mut Machine) -> PathBuf {
    let mut daemon = machine.daemon.take().unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let power = machine.path("power");
    fs::create_dir(&power).unwrap();
    let variable = ("BULKHEAD_POWER_DIR".into(), power.clone());
    machine.variables.push(variable);
    machine.start_daemon(&[]);
    power
}

#[test]
fn the_machine_is_switched_off_when_all_domains_have_stopped() {
    let mut machine = Machine::new();
    machine.ok(&["create", "work"]);
    machine.ok(&["start", "work"]);
    let error = machine.fails(1, &["power", "off"]);
    assert!(error.contains("BULKHEAD_POWER_DIR is not set"), "{error}");
    assert_eq!(machine.state("work"), "running");
    let power = may_switch_off(&mut machine);
    machine.ok(&["start", "work"]);
    machine.ok(&["power", "reboot"]);
    assert_eq!(machine.state("work"), "halted");
    assert!(power.join("reboot").exists() && !power.join("poweroff").exists());
    assert_eq!(fs::metadata(power.join("reboot")).unwrap().len(), 0);
    let error = machine.fails(1, &["start", "work"]);
    assert!(error.contains("being switched off"), "{error}");
}

#[test]
fn the_power_button_switches_the_machine_off() {
    let mut machine = Machine::new();
    machine.ok(&["create", "work"]);
    let power = may_switch_off(&mut machine);
    machine.ok(&["start", "work"]);
    let mut desktop = Desktop::new(&machine);
    desktop.tell(r#"{"event":"power","time_us":1}"#);
    desktop.tell(r#"{"event":"power","time_us":2}"#);
    let end = Instant::now() + Duration::from_secs(20);
    while !power.join("poweroff").exists() {
        assert!(Instant::now() < end, "{}", machine.daemon_log());
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(machine.state("work"), "halted");
}

/// A template's folder.
fn template(folder: &Path, description: &str) {
    fs::create_dir_all(folder.join("apps/applications")).unwrap();
    let mut root = vec![0; 8192];
    root[1024..1028].copy_from_slice(&0xe0f5_e1e2u32.to_le_bytes());
    root[1036] = 12;
    root[1060] = 2;
    fs::write(folder.join("root.erofs"), root).unwrap();
    fs::write(folder.join("template.toml"), description).unwrap();
    let app = "[Desktop Entry]\nType=Application\nName=Mine\nExec=true\n";
    fs::write(folder.join("apps/applications/mine.desktop"), app).unwrap();
}

#[test]
fn templates_come_and_go_whole_or_not_at_all() {
    let machine = Machine::new();
    let source = machine.path("office");
    let good = "name = \"office\"\ndescription = \"Letters\"\nsize-bytes = 8192\n";
    template(&source, good);
    let source_text = source.display().to_string();
    let own = machine.path("data/bulkhead/templates");
    let import = ["template", "import", source_text.as_str()];
    assert_eq!(machine.ok(&import), "office\n");
    let list = json(&machine, &["template", "list"]);
    assert_eq!(
        (&list[0]["name"], &list[0]["origin"]),
        (&"apps".into(), &"system".into())
    );
    assert_eq!(
        (&list[1]["name"], &list[1]["origin"]),
        (&"office".into(), &"user".into())
    );
    assert_eq!(
        (&list[1]["applications"], &list[1]["description"]),
        (&1.into(), &"Letters".into())
    );
    let error = machine.fails(1, &import);
    assert!(
        error.contains("exists already") && error.contains("--replace"),
        "{error}"
    );

    // What is wrong is said, and changes nothing.
    let before = fs::read(own.join("office/root.erofs")).unwrap();
    let replace = [&import[..], &["--replace"]].concat();
    for (description, expected) in [
        (
            "name = \"office\"\nsize-bytes = 9000\n",
            "template.toml says 9000",
        ),
        (
            "name = \"office\"\ncolour = \"red\"\n",
            "template.toml, line 2: unknown field `colour`",
        ),
        ("rubbish", "template.toml, line 1"),
    ] {
        fs::write(source.join("template.toml"), description).unwrap();
        let error = machine.fails(1, &replace);
        assert!(error.contains(expected), "{error}");
    }
    fs::write(source.join("template.toml"), good).unwrap();
    fs::write(source.join("root.erofs"), vec![0; 8192]).unwrap();
    assert!(machine.fails(1, &replace).contains("it is no EROFS image"));
    fs::remove_file(source.join("root.erofs")).unwrap();
    assert!(machine.fails(1, &replace).contains("it has no root.erofs"));
    machine.fails(1, &["template", "import", "/nowhere"]);
    let error = machine.fails(
        1,
        &["template", "import", source_text.as_str(), "--name", "apps"],
    );
    assert!(error.contains("belongs to the system"), "{error}");
    assert_eq!(fs::read(own.join("office/root.erofs")).unwrap(), before);
    assert_eq!(fs::read_dir(&own).unwrap().count(), 1);

    // In use.
    template(&source, &good.replace("Letters", "More letters"));
    // Links and odd names are of no use here, and are not followed.
    symlink("/etc/passwd", source.join("apps/applications/link.desktop")).unwrap();
    fs::write(source.join("apps/applications/.odd.desktop"), "x").unwrap();
    machine.ok(&["create", "desk", "--template", "office"]);
    machine.ok(&["run", "desk", "true"]);
    let error = machine.fails(1, &replace);
    assert!(error.contains("used by desk; stop them first"), "{error}");
    machine.ok(&["stop", "desk"]);
    machine.ok(&replace);
    assert!(machine.ok(&["template", "list"]).contains("More letters"));
    let taken = own.join("office/apps/applications");
    assert_eq!(fs::read_dir(taken).unwrap().count(), 1);
    assert_eq!(json(&machine, &["apps", "desk"])[0]["name"], "Mine");
    let error = machine.fails(1, &["template", "remove", "office"]);
    assert!(error.contains("used by desk; remove them"), "{error}");
    machine.ok(&["remove", "desk", "--yes"]);
    machine.ok(&["template", "remove", "office"]);
    assert_eq!(fs::read_dir(&own).unwrap().count(), 0);
    let error = machine.fails(1, &["template", "remove", "office"]);
    assert!(
        error.contains("no template `office`; there are apps"),
        "{error}"
    );
    machine.fails(1, &["template", "remove", "apps"]);

    // A root image alone.
    let root = source.join("root.erofs").display().to_string();
    machine.ok(&["template", "import", &root, "--name", "alone"]);
    machine.ok(&["create", "x", "--template", "alone"]);
    assert!(programs().exists());
}
