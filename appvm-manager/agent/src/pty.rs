//! Terminals for commands that want one.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use bulkhead_protocol::WindowSize;

use crate::files::check;

/// `TIOCGPTPEER`: opens the other side without a path, whatever `/dev/pts` is.
const TIOCGPTPEER: libc::c_ulong = 0x5441;

/// A new terminal: (the side that plays the screen, the side of the program).
pub fn open(size: WindowSize) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: no pointers; the result is checked.
    let master = check(unsafe { libc::posix_openpt(flags) }.into())? as i32;
    // SAFETY: the descriptor is new and nobody else owns it.
    let master = unsafe { OwnedFd::from_raw_fd(master) };
    // SAFETY: the descriptor is a terminal's master.
    check(unsafe { libc::unlockpt(master.as_raw_fd()) }.into())?;
    // SAFETY: the request takes flags by value and gives a descriptor.
    let slave = check(unsafe { libc::ioctl(master.as_raw_fd(), TIOCGPTPEER, flags) }.into())?;
    // SAFETY: the descriptor is new and nobody else owns it.
    let slave = unsafe { OwnedFd::from_raw_fd(slave as i32) };
    resize(std::os::fd::AsFd::as_fd(&master), size)?;
    Ok((master, slave))
}

/// Tells the terminal its size; its programs get SIGWINCH.
pub fn resize(master: BorrowedFd<'_>, size: WindowSize) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: `size` is a winsize, which the request reads.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    check(result.into()).map(|_| ())
}

/// Gives a terminal to a user, so that programs may reopen `/dev/tty`'s path.
pub fn give(slave: BorrowedFd<'_>, uid: u32) {
    // SAFETY: the descriptor is borrowed for the call. Failing costs only comfort.
    let _ = unsafe { libc::fchown(slave.as_raw_fd(), uid, 5) };
}
