//! Streams that nobody honest writes: each is refused, and leaves the incoming folder as it was.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bulkhead_transfer::format::{Meta, Record, StreamWriter};
use bulkhead_transfer::{
    Cancel, FormatError, Incoming, Item, Kind, Limits, Manifest, Progress, ReceiveError, Received,
    Receiver, Verdict, Watch, clean_up_partial,
};
use common::{Tree, names, tree};
use proptest::prelude::*;

/// One step of a hand-made stream.
enum Step {
    Record(Record),
    Data(Vec<u8>),
}
use Step::Data;

fn folder(name: &str) -> Step {
    Step::Record(Record::Folder {
        meta: Meta::default(),
        untrusted_name: name.into(),
    })
}

fn file(name: &str, size: u64) -> Step {
    Step::Record(Record::File {
        meta: Meta::default(),
        untrusted_name: name.into(),
        untrusted_size: size,
    })
}

fn link(name: &str, target: &str) -> Step {
    Step::Record(Record::Link {
        meta: Meta::default(),
        untrusted_name: name.into(),
        untrusted_target: target.into(),
    })
}

fn hole(length: u64) -> Step {
    Step::Record(Record::Hole(length))
}

fn leave() -> Step {
    Step::Record(Record::Leave)
}

fn end(entries: u64, bytes: u64) -> Step {
    Step::Record(Record::End {
        untrusted_entries: entries,
        untrusted_bytes: bytes,
    })
}

fn manifest(entries: u64, bytes: u64, kind: Kind, name: &str) -> Manifest {
    Manifest {
        entries,
        bytes,
        top_level: 1,
        shown: vec![Item {
            kind,
            bytes,
            name: name.into(),
        }],
    }
}

/// A folder `top` with so many entries, itself included.
fn in_top(entries: u64, bytes: u64) -> Manifest {
    manifest(entries, bytes, Kind::Folder, "top")
}

fn stream(manifest: &Manifest, steps: &[Step]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::new(&mut bytes, manifest).unwrap();
    for step in steps {
        match step {
            Step::Record(record) => writer.record(record).unwrap(),
            Data(data) => writer.data(data).unwrap(),
        }
    }
    writer.flush().unwrap();
    drop(writer);
    bytes
}

/// An incoming folder in which something is already, beside something that must not be reached.
struct Target {
    dir: tempfile::TempDir,
    incoming: Incoming,
    before: Tree,
}

impl Target {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().join("Incoming/work");
        fs::create_dir_all(into.join("mine")).unwrap();
        fs::write(into.join("file"), "mine").unwrap();
        symlink("/etc", into.join("link")).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        let incoming = Incoming::at(&into).unwrap();
        let before = Self::look(&dir);
        Target {
            dir,
            incoming,
            before,
        }
    }

    /// All that lies here; the incoming folder's own time changes when something was in it.
    fn look(dir: &tempfile::TempDir) -> Tree {
        let mut tree = tree(dir.path());
        tree.remove(std::path::Path::new("Incoming/work"));
        tree
    }

    fn receive(&self, stream: &[u8], limits: Limits) -> Result<Received, ReceiveError> {
        let mut quiet = |_: &Progress<'_>| {};
        let mut watch = Watch::new(&mut quiet, Cancel::default());
        Receiver::new(stream, &self.incoming, limits)?.receive(&mut watch)
    }

    fn refuse(&self, stream: &[u8], limits: Limits) -> ReceiveError {
        let error = self.receive(stream, limits).unwrap_err();
        self.is_unchanged();
        error
    }

    fn is_unchanged(&self) {
        assert_eq!(Self::look(&self.dir), self.before);
    }
}

#[track_caller]
fn refused(manifest: &Manifest, steps: &[Step], verdict: Verdict, part: &str) {
    let error = Target::new().refuse(&stream(manifest, steps), Limits::default());
    let text = error.to_string();
    assert_eq!(error.verdict(), verdict, "{text}");
    assert!(text.contains(part), "{text}");
}

