//! Streams made by hand, and a folder in which nothing may change.

use std::fs;
use std::os::unix::fs::symlink;

use bulkhead_transfer::format::{Meta, Record, StreamWriter};
use bulkhead_transfer::{
    Cancel, Incoming, Item, Kind, Limits, Manifest, Progress, ReceiveError, Received, Receiver,
    Verdict, Watch,
};

use crate::common::{Tree, tree};

/// One step of a hand-made stream.
pub enum Step {
    Record(Record),
    Data(Vec<u8>),
}
pub use Step::Data;

pub fn folder(name: &str) -> Step {
    Step::Record(Record::Folder {
        meta: Meta::default(),
        untrusted_name: name.into(),
    })
}

pub fn file(name: &str, size: u64) -> Step {
    Step::Record(Record::File {
        meta: Meta::default(),
        untrusted_name: name.into(),
        untrusted_size: size,
    })
}

pub fn link(name: &str, target: &str) -> Step {
    Step::Record(Record::Link {
        meta: Meta::default(),
        untrusted_name: name.into(),
        untrusted_target: target.into(),
    })
}

pub fn hole(length: u64) -> Step {
    Step::Record(Record::Hole(length))
}

pub fn leave() -> Step {
    Step::Record(Record::Leave)
}

pub fn end(entries: u64, bytes: u64) -> Step {
    Step::Record(Record::End {
        untrusted_entries: entries,
        untrusted_bytes: bytes,
    })
}

pub fn manifest(entries: u64, bytes: u64, kind: Kind, name: &str) -> Manifest {
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
pub fn in_top(entries: u64, bytes: u64) -> Manifest {
    manifest(entries, bytes, Kind::Folder, "top")
}

pub fn stream(manifest: &Manifest, steps: &[Step]) -> Vec<u8> {
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
pub struct Target {
    pub dir: tempfile::TempDir,
    pub incoming: Incoming,
    pub before: Tree,
}

impl Target {
    pub fn new() -> Self {
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
    pub fn look(dir: &tempfile::TempDir) -> Tree {
        let mut tree = tree(dir.path());
        tree.remove(std::path::Path::new("Incoming/work"));
        tree
    }

    pub fn receive(&self, stream: &[u8], limits: Limits) -> Result<Received, ReceiveError> {
        let mut quiet = |_: &Progress<'_>| {};
        let mut watch = Watch::new(&mut quiet, Cancel::default());
        Receiver::new(stream, &self.incoming, limits)?.receive(&mut watch)
    }

    pub fn refuse(&self, stream: &[u8], limits: Limits) -> ReceiveError {
        let error = self.receive(stream, limits).unwrap_err();
        self.is_unchanged();
        error
    }

    pub fn is_unchanged(&self) {
        assert_eq!(Self::look(&self.dir), self.before);
    }
}

#[track_caller]
pub fn refused(manifest: &Manifest, steps: &[Step], verdict: Verdict, part: &str) {
    let error = Target::new().refuse(&stream(manifest, steps), Limits::default());
    let text = error.to_string();
    assert_eq!(error.verdict(), verdict, "{text}");
    assert!(text.contains(part), "{text}");
}

/// A small stream in which every record is.
pub fn small() -> (Manifest, Vec<Step>) {
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
