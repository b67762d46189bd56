//! Requests that are answered at once: everything but command buffers.

use std::collections::{BTreeMap, HashSet, VecDeque};

use vm_memory::{GuestAddress, GuestMemoryBackend as _};

use super::super::super::buffers::{self, Range};
use super::super::cross_domain::{BlobError, command};
use super::super::protocol::{
    self, BLOB_MEM_GUEST, BLOB_MEM_HOST3D, CAPSET_CROSS_DOMAIN, CreateBlob, Request, Status,
};
use super::super::resources::ResourceError;
use super::{BrokenQueue, Context, Pending, Worker};

/// A blob of guest memory consists of at most so many pieces.
const MAX_BACKING_ENTRIES: u32 = 1024;

/// A response's type and what follows its header, or an error's type.
type Reply = Result<(Status, Vec<u8>), Status>;

impl Worker {
    /// Everything but command buffers.
    pub(super) fn simple(
        &mut self,
        pending: &Pending,
        request: &Request,
    ) -> Result<Reply, BrokenQueue> {
        let id = pending.header.context;
        let done = |result: Result<(), ResourceError>| match result {
            Ok(()) => Ok((Status::OkNoData, Vec::new())),
            Err(error) => Err(refusal(&error)),
        };
        Ok(match *request {
            Request::GetDisplayInfo => {
                Ok((Status::OkDisplayInfo, protocol::display_info().to_vec()))
            }
            Request::GetCapsetInfo { index: 0 } => {
                let size = command::capabilities().len() as u32;
                let words = [CAPSET_CROSS_DOMAIN, 0, size, 0];
                let body = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                Ok((Status::OkCapsetInfo, body))
            }
            Request::GetCapset {
                id: CAPSET_CROSS_DOMAIN,
                ..
            } => Ok((Status::OkCapset, command::capabilities().to_vec())),
            Request::GetCapsetInfo { .. } | Request::GetCapset { .. } => {
                Err(Status::ErrInvalidParameter)
            }
            Request::CreateContext { capset } => self.create_context(id, capset),
            Request::DestroyContext => return self.destroy_context(id),
            Request::AttachToContext { resource } => match self.contexts.get_mut(&id) {
                None => Err(Status::ErrInvalidContext),
                Some(_) if !self.resources.exists(resource) => Err(Status::ErrInvalidResource),
                Some(context) => {
                    context.attached.insert(resource);
                    Ok((Status::OkNoData, Vec::new()))
                }
            },
            Request::DetachFromContext { resource } => match self.contexts.get_mut(&id) {
                None => Err(Status::ErrInvalidContext),
                Some(context) => {
                    context.attached.remove(&resource);
                    Ok((Status::OkNoData, Vec::new()))
                }
            },
            Request::CreateBlob(blob) => return self.create_blob(pending, request, &blob),
            Request::UnrefResource { resource } => {
                for context in self.contexts.values_mut() {
                    context.attached.remove(&resource);
                }
                done(self.resources.remove(resource))
            }
            Request::AttachBacking { resource, entries } => {
                match self.backing(pending, request, entries) {
                    Ok(ranges) if !ranges.is_empty() => {
                        done(self.resources.set_guest_ranges(resource, ranges))
                    }
                    Ok(_) => Err(Status::ErrInvalidParameter),
                    Err(status) => Err(status),
                }
            }
            Request::DetachBacking { resource } => {
                done(self.resources.set_guest_ranges(resource, Vec::new()))
            }
            Request::MapBlob { resource, offset } => match self.resources.map(resource, offset) {
                Ok(()) => {
                    self.stats.blobs_mapped.add(1);
                    let words = [protocol::MAP_CACHE_CACHED, 0];
                    let body = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                    Ok((Status::OkMapInfo, body))
                }
                Err(error) => Err(refusal(&error)),
            },
            Request::UnmapBlob { resource } => done(self.resources.unmap(resource)),
            Request::Submit { .. } | Request::Unsupported => Err(Status::ErrUnspecified),
        })
    }

