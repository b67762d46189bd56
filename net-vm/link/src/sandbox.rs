//! What this process gives up before it has a single port.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use bulkhead_ring::memory::MEMORY_BYTES;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::ports::MAX_PORTS;

/// Descriptors besides ports: streams, the loop, the manager's socket, those that just arrive.
const OTHER_DESCRIPTORS: u64 = 32;

/// Why the process is not locked up; no frame must be looked at then.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A limit was refused.
    #[error("a limit cannot be set: {0}")]
    Limit(io::Error),
    /// Inherited descriptors stay open.
    #[error("descriptors cannot be closed: {0}; the kernel must be 5.9 or newer")]
    Close(io::Error),
    /// The filter of system calls was refused.
    #[error("the system calls cannot be limited: {0}; the kernel needs CONFIG_SECCOMP_FILTER")]
    Filter(String),
}

/// Closes every descriptor but the standard streams and `keep`: whoever started us may have left
/// some open. Must come first, before anything else is opened.
pub fn close_others(keep: &OwnedFd) -> Result<(), SandboxError> {
    let keep = libc::c_uint::try_from(keep.as_raw_fd()).unwrap_or(libc::c_uint::MAX);
    let before = (3, keep.saturating_sub(1));
    let after = (keep.saturating_add(1).max(3), libc::c_uint::MAX);
    for (first, last) in [before, after] {
        if first > last {
            continue;
        }
        // SAFETY: it takes no pointers; nothing in this process owns one of these descriptors,
        // since it has opened none but `keep`, which lies in neither range.
        if unsafe { libc::close_range(first, last, 0) } != 0 {
            return Err(SandboxError::Close(io::Error::last_os_error()));
        }
    }
    Ok(())
}

/// Limits this process for good.
pub fn enter() -> Result<(), SandboxError> {
    let limit = |error: rustix::io::Errno| SandboxError::Limit(error.into());
    // Nobody of the same user may look into it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(limit)?;
    let wanted = MAX_PORTS as u64 + OTHER_DESCRIPTORS;
    let files = getrlimit(Resource::Nofile)
        .maximum
        .map_or(wanted, |maximum| maximum.min(wanted));
    for (resource, most) in [
        (Resource::Nofile, files),
        (Resource::Nproc, 0),
        (Resource::Core, 0),
    ] {
        let most = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, most).map_err(limit)?;
    }
    rustix::thread::set_no_new_privs(true).map_err(limit)?;
    let program = filter().map_err(|error| SandboxError::Filter(error.to_string()))?;
    seccompiler::apply_filter(&program).map_err(|error| SandboxError::Filter(error.to_string()))
}

/// What remains: packets on open sockets, waiting for them, memory, that of rings, a line in the log, the
/// end.
/// Anything else ends the process at once; no socket, file or process can be made.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let argument = |index, operator, value| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
    };
    // No memory becomes code, and none is a file's.
    let not_executable = || argument(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0);
    let anonymous = argument(
        3,
        SeccompCmpOp::MaskedEq(libc::MAP_ANONYMOUS as u64),
        libc::MAP_ANONYMOUS as u64,
    )?;
    // But for a port's rings: shared, of their size and from their beginning.
    let shared = argument(3, SeccompCmpOp::Eq, libc::MAP_SHARED as u64)?;
    let whole = |index, value| {
        SeccompCondition::new(index, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)
    };
    let of_a_ring = whole(1, MEMORY_BYTES as u64)?;
    let from_its_beginning = whole(5, 0)?;
    let get_flags = argument(1, SeccompCmpOp::Eq, libc::F_GETFD as u64)?;
    let get_seals = argument(1, SeccompCmpOp::Eq, libc::F_GET_SEALS as u64)?;
    let only = |conditions| SeccompRule::new(conditions).map(|rule| vec![rule]);
    let rules = [
        (libc::SYS_recvfrom, vec![]),
        (libc::SYS_recvmsg, vec![]),
        (libc::SYS_sendto, vec![]),
        (libc::SYS_sendmsg, vec![]),
        (libc::SYS_getsockopt, vec![]),
        (libc::SYS_getpeername, vec![]),
        (libc::SYS_epoll_ctl, vec![]),
        (libc::SYS_epoll_pwait, vec![]),
        (libc::SYS_epoll_pwait2, vec![]),
        (libc::SYS_close, vec![]),
        // The standard library of a debug build looks whether what it closes is open.
        (
            libc::SYS_fcntl,
            vec![
                SeccompRule::new(vec![get_flags])?,
                SeccompRule::new(vec![get_seals])?,
            ],
        ),
        (libc::SYS_fstat, vec![]),
        (libc::SYS_write, vec![]),
        (
            libc::SYS_mmap,
            vec![
                SeccompRule::new(vec![not_executable()?, anonymous])?,
                SeccompRule::new(vec![
                    not_executable()?,
                    shared,
                    of_a_ring,
                    from_its_beginning,
                ])?,
            ],
        ),
        (libc::SYS_mprotect, only(vec![not_executable()?])?),
        (libc::SYS_munmap, vec![]),
        (libc::SYS_mremap, vec![]),
        (libc::SYS_madvise, vec![]),
        (libc::SYS_brk, vec![]),
        // Hash tables want a seed.
        (libc::SYS_getrandom, vec![]),
        (libc::SYS_futex, vec![]),
        (libc::SYS_clock_gettime, vec![]),
        // The standard library takes down its signal stack at the end.
        (libc::SYS_sigaltstack, vec![]),
        (libc::SYS_rt_sigprocmask, vec![]),
        (libc::SYS_rt_sigreturn, vec![]),
        // A wait that was stopped and goes on.
        (libc::SYS_restart_syscall, vec![]),
        (libc::SYS_exit, vec![]),
        (libc::SYS_exit_group, vec![]),
    ];
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        arch,
    )?
    .try_into()
}
