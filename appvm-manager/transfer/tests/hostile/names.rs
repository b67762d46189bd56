//! Names and links that lead elsewhere, or are there already.

use bulkhead_transfer::{Item, Kind, Manifest, Verdict};

use crate::streams::*;

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
