//! What a domain may hold of the compositor's memory and descriptors. Without limits one guest
//! could make the desktop swap or run out of descriptors; with them only its own client dies.

/// Limits of one domain, over all its clients.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Connections at a time. One application is one connection.
    pub clients: u32,
    /// `wl_surface` objects: each costs several kilobytes here.
    pub surfaces: u32,
    /// `wl_shm_pool` objects and pools kept alive by buffers: each holds a descriptor.
    pub pools: u32,
    /// `wl_buffer` objects.
    pub buffers: u32,
    /// Bytes of shared memory mapped into this process.
    pub shm_bytes: u64,
    /// Frame callbacks and presentation feedbacks not yet answered.
    pub callbacks: u32,
    /// Regions' rectangles and other small things, per object.
    pub rects_per_region: u32,
    /// Protocol objects of one client.
    pub objects_per_client: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            clients: 64,
            surfaces: 1024,
            pools: 512,
            buffers: 2048,
            // Address space, not memory: foot alone maps a sparse pool of 1 GiB.
            shm_bytes: 64 << 30,
            callbacks: 4096,
            rects_per_region: 1024,
            objects_per_client: 16_384,
        }
    }
}

/// What a domain holds now.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Usage {
    pub clients: u32,
    pub surfaces: u32,
    pub pools: u32,
    pub buffers: u32,
    pub shm_bytes: u64,
    pub callbacks: u32,
}

/// Which limit a client ran into. The text goes to that client before it is disconnected.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("this domain may not have more than {limit} {what}")]
pub struct QuotaExceeded {
    /// What there is too much of.
    pub what: &'static str,
    /// How much is allowed.
    pub limit: u64,
}

/// Adds one to a counter unless it stands at its limit.
pub(crate) fn take(counter: &mut u32, limit: u32, what: &'static str) -> Result<(), QuotaExceeded> {
    if *counter >= limit {
        return Err(QuotaExceeded {
            what,
            limit: u64::from(limit),
        });
    }
    *counter += 1;
    Ok(())
}

impl Usage {
    /// Another connection.
    pub fn take_client(&mut self, quota: &Quota) -> Result<(), QuotaExceeded> {
        take(&mut self.clients, quota.clients, "clients")
    }

    /// Another surface.
    pub fn take_surface(&mut self, quota: &Quota) -> Result<(), QuotaExceeded> {
        take(&mut self.surfaces, quota.surfaces, "surfaces")
    }

    /// Another buffer.
    pub fn take_buffer(&mut self, quota: &Quota) -> Result<(), QuotaExceeded> {
        take(&mut self.buffers, quota.buffers, "buffers")
    }

    /// Another frame callback or feedback.
    pub fn take_callback(&mut self, quota: &Quota) -> Result<(), QuotaExceeded> {
        take(
            &mut self.callbacks,
            quota.callbacks,
            "pending frame callbacks",
        )
    }

    /// Another pool of this many bytes.
    pub fn take_pool(&mut self, quota: &Quota, bytes: u64) -> Result<(), QuotaExceeded> {
        let total = self.bytes_with(quota, bytes)?;
        take(&mut self.pools, quota.pools, "shared memory pools")?;
        self.shm_bytes = total;
        Ok(())
    }

    /// A pool grows by this many bytes.
    pub fn take_bytes(&mut self, quota: &Quota, bytes: u64) -> Result<(), QuotaExceeded> {
        self.shm_bytes = self.bytes_with(quota, bytes)?;
        Ok(())
    }

    fn bytes_with(&self, quota: &Quota, bytes: u64) -> Result<u64, QuotaExceeded> {
        self.shm_bytes
            .checked_add(bytes)
            .filter(|total| *total <= quota.shm_bytes)
            .ok_or(QuotaExceeded {
                what: "bytes of shared memory",
                limit: quota.shm_bytes,
            })
    }

    /// A pool and its bytes are gone.
    pub fn give_pool(&mut self, bytes: u64) {
        self.pools = self.pools.saturating_sub(1);
        self.shm_bytes = self.shm_bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_pool_changes_nothing() {
        let quota = Quota {
            shm_bytes: 100,
            pools: 2,
            ..Quota::default()
        };
        let mut usage = Usage::default();
        usage.take_pool(&quota, 60).unwrap();
        assert!(usage.take_pool(&quota, 41).is_err());
        assert!(usage.take_bytes(&quota, u64::MAX).is_err());
        assert_eq!((usage.pools, usage.shm_bytes), (1, 60));
        usage.take_pool(&quota, 40).unwrap();
        assert!(usage.take_pool(&quota, 0).is_err());
        usage.give_pool(60);
        assert_eq!((usage.pools, usage.shm_bytes), (1, 40));
    }
}
