//! The two programs, piped together as a service would; the test stands between them as the host.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bulkhead_transfer::{Manifest, Status, Verdict};
use common::{names, tree};

const SEND: &str = env!("CARGO_BIN_EXE_bulkhead-file-send");
const RECEIVE: &str = env!("CARGO_BIN_EXE_bulkhead-file-receive");

fn sender(paths: &[PathBuf]) -> Child {
    start(Command::new(SEND).args(paths))
}

fn receiver(into: &Path) -> Child {
    start(
        Command::new(RECEIVE)
            .args(["--from", "work", "--into"])
            .arg(into),
    )
}

fn start(command: &mut Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a copy took.
struct Costs {
    send_kib: u64,
    receive_kib: u64,
    took: Duration,
}

/// Copies through both programs, and looks at the most memory that each has had.
fn copy(path: &Path, into: &Path) -> Costs {
    let begin = Instant::now();
    let mut send = sender(&[path.to_owned()]);
    let mut receive = receiver(into);
    let mut stream = send.stdout.take().unwrap();
    let mut to_receiver = receive.stdin.take().unwrap();
    let relay = std::thread::spawn(move || std::io::copy(&mut stream, &mut to_receiver));
    let mut receive_kib = 0;
    // The peak only grows, so what is seen shortly before the end is the peak.
    while receive.try_wait().unwrap().is_none() {
        receive_kib = receive_kib.max(peak_kib(receive.id()).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut answer = Vec::new();
    receive
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut answer)
        .unwrap();
    let received = receive.wait_with_output().unwrap();
    assert!(received.status.success(), "{}", text(&received));
    // The sender waits for the answer now.
    let send_kib = peak_kib(send.id()).unwrap();
    send.stdin.take().unwrap().write_all(&answer).unwrap();
    let sent = send.wait_with_output().unwrap();
    assert!(sent.status.success(), "{}", text(&sent));
    // It may have noticed that the receiver, which has answered, is gone.
    let _ = relay.join().unwrap();
    assert!(receive_kib > 0, "the receiver was too fast to be looked at");
    Costs {
        send_kib,
        receive_kib,
        took: begin.elapsed(),
    }
}

fn peak_kib(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Makes so many small files, so many a folder; most are empty, because each other one costs a page
/// of memory.
fn files(top: &Path, count: u32, a_folder: u32) {
    for number in 0..count {
        let folder = top.join(format!("{}", number / a_folder));
        if number % a_folder == 0 {
            fs::create_dir_all(&folder).unwrap();
        }
        let content: &[u8] = if number % 10 == 0 { b"small" } else { b"" };
        fs::write(folder.join(format!("file number {number}")), content).unwrap();
    }
}

/// Memory must be the same for a few files and for many, in one folder or in many.
fn memory_for(dir: &tempfile::TempDir, count: u32, a_folder: u32) {
    let (few, many) = (dir.path().join("few"), dir.path().join("many"));
    files(&few, 1_000, 1_000);
    files(&many, count, a_folder);
    let small = copy(&few, &dir.path().join("in"));
    let large = copy(&many, &dir.path().join("in"));
    let grown = [
        large.send_kib.saturating_sub(small.send_kib),
        large.receive_kib.saturating_sub(small.receive_kib),
    ];
    println!(
        "{count} files, {a_folder} a folder, in {:?}: the sender's peak {} KiB (1,000 files: {}), \
         the receiver's {} KiB ({})",
        large.took, large.send_kib, small.send_kib, large.receive_kib, small.receive_kib
    );
    let arrived = dir.path().join("in/work/many");
    let found: usize = fs::read_dir(&arrived)
        .unwrap()
        .map(|folder| fs::read_dir(folder.unwrap().path()).unwrap().count())
        .sum();
    assert_eq!(found, count as usize);
    assert!(
        grown.iter().all(|kib| *kib < 2048),
        "grown by {grown:?} KiB"
    );
}

#[test]
fn memory_does_not_grow_with_a_hundred_thousand_files() {
    // Files on a disk take most of the time, and are not what is measured.
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    memory_for(&dir, 100_000, 50_000);
}

#[test]
#[ignore = "takes minutes, and two million inodes of a disk"]
fn memory_does_not_grow_with_a_million_files() {
    memory_for(&tempfile::tempdir().unwrap(), 1_000_000, 500_000);
}

#[test]
fn the_host_reads_what_comes_and_passes_it_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("photos");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("one"), "1").unwrap();
    let mut send = sender(std::slice::from_ref(&path));
    let mut stream = send.stdout.take().unwrap();
    let manifest = Manifest::read(&mut stream).unwrap();
    assert_eq!((manifest.entries, manifest.bytes), (2, 1));
    assert_eq!(manifest.shown[0].shown_name(), "photos");
    // Here somebody is asked, and says yes.
    let mut receive = receiver(&dir.path().join("in"));
    let mut to_receiver = receive.stdin.take().unwrap();
    manifest.write(&mut to_receiver).unwrap();
    let relay = std::thread::spawn(move || std::io::copy(&mut stream, &mut to_receiver));
    let mut answer = Vec::new();
    receive
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut answer)
        .unwrap();
    let status = Status::read(answer.as_slice()).unwrap();
    assert_eq!(
        (status.verdict, status.entries, status.bytes),
        (Verdict::Received, 2, 1)
    );
    send.stdin.take().unwrap().write_all(&answer).unwrap();
    assert!(send.wait().unwrap().success());
    assert!(receive.wait().unwrap().success());
    // It may have noticed that the receiver, which has answered, is gone.
    let _ = relay.join().unwrap();
    let mut arrived = tree(&dir.path().join("in/work"));
    let mut sent = tree(dir.path());
    sent.retain(|path, _| path.starts_with("photos"));
    arrived.retain(|path, _| path.starts_with("photos"));
    assert_eq!(arrived, sent);
}