#[test]
fn names_that_lead_elsewhere() {
    for name in [
        "..",
        ".",
        "",
        "/etc/passwd",
        "a/b",
        "../../secret",
        "a\0b",
        "/",
    ] {
        let steps = [folder("top"), file(name, 0), leave(), end(2, 0)];
        refused(&in_top(2, 0), &steps, Verdict::Refused, "cannot be a name");
        let steps = [folder("top"), folder(name), leave(), leave(), end(2, 0)];
        refused(&in_top(2, 0), &steps, Verdict::Refused, "cannot be a name");
        let steps = [folder("top"), link(name, "x"), leave(), end(2, 0)];
        refused(&in_top(2, 0), &steps, Verdict::Refused, "cannot be a name");
        // At the top the manifest would have to say it too, and it is read by the host as well.
        let steps = [file(name, 0), end(1, 0)];
        let announced = manifest(1, 0, Kind::File, name);
        refused(&announced, &steps, Verdict::Damaged, "is none for a file");
        refused(
            &manifest(1, 0, Kind::File, "x"),
            &steps,
            Verdict::NotAsAnnounced,
            "another name",
        );
    }
    // The 257th name is not in the manifest.
    let mut many = Manifest {
        entries: 257,
        bytes: 0,
        top_level: 257,
        shown: Vec::new(),
    };
    let mut steps = Vec::new();
    for number in 0..256 {
        many.shown.push(Item {
            kind: Kind::File,
            bytes: 0,
            name: format!("{number}").into(),
        });
        steps.push(file(&format!("{number}"), 0));
    }
    steps.extend([file("../x", 0), end(257, 0)]);
    refused(&many, &steps, Verdict::Refused, "it has a slash");
}

#[test]
fn links_that_lead_elsewhere() {
    for target in [
        "/etc",
        "..",
        "../x",
        "../../secret",
        "",
        "a/../../x",
        "/",
        "a\0b",
    ] {
        let steps = [folder("top"), link("l", target), leave(), end(2, 0)];
        refused(&in_top(2, 0), &steps, Verdict::Refused, "is refused");
    }
    // At the top there is no folder to stay in.
    let steps = [link("l", "file"), end(1, 0)];
    refused(
        &manifest(1, 0, Kind::File, "l"),
        &steps,
        Verdict::Refused,
        "not inside of a copied folder",
    );
    // Two links, each of which looks as if it stayed inside.
    let steps = [
        folder("top"),
        folder("a"),
        folder("b"),
        link("up", "../.."),
        leave(),
        leave(),
        link("out", "a/b/up/.."),
    ];
    refused(
        &in_top(9, 0),
        &steps,
        Verdict::Refused,
        "depends on other links",
    );
}

#[test]
fn a_link_and_then_a_file_through_it() {
    let steps = [
        folder("top"),
        folder("real"),
        leave(),
        link("l", "real"),
        folder("l"),
    ];
    refused(&in_top(9, 0), &steps, Verdict::Refused, "came twice");
    let steps = [folder("top"), link("l", "missing"), file("l", 1)];
    refused(&in_top(9, 9), &steps, Verdict::Refused, "came twice");
    let steps = [folder("top"), link("l", "missing"), link("l", "other")];
    refused(&in_top(9, 9), &steps, Verdict::Refused, "came twice");
    let steps = [
        folder("top"),
        folder("real"),
        leave(),
        link("l", "real"),
        file("l/x", 0),
    ];
    refused(&in_top(9, 9), &steps, Verdict::Refused, "it has a slash");
}

#[test]
fn a_name_twice() {
    for (first, second) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut steps = vec![folder("top")];
        for kind in [first, second] {
            match kind {
                0 => steps.push(file("x", 0)),
                _ => steps.extend([folder("x"), leave()]),
            }
        }
        refused(&in_top(9, 9), &steps, Verdict::Refused, "came twice");
    }
    let item = Item {
        kind: Kind::File,
        bytes: 0,
        name: b"x".to_vec(),
    };
    let twice = Manifest {
        entries: 2,
        bytes: 0,
        top_level: 2,
        shown: vec![item.clone(), item],
    };
    let steps = [file("x", 0), file("x", 0), end(2, 0)];
    refused(&twice, &steps, Verdict::Refused, "came twice");
}

