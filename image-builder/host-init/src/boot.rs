//! From the kernel's hand-over to the first command: modules, disks, the root, the user's session
//! folders.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind_recursive, mount_move, unmount};

use crate::protocol::PORT_NAME;

/// The desktop user.
pub const USER_ID: u32 = 1000;
/// The user's runtime folder.
pub const RUNTIME: &str = "/run/user/1000";
/// The user's home.
pub const HOME: &str = "/home/user";
/// Where a template's root is mounted for programs that run directly on the host.
pub const DIRECT: &str = "/run/direct";

const PROGRAMS: &str = "/usr/lib/bulkhead";
const IMAGES: &str = "/usr/share/bulkhead/images";
const NEW_ROOT: &str = "/newroot";

/// Why the machine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A step failed.
    #[error("{step}: {source}")]
    Step {
        /// What was being done.
        step: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A disk or port did not appear.
    #[error("{0} did not appear")]
    Absent(String),
}

fn step<E: Into<std::io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> BootError {
    let step = what.into();
    move |error| BootError::Step {
        step,
        source: error.into(),
    }
}

/// Prepares the machine and returns the port that commands come from.
pub fn prepare() -> Result<PathBuf, BootError> {
    mount_early()?;
    let late = load_modules();
    switch_root()?;
    mount_images()?;
    prepare_user()?;
    let _ = late.join();
    open_devices();
    // A host without KVM says so when a guest is started; it can do everything else.
    if let Err(error) = bulkhead_host_boot::quiet_kvm::hold() {
        note(&format!("no virtual machine to hold: {error}"));
    }
    loopback_up();
    find_port()
}

