//! What is counted of a port.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::reason::Reason;

const REASONS: usize = Reason::ALL.len();

/// Frames and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counter {
    /// How many.
    pub frames: u64,
    /// How much, without the headers of the cards.
    pub bytes: u64,
}

impl Counter {
    /// One more.
    pub fn add(&mut self, frame_bytes: usize) {
        self.frames = self.frames.saturating_add(1);
        self.bytes = self.bytes.saturating_add(frame_bytes as u64);
    }
}

/// What came from a port, what went to it, and what did not.
///
/// What came is what was passed on or refused. What was passed on to a port has gone to it, waits
/// for it or was lost.
#[derive(Debug, Clone)]
pub struct Stats {
    /// All that came, refused or not.
    pub received: Counter,
    /// All that went.
    pub sent: Counter,
    refused: [u64; REASONS],
    lost: [u64; REASONS],
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            received: Counter::default(),
            sent: Counter::default(),
            refused: [0; REASONS],
            lost: [0; REASONS],
        }
    }
}

impl Stats {
    /// A frame from the port is not passed on.
    pub fn refuse(&mut self, reason: Reason) {
        count(&mut self.refused, reason);
    }

    /// A frame for the port is dropped.
    pub fn lose(&mut self, reason: Reason) {
        count(&mut self.lost, reason);
    }

    /// What was refused, by reason, where there was any.
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        by_reason(&self.refused)
    }

    /// What was lost, by reason, where there was any.
    pub fn lost(&self) -> BTreeMap<&'static str, u64> {
        by_reason(&self.lost)
    }
}

fn count(counts: &mut [u64; REASONS], reason: Reason) {
    if let Some(count) = counts.get_mut(reason as usize) {
        *count = count.saturating_add(1);
    }
}

fn by_reason(counts: &[u64; REASONS]) -> BTreeMap<&'static str, u64> {
    let all = Reason::ALL.iter().zip(counts);
    all.filter(|(_, count)| **count > 0)
        .map(|(reason, count)| (reason.name(), *count))
        .collect()
}
