//! Commands in domains: streams, statuses, signals, terminals. As in `manager.rs`, only the
//! virtual machine is missing.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use support::{Machine, is_alive, signal, wait_until_dead};

#[test]
fn commands_have_streams_statuses_and_signals() {
    let machine = Machine::new();
    machine.ok(&["create", "work"]);
    // The domain starts by itself.
    assert_eq!(
        machine.ok(&["run", "work", "--", "echo", "hello"]),
        "hello\n"
    );
    let output = machine.run(&[
        "run",
        "work",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 42",
    ]);
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"err\n");
    assert_eq!(
        machine
            .run(&["run", "work", "sh", "-c", "kill -9 $$"])
            .status
            .code(),
        Some(137)
    );
    let error = machine.fails(127, &["run", "work", "--", "no-such-program"]);
    assert!(
        error.contains("domain `work`: no-such-program: command not found"),
        "{error}"
    );
    machine.fails(126, &["run", "work", "--", "/etc/passwd"]);
    let text = machine.ok(&["run", "--env", "A=b c", "work", "sh", "-c", "echo $A $PWD"]);
    assert!(text.starts_with("b c "), "{text}");
    assert_eq!(
        machine.ok(&["run", "--cwd", "/usr", "work", "pwd"]),
        "/usr\n"
    );

    // Eight mebibytes there and back, unchanged, through a pipe on each side.
    let data: Vec<u8> = (0..8 << 20)
        .map(|i: u32| (i.wrapping_mul(2654435761) >> 13) as u8)
        .collect();
    let mut child = machine
        .command(&["run", "work", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = data.clone();
    let writer = thread::spawn(move || stdin.write_all(&sent).unwrap());
    let mut received = Vec::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut received)
        .unwrap();
    writer.join().unwrap();
    assert!(
        received == data,
        "{} of {} bytes",
        received.len(),
        data.len()
    );
    assert!(child.wait().unwrap().success());

    // A reader that goes away ends the writer, as in a shell's pipe.
    let mut child = machine
        .command(&["run", "work", "--", "yes"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 1000];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut some).unwrap();
    drop(stdout);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 13));

    // A signal to the command line reaches the command, although its input is full.
    let mut child = machine
        .command(&[
            "run",
            "work",
            "sh",
            "-c",
            "trap 'echo caught; exit 3' INT; echo up; while :; do sleep 0.1; done",
        ])
        .stdin(fs::File::open("/dev/zero").unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");
    signal(child.id().into(), libc::SIGINT);
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    assert_eq!(child.wait().unwrap().code(), Some(3));

    // Ten at once.
    let children: Vec<_> = (0..10)
        .map(|i| {
            let script = format!("sleep 0.2; exit {i}");
            (
                i,
                machine
                    .command(&["run", "work", "sh", "-c", &script])
                    .spawn()
                    .unwrap(),
            )
        })
        .collect();
    for (i, mut child) in children {
        assert_eq!(child.wait().unwrap().code(), Some(i));
    }
}

#[test]
fn a_caller_that_vanishes_takes_its_command_with_it() {
    let machine = Machine::new();
    machine.ok(&["create", "work"]);
    let mut child = machine
        .command(&[
            "run",
            "work",
            "sh",
            "-c",
            "echo $$; sleep 1000 & sleep 1000",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let pid = line.trim().parse().unwrap();
    assert!(is_alive(pid));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until_dead(pid);
    assert_eq!(machine.state("work"), "running");
}

#[test]
fn a_terminal_is_one() {
    let machine = Machine::new();
    machine.ok(&["create", "work"]);
    // `script` gives the command line a terminal of its own.
    let run = format!(
        "{} run --tty work -- sh -c 'test -t 0 && test -t 1 && stty size && echo $TERM'",
        env!("CARGO_BIN_EXE_bulkhead")
    );
    let mut command = Command::new("script");
    command.args([
        "-qec",
        &format!("stty rows 33 columns 99; {run}"),
        "/dev/null",
    ]);
    machine.environment(&mut command);
    let output = command
        .env("TERM", "foot")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("33 99") && text.contains("foot"), "{text}");
}
