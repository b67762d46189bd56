//! The file system on the guest's own volume: made when the volume is new, mended after damage,
//! grown with it. The host never does that: it does not look into what belongs to a guest.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::console::say;
use crate::files::{c_path, check};
use crate::{disks, mounts};

/// Where the template's programs are.
#[derive(Debug, Clone, Copy)]
pub struct Tools<'a> {
    /// The template's root; its `/dev` has the devices.
    pub root: &'a Path,
}

/// Mounts the volume `device` at `at`. False, with a line on the console, where that cannot be.
pub fn mount(device: &Path, at: &Path, flags: libc::c_ulong, tools: Tools<'_>) -> bool {
    let name = device.to_string_lossy().into_owned();
    if !disks::is_ext4(device).unwrap_or(false) {
        // A new volume reads as zeros, so that its journal need not be written: that would take half of
        // the first start, and 64 MiB of the host's disk.
        let made = tools.run(
            "mkfs.ext4",
            &[
                "-q",
                "-F",
                "-m",
                "0",
                "-L",
                "home",
                "-E",
                "nodiscard,lazy_itable_init=1,lazy_journal_init=1",
                &name,
            ],
        );
        if !made {
            say("volume: no filesystem could be made; nothing will persist");
            return false;
        }
    }
    let mount = || mounts::mount(&name, at, "ext4", flags, "");
    if mount().is_err() {
        // A journal alone is replayed by the kernel; this is real damage.
        tools.run("e2fsck", &["-p", &name]);
        if let Err(error) = mount() {
            say(&format!("volume: {error}; nothing will persist"));
            return false;
        }
    }
    true
}

/// Lets a mounted file system fill a volume that has grown. The kernel does it while it is in use;
/// it takes a moment, whatever its size.
pub fn fill(device: &Path, tools: Tools<'_>) {
    let name = device.to_string_lossy();
    if disks::has_grown(device).unwrap_or(false) && tools.run("resize2fs", &[&name]) {
        say("home: it fills its larger volume");
    }
}

impl Tools<'_> {
    /// Runs a program of the template before the reaper exists.
    fn run(self, name: &str, arguments: &[&str]) -> bool {
        let found = ["/sbin", "/usr/sbin", "/usr/bin"]
            .map(|folder| Path::new(folder).join(name))
            .into_iter()
            .find(|file| {
                let inside = file.strip_prefix("/").unwrap_or(file);
                self.root.join(inside).exists()
            });
        let Some(file) = found else {
            say(&format!("the template has no {name} (package e2fsprogs)"));
            return false;
        };
        let root = match c_path(self.root) {
            Ok(root) => root,
            Err(error) => {
                say(&format!("{name}: {error}"));
                return false;
            }
        };
        let mut command = Command::new(file);
        command
            .args(arguments)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        // SAFETY: between fork and exec it makes two system calls, on C strings that were made
        // before.
        unsafe {
            command.pre_exec(move || {
                check(libc::chroot(root.as_ptr()).into())?;
                check(libc::chdir(c"/".as_ptr()).into())?;
                Ok::<(), io::Error>(())
            });
        }
        match command.output() {
            Ok(output) if output.status.success() => true,
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                say(&format!("{name}: {}: {}", output.status, text.trim_end()));
                false
            }
            Err(error) => {
                say(&format!("{name}: {error}"));
                false
            }
        }
    }
}
