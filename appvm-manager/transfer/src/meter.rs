//! A line of progress for a person at a terminal.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use crate::format::MAX_NAME;
use crate::names;
use crate::watch::Progress;

const BETWEEN: Duration = Duration::from_millis(100);
/// Characters of a name.
const NAME: usize = 40;

/// Shows progress on the error stream if that is a terminal, at most ten times a second.
#[derive(Debug)]
pub struct Meter {
    last: Option<Instant>,
    shown: bool,
    is_terminal: bool,
}

impl Default for Meter {
    fn default() -> Self {
        Meter {
            last: None,
            shown: false,
            is_terminal: stderr().is_terminal(),
        }
    }
}

impl Meter {
    /// Shows it, if it is time.
    pub fn show(&mut self, progress: &Progress<'_>) {
        if !self.is_terminal || self.last.is_some_and(|last| last.elapsed() < BETWEEN) {
            return;
        }
        self.last = Some(Instant::now());
        self.shown = true;
        let _ = write!(stderr(), "\r\x1b[K{}", line(progress));
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

fn line(progress: &Progress<'_>) -> String {
    let name: String = names::printable(progress.name.as_bytes(), MAX_NAME * 4)
        .chars()
        .take(NAME)
        .collect();
    let (bytes, entries) = (size(progress.bytes), progress.entries);
    if progress.entries_in_all == 0 {
        return format!("counting: {entries} entries, {bytes}  {name}");
    }
    let in_all = size(progress.bytes_in_all);
    let entries_in_all = progress.entries_in_all;
    format!("{bytes} of {in_all}, {entries} of {entries_in_all} entries  {name}")
}

/// A size for a person: `17 B`, `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10 / 1024;
    for unit in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if tenths < 10_240 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
        tenths /= 1024;
    }
    format!("{} EiB", tenths / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (10 << 30, "10.0 GiB"),
            (u64::MAX, "15 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_line_shows_what_it_is() {
        let progress = Progress {
            bytes: 1024,
            entries: 3,
            bytes_in_all: 2048,
            entries_in_all: 4,
            name: "a\x1bb",
        };
        assert_eq!(
            line(&progress),
            "1.0 KiB of 2.0 KiB, 3 of 4 entries  a\\x1bb"
        );
    }
}
