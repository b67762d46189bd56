//! The sender: what the user named, as one stream.
//!
//! It goes over everything twice: once to count, so that the manifest can be at the beginning, and
//! once to send. What is no folder, file or inner link is found by the first, before a byte is sent.
//! If something changes between the two, or while it is read, the transfer is given up with an
//! error that names it: half of the old and half of the new helps nobody. No link is followed, and
//! memory does not grow with the number of files.

mod contents;
mod error;
mod walk;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::Stat;

use crate::format::manifest::shown_of;
use crate::format::{Item, Kind, Manifest, Meta, Record, Status, StreamWriter, Verdict};
use crate::names;
use crate::watch::{Progress, Watch};
use contents::Buffer;
use walk::{Place, Visitor};

pub use error::SendError;

/// What was sent, and is now at the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Folders, files and links.
    pub entries: u64,
    /// The sizes of all files, in bytes.
    pub bytes: u64,
}

/// Files that were counted and can be sent.
#[derive(Debug)]
pub struct Sender {
    selection: Vec<Selected>,
    manifest: Manifest,
}

#[derive(Debug)]
struct Selected {
    path: PathBuf,
    kind: Kind,
    entries: u64,
    bytes: u64,
}

impl Sender {
    /// Counts what is at these paths. Fails with the first thing that cannot be sent.
    pub fn new(paths: &[PathBuf], watch: &mut Watch<'_>) -> Result<Self, SendError> {
        let top_level = u32::try_from(paths.len()).unwrap_or(u32::MAX);
        if top_level == 0 {
            return Err(SendError::Nothing);
        }
        let mut names = HashSet::new();
        let mut count = Count::default();
        let mut selection = Vec::new();
        let mut shown = Vec::new();
        for path in paths {
            let name = walk::last_name(path)?;
            if !names.insert(name) {
                return Err(SendError::SameName { path: path.clone() });
            }
            let before = (count.entries, count.bytes);
            let kind = walk::walk(path, &mut count, watch)?;
            let selected = Selected {
                path: path.clone(),
                kind,
                entries: count.entries.saturating_sub(before.0),
                bytes: count.bytes.saturating_sub(before.1),
            };
            if shown.len() < shown_of(top_level) {
                shown.push(Item {
                    kind,
                    bytes: selected.bytes,
                    name: name.as_bytes().to_vec(),
                });
            }
            selection.push(selected);
        }
        Ok(Sender {
            selection,
            manifest: Manifest {
                entries: count.entries,
                bytes: count.bytes,
                top_level,
                shown,
            },
        })
    }

    /// What will be announced.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Sends everything, then waits for the receiver's answer.
    pub fn send(
        &self,
        stream: impl Write,
        answer: impl Read,
        watch: &mut Watch<'_>,
    ) -> Result<Sent, SendError> {
        match self.write(stream, watch) {
            Ok(()) => {}
            // A receiver that refuses answers before it goes away.
            Err(error) if error.is_broken_pipe() => {
                let status = Status::read(answer).map_err(|_| error)?;
                return Err(SendError::refused(status));
            }
            Err(error) => return Err(error),
        }
        let status = Status::read(answer).map_err(SendError::Answer)?;
        if status.verdict != Verdict::Received {
            return Err(SendError::refused(status));
        }
        Ok(Sent {
            entries: self.manifest.entries,
            bytes: self.manifest.bytes,
        })
    }

    /// Writes the stream and asks for no answer.
    pub fn write(&self, stream: impl Write, watch: &mut Watch<'_>) -> Result<(), SendError> {
        let mut writer = StreamWriter::new(stream, &self.manifest)?;
        let written = self.write_all(&mut writer, watch);
        if let Err(error) = &written
            && !error.is_stream()
        {
            // The other side then knows that nothing more comes; our own error says more.
            let _ = writer.record(&Record::Abort {
                untrusted_message: error.for_the_receiver().into(),
            });
        }
        written
    }

    fn write_all<W: Write>(
        &self,
        writer: &mut StreamWriter<W>,
        watch: &mut Watch<'_>,
    ) -> Result<(), SendError> {
        let mut send = Sending {
            writer,
            manifest: &self.manifest,
            buffer: Buffer::new(),
            entries: 0,
            bytes: 0,
        };
        for selected in &self.selection {
            let before = (send.entries, send.bytes);
            let kind = walk::walk(&selected.path, &mut send, watch)?;
            let entries = send.entries.saturating_sub(before.0);
            let bytes = send.bytes.saturating_sub(before.1);
            if (kind, entries, bytes) != (selected.kind, selected.entries, selected.bytes) {
                return Err(SendError::Changed {
                    path: selected.path.clone(),
                });
            }
        }
        send.writer.record(&Record::End {
            untrusted_entries: self.manifest.entries,
            untrusted_bytes: self.manifest.bytes,
        })?;
        Ok(())
    }
}

