//! Calls between domains: the real daemon, command line and `bulkhead-rpc`. Only the service itself is
//! missing, since the stand-in's agent runs on this machine, where none is installed: a call that is
//! allowed ends with 127.

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Machine, programs};

const NO_SERVICE: i32 = 127;
const REFUSED: i32 = 126;

fn two_domains() -> Machine {
    let machine = Machine::new();
    for name in ["work", "personal"] {
        machine.ok(&["create", name]);
        machine.ok(&["start", name]);
        let socket = machine.path(&format!("call-{name}.sock"));
        let end = Instant::now() + support::PATIENCE;
        while !socket.exists() {
            assert!(Instant::now() < end, "no {}", socket.display());
            thread::sleep(Duration::from_millis(10));
        }
    }
    machine
}

fn policy(machine: &Machine, text: &str) {
    let folder = machine.path("config/bulkhead/policy.d");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("30-user.policy"), text).unwrap();
}

fn caller(machine: &Machine, domain: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(programs().join("bulkhead-rpc"));
    command.args(arguments).stdin(Stdio::null()).env(
        "BULKHEAD_CALL_SOCKET",
        machine.path(&format!("call-{domain}.sock")),
    );
    command
}

fn call(machine: &Machine, domain: &str, arguments: &[&str]) -> Output {
    caller(machine, domain, arguments).output().unwrap()
}

fn calling(machine: &Machine, domain: &str, arguments: &[&str]) -> Child {
    let mut command = caller(machine, domain, arguments);
    command.stderr(Stdio::piped()).spawn().unwrap()
}

