//! The kernel's own file systems, and the change to the verified root.

use std::{fs, path::Path};

use rustix::mount::{MountFlags, mount, mount_move};

use crate::error::{BootError, step};

/// Where the root is mounted before it becomes `/`.
pub const NEW_ROOT: &str = "/newroot";
/// What the root must have, and what moves into it.
const KERNEL_FOLDERS: [&str; 4] = ["dev", "proc", "sys", "run"];

/// Mounts a file system; the folder must exist.
pub fn mount_at(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> std::io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    mount(
        source.as_ref(),
        target.as_ref(),
        kind,
        flags,
        options.as_c_str(),
    )?;
    Ok(())
}

/// The kernel's file systems, as systemd wants to find them.
pub fn mount_kernel_folders() -> Result<(), BootError> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for (kind, target, flags, options) in [
        ("proc", "/proc", quiet, ""),
        ("sysfs", "/sys", quiet, ""),
        ("devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755"),
        (
            "tmpfs",
            "/run",
            MountFlags::NOSUID | MountFlags::NODEV,
            "mode=0755,size=20%",
        ),
    ] {
        mount_at(kind, target, kind, flags, options).map_err(step(format!("mounting {target}")))?;
    }
    Ok(())
}

/// Makes [`NEW_ROOT`] the root, with the kernel's file systems in it, and frees the initramfs.
pub fn switch_root() -> Result<(), BootError> {
    for folder in KERNEL_FOLDERS {
        let target = format!("{NEW_ROOT}/{folder}");
        mount_move(format!("/{folder}"), &target).map_err(step(format!("moving /{folder}")))?;
    }
    // Modules and their list; the program itself stays, since it runs.
    for folder in ["/usr", "/lib", "/etc"] {
        let _ = fs::remove_dir_all(folder);
    }
    std::env::set_current_dir(NEW_ROOT).map_err(step("entering the root"))?;
    mount_move(".", "/").map_err(step("moving the root"))?;
    rustix::process::chroot(".").map_err(step("changing the root"))?;
    std::env::set_current_dir("/").map_err(step("entering the root"))
}
