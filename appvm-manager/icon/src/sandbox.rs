//! What this process gives up before it reads anything.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Seconds of processor time. Icons take a few milliseconds.
const CPU_SECONDS: u64 = 1;
/// All of its memory, with what its program and libraries take.
const ADDRESS_SPACE_BYTES: u64 = 256 * 1024 * 1024;

/// Why the process is not locked up; nothing must be decoded then.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A limit was refused.
    #[error("a limit cannot be set: {0}")]
    Limit(io::Error),
    /// The filter of system calls was refused.
    #[error("the system calls cannot be limited: {0}; the kernel needs CONFIG_SECCOMP_FILTER")]
    Filter(String),
}

/// Limits this process for good.
pub fn enter() -> Result<(), SandboxError> {
    let limits = [
        (Resource::Cpu, CPU_SECONDS),
        (Resource::As, ADDRESS_SPACE_BYTES),
        (Resource::Fsize, 0),
        // The standard streams are open; nothing more can be.
        (Resource::Nofile, 0),
        (Resource::Nproc, 0),
        (Resource::Core, 0),
    ];
    for (resource, most) in limits {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit).map_err(|error| SandboxError::Limit(error.into()))?;
    }
    // SAFETY: prctl with these arguments takes no pointers; it only forbids gaining privileges.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(SandboxError::Limit(io::Error::last_os_error()));
    }
    let program = filter().map_err(|error| SandboxError::Filter(error.to_string()))?;
    seccompiler::apply_filter(&program).map_err(|error| SandboxError::Filter(error.to_string()))
}

/// What remains: memory, the open streams, the end. Anything else ends the process at once.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let argument = |index, operator, value| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
    };
    // No memory becomes code, and none comes from a file.
    let not_executable = || argument(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0);
    let anonymous = argument(
        3,
        SeccompCmpOp::MaskedEq(libc::MAP_ANONYMOUS as u64),
        libc::MAP_ANONYMOUS as u64,
    )?;
    let only = |conditions| SeccompRule::new(conditions).map(|rule| vec![rule]);
    let rules = [
        (libc::SYS_mmap, only(vec![not_executable()?, anonymous])?),
        (libc::SYS_mprotect, only(vec![not_executable()?])?),
        (libc::SYS_munmap, vec![]),
        (libc::SYS_mremap, vec![]),
        (libc::SYS_madvise, vec![]),
        (libc::SYS_brk, vec![]),
        (libc::SYS_read, vec![]),
        (libc::SYS_write, vec![]),
        // Hash tables want a seed.
        (libc::SYS_getrandom, vec![]),
        (libc::SYS_futex, vec![]),
        (libc::SYS_clock_gettime, vec![]),
        // The standard library takes down its signal stack at the end.
        (libc::SYS_sigaltstack, vec![]),
        (libc::SYS_rt_sigprocmask, vec![]),
        (libc::SYS_rt_sigreturn, vec![]),
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
