//! Sizes, counts and times that are not true or have no end.

use bulkhead_transfer::{Cancel, Item, Kind, Limits, Manifest, Progress, Receiver, Verdict, Watch};

use crate::streams::*;

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
