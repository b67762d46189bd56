//! Which implementation of the cross-domain protocol a device's contexts get.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_vmm_api::{GpuBackend, GpuConfig};

use super::cross_domain::CrossDomainBackend;
use super::cross_domain::channel::Channel;
use super::rutabaga::{RutabagaBackend, Threads};

/// Makes the backends of contexts.
#[derive(Clone, Debug)]
pub struct BackendChoice {
    kind: GpuBackend,
    wayland: Arc<PathBuf>,
    watchdog: Duration,
    threads: Threads,
}

impl BackendChoice {
    /// As configured.
    pub fn new(config: &GpuConfig) -> Self {
        Self {
            kind: config.backend,
            wayland: Arc::new(config.wayland.clone()),
            watchdog: Duration::from_millis(u64::from(config.watchdog_ms.max(1))),
            // Those of closed contexts may take a moment to end.
            threads: Threads::new(config.max_contexts.saturating_mul(2)),
        }
    }

    /// The backend of a new context.
    pub fn create(&self) -> Box<dyn CrossDomainBackend> {
        let wayland = Arc::clone(&self.wayland);
        match self.kind {
            GpuBackend::Native => Box::new(Channel::new(wayland)),
            GpuBackend::Rutabaga => Box::new(RutabagaBackend::new(
                wayland,
                self.watchdog,
                self.threads.clone(),
            )),
        }
    }
}