    fn create_context(&mut self, id: u32, capset: u32) -> Reply {
        if id == 0 || self.contexts.contains_key(&id) {
            return Err(Status::ErrInvalidContext);
        }
        if capset != CAPSET_CROSS_DOMAIN {
            return Err(Status::ErrInvalidParameter);
        }
        if self.contexts.len() >= self.quotas.contexts {
            // Once: a guest must not fill the log.
            if !std::mem::replace(&mut self.told_of_quota, true) {
                tracing::warn!(
                    limit = self.quotas.contexts,
                    "the guest has as many Wayland connections as it may have"
                );
            }
            return Err(Status::ErrOutOfMemory);
        }
        let context = Context {
            backend: self.backend.create(),
            dead: false,
            attached: HashSet::new(),
            polls: VecDeque::new(),
            writes: BTreeMap::new(),
        };
        self.contexts.insert(id, context);
        self.stats.contexts.add(1);
        Ok((Status::OkNoData, Vec::new()))
    }

    fn destroy_context(&mut self, id: u32) -> Result<Reply, BrokenQueue> {
        let Some(mut context) = self.contexts.remove(&id) else {
            return Ok(Err(Status::ErrInvalidContext));
        };
        context.backend.close(&self.poller);
        for poll in context.polls {
            self.answer(&poll, Status::OkNoData, &[])?;
        }
        for (pending, _) in context.writes.into_values().flatten() {
            self.answer(&pending, Status::OkNoData, &[])?;
        }
        Ok(Ok((Status::OkNoData, Vec::new())))
    }

    fn create_blob(
        &mut self,
        pending: &Pending,
        request: &Request,
        blob: &CreateBlob,
    ) -> Result<Reply, BrokenQueue> {
        let done = Ok((Status::OkNoData, Vec::new()));
        match blob.memory {
            BLOB_MEM_GUEST => {
                let ranges = match self.backing(pending, request, blob.entries) {
                    Ok(ranges) => ranges,
                    Err(status) => return Ok(Err(status)),
                };
                if buffers::total(&ranges) < blob.size {
                    return Ok(Err(Status::ErrInvalidParameter));
                }
                let added = self.resources.add_guest(blob.resource, blob.size, ranges);
                Ok(added.map_err(|error| refusal(&error)).and(done))
            }
            BLOB_MEM_HOST3D => {
                // Quotas first: memory is allocated only within them.
                let check = self
                    .resources
                    .check_new(blob.resource, blob.size, blob.size);
                if let Err(error) = check {
                    return Ok(Err(refusal(&error)));
                }
                let id = pending.header.context;
                let made = self.with_backend(id, |backend, _| {
                    Ok(backend.create_blob(blob.blob_id, blob.size))
                })?;
                let memory = match made {
                    None => return Ok(Err(Status::ErrInvalidContext)),
                    Some(Err(error)) => {
                        tracing::debug!(%error, "a blob was refused");
                        return Ok(Err(match error {
                            BlobError::Host(_) => Status::ErrOutOfMemory,
                            _ => Status::ErrInvalidParameter,
                        }));
                    }
                    Some(Ok(memory)) => memory,
                };
                self.stats.blobs_created.add(1);
                let added = self.resources.add_host(blob.resource, blob.size, memory);
                Ok(added.map_err(|error| refusal(&error)).and(done))
            }
            _ => Ok(Err(Status::ErrInvalidParameter)),
        }
    }

    /// The memory entries behind a request, each inside of guest RAM.
    fn backing(
        &self,
        pending: &Pending,
        request: &Request,
        untrusted_entries: u32,
    ) -> Result<Vec<Range>, Status> {
        if untrusted_entries > MAX_BACKING_ENTRIES {
            return Err(Status::ErrInvalidParameter);
        }
        let mut bytes = vec![0; untrusted_entries as usize * 16];
        pending
            .buffers
            .read(&self.memory, request.payload_offset(), &mut bytes)
            .map_err(|_| Status::ErrInvalidParameter)?;
        bytes
            .chunks_exact(16)
            .map(|entry| {
                let address = protocol::u64_at(entry, 0).map(GuestAddress)?;
                let length = protocol::u32_at(entry, 8)?;
                let inside = length != 0 && self.memory.check_range(address, length as usize);
                inside.then_some(Range { address, length })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or(Status::ErrInvalidParameter)
    }
}

fn refusal(error: &ResourceError) -> Status {
    tracing::debug!(%error, "a request of the guest was refused");
    match error {
        ResourceError::Unknown(_) | ResourceError::Taken(_) => Status::ErrInvalidResource,
        ResourceError::Quota(_) => Status::ErrOutOfMemory,
        _ => Status::ErrInvalidParameter,
    }
}
