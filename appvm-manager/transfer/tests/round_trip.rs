//! What is sent arrives: the same names, bytes, times, holes and links.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use bulkhead_transfer::{Cancel, Limits, Progress, SendError, Sender, Verdict, Watch};
use common::{copy, copy_within, mode, names, tree};

fn two() -> (tempfile::TempDir, tempfile::TempDir) {
    (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap())
}

#[test]
fn empty_things_arrive() {
    let (from, to) = two();
    fs::create_dir(from.path().join("folder")).unwrap();
    fs::write(from.path().join("file"), "").unwrap();
    let paths = ["folder", "file"].map(|name| from.path().join(name));
    let received = copy(&paths, to.path());
    assert_eq!((received.entries, received.bytes), (2, 0));
    assert_eq!(received.names, ["folder", "file"]);
    assert_eq!(tree(to.path()), tree(from.path()));
}

#[test]
fn a_tree_arrives_as_it_was_but_for_rights() {
    let (from, to) = two();
    let top = from.path().join("project");
    fs::create_dir_all(top.join("src/deep/er")).unwrap();
    fs::write(top.join("src/main"), "fn main() {}").unwrap();
    fs::write(top.join("run"), "#!/bin/sh\n").unwrap();
    let large: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(top.join("src/deep/large"), &large).unwrap();
    symlink("../src/main", top.join("src/main-link")).unwrap_or(());
    symlink("deep/../main", top.join("src/climbs")).unwrap();
    fs::remove_file(top.join("src/climbs")).unwrap();
    symlink("../../run", top.join("src/deep/up")).unwrap();
    symlink("nothing/there", top.join("src/dangling")).unwrap();
    fs::set_permissions(top.join("run"), PermissionsExt::from_mode(0o4755)).unwrap();
    fs::set_permissions(top.join("src"), PermissionsExt::from_mode(0o1777)).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    for path in ["run", "src/deep/er", "src/deep", "src", ""] {
        let file = File::open(top.join(path)).unwrap();
        file.set_modified(old).unwrap();
    }
    let received = copy(std::slice::from_ref(&top), to.path());
    assert_eq!(received.bytes, 12 + 10 + 4_000_000);
    assert_eq!(tree(to.path()), tree(from.path()));
    assert_eq!(
        fs::read(to.path().join("project/src/deep/large")).unwrap(),
        large
    );
    assert_eq!(mode(&to.path().join("project/run")), 0o600);
    assert_eq!(mode(&to.path().join("project/src")), 0o700);
}

#[test]
fn names_that_exist_get_a_number() {
    let (from, to) = two();
    fs::write(from.path().join("a.txt"), "new").unwrap();
    fs::create_dir(from.path().join("b.d")).unwrap();
    fs::write(to.path().join("a.txt"), "old").unwrap();
    fs::write(to.path().join("a (1).txt"), "older").unwrap();
    symlink("/nowhere", to.path().join("b.d")).unwrap();
    let paths = ["a.txt", "b.d"].map(|name| from.path().join(name));
    let received = copy(&paths, to.path());
    assert_eq!(received.names, ["a (2).txt", "b.d (1)"]);
    assert_eq!(fs::read(to.path().join("a.txt")).unwrap(), b"old");
    assert_eq!(fs::read(to.path().join("a (1).txt")).unwrap(), b"older");
    assert_eq!(fs::read(to.path().join("a (2).txt")).unwrap(), b"new");
    assert!(
        fs::symlink_metadata(to.path().join("b.d"))
            .unwrap()
            .is_symlink()
    );
    assert!(to.path().join("b.d (1)").is_dir());
    assert_eq!(names(to.path()).len(), 5);
}

#[test]
fn odd_names_arrive_visibly() {
    let (from, to) = two();
    let top = from.path().join("odd");
    fs::create_dir(&top).unwrap();
    let odd: [&[u8]; 8] = [
        b"new\nline",
        b"latin-1 \xe9",
        "right\u{202e}left".as_bytes(),
        "zero\u{200b}width".as_bytes(),
        b"back\\x41slash",
        "Gr\u{fc}\u{df}e \u{4f60}\u{597d}".as_bytes(),
        b"-rf *; $(reboot) 'quoted\"",
        &[b'n'; 255],
    ];
    for name in odd {
        fs::write(top.join(OsStr::from_bytes(name)), name).unwrap();
    }
    symlink(OsStr::from_bytes(odd[0]), top.join("link")).unwrap();
    copy(std::slice::from_ref(&top), to.path());
    let arrived = to.path().join("odd");
    for name in names(&arrived) {
        let shown = String::from_utf8(name).unwrap();
        assert!(!shown.contains(['\n', '\u{202e}', '\u{200b}']), "{shown}");
        let original = bulkhead_transfer::names::original(&shown);
        if shown == "link" {
            assert_eq!(fs::read(arrived.join("link")).unwrap(), odd[0]);
        } else {
            assert_eq!(fs::read(arrived.join(&shown)).unwrap(), original);
        }
    }
    assert_eq!(names(&arrived).len(), odd.len() + 1);
}

