//! The command line, the daemon and the agent together, on a private session bus. Only the
//! virtual machine is missing: see `daemon/examples/vmm-without-vm.rs`.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{Machine, compositor, is_alive, programs, signal, wait_until_dead};

#[test]
fn a_domain_from_creation_to_removal() {
    let machine = Machine::new();
    machine.ok(&["create", "work", "--label", "red", "--memory", "1G"]);
    let list = machine.ok(&["list"]);
    assert!(
        list.contains("work") && list.contains("red") && list.contains("halted"),
        "{list}"
    );
    let list: serde_json::Value = serde_json::from_str(&machine.ok(&["list", "--json"])).unwrap();
    assert_eq!(list[0]["memory_mib"], 1024);
    machine.ok(&["start", "work"]);
    assert_eq!(machine.state("work"), "running");
    let error = machine.fails(1, &["start", "work"]);
    assert!(error.contains("`work` is running already"), "{error}");
    let error = machine.fails(1, &["remove", "work", "--yes"]);
    assert!(error.contains("stop it first"), "{error}");
    for socket in ["wayland.sock", "vsock.sock", "control.sock", "console.sock"] {
        let socket = machine.path("run/bulkhead/domains/work").join(socket);
        assert!(socket.exists(), "{socket:?}");
    }
    let pid = machine.vmm_pid("work");
    machine.ok(&["stop", "work"]);
    assert_eq!(machine.state("work"), "halted");
    wait_until_dead(pid);
    assert_eq!(machine.sockets(), 0);
    let error = machine.fails(1, &["stop", "work"]);
    assert!(error.contains("`work` is not running"), "{error}");
    machine.ok(&["start", "work"]);
    machine.ok(&["kill", "work"]);
    assert_eq!(machine.state("work"), "halted");
    assert_eq!(machine.sockets(), 0);
    machine.ok(&["remove", "work", "--yes"]);
    assert_eq!(machine.ok(&["list", "--json"]).trim(), "[]");
    for folder in [
        "config/bulkhead/domains",
        "data/bulkhead/domains",
        "state/bulkhead/domains",
    ] {
        assert_eq!(
            fs::read_dir(machine.path(folder)).unwrap().count(),
            0,
            "{folder}"
        );
    }
}

