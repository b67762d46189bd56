//! Pictures that the user pastes into another domain: the real daemon, with the test as the compositor.
//! The disposable is the stand-in's, with the real agent and decoder in it.

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Machine, compositor, programs};

/// Two grey pixels, 0 and 255.
const PICTURE: &[u8] = b"\x89PNG\r\n\x1a\n\
    \0\0\0\x0dIHDR\0\0\0\x02\0\0\0\x01\x08\0\0\0\0\xd1\x49\x20\x56\
    \0\0\0\x0bIDAT\x78\x9c\x63\x60\xf8\x0f\0\x01\x02\x01\0\x42\xbe\xbc\x68\
    \0\0\0\0IEND\xae\x42\x60\x82";
const PIXELS: &[u8] = b"BLKHPIX1\x02\0\0\0\x01\0\0\0\x01\0\0\0\0\xff";

fn machine() -> Machine {
    let mut machine = Machine::new();
    let description = machine.path("images/templates/apps/template.toml");
    fs::write(&description, "name = \"apps\"\ndisposable = true\n").unwrap();
    machine.ok(&["create", "work", "--label", "red"]);
    machine.ok(&["create", "personal", "--label", "green"]);
    // The stand-in takes the decoder from here.
    let mut daemon = machine.daemon.take().unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let folder = programs().to_owned();
    machine
        .variables
        .push(("BULKHEAD_TEST_PROGRAMS".into(), folder));
    machine.start_daemon(&[]);
    machine
}

type Answer = (Value, Vec<OwnedFd>);

struct Desktop {
    events: UnixStream,
    requests: UnixStream,
    answers: Receiver<Answer>,
}

impl Desktop {
    /// A compositor that does what the daemon wants; what it says of pastes comes to the test.
    fn new(machine: &Machine) -> Self {
        let socket = machine.path("run/bulkhead/compositor.sock");
        let listener = compositor::listen(&socket);
        let mut events = compositor::accept(&listener);
        let mut requests = compositor::accept(&listener);
        fs::remove_file(socket).unwrap();
        compositor::receive(&mut events).unwrap();
        events.write_all(b"{\"ok\":true}").unwrap();
        let (sender, answers) = channel();
        let ours = requests.try_clone().unwrap();
        thread::spawn(move || {
            while let Some(answer) = compositor::receive_with_descriptors(&requests) {
                requests.write_all(b"{\"ok\":true,\"windows\":[]}").unwrap();
                if answer.0["op"] == "answer_paste" && sender.send(answer).is_err() {
                    return;
                }
            }
        });
        Desktop {
            events,
            requests: ours,
            answers,
        }
    }

    fn tell(&mut self, event: &Value) {
        self.events.write_all(event.to_string().as_bytes()).unwrap();
    }

    fn paste(&mut self, id: u64) -> Answer {
        self.tell(&json!({
            "event": "paste", "id": id, "source": "work", "target": "personal", "kind": "image",
            "bytes": PICTURE.len(), "time_us": 1,
        }));
        self.answer(id)
    }

    fn answer(&self, id: u64) -> Answer {
        let answer = self.answers.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(answer.0["id"], id);
        answer
    }

    /// Yes, with the pipes of a disposable.
    fn allowed(&mut self, id: u64) -> [File; 2] {
        let (answer, pipes) = self.paste(id);
        assert_eq!(answer["allow"], true, "{answer}");
        let pipes: [OwnedFd; 2] = pipes.try_into().unwrap();
        pipes.map(File::from)
    }

    /// The compositor's last word.
    fn redrawn(&mut self, id: u64, pasted: bool, text: &str) {
        self.tell(&json!({
            "event": "redrawn", "id": id, "pasted": pasted, "text": text, "time_us": 1,
        }));
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        let _ = self.requests.shutdown(std::net::Shutdown::Both);
    }
}

fn policy(machine: &Machine, text: &str) {
    let folder = machine.path("config/bulkhead/policy.d");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("30-user.policy"), text).unwrap();
}

fn disposables(machine: &Machine) -> usize {
    machine.ok(&["list"]).matches("disp").count()
}

fn wait(machine: &Machine, what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(Instant::now() < end, "{what}: {}", machine.daemon_log());
        thread::sleep(Duration::from_millis(50));
    }
}

fn no_disposable_is_left(machine: &Machine) {
    wait(machine, "a disposable stays", || disposables(machine) == 0);
    let domains = machine.path("run/bulkhead/domains");
    assert_eq!(fs::read_dir(domains).unwrap().count(), 0);
}

