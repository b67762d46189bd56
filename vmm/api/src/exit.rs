//! The exit statuses of `bulkhead-vmm run`.

/// Why a VMM's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// The guest powered itself off.
    PoweredOff = 0,
    /// The configuration is bad or the host failed; the reason is on standard error.
    HostError = 1,
    /// The guest asked for a reboot.
    Reboot = 3,
    /// The guest crashed: a triple fault, or a state that KVM cannot run.
    Crashed = 4,
    /// Ended from outside: the control socket's `kill`, or a signal.
    Killed = 5,
    /// A device was stopped because the guest broke its rules beyond repair.
    DeviceFault = 6,
}

impl ExitStatus {
    /// The meaning of a process's exit status, if it is one of ours.
    pub fn from_code(code: i32) -> Option<Self> {
        Some(match code {
            0 => Self::PoweredOff,
            1 => Self::HostError,
            3 => Self::Reboot,
            4 => Self::Crashed,
            5 => Self::Killed,
            6 => Self::DeviceFault,
            _ => return None,
        })
    }
}