/// Ends the machine. As PID 1 this is the only way out.
pub fn power_off() -> ! {
    rustix::fs::sync();
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn mount_at(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    data: &str,
) -> Result<(), BootError> {
    fs::create_dir_all(target).map_err(step(format!("creating {target}")))?;
    let data = std::ffi::CString::new(data).unwrap_or_default();
    mount(source, target, kind, flags, data.as_c_str())
        .map_err(step(format!("mounting {source} at {target}")))
}

fn mount_early() -> Result<(), BootError> {
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount_at("proc", "/proc", "proc", quiet, "")?;
    mount_at("sysfs", "/sys", "sysfs", quiet, "")?;
    mount_at(
        "devtmpfs",
        "/dev",
        "devtmpfs",
        MountFlags::NOSUID,
        "mode=0755",
    )?;
    mount_at(
        "devpts",
        "/dev/pts",
        "devpts",
        quiet,
        "mode=0620,ptmxmode=0666",
    )?;
    mount_at(
        "tmpfs",
        "/dev/shm",
        "tmpfs",
        MountFlags::NOSUID,
        "mode=1777",
    )?;
    mount_at("tmpfs", "/run", "tmpfs", MountFlags::NOSUID, "mode=0755")
}

/// Modules that nothing waits for on the way to the root.
const LATE_MODULES: &[&str] = &[
    "kvm",
    "irqbypass",
    "ccp",
    "tun",
    "tap",
    "vhost",
    "bridge",
    "vsock",
    "button",
    "virtio_net",
    "vfio",
];

/// Loads what the list names, and returns the thread that loads the slow ones: they take half of
/// an emulated machine's boot, and there are two processors. A module that does not load is no
/// error here: what is really needed is missed at the next step, by name.
fn load_modules() -> std::thread::JoinHandle<()> {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let list = fs::read_to_string("/etc/bulkhead/modules").unwrap_or_default();
    let mut late = Vec::new();
    for path in list.lines() {
        let name = path
            .rsplit('/')
            .next()
            .unwrap_or(path)
            .trim_end_matches(".ko");
        // Each maker's module is a second of work and of no use on the other's processors.
        if (name == "kvm-amd" && !processor.contains(" svm"))
            || (name == "kvm-intel" && !processor.contains(" vmx"))
        {
            continue;
        }
        let Ok(module) = fs::read(path) else {
            note(&format!("cannot read {path}"));
            continue;
        };
        if LATE_MODULES.iter().any(|late| name.starts_with(late)) {
            late.push((path.to_owned(), module));
        } else {
            load(path, &module);
        }
    }
    std::thread::spawn(move || {
        for (path, module) in late {
            load(&path, &module);
        }
    })
}

fn load(path: &str, module: &[u8]) {
    if let Err(error) = rustix::system::init_module(module, c"") {
        note(&format!("{path}: {error}"));
    }
}

fn switch_root() -> Result<(), BootError> {
    let root = disk("root").ok_or_else(|| BootError::Absent("disk `root`".to_owned()))?;
    mount_at(&root, "/run/base", "erofs", MountFlags::RDONLY, "")?;
    mount_at(
        "tmpfs",
        "/run/changes",
        "tmpfs",
        MountFlags::empty(),
        "mode=0755",
    )?;
    for folder in ["/run/changes/upper", "/run/changes/work"] {
        fs::create_dir(folder).map_err(step(format!("creating {folder}")))?;
    }
    let layers = "lowerdir=/run/base,upperdir=/run/changes/upper,workdir=/run/changes/work";
    mount_at("overlay", NEW_ROOT, "overlay", MountFlags::empty(), layers)?;
    for folder in ["proc", "sys", "dev", "run"] {
        let (from, to) = (format!("/{folder}"), format!("{NEW_ROOT}/{folder}"));
        fs::create_dir_all(&to).map_err(step(format!("creating {to}")))?;
        mount_move(&from, &to).map_err(step(format!("moving {from}")))?;
    }
    std::env::set_current_dir(NEW_ROOT).map_err(step("entering the root"))?;
    mount_move(".", "/").map_err(step("moving the root"))?;
    rustix::process::chroot(".").map_err(step("changing the root"))?;
    std::env::set_current_dir("/").map_err(step("entering the root"))?;
    mount_at("tmpfs", "/tmp", "tmpfs", MountFlags::NOSUID, "mode=1777")
}

fn mount_images() -> Result<(), BootError> {
    if let Some(disk) = disk("programs") {
        mount_at(&disk, PROGRAMS, "erofs", MountFlags::RDONLY, "")?;
        let entries = fs::read_dir(PROGRAMS).map_err(step(format!("reading {PROGRAMS}")))?;
        for entry in entries.flatten() {
            let _ = symlink(entry.path(), Path::new("/usr/bin").join(entry.file_name()));
        }
    }
    for name in ["guest", "templates"] {
        if let Some(disk) = disk(name) {
            mount_at(
                &disk,
                &format!("{IMAGES}/{name}"),
                "erofs",
                MountFlags::RDONLY,
                "",
            )?;
        }
    }
    // Folders that the outside shares. Without caching: both sides see each other's files at once.
    let options = "trans=virtio,version=9p2000.L,msize=262144,cache=none";
    for (tag, flags) in [("out", MountFlags::empty()), ("share", MountFlags::RDONLY)] {
        if has_share(tag) {
            mount_at(tag, &format!("/{tag}"), "9p", flags, options)?;
        } else if tag == "out" {
            fs::set_permissions("/out", fs::Permissions::from_mode(0o777))
                .map_err(step("opening /out"))?;
        }
    }
    Ok(())
}

/// The disk with this serial.
fn disk(serial: &str) -> Option<String> {
    fs::read_dir("/sys/block")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let found = fs::read_to_string(entry.path().join("serial")).ok()?;
            (found.trim_end_matches(['\n', '\0']) == serial)
                .then(|| format!("/dev/{}", entry.file_name().to_string_lossy()))
        })
}

fn has_share(tag: &str) -> bool {
    let drivers = "/sys/bus/virtio/drivers/9pnet_virtio";
    fs::read_dir(drivers).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            fs::read_to_string(entry.path().join("mount_tag"))
                .is_ok_and(|found| found.trim_end_matches(['\n', '\0']) == tag)
        })
    })
}