#[test]
fn sizes_and_counts_that_are_not_true() {
    let bytes = |count: usize| Data(vec![7; count]);
    let one = |size| manifest(1, size, Kind::File, "f");
    let untrue = Verdict::NotAsAnnounced;
    let check = |manifest: &Manifest, steps: &[Step], part| refused(manifest, steps, untrue, part);
    check(
        &one(4),
        &[file("f", 4), bytes(3), end(1, 4)],
        "shorter than",
    );
    check(&one(4), &[file("f", 4), bytes(5), end(1, 4)], "longer than");
    check(
        &one(4),
        &[file("f", 4), bytes(3), hole(2), end(1, 4)],
        "longer than",
    );
    check(
        &one(4),
        &[file("f", 4), hole(u64::MAX), end(1, 4)],
        "longer than",
    );
    check(
        &one(4),
        &[file("f", 4), bytes(4), bytes(1), end(1, 4)],
        "belong to no file",
    );
    check(&one(4), &[file("f", 5)], "more bytes");
    check(
        &one(4),
        &[file("f", 3), bytes(3), end(1, 3)],
        "another size",
    );
    check(
        &one(4),
        &[file("f", 4), bytes(4), end(2, 4)],
        "fewer entries",
    );
    check(&one(4), &[file("f", 4), bytes(4), end(1, 5)], "fewer bytes");
    check(&one(4), &[file("g", 4)], "another name");
    check(&one(4), &[folder("f")], "another name");
    check(
        &one(4),
        &[file("f", 4), bytes(4), file("g", 0)],
        "more entries",
    );
    check(&one(4), &[end(1, 4)], "fewer names");
    check(&one(4), &[leave()], "had not begun");
    check(
        &in_top(2, 0),
        &[folder("top"), end(2, 0)],
        "inside of a folder",
    );
    check(
        &in_top(2, 0),
        &[folder("top"), leave(), end(2, 0)],
        "fewer entries",
    );
    check(
        &in_top(3, 0),
        &[folder("top"), leave(), file("b", 0)],
        "more names",
    );
    let mut two = in_top(2, 4);
    two.top_level = 2;
    two.shown[0].bytes = 0;
    two.shown.push(one(4).shown[0].clone());
    check(
        &two,
        &[folder("top"), file("g", 4), bytes(4), leave(), file("f", 0)],
        "more entries",
    );
}

#[test]
fn more_than_the_limits() {
    let limits = Limits {
        bytes: 100,
        file_bytes: 50,
        entries: 10,
        top_level: 2,
        depth: 3,
        ..Limits::default()
    };
    let refuse = |manifest: &Manifest, steps: &[Step], part: &str| {
        let error = Target::new().refuse(&stream(manifest, steps), limits.clone());
        assert_eq!(error.verdict(), Verdict::TooMuch);
        assert!(error.to_string().contains(part), "{error}");
    };
    refuse(&in_top(2, 101), &[], "101 bytes");
    refuse(&in_top(11, 0), &[], "11 entries");
    refuse(
        &in_top(2, 100),
        &[folder("top"), file("f", 51)],
        "51 bytes in one file",
    );
    let mut three = in_top(3, 0);
    three.top_level = 3;
    for name in ["b", "c"] {
        three.shown.push(Item {
            name: name.into(),
            ..three.shown[0].clone()
        });
    }
    refuse(&three, &[], "3 names at the top");
    let steps = [folder("top"), folder("2"), folder("3"), folder("4")];
    refuse(&in_top(9, 0), &steps, "4 folders in each other");
    let full = Limits {
        keep_free_bytes: u64::MAX,
        ..Limits::default()
    };
    let steps = [folder("top"), leave(), end(1, 0)];
    let error = Target::new().refuse(&stream(&in_top(1, 0), &steps), full);
    assert_eq!(error.verdict(), Verdict::NoSpace);
    assert_eq!(error.for_the_sender(), "");
}

