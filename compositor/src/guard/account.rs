//! Who holds what: counted per domain, found again when an object goes away.

use std::{collections::HashMap, os::fd::OwnedFd, sync::Arc};

use smithay::reexports::wayland_server::{
    Client, Resource,
    backend::{ClientId, Handle, ObjectData, ObjectId, protocol::Message},
};

use crate::{
    domain::{ClientState, Domain, DomainId, QuotaExceeded},
    state::State,
};

/// `wl_display.error` code 2 is `no_memory`: what a client hears when its domain has too much.
const NO_MEMORY: u32 = 2;

/// What is known of a pool of shared memory.
#[derive(Debug)]
pub(super) struct PoolRecord {
    pub domain: DomainId,
    pub bytes: u64,
    pub buffers: u32,
    /// The client destroyed the pool object; its buffers still keep the memory.
    pub destroyed: bool,
}

/// What is known of a surface.
#[derive(Debug)]
pub(super) struct SurfaceRecord {
    pub domain: DomainId,
    pub damages: u32,
    pub waiting_commits: u32,
}

/// All counted objects.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    pub(super) surfaces: HashMap<ObjectId, SurfaceRecord>,
    pub(super) pools: HashMap<ObjectId, PoolRecord>,
    pub(super) buffers: HashMap<ObjectId, ObjectId>,
    pub(super) regions: HashMap<ObjectId, u32>,
    /// The domain of each connected client, also while its last objects go away.
    pub(crate) clients: HashMap<ClientId, DomainId>,
}

impl Accounts {
    /// Forgets a pool once nothing keeps its memory. Answers the bytes that are free again.
    pub(super) fn settle_pool(&mut self, id: &ObjectId) -> Option<(DomainId, u64)> {
        let pool = self.pools.get(id)?;
        if !pool.destroyed || pool.buffers > 0 {
            return None;
        }
        self.pools.remove(id).map(|pool| (pool.domain, pool.bytes))
    }

    /// The domain that a surface belongs to.
    pub(crate) fn domain_of_surface(&self, id: &ObjectId) -> Option<DomainId> {
        self.surfaces.get(id).map(|record| record.domain)
    }
}

/// The domain that a client came from.
pub(crate) fn domain_of(client: &Client) -> Option<DomainId> {
    client.get_data::<ClientState>().map(|data| data.domain)
}

impl State {
    /// Counts something for a client's domain. On refusal the client has been told and is gone.
    pub(super) fn charge<R: Resource>(
        &mut self,
        client: &Client,
        resource: &R,
        take: impl FnOnce(&mut Domain) -> Result<(), QuotaExceeded>,
    ) -> Option<DomainId> {
        let id = domain_of(client)?;
        let Some(domain) = self.domains.get_mut(id) else {
            // The domain was removed in this very moment; its clients go with it.
            resource.post_error(NO_MEMORY, "this domain is gone");
            return None;
        };
        match take(domain) {
            Ok(()) => Some(id),
            Err(error) => {
                tracing::warn!(domain = %domain.name, %error, "quota");
                resource.post_error(NO_MEMORY, error.to_string());
                None
            }
        }
    }

    /// Gives something back that was counted.
    pub(super) fn refund(&mut self, id: DomainId, give: impl FnOnce(&mut Domain)) {
        if let Some(domain) = self.domains.get_mut(id) {
            give(domain);
        }
    }
}

/// Stands for an object between the moment that the guard learns its name and the moment that
/// smithay fills it in. It is seen only when smithay refuses the request, which ends the client.
#[derive(Debug)]
pub(super) struct Placeholder;

impl Placeholder {
    pub(super) fn data() -> Arc<dyn ObjectData<State>> {
        Arc::new(Self)
    }
}

impl ObjectData<State> for Placeholder {
    fn request(
        self: Arc<Self>,
        _: &Handle,
        _: &mut State,
        _: ClientId,
        _: Message<ObjectId, OwnedFd>,
    ) -> Option<Arc<dyn ObjectData<State>>> {
        None
    }

    fn destroyed(self: Arc<Self>, _: &Handle, _: &mut State, _: ClientId, _: ObjectId) {}
}
