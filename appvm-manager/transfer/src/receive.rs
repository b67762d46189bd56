//! The receiver: takes a stream that anybody may have written, and puts files into a folder.
//!
//! All that it makes lies in a temporary folder inside of the incoming one, which only this user may
//! enter, until the stream has ended and everything in it was found to be as announced. Then the
//! disk is told to keep it, and each name at the top is moved to its place; a name that exists is
//! never replaced. On every other way out, a panic included, the temporary folder is removed. Of a
//! receiver that was killed, [`clean_up_partial`] removes it.
//!
//! Each file and folder is made by one name in one open folder that this receiver made itself, and
//! must not exist before (`O_EXCL`, `mkdirat`): there is no path in which a link could stand.

mod error;
mod file;
mod incoming;
mod ledger;
mod partial;
mod remove;
mod tree;

use std::ffi::OsString;
use std::io::{Read, Write};

use crate::format::{Kind, Manifest, Meta, Record, Status, StreamReader, Verdict};
use crate::limits::Limits;
use crate::watch::Watch;
use file::OpenFile;
use ledger::Ledger;
use partial::Partial;
use tree::Tree;

pub use error::ReceiveError;
pub use incoming::Incoming;
pub use partial::clean_up_partial;

/// What was received, and is in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Folders, files and links.
    pub entries: u64,
    /// The sizes of all files, in bytes.
    pub bytes: u64,
    /// Under which names they are in the incoming folder now, in the sender's order.
    pub names: Vec<OsString>,
}

/// A stream whose manifest was read and accepted. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Receiver<'a, R: Read> {
    stream: StreamReader<R>,
    manifest: Manifest,
    limits: Limits,
    into: &'a Incoming,
    done: (u64, u64),
}

impl<'a, R: Read> Receiver<'a, R> {
    /// Reads the manifest, and refuses what is beyond the limits. Nothing is written yet.
    pub fn new(stream: R, into: &'a Incoming, limits: Limits) -> Result<Self, ReceiveError> {
        let (stream, manifest) = StreamReader::new(stream)?;
        ledger::check_manifest(&manifest, &limits)?;
        Ok(Receiver {
            stream,
            manifest,
            limits,
            into,
            done: (0, 0),
        })
    }

    /// What the sender announced.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Entries and bytes so far.
    pub fn done(&self) -> (u64, u64) {
        self.done
    }

    /// Takes everything and puts it into place. After an error there is nothing more to take.
    pub fn receive(&mut self, watch: &mut Watch<'_>) -> Result<Received, ReceiveError> {
        let partial = Partial::new(self.into)?;
        let mut tree = Tree::new(partial, &self.limits)?;
        let mut ledger = Ledger::new(&self.manifest, &self.limits);
        loop {
            if watch.is_cancelled() {
                return Err(ReceiveError::Cancelled);
            }
            self.done = ledger.done();
            match self.stream.record()? {
                Record::Folder {
                    meta,
                    untrusted_name,
                } => {
                    ledger.entry(tree.folders(), Kind::Folder, &untrusted_name)?;
                    let name = tree.enter(&untrusted_name, meta)?;
                    watch.report(&ledger.progress(&name, 0));
                }
                Record::File {
                    meta,
                    untrusted_name,
                    untrusted_size,
                } => {
                    ledger.entry(tree.folders(), Kind::File, &untrusted_name)?;
                    let size = ledger.size(untrusted_size)?;
                    let file = tree.file(&untrusted_name, size)?;
                    receive_file(&mut self.stream, file, meta, &ledger, watch)?;
                }
                Record::Link {
                    meta,
                    untrusted_name,
                    untrusted_target,
                } => {
                    ledger.entry(tree.folders(), Kind::File, &untrusted_name)?;
                    let name = tree.link(&untrusted_name, &untrusted_target, meta)?;
                    watch.report(&ledger.progress(&name, 0));
                }
                Record::Leave => tree.leave()?,
                Record::End {
                    untrusted_entries,
                    untrusted_bytes,
                } => {
                    ledger.end(tree.folders(), untrusted_entries, untrusted_bytes)?;
                    break;
                }
                Record::Abort { untrusted_message } => {
                    return Err(ReceiveError::aborted(&untrusted_message));
                }
                Record::Data(_) | Record::Hole(_) => {
                    return Err(ReceiveError::Untrue {
                        what: "bytes came that belong to no file",
                    });
                }
            }
        }
        let (entries, bytes) = ledger.done();
        self.done = (entries, bytes);
        Ok(Received {
            entries,
            bytes,
            names: tree.put_into_place()?,
        })
    }
}

/// Takes one file's bytes.
fn receive_file<R: Read>(
    stream: &mut StreamReader<R>,
    mut file: OpenFile<'_>,
    meta: Meta,
    ledger: &Ledger<'_>,
    watch: &mut Watch<'_>,
) -> Result<(), ReceiveError> {
    let name = file.name().to_owned();
    watch.report(&ledger.progress(&name, file.left()));
    while file.left() > 0 {
        if watch.is_cancelled() {
            return Err(ReceiveError::Cancelled);
        }
        match stream.record()? {
            Record::Data(length) => {
                file.room_for(length as u64)?;
                file.data(stream.data()?)?;
            }
            Record::Hole(untrusted_length) => file.hole(untrusted_length)?,
            Record::Abort { untrusted_message } => {
                return Err(ReceiveError::aborted(&untrusted_message));
            }
            _ => {
                return Err(ReceiveError::Untrue {
                    what: "a file is shorter than it was said to be",
                });
            }
        }
        watch.report(&ledger.progress(&name, file.left()));
    }
    file.finish(meta)
}

/// Receives a stream, and answers its sender. If the answer does not get through, the files are in
/// place all the same.
pub fn receive_and_answer(
    stream: impl Read,
    answer: impl Write,
    into: &Incoming,
    limits: Limits,
    watch: &mut Watch<'_>,
) -> Result<Received, ReceiveError> {
    let mut done = (0, 0);
    let result = Receiver::new(stream, into, limits).and_then(|mut receiver| {
        let result = receiver.receive(watch);
        done = receiver.done();
        result
    });
    let (entries, bytes) = done;
    let status = match &result {
        Ok(_) => Status {
            verdict: Verdict::Received,
            entries,
            bytes,
            message: String::new(),
        },
        Err(error) => error.status(entries, bytes),
    };
    let answered = status.write(answer);
    match (result, answered) {
        (Ok(received), Err(source)) => Err(ReceiveError::Unanswered { received, source }),
        (result, _) => result,
    }
}