#[test]
fn a_bomb_of_depth() {
    let mut steps = vec![folder("top")];
    steps.extend((0..100_000).map(|_| folder("d")));
    let announced = in_top(200_000, 0);
    refused(
        &announced,
        &steps,
        Verdict::TooMuch,
        "65 folders in each other",
    );
    // The caller's limit cannot be more than what this program can handle.
    let limits = Limits {
        depth: usize::MAX,
        ..Limits::default()
    };
    let error = Target::new().refuse(&stream(&announced, &steps), limits);
    assert_eq!(error.verdict(), Verdict::TooMuch);
}

/// A stream without an end.
struct Endless {
    head: std::io::Cursor<Vec<u8>>,
    again: std::io::Cursor<Vec<u8>>,
    read: u64,
}

impl std::io::Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut length = self.head.read(buffer)?;
        if length == 0 {
            length = self.again.read(buffer)?;
        }
        if length == 0 {
            self.again.set_position(0);
            length = self.again.read(buffer)?;
        }
        self.read += length as u64;
        Ok(length)
    }
}

#[test]
fn streams_without_an_end() {
    let endless = |manifest: &Manifest, steps: &[Step], again: &[Step], limits: Limits| {
        let target = Target::new();
        let head = stream(manifest, steps);
        let announced = stream(manifest, &[]).len();
        let mut stream = Endless {
            head: std::io::Cursor::new(head),
            again: std::io::Cursor::new(stream(manifest, again).split_off(announced)),
            read: 0,
        };
        let mut quiet = |_: &Progress<'_>| {};
        let mut watch = Watch::new(&mut quiet, Cancel::default());
        let error = Receiver::new(&mut stream, &target.incoming, limits)
            .and_then(|mut receiver| receiver.receive(&mut watch))
            .unwrap_err();
        target.is_unchanged();
        (error, stream.read)
    };
    // A file, as long as it was announced to be: longer than is taken, or as long as it may be.
    let mib = Data(vec![1; 256 * 1024]);
    let (error, read) = endless(&in_top(2, u64::MAX), &[], &[mib], Limits::default());
    assert_eq!(error.verdict(), Verdict::TooMuch);
    assert!(read <= 128 * 1024);
    let steps = [folder("top"), file("f", 8 << 20)];
    let piece = Data(vec![1; 256 * 1024]);
    let (error, read) = endless(&in_top(2, 8 << 20), &steps, &[piece], Limits::default());
    assert_eq!(error.verdict(), Verdict::NotAsAnnounced);
    assert!(read < 9 << 20);
    // Entries.
    let limits = Limits {
        entries: 1000,
        ..Limits::default()
    };
    let top = [folder("top")];
    let again = [link("l", "x"), folder("x"), leave()];
    let (error, _) = endless(&in_top(1001, 0), &top, &again, limits.clone());
    assert_eq!(error.verdict(), Verdict::TooMuch);
    let (error, _) = endless(&in_top(1000, 0), &top, &again, limits);
    assert_eq!(
        error.verdict(),
        Verdict::Refused,
        "the second round is a duplicate"
    );
    // Folders that end and never begin, and an end that is none.
    let (error, _) = endless(&in_top(2, 0), &top, &[leave()], Limits::default());
    assert_eq!(error.verdict(), Verdict::NotAsAnnounced);
}

/// A sender that says something and then nothing, on a stream whose reads may take so long only.
struct Silent<'a>(&'a [u8]);

impl std::io::Read for Silent<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(std::io::ErrorKind::TimedOut.into()),
            length => Ok(length),
        }
    }
}

