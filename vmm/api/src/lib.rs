//! What may be said to `bulkhead-vmm`: the configuration of one guest, the control protocol, and
//! the meaning of its exit statuses.
//!
//! Only plain data lives here, so that whoever starts a VMM needs no other part of it. The
//! configuration comes from the domain manager and is trusted; nothing in it comes from a guest.
//! Start reading at [`VmConfig`], then [`ControlRequest`].

mod config;
mod control;
mod exit;
mod pci;

pub use config::{
    ConsoleConfig, DiskConfig, GpuBackend, GpuConfig, GuestConnections, NetConfig, Socket, Source,
    VfioConfig, VfioDescriptors, VmConfig, VsockConfig,
};
pub use control::{ControlCommand, ControlEvent, ControlReply, ControlRequest, VmState};
pub use exit::ExitStatus;
pub use pci::{BadAddress, PciAddress};
