//! What has come, against what was announced and what is allowed.

use super::ReceiveError;
use crate::format::{Item, Kind, Manifest};
use crate::limits::{Limits, MAX_DEPTH};
use crate::watch::Progress;

/// Whether what is announced is within the limits.
pub(super) fn check_manifest(manifest: &Manifest, limits: &Limits) -> Result<(), ReceiveError> {
    limit("bytes", manifest.bytes, limits.bytes)?;
    limit("entries", manifest.entries, limits.entries)?;
    let top_level = u64::from(manifest.top_level);
    limit("names at the top", top_level, limits.top_level.into())
}

fn limit(what: &'static str, found: u64, most: u64) -> Result<(), ReceiveError> {
    if found > most {
        return Err(ReceiveError::Limit { what, found, most });
    }
    Ok(())
}

#[derive(Debug)]
pub(super) struct Ledger<'a> {
    manifest: &'a Manifest,
    limits: &'a Limits,
    entries: u64,
    bytes: u64,
    at_top: usize,
    /// The entry at the top that is being received, if it is described, and the bytes before it.
    item: Option<(&'a Item, u64)>,
}

impl<'a> Ledger<'a> {
    pub fn new(manifest: &'a Manifest, limits: &'a Limits) -> Self {
        Ledger {
            manifest,
            limits,
            entries: 0,
            bytes: 0,
            at_top: 0,
            item: None,
        }
    }

    /// Entries and bytes; a file counts when it begins.
    pub fn done(&self) -> (u64, u64) {
        (self.entries, self.bytes)
    }

    /// For whoever watches; so many bytes of the last file are still to come.
    pub fn progress<'n>(&self, name: &'n str, left: u64) -> Progress<'n> {
        Progress {
            bytes: self.bytes.saturating_sub(left),
            entries: self.entries,
            bytes_in_all: self.manifest.bytes,
            entries_in_all: self.manifest.entries,
            name,
        }
    }

    /// One more entry, inside of so many folders.
    pub fn entry(
        &mut self,
        folders: usize,
        kind: Kind,
        untrusted_name: &[u8],
    ) -> Result<(), ReceiveError> {
        if self.entries >= self.manifest.entries {
            return Err(untrue("more entries came than were announced"));
        }
        self.entries = self.entries.saturating_add(1);
        let depth = self.limits.depth.min(MAX_DEPTH);
        if kind == Kind::Folder && folders >= depth {
            return Err(ReceiveError::Limit {
                what: "folders in each other",
                found: (folders as u64).saturating_add(1),
                most: depth as u64,
            });
        }
        if folders == 0 {
            self.begin(kind, untrusted_name)?;
        }
        Ok(())
    }

    fn begin(&mut self, kind: Kind, untrusted_name: &[u8]) -> Result<(), ReceiveError> {
        self.finish_item()?;
        if self.at_top as u64 >= u64::from(self.manifest.top_level) {
            return Err(untrue("more names came than were announced"));
        }
        if let Some(item) = self.manifest.shown.get(self.at_top) {
            if item.name != untrusted_name || item.kind != kind {
                return Err(untrue("another name came than was announced"));
            }
            self.item = Some((item, self.bytes));
        }
        self.at_top = self.at_top.saturating_add(1);
        Ok(())
    }

    /// A file's size.
    pub fn size(&mut self, untrusted_size: u64) -> Result<u64, ReceiveError> {
        limit("bytes in one file", untrusted_size, self.limits.file_bytes)?;
        self.bytes = self
            .bytes
            .checked_add(untrusted_size)
            .filter(|bytes| *bytes <= self.manifest.bytes)
            .ok_or(untrue("more bytes came than were announced"))?;
        Ok(untrusted_size)
    }

    /// The end mark, inside of so many folders.
    pub fn end(
        &mut self,
        folders: usize,
        untrusted_entries: u64,
        untrusted_bytes: u64,
    ) -> Result<(), ReceiveError> {
        if folders > 0 {
            return Err(untrue("the end came inside of a folder"));
        }
        self.finish_item()?;
        if self.at_top as u64 != u64::from(self.manifest.top_level) {
            return Err(untrue("fewer names came than were announced"));
        }
        if self.entries != self.manifest.entries || untrusted_entries != self.entries {
            return Err(untrue("fewer entries came than were announced"));
        }
        if self.bytes != self.manifest.bytes || untrusted_bytes != self.bytes {
            return Err(untrue("fewer bytes came than were announced"));
        }
        Ok(())
    }

    fn finish_item(&mut self) -> Result<(), ReceiveError> {
        match self.item.take() {
            Some((item, before)) if self.bytes.saturating_sub(before) != item.bytes => Err(untrue(
                "a name at the top has another size than was announced",
            )),
            _ => Ok(()),
        }
    }
}

fn untrue(what: &'static str) -> ReceiveError {
    ReceiveError::Untrue { what }
}
