//! PCI: configuration space, BARs, MSI-X and the one bus that all functions sit on.
//!
//! BARs are assigned before the guest starts and stay where they are: a guest can size them but
//! not move them. That keeps memory slots and ioeventfds fixed for the VM's lifetime.

pub mod config_space;
pub mod msix;
pub mod root;
pub mod shown;
pub mod vfio;
