//! What PID 1 does, in its order.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use bulkhead_protocol::pump::Outbox;
use bulkhead_protocol::{CONTROL_PORT, EXEC_PORT, HOST_CID, Power};

use crate::cmdline::CommandLine;
use crate::console::{self, boot_ms, say};
use crate::control::{Asked, Link};
use crate::modules::Aside;
use crate::reaper::Reaper;
use crate::services::{self, Account, Service, Socket};
use crate::session::{Context, Sockets};
use crate::volume::{self, Tools};
use crate::{disks, files, modules, mounts, network, power, server, template_services, user};
use bulkhead_protocol::connection::{Connection, Listener};

/// The stages of the start and when each was over, in milliseconds since the guest's boot.
#[derive(Default)]
struct Stages(Vec<(String, u64)>);

impl Stages {
    fn over(&mut self, name: &str) {
        self.0.push((name.to_owned(), boot_ms()));
    }
}

/// Becomes the guest's init. PID 1 must not end, so this never returns.
pub fn run() -> ! {
    let mut stages = Stages::default();
    stages.over("kernel");
    mounts::first();
    console::open();
    let line = CommandLine::parse(&fs::read_to_string("/proc/cmdline").unwrap_or_default());
    let mut rest = modules::load_all(&line);
    stages.over("modules");

    let link = match Connection::to_vsock(HOST_CID, CONTROL_PORT).and_then(Link::new) {
        Ok(mut link) => link.hello().is_ok().then_some(link),
        // Without a manager (a benchmark, another VMM) everything else works.
        Err(_) => None,
    };
    stages.over("hello");
    feed_entropy();
    let own_root = line.own_root.then(|| disks::by_serial("home")).flatten();
    let home_mounted = enter_root(own_root.as_deref());
    stages.over("root");
    mounts::second();
    rest.in_root();
    mount_home(home_mounted);
    stages.over("home");
    identify(line.name.as_deref());
    user::prepare();
    if let Err(error) = crate::file_actions::offer() {
        say(&format!("no actions for files: {error}"));
    }
    if let Err(error) = network::loopback_up() {
        say(&format!("loopback: {error}"));
    }
    stages.over("user");

    let reaper = match Reaper::start() {
        Ok(reaper) => reaper,
        Err(error) => fatal(&format!("no thread for the reaper: {error}")),
    };
    let outbox = link.as_ref().map(Link::outbox);
    let sockets = Arc::new(Sockets::default());
    let context = Context {
        reaper: reaper.clone(),
        in_guest: true,
        services: sockets.clone(),
    };
    if let Err(error) = services::session_bus(&reaper) {
        say(&format!("no session bus: {error}"));
    }
    start_proxy(&reaper, outbox, rest.display, &sockets);
    template_services::start(&reaper);
    stages.over("services");
    match Listener::vsock(EXEC_PORT) {
        Ok(listener) => {
            let spawned = thread::Builder::new()
                .name("exec-server".into())
                .spawn(move || server::serve(context, listener));
            if let Err(error) = spawned {
                say(&format!("thread: {error}"));
            }
        }
        Err(error) => say(&format!("no commands from the host (vsock: {error})")),
    }
    stages.over("ready");
    let mut link = link;
    if let Some(open) = &mut link
        && open.ready(stages.0.clone()).is_err()
    {
        link = None;
    }
    if line.timings {
        for (stage, ms) in &stages.0 {
            say(&format!("timing {stage} {ms}"));
        }
    }
    say("ready");

    power::watch_button(&reaper);
    services::console_shell(reaper.clone());
    if let Some(link) = link
        && let Asked::Power(how) = link.wait()
    {
        power::go_down(&reaper, how);
    }
    loop {
        thread::park();
    }
}

/// Without this part no guest can work: say so and switch off, so that the manager sees it.
fn fatal(text: &str) -> ! {
    say(&format!("fatal: {text}"));
    if let Ok(reaper) = Reaper::start() {
        power::go_down(&reaper, Power::Off);
    }
    // SAFETY: no pointers.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    loop {
        thread::park();
    }
}

