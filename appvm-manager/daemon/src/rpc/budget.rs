//! How much of the log and of the user's attention one domain may take.
//!
//! A guest may call as often as it likes. If each call were a line and a notice, a flood would push
//! everything else out of the log and off the screen.

use std::time::{Duration, Instant};

/// The time that the numbers below are for.
const WINDOW: Duration = Duration::from_secs(60);
/// Lines of the log.
const LINES: u32 = 100;
/// Between two notices.
const NOTICE_GAP: Duration = Duration::from_secs(1);

/// One domain's budget.
#[derive(Debug)]
pub(super) struct Budget {
    since: Instant,
    lines: u32,
    left_out: u64,
    last_notice: Option<Instant>,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Budget {
            since: now,
            lines: 0,
            left_out: 0,
            last_notice: None,
        }
    }

    /// Whether there is a line for it, and how many calls before it had none.
    pub(super) fn line(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= WINDOW {
            self.since = now;
            self.lines = 0;
        }
        if self.lines >= LINES {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }

    /// Whether the user may be told of it.
    pub(super) fn notice(&mut self, now: Instant) -> bool {
        let fine = self
            .last_notice
            .is_none_or(|last| now.saturating_duration_since(last) >= NOTICE_GAP);
        if fine {
            self.last_notice = Some(now);
        }
        fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_costs_a_few_lines_and_says_how_much_it_was() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let lines = (0..1000).filter(|_| budget.line(start).is_some()).count();
        assert_eq!(lines, 100);
        assert_eq!(budget.line(start + WINDOW), Some(900));
        assert_eq!(budget.line(start + WINDOW), Some(0));
    }

    #[test]
    fn notices_keep_apart() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert!(budget.notice(start));
        assert!(!budget.notice(start + NOTICE_GAP / 2));
        assert!(budget.notice(start + NOTICE_GAP));
    }
}