#[test]
fn what_goes_wrong_is_said_in_one_line_and_leaves_nothing() {
    let machine = Machine::new();
    let error = machine.fails(1, &["info", "nothing"]);
    assert!(error.contains("there is no domain `nothing`"), "{error}");
    let error = machine.fails(255, &["run", "nothing", "true"]);
    assert!(error.contains("`bulkhead create nothing`"), "{error}");
    machine.ok(&["create", "work"]);
    let error = machine.fails(1, &["create", "work"]);
    assert!(error.contains("`work` exists already"), "{error}");
    let error = machine.fails(1, &["create", "x", "--template", "none"]);
    assert!(
        error.contains("no template `none`; choose one of apps"),
        "{error}"
    );
    let error = machine.fails(1, &["create", "x", "--cpus", "1000"]);
    assert!(error.contains("cpus"), "{error}");
    let output = machine.run(&["create", "x", "--label", "pink"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("unknown label `pink`"));
    let error = machine.fails(1, &["remove", "work"]);
    assert!(error.contains("--yes"), "{error}");
    let error = machine.fails(1, &["console", "work"]);
    assert!(error.contains("`work` is not running"), "{error}");
    let error = machine.fails(255, &["run", "--no-start", "work", "true"]);
    assert!(error.contains("`work` is not running"), "{error}");
    let error = machine.fails(1, &["log", "work"]);
    assert!(error.contains("there is no log yet"), "{error}");

    // The domain's file.
    let file = machine.path("config/bulkhead/domains/work.toml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("gray", "pink")).unwrap();
    let error = machine.fails(1, &["start", "work"]);
    assert!(
        error.contains("work.toml, line 3: unknown variant `pink`"),
        "{error}"
    );
    assert!(machine.ok(&["list"]).contains("broken file"));
    fs::write(&file, "name = \"work\"\nlabel = \"red\"\nmemory = 3\n").unwrap();
    let error = machine.fails(1, &["start", "work"]);
    assert!(
        error.contains("work.toml, line 3: unknown field `memory`"),
        "{error}"
    );
    fs::write(&file, good).unwrap();

    // The images.
    let root = machine.path("images/templates/apps/root.erofs");
    let whole = fs::read(&root).unwrap();
    fs::write(&root, &whole[..6000]).unwrap();
    let error = machine.fails(255, &["run", "work", "true"]);
    assert!(error.contains("root.erofs: it is truncated"), "{error}");
    fs::write(&root, whole).unwrap();
    let kernel = machine.path("images/guest/vmlinux");
    fs::rename(&kernel, machine.path("kernel")).unwrap();
    let error = machine.fails(255, &["run", "work", "true"]);
    assert!(error.contains("guest/vmlinux: it is missing"), "{error}");
    fs::rename(machine.path("kernel"), &kernel).unwrap();
    assert_eq!(machine.state("work"), "halted");
    assert_eq!(machine.sockets(), 0);

    // Guests and VMMs that fail.
    for (name, expected) in [
        (
            "broken",
            "its VMM failed: vmm-without-vm: /dev/kvm: permission denied; join the group kvm",
        ),
        ("liar", "its agent speaks version 999 of the protocol"),
        ("noise", "a frame of 4294967295 bytes"),
        (
            "silent",
            "its agent was not ready after 10 s; see `bulkhead log silent`",
        ),
    ] {
        machine.ok(&["create", name]);
        let error = machine.fails(255, &["run", name, "true"]);
        assert!(
            error.contains(&format!("`{name}` did not start")),
            "{error}"
        );
        assert!(error.contains(expected), "{error}");
        assert_eq!(machine.state(name), "failed");
        assert_eq!(machine.sockets(), 0);
    }
    // And nothing of it harms the others.
    assert_eq!(machine.ok(&["run", "work", "echo", "fine"]), "fine\n");
}

#[test]
fn a_full_disk_makes_no_domain() {
    let machine = Machine::new();
    let data = machine.path("data/bulkhead/domains");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "none"])
        .arg(&data)
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("skipped: this machine does not let the test mount a small filesystem");
        return;
    }
    let error = machine.run(&["create", "work"]);
    let left = fs::read_dir(&data).unwrap().count();
    assert!(
        Command::new("umount")
            .arg(&data)
            .status()
            .unwrap()
            .success()
    );
    let error = String::from_utf8(error.stderr).unwrap();
    assert!(
        error.contains("the disk is full") && error.contains("remove files"),
        "{error}"
    );
    assert_eq!(left, 0);
    assert_eq!(machine.ok(&["list", "--json"]).trim(), "[]");
}

