//! What all applications of the process share.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use crate::memory;
use crate::stats::Stats;

/// The largest keymap that is relayed; real ones have 30 to 70 KiB.
const MAX_KEYMAP_BYTES: u32 = 4 * 1024 * 1024;
/// Keymaps remembered: layouts that a user switches between.
const MAX_KEYMAPS: usize = 8;

/// Shared by all applications.
#[derive(Debug)]
pub struct Shared {
    /// The counters.
    pub stats: Rc<Stats>,
    /// The keymaps.
    pub keymaps: Keymaps,
    /// Pastes from one application of this process to another.
    pub pastes: Pastes,
    last_key: Cell<u64>,
}

impl Shared {
    /// Nothing shared yet.
    pub fn new() -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            stats: Rc::default(),
            keymaps: Keymaps::default(),
            pastes: Pastes::new()?,
            last_key: Cell::new(0),
        }))
    }

    /// A number that no other thing of this process has.
    pub fn next_key(&self) -> u64 {
        self.last_key.set(self.last_key.get() + 1);
        self.last_key.get()
    }
}

/// Keymaps as sealed files: one file for all keyboards of all applications that get the same.
#[derive(Debug, Default)]
pub struct Keymaps {
    known: RefCell<VecDeque<(Vec<u8>, OwnedFd)>>,
}

impl Keymaps {
    /// Whether a keymap of this size is looked at.
    pub fn size_is_sane(&self, size_bytes: u32) -> bool {
        (1..=MAX_KEYMAP_BYTES).contains(&size_bytes)
    }

    /// A descriptor of a sealed file with this keymap.
    pub fn file(&self, keymap: &[u8]) -> io::Result<OwnedFd> {
        let mut known = self.known.borrow_mut();
        if let Some((_, file)) = known.iter().find(|(bytes, _)| bytes == keymap) {
            return file.try_clone();
        }
        let file = memory::sealed_memfd("bulkhead-keymap", keymap)?;
        known.truncate(MAX_KEYMAPS - 1);
        known.push_front((keymap.to_vec(), file.try_clone()?));
        Ok(file)
    }
}

/// Names a data source of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceKey {
    /// The application's key.
    pub client: u64,
    /// The application's id of the source.
    pub object: u32,
    /// Ids are used again; this number is not.
    pub serial: u64,
}

/// A descriptor on its way from the application that pastes to the one that copied.
#[derive(Debug)]
pub struct Paste {
    /// The source that is to write.
    pub source: SourceKey,
    /// The type of the data.
    pub mime: Vec<u8>,
    /// Where to write it.
    pub fd: OwnedFd,
}

/// What every marker type begins with, whoever made it.
const MARKER: &str = "application/x-bulkhead-source;";

/// Pastes that need not leave the guest.
#[derive(Debug)]
pub struct Pastes {
    /// Markers with this secret are from this process.
    prefix: String,
    living: RefCell<HashSet<SourceKey>>,
    waiting: RefCell<VecDeque<Paste>>,
}

impl Pastes {
    fn new() -> io::Result<Self> {
        let mut secret = [0u8; 16];
        let mut file = std::fs::File::open("/dev/urandom")?;
        io::Read::read_exact(&mut file, &mut secret)?;
        let prefix = format!("{MARKER}{:032x};", u128::from_ne_bytes(secret));
        Ok(Self {
            prefix,
            living: RefCell::default(),
            waiting: RefCell::default(),
        })
    }

    /// Whether a type is a marker, of this process or of any other.
    pub fn is_marker(&self, mime: &[u8]) -> bool {
        mime.starts_with(MARKER.as_bytes())
    }

    /// Adds a source and gives its marker.
    pub fn add(&self, source: SourceKey) -> String {
        self.living.borrow_mut().insert(source);
        format!(
            "{}{};{};{}",
            self.prefix, source.client, source.object, source.serial
        )
    }

    /// The source is gone or is no longer the selection.
    pub fn remove(&self, source: SourceKey) {
        self.living.borrow_mut().remove(&source);
    }

    /// An application is gone with all its sources.
    pub fn remove_client(&self, client: u64) {
        self.living
            .borrow_mut()
            .retain(|source| source.client != client);
    }

    /// The living source of this process that a marker names.
    pub fn find(&self, untrusted_marker: &[u8]) -> Option<SourceKey> {
        let text = std::str::from_utf8(untrusted_marker)
            .ok()?
            .strip_prefix(&self.prefix)?;
        let mut numbers = text.split(';');
        let source = SourceKey {
            client: numbers.next()?.parse().ok()?,
            object: numbers.next()?.parse().ok()?,
            serial: numbers.next()?.parse().ok()?,
        };
        self.is_living(source).then_some(source)
    }

    /// Whether the source can still be asked.
    pub fn is_living(&self, source: SourceKey) -> bool {
        self.living.borrow().contains(&source)
    }

    /// Leaves a descriptor for the application that has the source.
    pub fn push(&self, paste: Paste) {
        self.waiting.borrow_mut().push_back(paste);
    }

    /// The next descriptor to be handed over.
    pub fn pop(&self) -> Option<Paste> {
        self.waiting.borrow_mut().pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_markers_of_living_sources_of_this_process_are_found() {
        let ours = Pastes::new().unwrap();
        let other = Pastes::new().unwrap();
        let source = SourceKey {
            client: 1,
            object: 7,
            serial: 9,
        };
        let marker = ours.add(source);
        assert_eq!(ours.find(marker.as_bytes()), Some(source));
        assert_eq!(other.find(marker.as_bytes()), None);
        assert!(other.is_marker(marker.as_bytes()));
        assert!(!ours.is_marker(b"text/plain"));
        assert_eq!(ours.find(&marker.as_bytes()[..marker.len() - 1]), None);
        ours.remove(source);
        assert_eq!(ours.find(marker.as_bytes()), None);
    }

    #[test]
    fn the_same_keymap_is_the_same_file() {
        let keymaps = Keymaps::default();
        let inode = |file: OwnedFd| rustix::fs::fstat(&file).unwrap().st_ino;
        let first = inode(keymaps.file(b"one").unwrap());
        assert_ne!(inode(keymaps.file(b"two").unwrap()), first);
        assert_eq!(inode(keymaps.file(b"one").unwrap()), first);
    }
}