fn question(machine: &Machine) -> Value {
    let end = Instant::now() + support::PATIENCE;
    loop {
        let asks: Value = serde_json::from_str(&machine.ok(&["ask", "list", "--json"])).unwrap();
        if let Some(one) = asks.get(0) {
            return one.clone();
        }
        assert!(Instant::now() < end, "no question");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_policy_decides_and_the_log_tells() {
    let machine = two_domains();
    policy(
        &machine,
        "my.Service +x work personal allow\nmy.Service * @anyvm @anyvm deny\n",
    );
    let status = |source: &str, target: &str, service: &str| {
        call(&machine, source, &[target, service])
            .status
            .code()
            .unwrap()
    };
    assert_eq!(status("work", "personal", "my.Service+x"), NO_SERVICE);
    assert_eq!(status("work", "personal", "my.Service+y"), REFUSED);
    assert_eq!(status("personal", "work", "my.Service+x"), REFUSED);
    assert_eq!(status("work", "personal", "other.Service"), REFUSED);
    let date = call(&machine, "work", &["@adminvm", "qubes.GetDate"]);
    assert!(date.status.success());
    assert!(date.stdout.ends_with(b"+00:00\n"), "{date:?}");

    // An edited rule counts at once, and one that is wrong denies everything.
    policy(&machine, "my.Service * work personal allow\n");
    assert_eq!(status("work", "personal", "my.Service+y"), NO_SERVICE);
    policy(&machine, "my.Service * work personal perhaps\n");
    assert_eq!(status("work", "personal", "my.Service+y"), REFUSED);
    assert!(machine.daemon_log().contains("30-user.policy:1"));

    let text = machine.ok(&["transfers"]);
    for words in [
        "my.Service+x",
        "30-user.policy:1",
        "denied by policy",
        "no rule allows it",
        "status 127",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let records: Value = serde_json::from_str(&machine.ok(&["transfers", "--json"])).unwrap();
    assert_eq!(records.as_array().unwrap().len(), 7);
}

#[test]
fn a_question_waits_for_its_answer() {
    let machine = two_domains();
    policy(&machine, "my.Service * work @anyvm ask\n");
    let child = calling(&machine, "work", &["@default", "my.Service+x"]);
    let ask = question(&machine);
    let id = ask["id"].to_string();
    assert_eq!(
        (&ask["source"], &ask["argument"]),
        (&"work".into(), &"x".into())
    );
    let wrong = machine.run(&["ask", "allow", &id, "--target", "work"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("is not among the targets"));
    machine.ok(&["ask", "allow", &id, "--target", "personal"]);
    assert_eq!(
        child.wait_with_output().unwrap().status.code(),
        Some(NO_SERVICE)
    );

    let child = calling(&machine, "work", &["personal", "my.Service"]);
    let id = question(&machine)["id"].to_string();
    machine.ok(&["ask", "deny", &id]);
    assert_eq!(
        child.wait_with_output().unwrap().status.code(),
        Some(REFUSED)
    );
    assert_eq!(machine.run(&["ask", "deny", &id]).status.code(), Some(1));

    // With its caller goes the question.
    let mut child = calling(&machine, "work", &["personal", "my.Service"]);
    question(&machine);
    child.kill().unwrap();
    child.wait().unwrap();
    let end = Instant::now() + support::PATIENCE;
    while !machine.ok(&["ask", "list"]).contains("No domain waits") {
        assert!(Instant::now() < end, "the question is still open");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(machine.ok(&["transfers"]).contains("refused by the user"));
}

/// Calls without end, half-open connections and noise slow down nobody but their own domain.
#[test]
fn a_flood_slows_only_itself() {
    let machine = two_domains();
    let quickest = |machine: &Machine| {
        let times = (0..10).map(|_| {
            let begun = Instant::now();
            let output = call(machine, "personal", &["@adminvm", "qubes.GetDate"]);
            assert!(output.status.success(), "{output:?}");
            begun.elapsed()
        });
        times.min().unwrap()
    };
    let before = quickest(&machine);
    let socket = machine.path("call-work.sock");
    let half_open: Vec<UnixStream> = (0..40)
        .filter_map(|_| {
            let mut stream = UnixStream::connect(&socket).ok()?;
            stream.write_all(&[0, 1]).ok()?;
            Some(stream)
        })
        .collect();
    let flood = thread::spawn(move || {
        for _ in 0..300 {
            if let Ok(mut stream) = UnixStream::connect(&socket) {
                let _ = stream.set_write_timeout(Some(Duration::from_millis(10)));
                let _ = stream.write_all(&[0xff; 4096]);
            }
        }
    });
    let during = quickest(&machine);
    assert!(
        during < before * 10 + Duration::from_millis(200),
        "{before:?} became {during:?}"
    );
    drop(half_open);
    flood.join().unwrap();
    // It is served again once its own connections are gone.
    let end = Instant::now() + Duration::from_secs(20);
    while !call(&machine, "work", &["@adminvm", "qubes.GetDate"])
        .status
        .success()
    {
        assert!(
            Instant::now() < end,
            "the flooding domain is never served again"
        );
        thread::sleep(Duration::from_millis(200));
    }
}

/// A caller that hangs up while the target starts must not leave it half started.
#[test]
fn a_start_goes_on_without_its_caller() {
    let machine = two_domains();
    // Its guest never says anything, so that its start fails after ten seconds.
    machine.ok(&["create", "silent"]);
    policy(&machine, "my.Service * work silent allow\n");
    let state = || {
        let info = machine.ok(&["info", "silent", "--json"]);
        let info: Value = serde_json::from_str(&info).unwrap();
        info["state"].as_str().unwrap_or_default().to_owned()
    };
    let wait = |wanted: &str| {
        let end = Instant::now() + Duration::from_secs(30);
        while state() != wanted {
            assert!(Instant::now() < end, "it is {}, not {wanted}", state());
            thread::sleep(Duration::from_millis(50));
        }
    };
    let mut caller = calling(&machine, "work", &["silent", "my.Service"]);
    wait("starting");
    caller.kill().unwrap();
    caller.wait().unwrap();
    wait("failed");
}

/// Ports of other domains: nobody's without a rule or the user's command, and written in one way only.
#[test]
fn ports_are_closed_unless_the_user_says_otherwise() {
    let machine = two_domains();
    let refused = |service: &str| {
        let output = call(&machine, "work", &["personal", service]);
        assert_eq!(output.status.code(), Some(REFUSED), "{service}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused("bulkhead.ConnectTcp+8080").ends_with(": refused\n"));
    policy(
        &machine,
        "bulkhead.ConnectTcp +8080 work personal deny\nbulkhead.ConnectTcp * work personal allow\n",
    );
    // A rule that speaks of a port holds however a guest writes it.
    for spelling in ["08080", "+8080", "8080+", "", "65536", "0", "http"] {
        let told = refused(&format!("bulkhead.ConnectTcp+{spelling}"));
        assert!(told.contains("is no port"), "{spelling}: {told}");
    }
    refused("bulkhead.ConnectTcp+8080");
    let other = call(&machine, "work", &["personal", "bulkhead.ConnectTcp+8081"]);
    assert_eq!(other.status.code(), Some(NO_SERVICE));

    let connect = |arguments: &[&str]| {
        let output = machine.run(&[&["connect"], arguments].concat());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), told)
    };
    let (status, told) = connect(&["work", "personal:8080"]);
    assert_eq!(status, 1);
    assert!(
        told.contains("before 30-user.policy:1: bulkhead.ConnectTcp +8080 work personal allow"),
        "{told}"
    );
    for (target, status, words) in [
        ("work:8080", 1, "is both ends"),
        ("nobody:8080", 1, "there is no domain `nobody`"),
        ("personal:080", 2, "is no port"),
        ("personal", 2, "DOMAIN:PORT"),
    ] {
        let (is, told) = connect(&["work", target]);
        assert!(
            is == status && told.contains(words),
            "{target}: {is} {told}"
        );
    }
    // It is permitted, but the stand-in for a guest has no program that listens.
    fs::remove_file(machine.path("config/bulkhead/policy.d/30-user.policy")).unwrap();
    let (status, told) = connect(&["work", "personal:8080"]);
    assert!(
        status == 1 && told.contains("bulkhead-connect: command not found"),
        "{status} {told}"
    );
    // And with the command its yes has ended.
    assert!(refused("bulkhead.ConnectTcp+8080").ends_with(": refused\n"));
}