#[test]
fn guests_that_end_by_themselves() {
    let machine = Machine::new();
    for name in ["crashing", "work"] {
        machine.ok(&["create", name]);
        machine.ok(&["start", name]);
    }
    // The command loses its guest.
    let mut child = machine
        .command(&["run", "crashing", "sh", "-c", "echo up; sleep 1000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    machine.run(&["run", "crashing", "sh", "-c", "kill $PPID"]);
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(254), "{error}");
    assert!(
        error.contains("`crashing` stopped while the command ran: its guest crashed"),
        "{error}"
    );
    assert_eq!(machine.state("crashing"), "failed");
    assert!(
        machine
            .ok(&["info", "crashing"])
            .contains("failed (its guest crashed)")
    );
    assert_eq!(machine.state("work"), "running");
    // A failed domain starts again.
    machine.ok(&["start", "crashing"]);

    // One that switches itself off is simply halted.
    machine.run(&["run", "work", "sh", "-c", "kill $PPID"]);
    machine.wait_for_state("work", "halted");
}

#[test]
fn a_guest_that_ignores_its_button_is_asked_and_then_killed() {
    let machine = Machine::new();
    machine.ok(&["create", "stubborn"]);
    machine.ok(&["start", "stubborn"]);
    // The button does nothing here, but the agent obeys.
    let begin = Instant::now();
    machine.ok(&["stop", "stubborn"]);
    assert!(begin.elapsed() < Duration::from_secs(8));
    assert_eq!(machine.state("stubborn"), "halted");
    machine.ok(&["start", "stubborn"]);
    let begin = Instant::now();
    machine.ok(&["stop", "stubborn", "--timeout", "1"]);
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(machine.state("stubborn"), "halted");
}

#[test]
fn concurrent_starts_are_one_start() {
    let machine = Machine::new();
    machine.ok(&["create", "work"]);
    let children: Vec<_> = (0..6)
        .map(|_| machine.command(&["run", "work", "true"]).spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let log = machine.daemon_log();
    assert_eq!(log.matches("state=starting (kernel)").count(), 1, "{log}");
    let children: Vec<_> = (0..3)
        .map(|_| {
            machine
                .command(&["start", "work"])
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
}

#[test]
fn the_daemons_end_is_the_guests_end() {
    let mut machine = Machine::new();
    machine.ok(&["create", "work"]);
    machine.ok(&["start", "work"]);
    let pid = machine.vmm_pid("work");
    // Killed: the kernel ends its VMMs, the next daemon sweeps up.
    let mut daemon = machine.daemon.take().unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    wait_until_dead(pid);
    let error = machine.fails(1, &["list"]);
    assert!(
        error.contains("the manager does not run; start it with"),
        "{error}"
    );
    machine.start_daemon(&[]);
    assert_eq!(machine.sockets(), 0);
    assert_eq!(machine.state("work"), "halted");
    machine.ok(&["start", "work"]);
    // A second daemon does no harm.
    let mut command = Command::new(programs().join("bulkheadd"));
    machine.environment(&mut command);
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("another bulkheadd serves"), "{error}");
    assert_eq!(machine.state("work"), "running");
    // Asked to end, it stops its domains in order.
    let pid = machine.vmm_pid("work");
    let mut daemon = machine.daemon.take().unwrap();
    signal(daemon.id().into(), libc::SIGTERM);
    assert!(daemon.wait().unwrap().success());
    assert!(!is_alive(pid));
    assert_eq!(machine.sockets(), 0);
}

#[test]
fn logs_console_timings_completion() {
    let machine = Machine::new();
    machine.ok(&["create", "work"]);
    let output = machine.run(&["run", "--timings", "work", "true"]);
    let table = String::from_utf8(output.stderr).unwrap();
    for stage in [
        "request to the manager",
        "vmm spawn",
        "kernel",
        "agent ready",
        "exec",
    ] {
        assert!(table.contains(stage), "{table}");
    }
    let output = machine.run(&["run", "--timings", "--json", "work", "true"]);
    let times: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert!(
        times["stages"]["started_us"].as_u64().unwrap() > 0,
        "{times}"
    );
    assert!(times["stages"]["hello_us"].is_null(), "{times}");

    let log = machine.ok(&["log", "work"]);
    assert!(log.contains("a kernel boots: console=ttyS0") && log.contains("bulkhead.name=work"));
    let log: serde_json::Value =
        serde_json::from_str(&machine.ok(&["log", "work", "--json", "-n", "1"])).unwrap();
    assert_eq!(log["lines"].as_array().unwrap().len(), 1);

    let mut console = machine
        .command(&["console", "work"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    console
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"hello console\n")
        .unwrap();
    let mut line = String::new();
    BufReader::new(console.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "hello console\n");
    console.kill().unwrap();
    console.wait().unwrap();

    for shell in ["bash", "fish", "zsh"] {
        assert!(
            machine.ok(&["completion", shell]).contains("bulkhead"),
            "{shell}"
        );
    }
}

#[test]
fn without_a_bus_the_remedy_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .args(arguments)
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .env("XDG_RUNTIME_DIR", folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    for arguments in [&["list"][..], &["session"]] {
        let error = run(arguments);
        assert!(
            error.contains("dbus-run-session -- bulkhead session"),
            "{error}"
        );
    }
}

#[test]
fn the_compositor_learns_of_domains_whenever_it_comes() {
    let machine = Machine::new();
    machine.ok(&["create", "work", "--label", "red"]);
    // Without a compositor everything but windows works.
    machine.ok(&["start", "work"]);
    let serve = |requests: &mut std::os::unix::net::UnixStream| {
        let request = compositor::receive(requests)?;
        requests.write_all(b"{\"ok\":true}").unwrap();
        Some(request)
    };
    let path = machine.path("run/bulkhead/compositor.sock");
    for _ in 0..2 {
        let listener = compositor::listen(&path);
        let mut events = compositor::accept(&listener);
        let mut requests = compositor::accept(&listener);
        assert_eq!(serve(&mut events).unwrap()["op"], "subscribe");
        let request = serve(&mut requests).unwrap();
        assert_eq!(request["op"], "add_domain");
        assert_eq!(request["name"], "work");
        assert_eq!(request["colour"], "#cc0000");
        assert_eq!(serve(&mut requests).unwrap()["op"], "windows");

        // Its events become signals, which the timings use.
        let mut child = machine
            .command(&["run", "--timings", "work", "sleep", "1"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(400));
        let event = br#"{"event":"window_mapped","domain":"work","id":1,"title":"x","time_us":99999999999999}"#;
        events.write_all(event).unwrap();
        let mut text = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert!(text.contains("first frame"), "{text}");
        child.wait().unwrap();
        // The compositor dies; the next one hears everything again.
        fs::remove_file(&path).unwrap();
    }
    let listener = compositor::listen(&path);
    let mut events = compositor::accept(&listener);
    let mut requests = compositor::accept(&listener);
    serve(&mut events).unwrap();
    assert_eq!(serve(&mut requests).unwrap()["op"], "add_domain");
    assert_eq!(serve(&mut requests).unwrap()["op"], "windows");
    let waiter = thread::spawn(move || {
        let request = compositor::receive(&mut requests).unwrap();
        requests.write_all(b"{\"ok\":true}").unwrap();
        request
    });
    machine.ok(&["kill", "work"]);
    assert_eq!(waiter.join().unwrap()["op"], "remove_domain");
}

#[test]
fn a_session_keeps_all_parts_running() {
    let machine = Machine::new();
    drop_daemon(machine, |machine| {
        // Beside `bulkhead` lie the programs that `session` starts; here a folder of links.
        let bin = machine.path("bin");
        fs::create_dir(&bin).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_bulkhead"), bin.join("bulkhead")).unwrap();
        symlink(programs().join("bulkheadd"), bin.join("bulkheadd")).unwrap();
        for (name, script) in [
            // Like a real one it makes its sockets.
            (
                "bulkhead-compositor",
                "echo compositor \"$@\" >&2; touch \"$XDG_RUNTIME_DIR/bulkhead/host-wayland.sock\"; \
                 exec sleep 1000",
            ),
            // The panel ends at once, again and again; the menu stays.
            (
                "bulkhead-ui",
                "echo ui \"$1\" \"$WAYLAND_DISPLAY\" >&2; [ \"$1\" = panel ] || exec sleep 1000",
            ),
        ] {
            let program = bin.join(name);
            fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(&program, mode).unwrap();
        }
        let mut command = Command::new(bin.join("bulkhead"));
        command
            .args(["session", "--backend", "headless", "--images"])
            .arg(machine.path("images"));
        machine.environment(&mut command);
        // The compositor's stand-in makes no socket; that of a real one would be there.
        fs::write(machine.path("run/bulkhead/compositor.sock"), "").unwrap();
        let mut session = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(session.stderr.take().unwrap()).lines();
        let mut seen = Vec::new();
        let awaited = ["session ready", "panel keeps ending"];
        while !awaited
            .iter()
            .all(|text| seen.iter().any(|line: &String| line.contains(text)))
        {
            seen.push(lines.next().unwrap().unwrap());
        }
        let count = |text: &str| seen.iter().filter(|line| line.contains(text)).count();
        assert_eq!(count("--backend headless --size 1280x800"), 1);
        let socket = machine.path("run/bulkhead/host-wayland.sock");
        assert_eq!(count(&format!("--host-socket {}", socket.display())), 1);
        assert_eq!(count(&format!("ui menu {}", socket.display())), 1);
        assert_eq!(count(&format!("ui panel {}", socket.display())), 5);
        signal(session.id().into(), libc::SIGTERM);
        assert!(session.wait().unwrap().success());
        machine.fails(1, &["list"]);
    });
}

fn drop_daemon(mut machine: Machine, test: impl FnOnce(&Machine)) {
    let mut daemon = machine.daemon.take().unwrap();
    signal(daemon.id().into(), libc::SIGTERM);
    daemon.wait().unwrap();
    test(&machine);
}
