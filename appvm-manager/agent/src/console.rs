//! What the agent says: on the guest's console as PID 1, on standard error otherwise.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;

static CONSOLE: OnceLock<Option<File>> = OnceLock::new();

/// From now on messages go to `/dev/console`. Call it when `/dev` is there.
pub fn open() {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open("/dev/console");
    let _ = CONSOLE.set(file.ok());
}

/// One line.
pub fn say(text: &str) {
    let line = format!("bulkhead-agent: {text}\n");
    // One write per line, so that lines of several threads do not mix. A console that cannot be
    // written leaves nobody to tell.
    let _ = match CONSOLE.get() {
        Some(Some(file)) => (&*file).write_all(line.as_bytes()),
        _ => std::io::stderr().write_all(line.as_bytes()),
    };
}

/// Milliseconds since the guest's boot.
pub fn boot_ms() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec for the whole call.
    if unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) } != 0 {
        return 0;
    }
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}