#[test]
fn silence_ends_a_transfer() {
    let (manifest, steps) = small();
    let good = stream(&manifest, &steps);
    let target = Target::new();
    for length in 0..good.len() {
        let mut quiet = |_: &Progress<'_>| {};
        let mut watch = Watch::new(&mut quiet, Cancel::default());
        let silent = Silent(&good[..length]);
        let error = Receiver::new(silent, &target.incoming, Limits::default())
            .and_then(|mut receiver| receiver.receive(&mut watch))
            .unwrap_err();
        assert_eq!(error.verdict(), Verdict::Stalled, "{length}: {error}");
        target.is_unchanged();
    }
}

/// A small stream in which every record is.
fn small() -> (Manifest, Vec<Step>) {
    let steps = vec![
        folder("top"),
        file("f", 10),
        Data(b"data".to_vec()),
        hole(6),
        link("l", "f"),
        folder("empty"),
        leave(),
        leave(),
        end(4, 10),
    ];
    (in_top(4, 10), steps)
}

#[test]
fn cut_anywhere_or_changed_anywhere() {
    let (manifest, steps) = small();
    let good = stream(&manifest, &steps);
    let target = Target::new();
    for length in 0..good.len() {
        let error = target.refuse(&good[..length], Limits::default());
        assert!(
            matches!(error, ReceiveError::Stream(FormatError::Ended)),
            "{length}: {error}"
        );
    }
    for position in 0..good.len() {
        for change in [1, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[position] ^= change;
            target.refuse(&bad, Limits::default());
        }
    }
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    let error = target.refuse(&bad, Limits::default());
    assert!(matches!(error, ReceiveError::Stream(FormatError::Checksum)));
    // And it is good but for that; what comes after the end is nobody's business.
    let mut longer = good.clone();
    longer.extend_from_slice(b"more");
    assert_eq!(
        target.receive(&longer, Limits::default()).unwrap().names,
        ["top"]
    );
}

#[test]
fn a_time_that_means_something_else() {
    for nanoseconds in [1_000_000_000, (1 << 30) - 1, (1 << 30) - 2, u32::MAX] {
        let mut bad = folder("top");
        if let Step::Record(Record::Folder { meta, .. }) = &mut bad {
            meta.nanoseconds = nanoseconds;
        }
        refused(&in_top(1, 0), &[bad], Verdict::Damaged, "nanoseconds");
    }
    for seconds in [i64::MIN, -1, i64::MAX] {
        let mut odd = folder("top");
        if let Step::Record(Record::Folder { meta, .. }) = &mut odd {
            meta.seconds = seconds;
        }
        let bytes = stream(&in_top(1, 0), &[odd, leave(), end(1, 0)]);
        Target::new().receive(&bytes, Limits::default()).unwrap();
    }
    let mut bad = file("top", 0);
    if let Step::Record(Record::File { meta, .. }) = &mut bad {
        meta.mode = 0o4755;
    }
    refused(
        &manifest(1, 0, Kind::File, "top"),
        &[bad],
        Verdict::Damaged,
        "a mode",
    );
}

#[test]
fn a_panic_or_a_drop_leaves_nothing() {
    let (manifest, steps) = small();
    let good = stream(&manifest, &steps);
    let target = Target::new();
    let mut shocked = |progress: &Progress<'_>| assert!(progress.entries < 3, "on purpose");
    let mut watch = Watch::new(&mut shocked, Cancel::default());
    let mut receiver = Receiver::new(good.as_slice(), &target.incoming, Limits::default()).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| receiver.receive(&mut watch))).is_err());
    target.is_unchanged();
    drop(Receiver::new(good.as_slice(), &target.incoming, Limits::default()).unwrap());
    target.is_unchanged();
}

#[test]
fn all_numbers_of_a_name_in_use_puts_the_others_back() {
    let target = Target::new();
    let into = target.dir.path().join("Incoming/work");
    fs::write(into.join("n"), "").unwrap();
    for number in 1..10_000 {
        fs::write(into.join(format!("n ({number})")), "").unwrap();
    }
    let before = names(&into);
    let mut two = manifest(2, 0, Kind::File, "first");
    two.top_level = 2;
    two.shown
        .push(manifest(1, 0, Kind::File, "n").shown[0].clone());
    let bytes = stream(&two, &[file("first", 0), file("n", 0), end(2, 0)]);
    let error = target.receive(&bytes, Limits::default()).unwrap_err();
    assert!(matches!(error, ReceiveError::Namesakes { .. }), "{error}");
    assert_eq!(names(&into), before);
}

