//! A terminal in raw mode for as long as the guest has it.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

/// The settings to go back to.
pub struct RawMode {
    terminal: File,
    before: libc::termios,
}

impl std::fmt::Debug for RawMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawMode")
            .field("terminal", &self.terminal)
            .finish_non_exhaustive()
    }
}

impl RawMode {
    /// Puts `file` into raw mode if it is a terminal.
    pub fn enter(file: &File) -> Option<Self> {
        let mut settings = MaybeUninit::<libc::termios>::uninit();
        // SAFETY: the descriptor is open and there is room for the answer.
        if unsafe { libc::tcgetattr(file.as_raw_fd(), settings.as_mut_ptr()) } != 0 {
            return None;
        }
        // SAFETY: tcgetattr succeeded and filled it.
        let before = unsafe { settings.assume_init() };
        let terminal = file.try_clone().ok()?;
        let mut raw = before;
        // SAFETY: changes the fields of our copy only.
        unsafe { libc::cfmakeraw(&mut raw) };
        let mode = Self { terminal, before };
        if let Err(error) = mode.apply(&raw) {
            tracing::warn!("the terminal cannot be put into raw mode: {error}");
        }
        Some(mode)
    }

    fn apply(&self, settings: &libc::termios) -> io::Result<()> {
        // SAFETY: the descriptor is open and the settings are valid for the call.
        let result = unsafe { libc::tcsetattr(self.terminal.as_raw_fd(), libc::TCSANOW, settings) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone, and then nothing needs to be restored.
        let _ = self.apply(&self.before);
    }
}
