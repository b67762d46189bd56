//! How fast a client may be: a bucket of tokens, one a byte.
//!
//! A packet may go as soon as there is a token; it then takes what it costs, into debt if need be.
//! So nobody has to know what the next packet costs before it is read.

use std::time::{Duration, Instant};

/// The least rate, in bytes a second: an old modem's.
pub const MIN_RATE: u64 = 1_000;
/// The greatest one.
pub const MAX_RATE: u64 = 1_000_000_000_000;
/// What may go at once after a pause: two of the longest packets, or an eighth of a second.
const MIN_BURST: u64 = 128 * 1024;
const NANOS: u128 = 1_000_000_000;

/// A bucket.
#[derive(Debug)]
pub struct Bucket {
    rate: u64,
    burst: i64,
    tokens: i64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket for so many bytes a second.
    pub fn new(rate: u64, now: Instant) -> Self {
        let rate = rate.clamp(MIN_RATE, MAX_RATE);
        let burst = i64::try_from((rate / 8).max(MIN_BURST)).unwrap_or(i64::MAX);
        Self {
            rate,
            burst,
            tokens: burst,
            filled: now,
        }
    }

    /// When the next packet may go; none if now.
    pub fn wait(&mut self, now: Instant) -> Option<Instant> {
        self.fill(now);
        if self.tokens > 0 {
            return None;
        }
        let missing = 1 + i128::from(self.tokens).unsigned_abs();
        let nanos = (missing * NANOS).div_ceil(u128::from(self.rate));
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        Some(self.filled + Duration::from_nanos(nanos))
    }

    /// Takes what a packet costs.
    pub fn take(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_sub(bytes);
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_nanos();
        let new = elapsed * u128::from(self.rate) / NANOS;
        let Some(new) = i64::try_from(new).ok().filter(|new| *new > 0) else {
            return;
        };
        // Only as far as whole tokens go, so that nothing of a second is lost to rounding.
        let nanos = new as u128 * NANOS / u128::from(self.rate);
        self.filled += Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.tokens = self.tokens.saturating_add(new).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_is_as_fast_as_its_rate() {
        for rate in [MIN_RATE, 333_333, 125_000_000] {
            let start = Instant::now();
            let mut bucket = Bucket::new(rate, start);
            let mut now = start;
            let mut sent = 0_u64;
            while now < start + Duration::from_secs(600) && sent < 1 << 33 {
                match bucket.wait(now) {
                    Some(later) => {
                        assert!(later > now);
                        now = later;
                    }
                    None => {
                        bucket.take(1500);
                        sent += 1500;
                    }
                }
            }
            let seconds = (now - start).as_secs_f64();
            let fair = rate as f64 * seconds + bucket.burst as f64;
            assert!((sent as f64) < fair + 3000.0, "{rate}: {sent} of {fair}");
            assert!((sent as f64) > fair - 3000.0, "{rate}: {sent} of {fair}");
        }
    }

    #[test]
    fn a_pause_does_not_save_more_than_a_burst() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10_000, start);
        let later = start + Duration::from_secs(1_000_000);
        assert_eq!(bucket.wait(later), None);
        bucket.take(MIN_BURST as usize);
        let ready = bucket.wait(later).unwrap();
        assert!(ready > later && ready <= later + Duration::from_millis(1));
        // Debt is paid before anything else goes.
        bucket.take(5_000);
        let ready = bucket.wait(later).unwrap();
        assert!(ready > later + Duration::from_millis(499));
        assert_eq!(bucket.wait(ready), None);
    }

    #[test]
    fn a_clock_that_stands_gives_nothing() {
        let now = Instant::now();
        let mut bucket = Bucket::new(MAX_RATE, now);
        bucket.take(usize::MAX);
        assert!(bucket.wait(now).is_some());
    }
}
