//! The guest's resources: rings in guest memory, blobs in host memory, and where the latter are
//! mapped.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::super::buffers::{self, Range};
use crate::memory::host_window::{HostVisibleWindow, PAGE_SIZE, WindowError};

/// How much a guest may have at a time.
#[derive(Clone, Copy, Debug)]
pub struct Quotas {
    /// Contexts, one per application.
    pub contexts: usize,
    /// Resources of all kinds.
    pub resources: usize,
    /// Bytes of host memory.
    pub blob_bytes: u64,
}

/// Memory of the host that a guest may map and send.
#[derive(Debug)]
pub struct HostMemory {
    /// The memory object.
    pub fd: OwnedFd,
    /// Whether the guest may write to it.
    pub writable: bool,
}

/// Why a request about resources was refused.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// No resource has this number.
    #[error("there is no resource {0}")]
    Unknown(u32),
    /// A resource with this number exists, or the number is 0.
    #[error("resource {0} cannot be created again")]
    Taken(u32),
    /// A quota is used up.
    #[error("the guest has used up its quota of {0}")]
    Quota(&'static str),
    /// The size is zero or no multiple of a page.
    #[error("a blob cannot have {0} bytes")]
    Size(u64),
    /// Not possible with a resource of this kind.
    #[error("resource {0} is of the wrong kind for this")]
    Kind(u32),
    /// It is mapped already, or not mapped.
    #[error("resource {0} is already mapped, or not mapped")]
    Mapping(u32),
    /// The window refused.
    #[error(transparent)]
    Window(#[from] WindowError),
}

#[derive(Debug)]
enum Kind {
    Guest(Vec<Range>),
    Host(Arc<HostMemory>),
}

#[derive(Debug)]
struct Resource {
    kind: Kind,
    size: u64,
    mapped_at: Option<u64>,
}

/// All resources of a guest.
#[derive(Debug)]
pub struct Resources {
    table: HashMap<u32, Resource>,
    quotas: Quotas,
    host_bytes: u64,
    window: Option<Arc<HostVisibleWindow>>,
}

impl Resources {
    /// None yet.
    pub fn new(quotas: Quotas, window: Option<Arc<HostVisibleWindow>>) -> Self {
        Self {
            table: HashMap::new(),
            quotas,
            host_bytes: 0,
            window,
        }
    }

    /// Whether a resource of this number could be created, with `host_bytes` of host memory.
    pub fn check_new(&self, id: u32, size: u64, host_bytes: u64) -> Result<(), ResourceError> {
        if id == 0 || self.table.contains_key(&id) {
            return Err(ResourceError::Taken(id));
        }
        if size == 0 || !size.is_multiple_of(PAGE_SIZE) {
            return Err(ResourceError::Size(size));
        }
        if self.table.len() >= self.quotas.resources {
            return Err(ResourceError::Quota("resources"));
        }
        match self.host_bytes.checked_add(host_bytes) {
            Some(total) if total <= self.quotas.blob_bytes => Ok(()),
            _ => Err(ResourceError::Quota("blob memory")),
        }
    }

    /// Adds a blob of guest memory. `ranges` lie inside of guest memory.
    pub fn add_guest(
        &mut self,
        id: u32,
        size: u64,
        ranges: Vec<Range>,
    ) -> Result<(), ResourceError> {
        self.check_new(id, size, 0)?;
        let kind = Kind::Guest(ranges);
        self.insert(id, kind, size);
        Ok(())
    }

    /// Adds a blob of host memory.
    pub fn add_host(
        &mut self,
        id: u32,
        size: u64,
        memory: HostMemory,
    ) -> Result<(), ResourceError> {
        self.check_new(id, size, size)?;
        self.host_bytes += size;
        self.insert(id, Kind::Host(Arc::new(memory)), size);
        Ok(())
    }

    fn insert(&mut self, id: u32, kind: Kind, size: u64) {
        let resource = Resource {
            kind,
            size,
            mapped_at: None,
        };
        self.table.insert(id, resource);
    }

    /// Whether this resource exists.
    pub fn exists(&self, id: u32) -> bool {
        self.table.contains_key(&id)
    }

    /// Forgets a resource and removes its mapping.
    pub fn remove(&mut self, id: u32) -> Result<(), ResourceError> {
        if self.get(id)?.mapped_at.is_some() {
            self.unmap(id)?;
        }
        if let Some(resource) = self.table.remove(&id)
            && matches!(resource.kind, Kind::Host(_))
        {
            self.host_bytes -= resource.size;
        }
        Ok(())
    }

    /// The guest memory of a blob, if it has any.
    pub fn guest_ranges(&self, id: u32) -> Result<&[Range], ResourceError> {
        match &self.get(id)?.kind {
            Kind::Guest(ranges) => Ok(ranges),
            Kind::Host(_) => Err(ResourceError::Kind(id)),
        }
    }

    /// Gives a blob of guest memory that has no memory some, or (with none) takes it away.
    pub fn set_guest_ranges(&mut self, id: u32, new: Vec<Range>) -> Result<(), ResourceError> {
        let resource = self.table.get_mut(&id).ok_or(ResourceError::Unknown(id))?;
        match &mut resource.kind {
            Kind::Guest(ranges) if ranges.is_empty() || new.is_empty() => {
                if !new.is_empty() && buffers::total(&new) < resource.size {
                    return Err(ResourceError::Size(resource.size));
                }
                *ranges = new;
                Ok(())
            }
            _ => Err(ResourceError::Kind(id)),
        }
    }

    /// The host memory of a blob.
    pub fn host_memory(&self, id: u32) -> Result<Arc<HostMemory>, ResourceError> {
        match &self.get(id)?.kind {
            Kind::Host(memory) => Ok(Arc::clone(memory)),
            Kind::Guest(_) => Err(ResourceError::Kind(id)),
        }
    }

    /// Shows a blob of host memory to the guest. The window checks the range, overlaps, and that
    /// the memory object is as long as the blob.
    pub fn map(&mut self, id: u32, untrusted_offset: u64) -> Result<(), ResourceError> {
        let memory = self.host_memory(id)?;
        let resource = self.table.get_mut(&id).ok_or(ResourceError::Unknown(id))?;
        let window = self.window.as_ref().ok_or(ResourceError::Kind(id))?;
        if resource.mapped_at.is_some() {
            return Err(ResourceError::Mapping(id));
        }
        window.map_fd(
            untrusted_offset,
            memory.fd.as_fd(),
            0,
            resource.size,
            memory.writable,
        )?;
        resource.mapped_at = Some(untrusted_offset);
        Ok(())
    }

    /// Hides it again.
    pub fn unmap(&mut self, id: u32) -> Result<(), ResourceError> {
        let resource = self.table.get_mut(&id).ok_or(ResourceError::Unknown(id))?;
        let window = self.window.as_ref().ok_or(ResourceError::Kind(id))?;
        let offset = resource.mapped_at.ok_or(ResourceError::Mapping(id))?;
        window.unmap(offset, resource.size)?;
        resource.mapped_at = None;
        Ok(())
    }

    fn get(&self, id: u32) -> Result<&Resource, ResourceError> {
        self.table.get(&id).ok_or(ResourceError::Unknown(id))
    }
}

impl Drop for Resources {
    fn drop(&mut self) {
        if let Some(window) = &self.window
            && let Err(error) = window.unmap_all()
        {
            tracing::error!(%error, "could not empty the host-visible window");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTAS: Quotas = Quotas {
        contexts: 1,
        resources: 3,
        blob_bytes: 3 * PAGE_SIZE,
    };

    fn memory(bytes: u64) -> HostMemory {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        HostMemory {
            fd: file.into(),
            writable: true,
        }
    }

    fn resources() -> Resources {
        let window = HostVisibleWindow::new(16 * PAGE_SIZE).unwrap();
        Resources::new(QUOTAS, Some(Arc::new(window)))
    }

    #[test]
    fn quotas_hold_and_come_back() {
        let mut resources = resources();
        resources.add_host(1, 2 * PAGE_SIZE, memory(8192)).unwrap();
        assert!(matches!(
            resources.add_host(2, 2 * PAGE_SIZE, memory(8192)),
            Err(ResourceError::Quota("blob memory"))
        ));
        resources.remove(1).unwrap();
        resources.add_host(2, 3 * PAGE_SIZE, memory(12288)).unwrap();
        resources.add_guest(3, PAGE_SIZE, Vec::new()).unwrap();
        resources.add_guest(4, PAGE_SIZE, Vec::new()).unwrap();
        assert!(matches!(
            resources.add_guest(5, PAGE_SIZE, Vec::new()),
            Err(ResourceError::Quota("resources"))
        ));
    }

    #[test]
    fn removing_unmaps() {
        let mut resources = resources();
        resources.add_host(1, PAGE_SIZE, memory(4096)).unwrap();
        resources.map(1, 0).unwrap();
        assert!(matches!(
            resources.map(1, PAGE_SIZE),
            Err(ResourceError::Mapping(1))
        ));
        resources.remove(1).unwrap();
        resources.add_host(2, PAGE_SIZE, memory(4096)).unwrap();
        resources.map(2, 0).unwrap();
        resources.unmap(2).unwrap();
        assert!(matches!(resources.unmap(2), Err(ResourceError::Mapping(2))));
    }

    #[test]
    fn a_blob_longer_than_its_memory_is_not_mapped() {
        let mut resources = resources();
        resources.add_host(1, 3 * PAGE_SIZE, memory(100)).unwrap();
        assert!(matches!(
            resources.map(1, 0),
            Err(ResourceError::Window(WindowError::TooShort { .. }))
        ));
    }

    #[test]
    fn odd_sizes_and_numbers_are_refused() {
        let mut resources = resources();
        assert!(matches!(
            resources.add_guest(0, PAGE_SIZE, Vec::new()),
            Err(ResourceError::Taken(0))
        ));
        for size in [0, 1, 4097, u64::MAX] {
            assert!(matches!(
                resources.add_guest(1, size, Vec::new()),
                Err(ResourceError::Size(_))
            ));
        }
        assert!(matches!(
            resources.add_host(1, u64::MAX - 4095, memory(0)),
            Err(ResourceError::Quota(_))
        ));
    }
}
