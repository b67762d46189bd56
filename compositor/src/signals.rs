//! SIGTERM and SIGINT end the compositor in order: its sockets are removed.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

use smithay::reexports::calloop::{Interest, LoopHandle, Mode, PostAction, generic::Generic};

use crate::state::State;

/// Makes both signals events of the loop. Called before any thread is started, so that all
/// threads have them blocked and none dies of them.
pub(crate) fn stop_on_signals(events: &LoopHandle<'static, State>) -> io::Result<()> {
    let fd = signal_fd()?;
    events
        .insert_source(
            Generic::new(fd, Interest::READ, Mode::Level),
            |_, _, state| {
                tracing::info!("asked to end");
                state.stop.stop();
                Ok(PostAction::Remove)
            },
        )
        .map(|_| ())
        .map_err(|error| io::Error::other(error.to_string()))
}

fn signal_fd() -> io::Result<OwnedFd> {
    // SAFETY: an all-zero `sigset_t` is a valid value to hand to `sigemptyset`, which fills it in;
    // the pointers are to a live local for the length of each call.
    let fd = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        let blocked = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        if blocked != 0 {
            return Err(io::Error::from_raw_os_error(blocked));
        }
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `signalfd` just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
