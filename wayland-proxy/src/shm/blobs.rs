//! The host memory of one application: a set of blobs that are filled, shown, released and filled
//! again.
//!
//! A blob remembers which picture of which surface it holds. When it is filled again for the same
//! surface, only what changed *since that picture* has to be copied — not only what changed since
//! the last one, which may be in another blob.

use std::rc::Rc;

use super::Layout;
use crate::channel::HostMemory;
use crate::stats::Stats;

/// The smallest blob, and the step of the smallest sizes.
const MIN_BLOB_BYTES: usize = 16 * 1024;
/// The largest blob: what the host's end allows.
const MAX_BLOB_BYTES: usize = 256 * 1024 * 1024;
/// Free blobs beyond this many bytes are given back to the host.
pub const MAX_FREE_BYTES: usize = 64 * 1024 * 1024;

/// The size of the blob for a picture of so many bytes.
///
/// Sizes grow in steps of an eighth of their power of two: a window that is being resized reuses
/// blobs instead of asking the host for a new size at each step, and the host sees few sizes.
pub fn size_class(bytes: usize) -> Option<usize> {
    if bytes > MAX_BLOB_BYTES {
        return None;
    }
    let bytes = bytes.max(MIN_BLOB_BYTES);
    let step = (bytes.next_power_of_two() / 16).max(MIN_BLOB_BYTES);
    Some(bytes.next_multiple_of(step))
}

/// Names a blob within its [`Blobs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlobId(usize);

/// A surface's picture: the surface, and the number of its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Unique for each surface of the process's life.
    pub surface: u64,
    /// Counts the surface's pictures.
    pub serial: u64,
}

/// One piece of host memory.
#[derive(Debug)]
pub struct Blob {
    /// The memory itself.
    pub memory: Rc<HostMemory>,
    /// The `wl_shm_pool` on the host.
    pub host_pool: u32,
    /// The `wl_buffer` on the host, with its layout.
    pub host_buffer: Option<(u32, Layout)>,
    /// The compositor may be reading it.
    busy: bool,
    /// It was shown a second time before the compositor gave it back. Whether it comes back once for
    /// both, or for each, is open ("undefined" in `wl_buffer.release`); ours gives it back once, when
    /// another picture replaces it.
    again: bool,
    /// It came back while it has its surface's newest picture, perhaps only for the first time that it
    /// was shown.
    perhaps: bool,
    /// What it holds.
    holds: Option<(Picture, Layout)>,
    /// Counts uses, to find the one unused for longest.
    used: u64,
}

impl Blob {
    fn give_back(&mut self) {
        self.busy = false;
        self.again = false;
        self.perhaps = false;
    }
}

/// All blobs of an application.
#[derive(Debug)]
pub struct Blobs {
    blobs: Vec<Option<Blob>>,
    clock: u64,
    stats: Rc<Stats>,
}

/// What [`Blobs::choose`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    /// It holds an older picture of the surface, in the same layout.
    Holds(BlobId, u64),
    /// It is of the right size; everything has to be copied.
    Free(BlobId),
    /// There is none.
    None,
}

impl Blobs {
    /// No blobs yet.
    pub fn new(stats: Rc<Stats>) -> Self {
        Self {
            blobs: Vec::new(),
            clock: 0,
            stats,
        }
    }

    fn iter(&self) -> impl Iterator<Item = (BlobId, &Blob)> {
        self.blobs
            .iter()
            .enumerate()
            .filter_map(|(i, blob)| Some((BlobId(i), blob.as_ref()?)))
    }

    /// The blob of this name.
    pub fn get(&mut self, id: BlobId) -> Option<&mut Blob> {
        self.blobs.get_mut(id.0)?.as_mut()
    }

    /// Finds a blob for a surface's next picture, best first: one that holds the surface's newest
    /// picture, then one that no surface needs, then any of the right size. It is a free one, or has
    /// the picture `drawn`.
    pub fn choose(&self, surface: u64, layout: Layout, class: usize, drawn: Option<u64>) -> Choice {
        let free = || self.iter().filter(|(_, b)| !b.busy);
        let own = self
            .iter()
            .filter_map(|(id, blob)| {
                let (held, of) = blob.holds?;
                let usable = !blob.busy || Some(held.serial) == drawn;
                (usable && held.surface == surface && of == layout).then_some((held.serial, id))
            })
            .max_by_key(|(serial, _)| *serial);
        if let Some((serial, id)) = own {
            return Choice::Holds(id, serial);
        }
        let fitting = || free().filter(|(_, b)| b.memory.mapping.len() == class);
        let unneeded = fitting()
            .filter(|(_, b)| b.holds.is_none_or(|(held, _)| held.surface == surface))
            .min_by_key(|(_, b)| b.used);
        let any = || {
            fitting()
                .filter(|(_, b)| self.clock - b.used > 64)
                .min_by_key(|(_, b)| b.used)
        };
        unneeded
            .or_else(any)
            .map_or(Choice::None, |(id, _)| Choice::Free(id))
    }

