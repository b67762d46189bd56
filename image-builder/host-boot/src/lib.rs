//! PID 1 of the desktop's initramfs: from the kernel's hand-over to systemd, and the words for a
//! person when that way ends.
//!
//! It loads the modules for disks, finds the root partition that this kernel was built for, puts
//! dm-verity in front of it, mounts it, and prepares the data partition: at the first boot that
//! grows to the end of the disk and gets its file system. *It trusts* the kernel's command line
//! (in one signed or measured file with the kernel) and therefore the root hash in it. *It must
//! never* run a byte of the root that verity has not checked, make a file system where one may
//! be, or hang without a message.
//!
//! Start reading at [`boot`], which is the way in order. [`parameters`] is what the image builder
//! and this program agree on, [`gpt`] reads and writes partition tables so that a power cut at
//! any moment leaves one good copy, [`data`] decides when to format, and [`watch`] stays behind
//! to report a root that turns out to be damaged later.

pub mod boot;
pub mod data;
pub mod disks;
pub mod dm;
pub mod error;
pub mod gpt;
pub mod guid;
pub mod home;
pub mod modules;
pub mod mounts;
pub mod parameters;
pub mod quiet_kvm;
pub mod screen;
pub mod watch;

pub use error::BootError;
