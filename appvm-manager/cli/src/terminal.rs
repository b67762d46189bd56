//! The user's terminal.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// Standard input in raw mode until this is dropped.
pub struct RawMode {
    before: libc::termios,
}

impl RawMode {
    /// Takes the terminal over.
    pub fn enter() -> io::Result<Self> {
        let mut before = MaybeUninit::<libc::termios>::uninit();
        // SAFETY: the pointer is to room for a termios.
        if unsafe { libc::tcgetattr(0, before.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: tcgetattr succeeded and filled it in.
        let before = unsafe { before.assume_init() };
        let mut raw = before;
        // SAFETY: `raw` is a valid termios.
        unsafe { libc::cfmakeraw(&mut raw) };
        // SAFETY: as above.
        if unsafe { libc::tcsetattr(0, libc::TCSADRAIN, &raw) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(RawMode { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // SAFETY: `before` is what tcgetattr gave.
        unsafe { libc::tcsetattr(0, libc::TCSADRAIN, &self.before) };
    }
}

/// What Ctrl-C is.
pub const INTERRUPT: u8 = 3;

/// Standard input that does not show what is typed, until this is dropped. Ctrl-C ends the line and
/// stands at its end, so that nothing ends this process before the terminal is as it was.
pub struct NoEcho {
    before: libc::termios,
}

impl NoEcho {
    /// From now on.
    pub fn enter() -> io::Result<Self> {
        let mut before = MaybeUninit::<libc::termios>::uninit();
        // SAFETY: the pointer is to room for a termios.
        if unsafe { libc::tcgetattr(0, before.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: tcgetattr succeeded and filled it in.
        let before = unsafe { before.assume_init() };
        let mut hidden = before;
        hidden.c_lflag &= !(libc::ECHO | libc::ISIG);
        hidden.c_cc[libc::VEOL] = INTERRUPT;
        // SAFETY: `hidden` is a valid termios.
        if unsafe { libc::tcsetattr(0, libc::TCSAFLUSH, &hidden) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(NoEcho { before })
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        // SAFETY: `before` is what tcgetattr gave.
        unsafe { libc::tcsetattr(0, libc::TCSADRAIN, &self.before) };
    }
}

/// Columns and rows.
pub fn size() -> Option<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    [1, 0, 2].into_iter().find_map(|fd: RawFd| {
        // SAFETY: the pointer is to room for a winsize.
        let result = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &mut size) };
        (result == 0 && size.ws_col > 0).then_some((size.ws_col, size.ws_row))
    })
}

/// Whether this process may read from the terminal without being stopped.
pub fn in_foreground() -> bool {
    // SAFETY: no pointers.
    let (terminal, ours) = unsafe { (libc::tcgetpgrp(0), libc::getpgrp()) };
    terminal == ours
}

/// Waits until standard input has something; tells whether it has.
pub fn input_ready(timeout_ms: i32) -> bool {
    let mut polled = libc::pollfd {
        fd: 0,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: the pointer and count describe one pollfd.
    let count = unsafe { libc::poll(&mut polled, 1, timeout_ms) };
    count > 0
}