    /// Adds a blob just allocated.
    pub fn insert(&mut self, memory: HostMemory, host_pool: u32) -> BlobId {
        Stats::add(&self.stats.blob_bytes, memory.mapping.len() as u64);
        Stats::add(&self.stats.blobs_allocated, 1);
        let memory = Rc::new(memory);
        let blob = Blob {
            memory,
            host_pool,
            host_buffer: None,
            busy: false,
            again: false,
            perhaps: false,
            holds: None,
            used: self.clock,
        };
        let place = self
            .blobs
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.blobs.len());
        if place == self.blobs.len() {
            self.blobs.push(None);
        }
        if let Some(slot) = self.blobs.get_mut(place) {
            *slot = Some(blob);
        }
        BlobId(place)
    }

    /// The blob now holds this picture and is with the compositor.
    pub fn show(&mut self, id: BlobId, picture: Picture, layout: Layout) {
        self.clock += 1;
        let clock = self.clock;
        let holds = |b: &Blob| {
            b.holds
                .is_some_and(|(held, _)| held.surface == picture.surface)
        };
        for (place, blob) in self.blobs.iter_mut().enumerate() {
            let Some(blob) = blob else { continue };
            if place == id.0 {
                blob.again = blob.busy;
                blob.perhaps = false;
                blob.busy = true;
                blob.holds = Some((picture, layout));
                blob.used = clock;
            } else if blob.perhaps && holds(blob) {
                // Replaced now, so what came back was the last of it, or the last is about to come.
                blob.give_back();
            }
        }
    }

    /// The compositor is done with a buffer. `false` when no blob has it.
    pub fn release(&mut self, host_buffer: u32) -> bool {
        let newest = |of: Picture| {
            let mut pictures = self.iter().filter_map(|(_, b)| b.holds);
            !pictures.any(|(held, _)| held.surface == of.surface && held.serial > of.serial)
        };
        let has = |b: &Blob| b.host_buffer.is_some_and(|(id, _)| id == host_buffer);
        let found = self.iter().find(|(_, b)| has(b));
        let Some((id, unclear)) =
            found.map(|(id, b)| (id, b.again && b.holds.is_some_and(|(held, _)| newest(held))))
        else {
            return false;
        };
        if let Some(blob) = self.get(id) {
            if unclear {
                blob.perhaps = true;
            } else {
                blob.give_back();
            }
        }
        true
    }

    /// A surface is gone: its blobs are for anyone.
    pub fn forget_surface(&mut self, surface: u64) {
        for blob in self.blobs.iter_mut().flatten() {
            if blob.holds.is_some_and(|(held, _)| held.surface == surface) {
                blob.holds = None;
                if blob.perhaps {
                    blob.give_back();
                }
            }
        }
    }

    /// How many of a surface's pictures are with the compositor.
    pub fn busy_for(&self, surface: u64) -> usize {
        let mine = |b: &Blob| b.busy && b.holds.is_some_and(|(held, _)| held.surface == surface);
        self.iter().filter(|(_, b)| mine(b)).count()
    }

    /// Bytes of all blobs.
    pub fn total_bytes(&self) -> usize {
        self.iter().map(|(_, b)| b.memory.mapping.len()).sum()
    }

    /// Takes out free blobs, longest unused first, while the free ones are more than a reserve
    /// (or `all` of them).
    pub fn trim(&mut self, all: bool) -> Vec<Blob> {
        let mut taken = Vec::new();
        let free = |blobs: &Self| -> usize {
            blobs
                .iter()
                .filter(|(_, b)| !b.busy)
                .map(|(_, b)| b.memory.mapping.len())
                .sum()
        };
        let reserve = if all { 0 } else { MAX_FREE_BYTES };
        while free(self) > reserve {
            let oldest = self
                .iter()
                .filter(|(_, b)| !b.busy)
                .min_by_key(|(_, b)| b.used);
            let Some((BlobId(place), _)) = oldest else {
                break;
            };
            if let Some(blob) = self.blobs.get_mut(place).and_then(Option::take) {
                Stats::sub(&self.stats.blob_bytes, blob.memory.mapping.len() as u64);
                taken.push(blob);
            }
        }
        taken
    }
}

impl Drop for Blobs {
    fn drop(&mut self) {
        Stats::sub(&self.stats.blob_bytes, self.total_bytes() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_are_few_and_fit() {
        let mut classes = std::collections::BTreeSet::new();
        for bytes in (1..MAX_BLOB_BYTES).step_by(4093) {
            let class = size_class(bytes).unwrap();
            assert!(class >= bytes && class.is_multiple_of(MIN_BLOB_BYTES));
            assert!(class <= MIN_BLOB_BYTES.max(bytes + bytes / 4 + MIN_BLOB_BYTES));
            classes.insert(class);
        }
        assert!(classes.len() < 200, "{}", classes.len());
        assert_eq!(size_class(MAX_BLOB_BYTES), Some(MAX_BLOB_BYTES));
        assert_eq!(size_class(MAX_BLOB_BYTES + 1), None);
    }
}
