//! Loads the kernel modules that the initramfs lists, in its order.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread::{self, JoinHandle};

use crate::cmdline::Net;
use crate::console::{boot_ms, say};
use crate::files::check;

/// One path per line, in load order; `#` begins a comment.
const LIST: &str = "/etc/bulkhead/modules";
/// `MODULE_INIT_COMPRESSED_FILE`: the kernel decompresses.
const COMPRESSED: libc::c_long = 4;

/// Loads what the boot needs and gives the thread that loads the rest meanwhile: the display's
/// modules, which take long and which only windows need. What fails is reported and left out.
pub fn load_all(timings: bool, net: Net) -> Option<JoinHandle<()>> {
    let list = match fs::read_to_string(LIST) {
        Ok(list) => list,
        Err(error) => {
            say(&format!("{LIST}: {error}"));
            return None;
        }
    };
    let (late, first): (Vec<_>, Vec<_>) = paths(&list)
        .filter(|path| is_wanted(path, net))
        .partition(|path| is_for_display(path));
    // Open at once: the initramfs is out of reach when the root has been switched.
    let late: Vec<_> = late
        .into_iter()
        .map(|path| (path.to_owned(), File::open(path)))
        .collect();
    let rest = thread::Builder::new()
        .name("modules".into())
        .spawn(move || {
            for (path, file) in late {
                report(
                    &path,
                    file.and_then(|file| load(Path::new(&path), &file)),
                    timings,
                );
            }
        });
    for path in first {
        let file = File::open(path);
        report(
            path,
            file.and_then(|file| load(Path::new(path), &file)),
            timings,
        );
    }
    rest.inspect_err(|error| say(&format!("thread: {error}")))
        .ok()
}

/// What a guest has no use for is not there to be attacked, and takes no time.
fn is_wanted(path: &str, net: Net) -> bool {
    // 8021q and what it needs; all cards are virtio.
    let vlans = ["/net/8021q/", "/net/802/", "/net/llc/"];
    let is_of = |folders: &[&str]| folders.iter().any(|folder| path.contains(folder));
    match net {
        Net::None => !is_of(&["/drivers/net/"]) && !is_of(&vlans) && !is_of(&["/net/core/"]),
        Net::Card => !is_of(&vlans),
        Net::Trunk => true,
    }
}

/// Modules of the display depend on each other only.
fn is_for_display(path: &str) -> bool {
    path.contains("/drm/") || path.contains("/virtio_dma_buf.")
}

fn report(path: &str, result: io::Result<()>, timings: bool) {
    match result {
        Ok(()) if timings => say(&format!("timing module {path} {}", boot_ms())),
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
        // Drivers for hardware that this machine lacks say so.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
        Err(error) => say(&format!("module {path}: {error}")),
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

fn load(path: &Path, file: &File) -> io::Result<()> {
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
    fn only_the_display_waits() {
        assert!(is_for_display(
            "/lib/modules/6.12/kernel/drivers/gpu/drm/drm.ko"
        ));
        assert!(is_for_display(
            "/lib/modules/6.12/kernel/drivers/virtio/virtio_dma_buf.ko"
        ));
        assert!(!is_for_display(
            "/lib/modules/6.12/kernel/drivers/block/virtio_blk.ko"
        ));
    }

    #[test]
    fn network_modules_are_for_guests_with_cards() {
        let modules = "/lib/modules/6.12/kernel";
        let path = |rest: &str| format!("{modules}/{rest}.ko.xz");
        let [card, failover, vlan, llc, vsock] = [
            "drivers/net/virtio_net",
            "net/core/failover",
            "net/8021q/8021q",
            "net/llc/llc",
            "net/vmw_vsock/vsock",
        ]
        .map(path);
        for (net, wanted) in [
            (Net::None, vec![&vsock]),
            (Net::Card, vec![&card, &failover, &vsock]),
            (Net::Trunk, vec![&card, &failover, &vlan, &llc, &vsock]),
        ] {
            let all = [&card, &failover, &vlan, &llc, &vsock];
            let found: Vec<_> = all
                .into_iter()
                .filter(|path| is_wanted(path, net))
                .collect();
            assert_eq!(found, wanted, "{net:?}");
        }
    }

    #[test]
    fn lists_have_comments_and_empty_lines() {
        let list = "# first\n/lib/modules/a.ko\n\n  /lib/modules/b.ko  \n";
        assert_eq!(
            paths(list).collect::<Vec<_>>(),
            ["/lib/modules/a.ko", "/lib/modules/b.ko"]
        );
    }
}
