//! Builds everything that boots: the guests' kernel and initramfs, the templates that
//! application domains run from, the test host that runs in QEMU, and the desktop's disk image.
//!
//! *Trusts*: Debian's archive (through apt's signature checks), this workspace's own programs, and
//! the recipes beside this crate. *Must never*: need loop devices or mounts on the build machine,
//! leave a half-made image behind, or name a mirror of its own (it uses the one of the machine's
//! apt configuration).
//!
//! Start reading at [`builder`], which knows what depends on what. The other files are one step
//! each: [`apt`] finds the mirror and fetches packages, [`kernel`] unpacks the kernel,
//! [`modules`] works out what must be loaded in which order, [`cpio`] and [`initramfs`] write
//! initramfs archives, [`root`] makes EROFS roots with mmdebstrap, [`programs`] builds our own
//! binaries, [`stamp`] remembers what is already up to date, and [`desktop`] makes the bootable disk
//! image out of all that.

pub mod apt;
pub mod builder;
pub mod command;
pub mod cpio;
pub mod desktop;
pub mod emulator;
pub mod error;
pub mod initramfs;
pub mod kernel;
pub mod layout;
pub mod modules;
pub mod programs;
pub mod recipe;
pub mod root;
pub mod services;
pub mod stamp;
pub mod template;
pub mod tools;
pub mod tracing_calls;

pub use builder::{Builder, Options};
pub use error::Error;
pub use layout::Layout;

/// The time stamp of every file in every image, so that the same input gives the same bytes:
/// 2026-01-01 00:00:00 UTC.
pub const SOURCE_DATE_EPOCH: u64 = 1_767_225_600;