#[test]
fn a_disposable_decodes_it_and_goes() {
    let machine = machine();
    let mut desktop = Desktop::new(&machine);
    let [mut picture, mut pixels] = desktop.allowed(7);
    picture.write_all(PICTURE).unwrap();
    drop(picture);
    let mut drawn = Vec::new();
    pixels.read_to_end(&mut drawn).unwrap();
    assert_eq!(drawn, PIXELS, "{}", machine.daemon_log());
    // It is not pasted before the compositor says so.
    assert!(!machine.ok(&["transfers"]).contains("ClipboardPaste"));
    desktop.redrawn(7, true, "");
    wait(&machine, "a line in the log", || {
        let log = machine.ok(&["transfers"]);
        log.contains("ClipboardPaste") && !log.contains("failed")
    });
    no_disposable_is_left(&machine);
    // What is no picture.
    let mut broken = PICTURE.to_vec();
    broken[41..52].fill(0xff);
    let [mut picture, mut pixels] = desktop.allowed(8);
    picture.write_all(&broken).unwrap();
    drop(picture);
    let (answer, pipes) = desktop.answer(8);
    assert_eq!((&answer["allow"], pipes.len()), (&json!(false), 0));
    assert_eq!(answer["reason"], "it cannot be decoded; it may be damaged");
    drawn.clear();
    pixels.read_to_end(&mut drawn).unwrap();
    assert!(drawn.is_empty());
    desktop.redrawn(8, false, "it cannot be decoded; it may be damaged");
    wait(&machine, "a line in the log", || {
        machine.ok(&["transfers"]).contains("it cannot be decoded")
    });
    no_disposable_is_left(&machine);
}

#[test]
fn a_disposable_goes_when_nobody_wants_its_pixels() {
    let machine = machine();
    let mut desktop = Desktop::new(&machine);
    // At once, while it is starting.
    let pipes = desktop.allowed(1);
    desktop.redrawn(1, false, "the user copied or pasted again");
    drop(pipes);
    // First this: before it, the disposable may not be made yet.
    wait(&machine, "a line in the log", || {
        let log = machine.ok(&["transfers"]);
        log.contains("the user copied or pasted again")
    });
    no_disposable_is_left(&machine);
    // While it waits for a picture that does not come.
    let pipes = desktop.allowed(2);
    wait(&machine, "a disposable", || {
        machine.ok(&["list"]).contains("running")
    });
    desktop.redrawn(2, false, "the disposable took too long");
    drop(pipes);
    no_disposable_is_left(&machine);
    // With the compositor.
    let pipes = desktop.allowed(3);
    wait(&machine, "a disposable", || {
        machine.ok(&["list"]).contains("running")
    });
    drop(desktop);
    drop(pipes);
    no_disposable_is_left(&machine);
}

#[test]
fn without_a_disposable_there_is_no_picture() {
    let machine = machine();
    let mut desktop = Desktop::new(&machine);
    policy(&machine, "bulkhead.DecodePicture * work @anyvm deny\n");
    let mut refused = |id, words: &str| {
        let (answer, pipes) = desktop.paste(id);
        assert_eq!((&answer["allow"], pipes.len()), (&json!(false), 0));
        let reason = answer["reason"].as_str().unwrap();
        assert!(reason.contains(words), "{reason}");
    };
    refused(1, "the rule 30-user.policy:1 denies it the disposable");
    policy(&machine, "qubes.ClipboardPaste * work personal deny\n");
    refused(2, "the rule 30-user.policy:1 denies it");
    policy(&machine, "");
    let description = machine.path("images/templates/apps/template.toml");
    fs::write(&description, "name = \"apps\"\n").unwrap();
    refused(3, "the caller has no default for new disposables");
    assert_eq!(disposables(&machine), 0);
}

#[test]
fn no_program_can_call_the_decoder() {
    let machine = machine();
    machine.ok(&["start", "work"]);
    let socket = machine.path("call-work.sock");
    wait(&machine, "no socket for calls", || socket.exists());
    let call = Command::new(programs().join("bulkhead-rpc"))
        .args(["@dispvm", "bulkhead.DecodePicture"])
        .stdin(Stdio::null())
        .env("BULKHEAD_CALL_SOCKET", socket)
        .output()
        .unwrap();
    assert_eq!(call.status.code(), Some(126));
    let log = machine.ok(&["transfers"]);
    assert!(
        log.contains("only the user's keys or pointer can do that"),
        "{log}"
    );
    assert_eq!(disposables(&machine), 0);
}
