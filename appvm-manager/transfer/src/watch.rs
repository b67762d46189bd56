//! Watching a transfer, and stopping it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress<'a> {
    /// Bytes so far, holes included.
    pub bytes: u64,
    /// Folders, files and links so far.
    pub entries: u64,
    /// Bytes in all; 0 while they are being counted.
    pub bytes_in_all: u64,
    /// Entries in all; 0 while they are being counted.
    pub entries_in_all: u64,
    /// What it is at, as [`crate::names::visible`] shows it.
    pub name: &'a str,
}

/// Stops a transfer from another thread; it is looked at before each record. A transfer that waits
/// for the other side notices when something comes or when the stream is closed.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Stops it.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was stopped.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a transfer is given to report to and to be stopped by.
pub struct Watch<'a> {
    report: &'a mut dyn FnMut(&Progress<'_>),
    cancel: Cancel,
}

impl<'a> Watch<'a> {
    /// Calls this for every entry and every piece of data.
    pub fn new(report: &'a mut dyn FnMut(&Progress<'_>), cancel: Cancel) -> Self {
        Watch { report, cancel }
    }

    /// Whether to stop.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    pub(crate) fn report(&mut self, progress: &Progress<'_>) {
        (self.report)(progress);
    }
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("cancel", &self.cancel)
            .finish_non_exhaustive()
    }
}
