//! Why a guest ended, and how every part of the VMM can say so. The first reason wins.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_vmm_api::ExitStatus;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Why a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The guest switched itself off.
    PoweredOff,
    /// The guest asked for a reset.
    Reboot,
    /// The guest cannot go on.
    Crashed(String),
    /// Ended from outside.
    Killed(String),
    /// The guest broke a device's rules.
    DeviceFault(String),
    /// The host failed.
    HostError(String),
}

impl ExitReason {
    /// The status with which the process ends.
    pub fn status(&self) -> ExitStatus {
        match self {
            Self::PoweredOff => ExitStatus::PoweredOff,
            Self::Reboot => ExitStatus::Reboot,
            Self::Crashed(_) => ExitStatus::Crashed,
            Self::Killed(_) => ExitStatus::Killed,
            Self::DeviceFault(_) => ExitStatus::DeviceFault,
            Self::HostError(_) => ExitStatus::HostError,
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff => f.write_str("the guest powered off"),
            Self::Reboot => f.write_str("the guest asked for a reboot"),
            Self::Crashed(why) => write!(f, "the guest crashed: {why}"),
            Self::Killed(why) => write!(f, "killed: {why}"),
            Self::DeviceFault(why) => write!(f, "a device was stopped: {why}"),
            Self::HostError(why) => write!(f, "host error: {why}"),
        }
    }
}

/// Where the reason is left; clones share it.
#[derive(Clone)]
pub struct ExitSignal {
    reason: Arc<Mutex<Option<ExitReason>>>,
    event: Arc<EventFd>,
}

impl ExitSignal {
    /// Nothing has ended yet.
    pub fn new() -> io::Result<Self> {
        let event = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        Ok(Self {
            reason: Arc::new(Mutex::new(None)),
            event,
        })
    }

    /// Ends the VM, unless it is ending already. Never blocks.
    pub fn end(&self, reason: ExitReason) {
        self.lock().get_or_insert(reason);
        // The only failure is a full counter, and then the event is there already.
        let _ = self.event.write(1);
    }

    /// The reason, once there is one.
    pub fn reason(&self) -> Option<ExitReason> {
        self.lock().clone()
    }

    /// Readable once there is a reason.
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<ExitReason>> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
