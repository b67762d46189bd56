//! What the device did, counted.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters that only grow. Readable from any thread.
        #[derive(Debug, Default)]
        pub struct Stats { $($(#[$doc])* pub $name: Counter,)* }

        impl Stats {
            /// Name and value of each counter.
            pub fn values(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Command buffers that the guest submitted.
    execbuffers,
    /// Requests on the control queue, command buffers included.
    requests,
    /// Interrupts raised on the control queue.
    interrupts,
    /// Contexts created.
    contexts,
    /// Contexts closed because they broke a rule.
    contexts_killed,
    /// Bytes of Wayland messages to the compositor.
    bytes_sent,
    /// Bytes of Wayland messages from the compositor.
    bytes_received,
    /// Messages delivered to rings.
    messages,
    /// Bytes through pipes in both directions.
    pipe_bytes,
    /// Blobs of host memory created.
    blobs_created,
    /// Blobs mapped into the window.
    blobs_mapped,
}

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