/// Whether the home came with it.
fn enter_root(volume: Option<&Path>) -> bool {
    let Some(device) = disks::by_serial("root").or_else(disks::first) else {
        say("no root disk: staying in the initramfs");
        return false;
    };
    // The module files were read; in the initramfs they would only hold memory.
    modules::forget();
    match mounts::switch_root(&device, volume) {
        Ok(home_mounted) => home_mounted,
        Err(error) => fatal(&format!("root {}: {error}", device.display())),
    }
}

/// Mounts `/home`, unless it came with the root, and lets it fill its volume.
fn mount_home(mounted: bool) {
    let Some(device) = disks::by_serial("home") else {
        return;
    };
    let tools = Tools {
        root: Path::new("/"),
    };
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOATIME;
    if mounted || volume::mount(&device, Path::new("/home"), flags, tools) {
        volume::fill(&device, tools);
    }
}

/// Host name and machine identifier.
fn identify(name: Option<&str>) {
    let name = name.unwrap_or("bulkhead");
    // SAFETY: the pointer and length describe `name`.
    let result = unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
    if let Err(error) = files::check(result.into()) {
        say(&format!("host name: {error}"));
    }
    let _ = fs::write("/etc/hostname", format!("{name}\n"));
    // A root that is kept may have one that its owner wrote.
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    if !hosts.split_whitespace().any(|word| word == name) {
        let hosts = format!("127.0.0.1 localhost {name}\n::1 localhost\n");
        let _ = fs::write("/etc/hosts", hosts);
    }
    // Templates carry none, so that no two domains share one; D-Bus needs one.
    let present = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    if present.trim().is_empty() || present.trim() == "uninitialized" {
        let random = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
        let id: String = random.chars().filter(char::is_ascii_hexdigit).collect();
        let _ = fs::write("/etc/machine-id", format!("{id}\n"));
    }
}

/// Gives the kernel's random generator a first seed from the VMM's virtio-rng.
fn feed_entropy() {
    #[repr(C)]
    struct PoolInfo {
        entropy_bits: i32,
        bytes: i32,
        seed: [u8; 32],
    }
    const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
    let mut seed = [0; 32];
    let Ok(mut source) = fs::File::open("/dev/hwrng") else {
        return;
    };
    if source.read_exact(&mut seed).is_err() {
        return;
    }
    let info = PoolInfo {
        entropy_bits: 256,
        bytes: 32,
        seed,
    };
    if let Ok(pool) = fs::OpenOptions::new().write(true).open("/dev/random") {
        // SAFETY: the request reads a count of bits, a count of bytes and that many bytes.
        unsafe { libc::ioctl(pool.as_raw_fd(), RNDADDENTROPY, &info) };
    }
}

/// Starts the Wayland proxy as soon as the display is there, and tells what commands wait for.
fn start_proxy(
    reaper: &Reaper,
    status: Option<Arc<Outbox>>,
    display: Option<Aside>,
    sockets: &Arc<Sockets>,
) {
    let (reaper, thread_sockets) = (reaper.clone(), sockets.clone());
    let spawned = thread::Builder::new()
        .name("display".into())
        .spawn(move || {
            if let Some(display) = display {
                display.wait();
            }
            let Some(proxy) = services::proxy() else {
                return thread_sockets.known(Vec::new());
            };
            Service {
                name: "wayland-proxy".into(),
                argv: vec![
                    proxy.to_string_lossy().into_owned(),
                    "--socket".into(),
                    user::WAYLAND_SOCKET.into(),
                ],
                socket: Socket::Made(user::WAYLAND_SOCKET.into()),
                status,
                account: Account::desktop_user(),
            }
            .start(reaper);
            thread_sockets.known(vec![user::WAYLAND_SOCKET.into()]);
        });
    if let Err(error) = spawned {
        say(&format!("thread: {error}"));
        sockets.known(Vec::new());
    }
}
