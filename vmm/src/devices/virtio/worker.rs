//! A device's thread: it runs between activation and reset, and ends when it is told to.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::thread::JoinHandle;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Devices' threads are shallow; the default of 2 MiB would only be address space, but a limit
/// finds recursion early.
const STACK_BYTES: usize = 256 << 10;

/// A running thread.
pub struct Worker {
    stop: EventFd,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts a thread. `body` must end soon after the eventfd that it gets becomes readable.
    pub fn spawn(name: &str, body: impl FnOnce(EventFd) + Send + 'static) -> io::Result<Self> {
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let seen = stop.try_clone()?;
        let builder = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK_BYTES);
        Ok(Self {
            stop,
            thread: builder.spawn(move || {
                crate::emulated::run_anywhere();
                body(seen);
            })?,
        })
    }

    /// Ends the thread and waits for it.
    pub fn stop(self) {
        // A full counter means that it was told already.
        let _ = self.stop.write(1);
        if self.thread.join().is_err() {
            tracing::error!("a device's thread panicked");
        }
    }
}

/// Waits until one of `fds` is ready for what it is paired with (`POLLIN`, `POLLOUT`; zero leaves
/// it out), or `timeout_ms` passed. Errors and hang-ups count as ready.
pub fn wait<const N: usize>(
    fds: [(BorrowedFd<'_>, libc::c_short); N],
    timeout_ms: Option<u32>,
) -> io::Result<[bool; N]> {
    let mut polls = fds.map(|(fd, events)| libc::pollfd {
        // poll ignores negative descriptors.
        fd: if events == 0 { -1 } else { fd.as_raw_fd() },
        events,
        revents: 0,
    });
    let timeout = timeout_ms.map_or(-1, |ms| {
        libc::c_int::try_from(ms).unwrap_or(libc::c_int::MAX)
    });
    // SAFETY: an array of pollfds with its length, for the time of the call.
    let count = unsafe { libc::poll(polls.as_mut_ptr(), N as libc::nfds_t, timeout) };
    if count < 0 {
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::Interrupted {
            return Ok([false; N]);
        }
        return Err(error);
    }
    Ok(polls.map(|poll| poll.revents != 0))
}

/// An eventfd as a descriptor for [`wait`].
pub fn readable(eventfd: &EventFd) -> (BorrowedFd<'_>, libc::c_short) {
    // SAFETY: the eventfd is open for as long as it is borrowed.
    (
        unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) },
        libc::POLLIN,
    )
}

/// Any descriptor, waited for when `wanted`.
pub fn when(
    fd: &impl AsFd,
    wanted: bool,
    events: libc::c_short,
) -> (BorrowedFd<'_>, libc::c_short) {
    (fd.as_fd(), if wanted { events } else { 0 })
}
