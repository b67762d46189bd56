//! What the tests of this folder share.
#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::fs;
use std::io::pipe;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bulkhead_transfer::{
    Cancel, Incoming, Limits, Progress, ReceiveError, Received, SendError, Sender, Sent, Watch,
    receive_and_answer,
};

/// What lies in a folder: for each path what it is, and its content or target, size, mode, time.
pub type Tree = BTreeMap<PathBuf, String>;

/// Describes all that is in a folder.
pub fn tree(folder: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let data = fs::symlink_metadata(&path).unwrap();
            let what = if data.is_dir() {
                left.push(path.clone());
                "folder".to_owned()
            } else if data.is_symlink() {
                format!("link to {}", fs::read_link(&path).unwrap().display())
            } else {
                let bytes = match data.len() {
                    0..10_000 => fs::read(&path).unwrap(),
                    _ => Vec::new(),
                };
                let content = bytes.escape_ascii().to_string();
                format!("file of {}: {content}", data.len())
            };
            let time = format!("{}.{:09}", data.mtime(), data.mtime_nsec());
            let name = path.strip_prefix(folder).unwrap().to_owned();
            tree.insert(name, format!("{what} at {time}"));
        }
    }
    tree
}

/// The mode bits of a path itself.
pub fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Names in a folder, as bytes, in order.
pub fn names(folder: &Path) -> Vec<Vec<u8>> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().as_bytes().to_vec())
        .collect();
    names.sort();
    names
}

/// Sends and receives through pipes, with these limits.
pub fn copy_within(
    paths: &[PathBuf],
    into: &Path,
    limits: Limits,
) -> (Result<Sent, SendError>, Result<Received, ReceiveError>) {
    let (stream_out, stream_in) = pipe().unwrap();
    let (answer_out, answer_in) = pipe().unwrap();
    let into = into.to_owned();
    let receiver = std::thread::spawn(move || {
        let incoming = Incoming::at(&into).unwrap();
        let mut quiet = |_: &Progress<'_>| {};
        let mut watch = Watch::new(&mut quiet, Cancel::default());
        receive_and_answer(stream_out, answer_in, &incoming, limits, &mut watch)
    });
    let mut quiet = |_: &Progress<'_>| {};
    let mut watch = Watch::new(&mut quiet, Cancel::default());
    let sent = match Sender::new(paths, &mut watch) {
        Ok(sender) => sender.send(stream_in, answer_out, &mut watch),
        Err(error) => {
            drop(stream_in);
            Err(error)
        }
    };
    (sent, receiver.join().unwrap())
}

/// Sends and receives, and both must be content.
pub fn copy(paths: &[PathBuf], into: &Path) -> Received {
    let (sent, received) = copy_within(paths, into, Limits::default());
    let received = received.unwrap();
    let sent = sent.unwrap();
    assert_eq!(
        (sent.entries, sent.bytes),
        (received.entries, received.bytes)
    );
    received
}