#[test]
fn a_name_of_a_temporary_folder_is_none() {
    let (from, to) = two();
    let name = ".incoming-0123456789abcdef";
    fs::create_dir(from.path().join(name)).unwrap();
    copy(&[from.path().join(name)], to.path());
    assert_eq!(names(to.path()), [b"\\x2eincoming-0123456789abcdef"]);
}

#[test]
fn as_deep_as_allowed_and_no_deeper() {
    let (from, to) = two();
    let mut deep = from.path().join("d");
    for _ in 1..64 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "bottom").unwrap();
    copy(&[from.path().join("d")], to.path());
    assert_eq!(tree(to.path()).len(), 65);
    fs::create_dir(deep.join("d")).unwrap();
    let (sent, received) = copy_within(&[from.path().join("d")], to.path(), Limits::default());
    assert!(matches!(sent, Err(SendError::Depth { .. })));
    assert!(received.is_err());
    assert_eq!(names(to.path()), [b"d"]);
}

#[test]
fn ten_gibibytes_of_nothing_cost_nothing() {
    let (from, to) = two();
    let path = from.path().join("disk.img");
    let file = File::create(&path).unwrap();
    let size = 10 << 30;
    file.write_all_at(b"begin", 0).unwrap();
    file.write_all_at(b"middle", 5 << 30).unwrap();
    file.set_len(size).unwrap();
    drop(file);
    let start = Instant::now();
    let received = copy(&[path], to.path());
    let took = start.elapsed();
    println!("10 GiB with two pieces of data: {took:?}");
    assert_eq!(received.bytes, size);
    let copied = to.path().join("disk.img");
    let data = fs::metadata(&copied).unwrap();
    assert_eq!(data.len(), size);
    assert!(data.blocks() * 512 < 1 << 20, "{} blocks", data.blocks());
    let mut piece = [0; 6];
    let copied = File::open(copied).unwrap();
    copied.read_exact_at(&mut piece, 5 << 30).unwrap();
    assert_eq!(&piece, b"middle");
    copied.read_exact_at(&mut piece, 0).unwrap();
    assert_eq!(&piece, b"begin\0");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn what_cannot_be_sent_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    fs::create_dir(&top).unwrap();
    let count = |path: &Path| {
        let mut quiet = |_: &Progress<'_>| {};
        let mut watch = Watch::new(&mut quiet, Cancel::default());
        Sender::new(&[path.to_owned()], &mut watch).unwrap_err()
    };
    let named = |error: SendError, part: &str| {
        let text = error.to_string();
        assert!(text.contains(part), "{text}");
    };
    let socket = top.join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    named(count(&top), "top/socket` is a socket");
    drop(listener);
    fs::remove_file(&socket).unwrap();
    let fifo = top.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    named(count(&top), "top/fifo` is a named pipe");
    fs::remove_file(fifo).unwrap();
    named(count(Path::new("/dev/null")), "/dev/null` is a device");
    symlink("/etc/passwd", top.join("out")).unwrap();
    named(
        count(&top),
        "top/out` is a link that cannot be sent: its target begins at the root",
    );
    named(
        count(&top.join("out")),
        "it is not inside of a copied folder",
    );
    fs::remove_file(top.join("out")).unwrap();
    named(count(&top.join("missing")), "missing` cannot be read");
    named(count(&top.join("..")), "has no name of its own");
    let mut quiet = |_: &Progress<'_>| {};
    let mut watch = Watch::new(&mut quiet, Cancel::default());
    let twice = [top.clone(), dir.path().join("top/.")];
    assert!(matches!(
        Sender::new(&twice, &mut watch),
        Err(SendError::SameName { .. })
    ));
    assert!(matches!(
        Sender::new(&[], &mut watch),
        Err(SendError::Nothing)
    ));
}

