//! Streams that are cut, changed, or given up, and what is left of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bulkhead_transfer::format::Record;
use bulkhead_transfer::{
    Cancel, FormatError, Kind, Limits, Progress, ReceiveError, Receiver, Verdict, Watch,
    clean_up_partial,
};
use proptest::prelude::*;

use crate::common::names;
use crate::streams::*;

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
