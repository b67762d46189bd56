//! The first process of a guest: it sets up the network as it is told on its console, serves, and asks.
//!
//! One line a command, one line an answer, which begins with `=`:
//!
//! | command | |
//! | --- | --- |
//! | `net JSON` | what `bulkhead-net` is to do |
//! | `firewall JSON` | the same, with the root of the template `net`, where there is a firewall |
//! | `serve` | answers connections |
//! | `ask up\|down\|ping ADDRESS MILLISECONDS` | how many bytes or messages, and nanoseconds: of all, or of one message |

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::fail;
use super::traffic::{self, Kind};

/// Modules of the initramfs that these guests do without.
const UNUSED: [&str; 8] = [
    "/drm/",
    "/virtio_dma_buf.",
    "/drivers/net/ethernet/",
    "/drivers/net/phy/",
    "/drivers/i2c/",
    "/fs/ext4/",
    "/fs/jbd2/",
    "/vmw_vsock/",
];
const NET: &str = "/usr/lib/bulkhead/bulkhead-net";
const ROOT: &str = "/newroot";
/// How many segments TCP leaves to the card at once, if there is so much to send. By itself it sends
/// as much as it believes to go out in a millisecond: on hardware, where a round trip takes some tenth
/// of one, that is as much as fits into a frame. On an emulated host a round trip takes a hundred times
/// as long, and TCP falls into sending two segments a frame, or does not, by chance: what is measured
/// then is which of both it was.
const SMALLEST_BURST: &str = "/proc/sys/net/ipv4/tcp_min_tso_segs";
const SEGMENTS: &str = "44";
/// What begins an answer.
pub const ANSWER: char = '=';

/// Never returns: a first process that ends is a panic.
pub fn run() -> ! {
    if let Err(error) = work() {
        eprintln!("net-bench: {error}");
    }
    loop {
        std::thread::park();
    }
}

fn work() -> io::Result<()> {
    for (kind, place) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/run"),
    ] {
        mount(kind, kind, place, "")?;
    }
    load_modules()?;
    fs::write(SMALLEST_BURST, SEGMENTS)?;
    let console = File::options().read(true).write(true).open("/dev/hvc0")?;
    make_raw(&console)?;
    let mut answers = console.try_clone()?;
    writeln!(answers, "{ANSWER} ready")?;
    let mut line = String::new();
    let mut commands = BufReader::new(console);
    loop {
        line.clear();
        commands.read_line(&mut line)?;
        let answer = obey(line.trim()).unwrap_or_else(|error| format!("error {error}"));
        writeln!(answers, "{ANSWER} {answer}")?;
    }
}

fn obey(line: &str) -> io::Result<String> {
    let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
    let done = |()| "done".to_owned();
    match command {
        "net" => set_up(rest, None).map(done),
        "firewall" => {
            make_root()?;
            set_up(rest, Some(ROOT)).map(done)
        }
        "serve" => traffic::serve([0, 0, 0, 0].into()).map(done),
        "ask" => {
            let words: Vec<&str> = rest.split(' ').collect();
            let [kind, address, time] = words.as_slice() else {
                return Err(fail("ask KIND ADDRESS MILLISECONDS"));
            };
            let address = address.parse().map_err(|_| fail("no address"))?;
            let time = Duration::from_millis(time.parse().map_err(|_| fail("no time"))?);
            let done = traffic::ask(address, Kind::named(kind)?, time)?;
            Ok(format!("{} {}", done.count, done.took.as_nanos()))
        }
        _ => Err(fail(format!("no such command: {line}"))),
    }
}

fn load_modules() -> io::Result<()> {
    for path in fs::read_to_string("/etc/bulkhead/modules")?.lines() {
        // What begins with a word is for devices that these guests have not.
        let is_path = path.starts_with('/');
        if !is_path || UNUSED.iter().any(|unused| path.contains(unused)) {
            continue;
        }
        let file = File::open(path)?;
        // The kernel decompresses (MODULE_INIT_COMPRESSED_FILE).
        let flags: libc::c_long = if path.ends_with(".ko") { 0 } else { 4 };
        // SAFETY: the descriptor is open and the parameters are an empty C string.
        let result = unsafe {
            libc::syscall(
                libc::SYS_finit_module,
                libc::c_long::from(file.as_raw_fd()),
                c"".as_ptr(),
                flags,
            )
        };
        if result != 0 {
            // Drivers of what this machine lacks say so.
            eprintln!("net-bench: {path}: {}", io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The template's root with a layer in memory on it, as domains have it.
fn make_root() -> io::Result<()> {
    for folder in ["/run/lower", "/run/upper/files", "/run/upper/work"] {
        fs::create_dir_all(folder)?;
    }
    mount("/dev/vda", "erofs", "/run/lower", "")?;
    let layers = "lowerdir=/run/lower,upperdir=/run/upper/files,workdir=/run/upper/work";
    mount("overlay", "overlay", ROOT, layers)?;
    for (kind, place) in [("devtmpfs", "dev"), ("proc", "proc"), ("sysfs", "sys")] {
        mount(kind, kind, &format!("{ROOT}/{place}"), "")?;
    }
    fs::create_dir_all(format!("{ROOT}/usr/lib/bulkhead"))?;
    fs::copy(NET, format!("{ROOT}{NET}")).map(drop)
}

fn set_up(description: &str, root: Option<&'static str>) -> io::Result<()> {
    let mut command = Command::new(NET);
    if let Some(root) = root {
        let root = CString::new(root)?;
        // SAFETY: between fork and exec only two plain system calls.
        unsafe {
            command.pre_exec(move || {
                if libc::chroot(root.as_ptr()) == 0 && libc::chdir(c"/".as_ptr()) == 0 {
                    Ok(())
                } else {
                    Err(io::Error::last_os_error())
                }
            });
        }
    }
    let mut child = command
        .env("PATH", "/usr/sbin:/usr/bin")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(description.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(fail(
            String::from_utf8_lossy(&output.stderr).replace('\n', " "),
        )),
    }
}

fn mount(what: &str, kind: &str, place: &str, options: &str) -> io::Result<()> {
    if !Path::new(place).exists() {
        fs::create_dir_all(place)?;
    }
    let text = |text: &str| CString::new(text).map_err(io::Error::from);
    let (source, target, kind, options) = (text(what)?, text(place)?, text(kind)?, text(options)?);
    // The disk cannot be written.
    let flags = if what.starts_with("/dev/") {
        libc::MS_RDONLY
    } else {
        0
    };
    // SAFETY: four C strings that live as long as the call.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    match result {
        0 => Ok(()),
        _ => {
            let error = io::Error::last_os_error();
            Err(fail(format!("{what} on {place}: {error}")))
        }
    }
}

/// No echo, no lines of the terminal's own.
fn make_raw(console: &File) -> io::Result<()> {
    // SAFETY: a termios is plain old data, for which zeroes are valid; it is filled by the call, and
    // both calls get an open descriptor.
    let result = unsafe {
        let mut mode: libc::termios = std::mem::zeroed();
        libc::tcgetattr(console.as_raw_fd(), &raw mut mode);
        libc::cfmakeraw(&raw mut mode);
        libc::tcsetattr(console.as_raw_fd(), libc::TCSANOW, &raw const mode)
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
