//! What all long-lived children of the daemon have in common.

use std::io;
use std::os::fd::RawFd;

use tokio::process::Command;

/// Ties a child's life to the daemon's and lets it inherit these descriptors, besides its standard
/// streams, and no others. Must be spawned on a thread that lives as long as the daemon, because the
/// kernel ties the child's life to the thread that made it.
pub fn tie(command: &mut Command, inherited: Vec<RawFd>) {
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: the closure runs between fork and exec and only makes system calls on numbers
    // that were copied before; the descriptors stay open in the parent until spawn returns.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The daemon may have died before the line above.
            if libc::getppid() != parent {
                libc::_exit(1);
            }
            // Nothing else may reach the child: descriptors of callers come from the bus without
            // the flag that closes them.
            if libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) != 0 {
                return Err(io::Error::last_os_error());
            }
            for fd in &inherited {
                if libc::fcntl(*fd, libc::F_SETFD, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}