#[test]
fn a_killed_receiver_leaves_nothing_to_see_and_the_next_cleans_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    fs::write(&path, vec![1; 4 << 20]).unwrap();
    let mut send = sender(std::slice::from_ref(&path));
    let mut receive = receiver(&dir.path().join("in"));
    let mut stream = send.stdout.take().unwrap();
    let mut to_receiver = receive.stdin.take().unwrap();
    let mut half = vec![0; 2 << 20];
    stream.read_exact(&mut half).unwrap();
    to_receiver.write_all(&half).unwrap();
    receive.kill().unwrap();
    receive.wait().unwrap();
    let into = dir.path().join("in/work");
    let left = names(&into);
    assert_eq!(left.len(), 1);
    assert!(left[0].starts_with(b".incoming-"));
    drop(stream);
    drop(send.stdin.take());
    let sent = send.wait_with_output().unwrap();
    assert_eq!(sent.status.code(), Some(1), "{}", text(&sent));
    fs::write(&path, "small").unwrap();
    copy(&path, &dir.path().join("in"));
    assert_eq!(names(&into), [b"large"]);
}

#[test]
fn a_sender_hears_why_it_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "x").unwrap();
    let mut send = sender(std::slice::from_ref(&path));
    let refusal = Status {
        verdict: Verdict::TooMuch,
        entries: 0,
        bytes: 0,
        message: "no \u{1b}[31mmore".into(),
    };
    refusal.write(send.stdin.take().unwrap()).unwrap();
    let sent = send.wait_with_output().unwrap();
    assert_eq!(sent.status.code(), Some(3));
    assert!(text(&sent).contains("does not take so much; it says: no \\x1b[31mmore"));

    let send = sender(&[path]);
    let sent = send.wait_with_output().unwrap();
    assert_eq!(sent.status.code(), Some(4), "{}", text(&sent));
    assert!(text(&sent).contains("did not confirm"));
}

#[test]
fn wrong_arguments_are_explained() {
    let run = |program: &str, arguments: &[&str]| {
        let output = start(Command::new(program).args(arguments)).wait_with_output();
        let output = output.unwrap();
        (output.status.code(), text(&output), output.stdout)
    };
    for program in [SEND, RECEIVE] {
        let (status, _, help) = run(program, &["--help"]);
        assert_eq!(status, Some(0));
        assert!(help.starts_with(b"Usage: "));
    }
    for (program, arguments, part) in [
        (SEND, &[][..], "name at least one"),
        (SEND, &["--wrong"], "there is no option `--wrong`"),
        (RECEIVE, &[], "--from NAME"),
        (RECEIVE, &["--from"], "needs a value"),
        (RECEIVE, &["--from", "../x"], "is no name for a domain"),
        (RECEIVE, &["--from", "work", "x"], "`x` is no option"),
    ] {
        let (status, error, _) = run(program, arguments);
        assert_eq!(status, Some(2), "{error}");
        assert!(error.contains(part), "{error}");
    }
    let (status, error, _) = run(SEND, &["--", "-missing"]);
    assert_eq!(status, Some(1));
    assert!(error.contains("`-missing` cannot be read"), "{error}");
    // A folder that cannot be used: the sender is told, but not where and why.
    let (status, error, answer) = run(RECEIVE, &["--from", "work", "--into", "/dev/null"]);
    assert_eq!(status, Some(1));
    assert!(error.contains("/dev/null"), "{error}");
    let answer = Status::read(answer.as_slice()).unwrap();
    assert_eq!(
        (answer.verdict, answer.message.as_str()),
        (Verdict::Failed, "")
    );
}