/// Grows, shrinks or replaces a file as soon as the sender is at it the second time.
fn changed_by(change: impl Fn(&Path)) -> SendError {
    let (from, to) = two();
    let path = from.path().join("log");
    fs::write(&path, vec![b'x'; 1_000_000]).unwrap();
    let (stream_out, stream_in) = std::io::pipe().unwrap();
    let into = to.path().to_owned();
    let receiver = std::thread::spawn(move || {
        let incoming = bulkhead_transfer::Incoming::at(&into).unwrap();
        let mut quiet = |_: &Progress<'_>| {};
        let mut watch = Watch::new(&mut quiet, Cancel::default());
        bulkhead_transfer::Receiver::new(stream_out, &incoming, Limits::default())
            .and_then(|mut receiver| receiver.receive(&mut watch))
            .unwrap_err()
    });
    let mut changed = false;
    let mut report = |progress: &Progress<'_>| {
        if progress.bytes > 0 && progress.entries_in_all > 0 && !changed {
            change(&path);
            changed = true;
        }
    };
    let mut watch = Watch::new(&mut report, Cancel::default());
    let sender = Sender::new(std::slice::from_ref(&path), &mut watch).unwrap();
    let error = sender.write(stream_in, &mut watch).unwrap_err();
    assert_eq!(receiver.join().unwrap().verdict(), Verdict::Aborted);
    assert!(names(to.path()).is_empty());
    error
}

#[test]
fn a_file_that_changes_is_not_sent() {
    let grow = |path: &Path| {
        let mut file = File::options().append(true).open(path).unwrap();
        file.write_all(b"more").unwrap();
    };
    let shrink = |path: &Path| {
        let file = File::options().write(true).open(path).unwrap();
        file.set_len(300_000).unwrap();
    };
    for error in [changed_by(grow), changed_by(shrink)] {
        assert!(matches!(error, SendError::Changed { .. }), "{error}");
        assert!(error.to_string().contains("log` changed"), "{error}");
    }
    // A file of the kernel has more than it says.
    let mut quiet = |_: &Progress<'_>| {};
    let mut watch = Watch::new(&mut quiet, Cancel::default());
    let sender = Sender::new(&["/proc/self/status".into()], &mut watch).unwrap();
    let error = sender.write(std::io::sink(), &mut watch).unwrap_err();
    assert!(matches!(error, SendError::Changed { .. }), "{error}");
}

#[test]
fn a_refusal_reaches_the_sender() {
    let (from, to) = two();
    let path = from.path().join("large");
    fs::write(&path, vec![1; 3_000_000]).unwrap();
    let limits = Limits {
        bytes: 2_999_999,
        ..Limits::default()
    };
    let (sent, received) = copy_within(&[path], to.path(), limits);
    assert_eq!(received.unwrap_err().verdict(), Verdict::TooMuch);
    match sent.unwrap_err() {
        SendError::Refused { verdict, message } => {
            assert_eq!(verdict, Verdict::TooMuch);
            assert!(message.contains("3000000 bytes are more than"), "{message}");
        }
        other => panic!("{other}"),
    }
    assert!(names(to.path()).is_empty());
}

#[test]
fn cancelling_leaves_nothing() {
    let (from, to) = two();
    let path = from.path().join("large");
    fs::write(&path, vec![1; 3_000_000]).unwrap();
    let cancel = Cancel::default();
    let stop = cancel.clone();
    let mut report = |progress: &Progress<'_>| {
        if progress.entries_in_all > 0 && progress.bytes > 1_000_000 {
            stop.cancel();
        }
    };
    let mut watch = Watch::new(&mut report, cancel);
    let sender = Sender::new(&[path], &mut watch).unwrap();
    let mut stream = Vec::new();
    let error = sender.write(&mut stream, &mut watch).unwrap_err();
    assert!(matches!(error, SendError::Cancelled));
    let incoming = bulkhead_transfer::Incoming::at(to.path()).unwrap();
    let mut quiet = |_: &Progress<'_>| {};
    let mut watch = Watch::new(&mut quiet, Cancel::default());
    let mut receiver =
        bulkhead_transfer::Receiver::new(stream.as_slice(), &incoming, Limits::default()).unwrap();
    let error = receiver.receive(&mut watch).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the sender gave up: sending was cancelled"
    );
    assert!(names(to.path()).is_empty());
}
