//! virtio-gpu, of which only cross-domain contexts are offered: no pictures are drawn here, the
//! device carries Wayland messages, memory and pipes between the guest and the compositor.
//!
//! **Trusts** the compositor at the configured socket not to send descriptors that it did not mean
//! to give away. **Does not trust** the guest: every number, size and address is checked, a
//! context that breaks a rule is closed and others go on, and everything has a quota.
//! **Never blocks**: one thread ([`worker`]) waits for the guest's requests, the compositor's
//! messages and pipes at once, and what a peer does not take is kept within limits.
//!
//! Start reading at [`worker`] (requests), then [`cross_domain`] (what a context does). The
//! protocol is that of rutabaga_gfx's cross-domain component, version 1, so that guest software
//! written for it works. Who speaks it with the compositor is chosen per VM
//! ([`backend::BackendChoice`]), behind [`cross_domain::CrossDomainBackend`] and the same checks:
//!
//! * **native**, the default: ours, all contexts on the device's thread.
//! * **rutabaga**: [`rutabaga_gfx`], an instance and two threads per context. Its SEND and WRITE
//!   wait for the peer, its worker ends at a descriptor that it does not know, and it remembers
//!   every question about images; [`rutabaga`] says what is around it so that none of this reaches
//!   a guest. Its messages from the compositor carry at most 3744 bytes.
//!
//! # What a guest sees
//!
//! * One scanout that is never enabled (Linux 6.1 refuses none), one capability set
//!   (cross-domain, 5), a host-visible shared memory region.
//! * A context is one connection to the compositor. `CTX_CREATE` must ask for capability set 5.
//! * **Rings** are blobs of guest memory, at least 4096 bytes, all pages of which are used: the
//!   *query ring* takes answers about images, the *channel ring* messages. INIT names both, once.
//! * **GET_IMAGE_REQUIREMENTS**: the answer (64 bytes) is in the query ring when the fence on
//!   timeline 0 signals. The same question gets the same `blob_id`; the last 256 are remembered.
//!   Rows have no padding. `RESOURCE_CREATE_BLOB` with host memory, that id and exactly that size
//!   makes the image; format `R8` is a way to get plain memory.
//! * **POLL** is a fence on timeline 1: it signals when *one* message lies at the start of the
//!   channel ring. One POLL at a time.
//!   * RECEIVE: 352 bytes, then data. Descriptors are memory (type 1; becomes a read-only blob of
//!     host memory with the identifier as `blob_id`, once, its size rounded up to pages) or pipes
//!     to write to (type 4). No data and no descriptors means that nothing more will come: the
//!     compositor hung up or the context was closed.
//!   * READ: 24 bytes, then data from a pipe; `hang_up` with no data is its end.
//! * **SEND**: up to 28 descriptors: blobs of host memory that belong to the context (type 1), or
//!   new pipes that the guest reads from (type 3), whose numbers the guest must know in advance:
//!   they count up from 0x8000_0001.
//! * **WRITE** to a pipe. With a fence on a timeline above 1 that fence signals when the pipe took
//!   everything; without, at most 256 KiB may wait.
//! * Up to 1 MiB and 256 descriptors may wait for a compositor that does not read.
//! * Fences of a closed context signal, with an error.

pub mod backend;
pub mod cross_domain;
pub mod device;
pub mod protocol;
pub mod resources;
pub mod rutabaga;
pub mod stats;
pub mod worker;

#[cfg(test)]
mod tests;

pub use device::Gpu;
pub use stats::Stats;
