//! Loads the kernel modules that the initramfs lists, in its order.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::console::say;
use crate::files::check;

/// One path per line, in load order; `#` begins a comment.
const LIST: &str = "/etc/bulkhead/modules";
/// `MODULE_INIT_COMPRESSED_FILE`: the kernel decompresses.
const COMPRESSED: libc::c_long = 4;

/// Loads all; what fails is reported and left out.
pub fn load_all() {
    let list = match fs::read_to_string(LIST) {
        Ok(list) => list,
        Err(error) => return say(&format!("{LIST}: {error}")),
    };
    for path in paths(&list) {
        match load(Path::new(path)) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            // Drivers for hardware that this machine lacks say so.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => say(&format!("module {path}: {error}")),
        }
    }
}

/// Frees the memory that the module files hold in the initramfs.
pub fn forget() {
    let _ = fs::remove_dir_all("/lib/modules");
    let _ = fs::remove_dir_all("/usr/lib/modules");
}

fn paths(list: &str) -> impl Iterator<Item = &str> {
    list.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn load(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let compressed = path.extension().is_some_and(|ending| ending != "ko");
    let flags = if compressed { COMPRESSED } else { 0 };
    // SAFETY: the descriptor is open and the parameters are an empty C string.
    let result = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    };
    check(result).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_comments_and_empty_lines() {
        let list = "# first\n/lib/modules/a.ko\n\n  /lib/modules/b.ko  \n";
        assert_eq!(
            paths(list).collect::<Vec<_>>(),
            ["/lib/modules/a.ko", "/lib/modules/b.ko"]
        );
    }
}
