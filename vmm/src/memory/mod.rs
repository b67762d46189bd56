//! Guest RAM and the window of host memory shown to the guest.

pub mod host_window;

/// Guest RAM: private anonymous memory of this process. Cheap to clone.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;
