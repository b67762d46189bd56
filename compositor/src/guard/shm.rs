//! `wl_shm`: pools and buffers.
//!
//! smithay 0.7 panics on `wl_shm_pool.resize` with a size of zero or less, maps whatever
//! descriptor it is given, and has no limits. Memory that a client cuts off under a pool is
//! smithay's own business (it catches SIGBUS); `tests/hostile.rs` tries it.

use std::os::fd::AsFd;

use smithay::{
    reexports::wayland_server::{
        Client, DataInit, New, Resource,
        backend::ClientId,
        delegate_global_dispatch,
        protocol::{
            wl_buffer::{self, WlBuffer},
            wl_shm::{self, WlShm},
            wl_shm_pool::{self, WlShmPool},
        },
    },
    wayland::shm::{ShmBufferUserData, ShmPoolUserData, ShmState},
};

use super::{
    account::{Placeholder, PoolRecord},
    guarded,
};
use crate::state::State;

/// File systems whose pages the kernel always has at hand. A mapped file of another kind (FUSE,
/// network) could make this process wait for ever on a page that its server never gives.
const MEMORY_FILE_SYSTEMS: [i64; 2] = [
    0x0102_1994, /* tmpfs, memfd */
    0x9584_58f6, /* hugetlbfs */
];

delegate_global_dispatch!(State: [WlShm: ()] => ShmState);
guarded!(WlShm, () => ShmState, check_shm);
guarded!(WlShmPool, ShmPoolUserData => ShmState, check_pool, destroyed: pool_destroyed);
guarded!(WlBuffer, ShmBufferUserData => ShmState, check_buffer, destroyed: buffer_destroyed);

fn is_memory(fd: impl AsFd) -> bool {
    rustix::fs::fstatfs(fd).is_ok_and(|fs| MEMORY_FILE_SYSTEMS.contains(&fs.f_type))
}

fn check_shm(
    state: &mut State,
    client: &Client,
    shm: &WlShm,
    request: wl_shm::Request,
    init: &mut DataInit<'_, State>,
) -> Option<wl_shm::Request> {
    let wl_shm::Request::CreatePool { id, fd, size } = request else {
        return Some(request);
    };
    let Some(bytes) = u64::try_from(size).ok().filter(|bytes| *bytes > 0) else {
        shm.post_error(wl_shm::Error::InvalidStride, "a pool has at least one byte");
        return None;
    };
    if !is_memory(&fd) {
        shm.post_error(
            wl_shm::Error::InvalidFd,
            "a pool must be memory (memfd or tmpfs)",
        );
        return None;
    }
    let domain = state.charge(client, shm, |d| d.usage.take_pool(&d.quota, bytes))?;
    let pool: WlShmPool = init.custom_init(id, Placeholder::data());
    let record = PoolRecord {
        domain,
        bytes,
        buffers: 0,
        destroyed: false,
    };
    state.accounts.pools.insert(pool.id(), record);
    Some(wl_shm::Request::CreatePool {
        id: New::wrap(pool),
        fd,
        size,
    })
}

fn check_pool(
    state: &mut State,
    client: &Client,
    pool: &WlShmPool,
    request: wl_shm_pool::Request,
    init: &mut DataInit<'_, State>,
) -> Option<wl_shm_pool::Request> {
    use wl_shm_pool::Request;
    match request {
        Request::Resize { size } => {
            let known = state
                .accounts
                .pools
                .get(&pool.id())
                .map(|record| record.bytes)?;
            // smithay 0.7 goes on after its own error and panics on zero.
            let more = u64::try_from(size)
                .ok()
                .and_then(|bytes| bytes.checked_sub(known));
            let Some(more) = more else {
                pool.post_error(wl_shm::Error::InvalidFd, "a pool can only grow");
                return None;
            };
            state.charge(client, pool, |d| d.usage.take_bytes(&d.quota, more))?;
            if let Some(record) = state.accounts.pools.get_mut(&pool.id()) {
                record.bytes += more;
            }
            Some(Request::Resize { size })
        }
        Request::CreateBuffer {
            id,
            offset,
            width,
            height,
            stride,
            format,
        } => {
            let known = state
                .accounts
                .pools
                .get(&pool.id())
                .map(|record| record.bytes)?;
            let end = i64::from(stride)
                .checked_mul(i64::from(height))
                .and_then(|bytes| bytes.checked_add(i64::from(offset)))
                .and_then(|end| u64::try_from(end).ok());
            // 32-bit sums come later, in smithay and in pixman.
            let fits = end.is_some_and(|end| end <= known && end <= i32::MAX as u64);
            // pixman reads rows as 32-bit words.
            let aligned = offset % 4 == 0 && stride % 4 == 0;
            if !fits || !aligned || offset < 0 || stride <= 0 || width <= 0 || height <= 0 {
                pool.post_error(
                    wl_shm::Error::InvalidStride,
                    "the buffer does not lie within its pool",
                );
                return None;
            }
            state.charge(client, pool, |d| d.usage.take_buffer(&d.quota))?;
            let buffer: WlBuffer = init.custom_init(id, Placeholder::data());
            state.accounts.buffers.insert(buffer.id(), pool.id());
            if let Some(record) = state.accounts.pools.get_mut(&pool.id()) {
                record.buffers += 1;
            }
            let id = New::wrap(buffer);
            Some(Request::CreateBuffer {
                id,
                offset,
                width,
                height,
                stride,
                format,
            })
        }
        other => Some(other),
    }
}

fn pool_destroyed(state: &mut State, _: &ClientId, pool: &WlShmPool) {
    if let Some(record) = state.accounts.pools.get_mut(&pool.id()) {
        record.destroyed = true;
    }
    settle(state, &pool.id());
}

fn check_buffer(
    _: &mut State,
    _: &Client,
    _: &WlBuffer,
    request: wl_buffer::Request,
    _: &mut DataInit<'_, State>,
) -> Option<wl_buffer::Request> {
    Some(request)
}

fn buffer_destroyed(state: &mut State, _: &ClientId, buffer: &WlBuffer) {
    let Some(pool) = state.accounts.buffers.remove(&buffer.id()) else {
        return;
    };
    if let Some(record) = state.accounts.pools.get_mut(&pool) {
        record.buffers = record.buffers.saturating_sub(1);
        let domain = record.domain;
        state.refund(domain, |d| {
            d.usage.buffers = d.usage.buffers.saturating_sub(1)
        });
    }
    settle(state, &pool);
}

fn settle(state: &mut State, pool: &smithay::reexports::wayland_server::backend::ObjectId) {
    if let Some((domain, bytes)) = state.accounts.settle_pool(pool) {
        state.refund(domain, |d| d.usage.give_pool(bytes));
    }
}