/// The first time: counts.
#[derive(Default)]
struct Count {
    entries: u64,
    bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: u64, place: &Place<'_>, watch: &mut Watch<'_>) {
        self.entries = self.entries.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        watch.report(&Progress {
            bytes: self.bytes,
            entries: self.entries,
            name: &place.shown_name(),
            ..Progress::default()
        });
    }
}

impl Visitor for Count {
    fn enter(&mut self, _: &Stat, place: &Place<'_>, w: &mut Watch<'_>) -> Result<(), SendError> {
        self.add(0, place, w);
        Ok(())
    }

    fn leave(&mut self) -> Result<(), SendError> {
        Ok(())
    }

    fn file(
        &mut self,
        _: BorrowedFd<'_>,
        data: &Stat,
        place: &Place<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<(), SendError> {
        self.add(contents::size(data), place, watch);
        Ok(())
    }

    fn link(
        &mut self,
        _: &Stat,
        _: &OsStr,
        place: &Place<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<(), SendError> {
        self.add(0, place, watch);
        Ok(())
    }
}

/// The second time: sends.
struct Sending<'a, W: Write> {
    writer: &'a mut StreamWriter<W>,
    manifest: &'a Manifest,
    buffer: Buffer,
    entries: u64,
    bytes: u64,
}

impl<W: Write> Sending<'_, W> {
    fn entry(&mut self, place: &Place<'_>, watch: &mut Watch<'_>) -> String {
        self.entries = self.entries.saturating_add(1);
        let name = place.shown_name();
        watch.report(&self.progress(&name));
        name
    }

    fn progress<'n>(&self, name: &'n str) -> Progress<'n> {
        Progress {
            bytes: self.bytes,
            entries: self.entries,
            bytes_in_all: self.manifest.bytes,
            entries_in_all: self.manifest.entries,
            name,
        }
    }
}

impl<W: Write> Visitor for Sending<'_, W> {
    fn enter(
        &mut self,
        data: &Stat,
        place: &Place<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<(), SendError> {
        self.entry(place, watch);
        Ok(self.writer.record(&Record::Folder {
            meta: meta(data),
            untrusted_name: place.name.as_bytes().to_vec(),
        })?)
    }

    fn leave(&mut self) -> Result<(), SendError> {
        Ok(self.writer.record(&Record::Leave)?)
    }

    fn file(
        &mut self,
        folder: BorrowedFd<'_>,
        _: &Stat,
        place: &Place<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<(), SendError> {
        let name = self.entry(place, watch);
        let file = contents::open(folder, place)?;
        let size = contents::size(&file.data);
        self.writer.record(&Record::File {
            meta: meta(&file.data),
            untrusted_name: place.name.as_bytes().to_vec(),
            untrusted_size: size,
        })?;
        // The buffer is lent out, because the rest of `self` is used at each piece.
        let mut buffer = std::mem::take(&mut self.buffer);
        let sent = file.send(place, &mut buffer, |piece| {
            if watch.is_cancelled() {
                return Err(SendError::Cancelled);
            }
            self.bytes = self.bytes.saturating_add(piece.length());
            match piece {
                contents::Piece::Data(bytes) => self.writer.data(bytes)?,
                contents::Piece::Hole(length) => self.writer.record(&Record::Hole(length))?,
            }
            watch.report(&self.progress(&name));
            Ok(())
        });
        self.buffer = buffer;
        sent
    }

    fn link(
        &mut self,
        data: &Stat,
        target: &OsStr,
        place: &Place<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<(), SendError> {
        self.entry(place, watch);
        Ok(self.writer.record(&Record::Link {
            meta: meta(data),
            untrusted_name: place.name.as_bytes().to_vec(),
            untrusted_target: target.as_bytes().to_vec(),
        })?)
    }
}

fn meta(data: &Stat) -> Meta {
    Meta {
        mode: u16::try_from(data.st_mode & 0o777).unwrap_or(0),
        seconds: data.st_mtime,
        nanoseconds: u32::try_from(data.st_mtime_nsec)
            .ok()
            .filter(|nanoseconds| *nanoseconds < 1_000_000_000)
            .unwrap_or(0),
    }
}

/// A path as it is shown in errors.
fn shown(path: &Path) -> String {
    names::visible(path.as_os_str().as_bytes())
}
