//! Mounts, and the way from the initramfs into the template's root.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::Path;

use crate::console::say;
use crate::files::{c_path, check, directory};
use crate::volume;

/// Where the pieces of the new root are put together, in the initramfs.
const LOWER: &str = "/bulkhead/lower";
const CHANGES: &str = "/bulkhead/changes";
const ROOT: &str = "/bulkhead/root";
/// Where the initramfs keeps programs that the session needs, and where they are found later.
const BUNDLED: &str = "/usr/lib/bulkhead";
/// See [`BUNDLED`].
pub const BIN: &str = "/run/bulkhead/bin";
/// One program of [`BUNDLED`] has several names.
const CALLER: &str = "bulkhead-rpc";
/// See [`CALLER`].
const OTHER_NAMES: [&str; 5] = [
    "bulkhead-connect",
    "bulkhead-copy",
    "bulkhead-move",
    "bulkhead-notify",
    "bulkhead-open",
];

/// One `mount(2)`.
pub fn mount(
    source: &str,
    target: &Path,
    kind: &str,
    flags: libc::c_ulong,
    data: &str,
) -> io::Result<()> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let source = CString::new(source).map_err(invalid)?;
    let kind = CString::new(kind).map_err(invalid)?;
    let data = CString::new(data).map_err(invalid)?;
    let target = c_path(target)?;
    // SAFETY: all pointers are C strings that live until the call returns.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    };
    check(result.into()).map(|_| ())
}

fn try_mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong, data: &str) {
    let path = Path::new(target);
    let result = fs::create_dir_all(path).and_then(|()| mount(source, path, kind, flags, data));
    match result {
        Ok(()) => {}
        // Debian's kernels mount devtmpfs themselves.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        Err(error) => say(&format!("mount {target}: {error}")),
    }
}

const SAFE: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV;

/// `/proc`, `/sys`, `/dev` and `/run`, which the first steps need.
pub fn first() {
    try_mount("dev", "/dev", "devtmpfs", libc::MS_NOSUID, "mode=0755");
    try_mount("proc", "/proc", "proc", SAFE | libc::MS_NOEXEC, "");
    try_mount("sys", "/sys", "sysfs", SAFE | libc::MS_NOEXEC, "");
    try_mount("run", "/run", "tmpfs", SAFE, "mode=0755");
}

/// What programs expect besides, inside the final root.
pub fn second() {
    try_mount(
        "devpts",
        "/dev/pts",
        "devpts",
        libc::MS_NOSUID | libc::MS_NOEXEC,
        "gid=5,mode=0620,ptmxmode=0666",
    );
    try_mount("shm", "/dev/shm", "tmpfs", SAFE, "mode=1777");
    try_mount("tmp", "/tmp", "tmpfs", SAFE, "mode=1777");
}

/// Mounts `device` read-only under a layer and makes that the root. The layer is in memory, or on
/// the guest's own `volume`; then the home lies there too. Whether the home is mounted.
pub fn switch_root(device: &Path, volume: Option<&Path>) -> io::Result<bool> {
    for path in [LOWER, CHANGES, ROOT] {
        fs::create_dir_all(path)?;
    }
    let source = device.to_string_lossy();
    mount(
        &source,
        Path::new(LOWER),
        "erofs",
        libc::MS_RDONLY | libc::MS_NODEV,
        "",
    )
    .or_else(|_| mount(&source, Path::new(LOWER), "ext4", libc::MS_RDONLY, "noload"))?;
    let kept = volume.is_some_and(mount_changes);
    if !kept {
        mount(
            "changes",
            Path::new(CHANGES),
            "tmpfs",
            libc::MS_NODEV,
            "mode=0755",
        )?;
    }
    let (upper, work) = (format!("{CHANGES}/upper"), format!("{CHANGES}/work"));
    directory(Path::new(&upper), 0o755)?;
    directory(Path::new(&work), 0o755)?;
    let data = format!("lowerdir={LOWER},upperdir={upper},workdir={work}");
    mount("root", Path::new(ROOT), "overlay", libc::MS_NODEV, &data)?;
    let home_mounted = kept && {
        let mounted = bind_home();
        if let Err(error) = &mounted {
            say(&format!("home: {error}; nothing in it will persist"));
        }
        mounted.is_ok()
    };

    directory(Path::new(BIN), 0o755)?;
    if Path::new(BUNDLED).exists() {
        for name in OTHER_NAMES {
            // Without them a domain cannot call others, but it works.
            let _ = std::os::unix::fs::symlink(CALLER, Path::new(BUNDLED).join(name));
        }
        mount(BUNDLED, Path::new(BIN), "", libc::MS_BIND, "")?;
    }
    for path in ["dev", "proc", "sys", "run"] {
        let target = Path::new(ROOT).join(path);
        fs::create_dir_all(&target)?;
        mount(&format!("/{path}"), &target, "", libc::MS_MOVE, "")?;
    }
    std::env::set_current_dir(ROOT)?;
    mount(".", Path::new("/"), "", libc::MS_MOVE, "")?;
    // SAFETY: the argument is a C string.
    check(unsafe { libc::chroot(c".".as_ptr()) }.into())?;
    std::env::set_current_dir("/")?;
    Ok(home_mounted)
}

/// Mounts the guest's volume where changes of the root go. The programs that make and mend its
/// file system are the template's, which is only mounted below so far.
fn mount_changes(volume: &Path) -> bool {
    let devices = Path::new(LOWER).join("dev");
    if let Err(error) = mount("/dev", &devices, "", libc::MS_BIND, "") {
        say(&format!("the template's /dev: {error}"));
        return false;
    }
    let tools = volume::Tools {
        root: Path::new(LOWER),
    };
    let flags = libc::MS_NODEV | libc::MS_NOATIME;
    let mounted = volume::mount(volume, Path::new(CHANGES), flags, tools);
    unmount(&devices);
    mounted
}

/// The home beside the changes, without programs that run as somebody else.
fn bind_home() -> io::Result<()> {
    let (home, target) = (format!("{CHANGES}/home"), Path::new(ROOT).join("home"));
    directory(Path::new(&home), 0o755)?;
    fs::create_dir_all(&target)?;
    mount(&home, &target, "", libc::MS_BIND, "")?;
    let flags = libc::MS_BIND | libc::MS_REMOUNT | SAFE | libc::MS_NOATIME;
    mount("", &target, "", flags, "")
}

/// Takes a filesystem away, or makes sure at least that nothing more is written to it.
pub fn unmount(path: &Path) {
    let Ok(target) = c_path(path) else { return };
    // SAFETY: the argument is a C string.
    if unsafe { libc::umount2(target.as_ptr(), 0) } == 0 {
        return;
    }
    if let Err(error) = mount("", path, "", libc::MS_REMOUNT | libc::MS_RDONLY, "") {
        say(&format!("unmount {}: {error}", path.display()));
    }
}