fn prepare_user() -> Result<(), BootError> {
    // Logs of an earlier machine with the same folder would mislead.
    let _ = fs::remove_file("/out/session.log");
    let own = |path: &str, mode: u32| -> Result<(), BootError> {
        fs::create_dir_all(path)
            .and_then(|()| chown(path, Some(USER_ID), Some(USER_ID)))
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
            .map_err(step(format!("preparing {path}")))
    };
    mount_at("tmpfs", HOME, "tmpfs", MountFlags::NOSUID, "mode=0700")?;
    own(HOME, 0o700)?;
    mount_at("tmpfs", RUNTIME, "tmpfs", MountFlags::NOSUID, "mode=0700")?;
    own(RUNTIME, 0o700)?;
    own(&format!("{RUNTIME}/bulkhead"), 0o700)?;
    // As on a desktop, where udev does it.
    let group = kvm_group();
    for device in [
        "/dev/kvm",
        "/dev/udmabuf",
        "/dev/vhost-vsock",
        "/dev/net/tun",
    ] {
        if Path::new(device).exists() {
            let _ = chown(device, Some(0), group);
            let _ = fs::set_permissions(device, fs::Permissions::from_mode(0o660));
        }
    }
    let _ = symlink("/proc/self/fd", "/dev/fd");
    for (number, name) in ["stdin", "stdout", "stderr"].iter().enumerate() {
        let _ = symlink(format!("/proc/self/fd/{number}"), format!("/dev/{name}"));
    }
    let _ = fs::write("/proc/sys/kernel/hostname", "bulkhead-host");
    // A crash is a result, not a file in the current folder.
    let _ = fs::write("/proc/sys/kernel/core_pattern", "|/bin/false");
    Ok(())
}

/// Gives the user the devices that udev would give on a desktop.
fn open_devices() {
    let group = kvm_group();
    for device in [
        "/dev/kvm",
        "/dev/udmabuf",
        "/dev/vhost-vsock",
        "/dev/net/tun",
    ] {
        if Path::new(device).exists() {
            let _ = chown(device, Some(0), group);
            let _ = fs::set_permissions(device, fs::Permissions::from_mode(0o660));
        }
    }
}

/// The group that may open /dev/kvm.
#[must_use]
pub fn kvm_group() -> Option<u32> {
    fs::read_to_string("/etc/group")
        .ok()?
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some("kvm")).then(|| fields.nth(1)?.parse().ok())?
        })
}

/// Programs expect 127.0.0.1; there is no other network unless a test asks for one.
fn loopback_up() {
    // SAFETY: plain system calls on a socket of our own and a structure that outlives them.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return;
        }
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        libc::ioctl(socket, libc::SIOCSIFFLAGS, &request);
        libc::close(socket);
    }
}

fn find_port() -> Result<PathBuf, BootError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let entries = fs::read_dir("/sys/class/virtio-ports")
            .into_iter()
            .flatten()
            .flatten();
        for entry in entries {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim() == PORT_NAME {
                return Ok(Path::new("/dev").join(entry.file_name()));
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(BootError::Absent(format!("the port `{PORT_NAME}`")))
}

/// Mounts a template's root, with the host's devices and the user's runtime folder in it, and
/// returns where. The second call finds it mounted.
pub fn direct_root(template: &str) -> Result<PathBuf, BootError> {
    let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
    if template.is_empty() || template.contains(['/', '.']) {
        return Err(step(format!("template `{template}`"))(invalid()));
    }
    let target = format!("{DIRECT}/{template}");
    if Path::new(&target).join("proc/self").exists() {
        return Ok(target.into());
    }
    let image = format!("{IMAGES}/templates/{template}/root.erofs");
    let layers: Vec<String> = ["base", "upper", "work"]
        .iter()
        .map(|name| format!("{target}-{name}"))
        .collect();
    for layer in layers.iter().skip(1) {
        fs::create_dir_all(layer).map_err(step(format!("creating {layer}")))?;
    }
    if let [base, upper, work] = layers.as_slice() {
        // EROFS mounts a regular file by itself since Linux 6.12.
        mount_at(&image, base, "erofs", MountFlags::RDONLY, "")?;
        let options = format!("lowerdir={base},upperdir={upper},workdir={work}");
        mount_at("overlay", &target, "overlay", MountFlags::empty(), &options)?;
    }
    for folder in [
        "proc",
        "dev",
        "sys",
        "tmp",
        "run/user/1000",
        "home/user",
        "out",
    ] {
        let inside = format!("{target}/{folder}");
        fs::create_dir_all(&inside).map_err(step(format!("creating {inside}")))?;
        if let Err(error) = mount_bind_recursive(format!("/{folder}"), &inside) {
            let _ = unmount(&inside, UnmountFlags::DETACH);
            return Err(step(format!("binding {inside}"))(error));
        }
    }
    Ok(target.into())
}

/// A line on the machine's console, for people who look for what went wrong.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "bulkhead-host-init: {text}");
}
