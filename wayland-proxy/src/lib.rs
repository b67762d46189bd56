//! The guest's side of Bulkhead's windows.
//!
//! To the guest's applications this is their Wayland compositor. It draws nothing: each
//! application's connection is relayed through a channel of its own to the host's compositor —
//! in a guest a virtio-gpu cross-domain context, elsewhere a socket. What cannot simply be passed
//! on is translated: pictures in shared memory are copied, once and only where they changed, into
//! host memory; the pipes of copy and paste and the keymaps of keyboards cross as data.
//!
//! **Trusts** the host and the guest's kernel. **Does not trust** the applications: no message of
//! theirs may make it panic, hang, grow without bound, or confuse one application with another.
//! **Must never** be taken for the host's protection: the guest that it runs in is hostile as a
//! whole, and the host checks everything again.
//!
//! Where to start reading: [`server`] is the loop, [`client`] one application, [`channel`] the way
//! to the host, [`wire`] the format, [`shm`] the pictures, [`globals`] what applications may see.
//!
//! The crate `wl-proxy` was looked at for the relay and not taken. It connects two sockets and
//! hands descriptors through as files, where ours end in a ring with identifiers and blobs instead
//! of files, and its typed handlers for every message do not help a relay that passes nearly all
//! of them by signature. The generated tables of `wayland-server` and `wayland-protocols`, which
//! the workspace has anyway, and two small id tables do the same in less code.

pub mod channel;
pub mod client;
pub mod event;
pub mod globals;
pub mod memory;
pub mod pipes;
pub mod server;
pub mod shared;
pub mod shm;
pub mod stats;
pub mod wire;