#[test]
fn what_a_killed_receiver_left_is_removed() {
    let target = Target::new();
    let into = target.dir.path().join("Incoming/work");
    let left = into.join(".incoming-0123456789abcdef");
    fs::create_dir_all(left.join("top/deep")).unwrap();
    fs::write(left.join("top/file"), "half").unwrap();
    symlink("/etc", left.join("top/etc")).unwrap();
    symlink(target.dir.path(), left.join("out")).unwrap();
    // These are none.
    fs::create_dir(into.join(".incoming-mine")).unwrap();
    fs::write(into.join(".incoming-fedcba9876543210"), "a file").unwrap();
    symlink(target.dir.path(), into.join(".incoming-1111111111111111")).unwrap();
    assert_eq!(clean_up_partial(&target.incoming).unwrap(), 1);
    assert!(!left.exists());
    for name in ["mine", "fedcba9876543210", "1111111111111111"] {
        let name = format!(".incoming-{name}");
        assert!(fs::symlink_metadata(into.join(&name)).is_ok(), "{name}");
        fs::remove_file(into.join(&name))
            .or_else(|_| fs::remove_dir(into.join(&name)))
            .unwrap();
    }
    target.is_unchanged();

    // One that is at work is left alone.
    let (manifest, steps) = small();
    let good = stream(&manifest, &steps);
    let mut cleaned = 0;
    let mut clean = |_: &Progress<'_>| {
        assert_eq!(clean_up_partial(&target.incoming).unwrap(), 0);
        cleaned += 1;
    };
    let mut watch = Watch::new(&mut clean, Cancel::default());
    let received = Receiver::new(good.as_slice(), &target.incoming, Limits::default())
        .and_then(|mut receiver| receiver.receive(&mut watch))
        .unwrap();
    assert_eq!(received.names, ["top"]);
    assert!(cleaned > 3);
    assert_eq!(clean_up_partial(&target.incoming).unwrap(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        thread_local!(static TARGET: Target = Target::new());
        let (manifest, _) = small();
        let mut after_a_manifest = stream(&manifest, &[folder("top")]);
        after_a_manifest.extend_from_slice(&bytes);
        TARGET.with(|target| {
            target.refuse(&bytes, Limits::default());
            target.refuse(&after_a_manifest, Limits::default());
        });
    }
}

proptest! {
    // Some are received, and that makes the disk write.
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Records in any order, with any small numbers: either refused with nothing changed, or
    /// received, and then inside of the folder.
    #[test]
    fn random_records(choices in proptest::collection::vec((0_u8..9, 0_u64..4), 0..24)) {
        let target = Target::new();
        let text = |number: u64| ["a", "b", "..", "top"][number as usize % 4];
        let mut steps = vec![folder("top")];
        let mut entries = 1;
        for (kind, number) in choices {
            steps.push(match kind {
                0 | 1 => folder(text(number)),
                2 | 3 => file(text(number), number),
                4 => link(text(number), text(number + 1)),
                5 | 6 => leave(),
                7 => Data(vec![1; number as usize + 1]),
                _ => hole(number + 1),
            });
            entries += u64::from(kind < 5);
        }
        steps.push(end(entries, 3));
        match target.receive(&stream(&in_top(entries, 3), &steps), Limits::default()) {
            Ok(received) => prop_assert_eq!(received.names, ["top"]),
            Err(_) => target.is_unchanged(),
        }
        prop_assert!(target.dir.path().join("secret").exists());
        prop_assert_eq!(fs::read_dir(target.dir.path()).unwrap().count(), 2);
    }
}
