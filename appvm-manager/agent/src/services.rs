//! What always runs beside the user's commands: session bus, Wayland proxy, console shell.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_protocol::Message;
use bulkhead_protocol::message::ProxyStatus;
use bulkhead_protocol::pump::Outbox;

use crate::console::say;
use crate::files::{check, give};
use crate::reaper::Reaper;
use crate::spawn::{Program, null, pipe};
use crate::{mounts, power, user};

/// A program that ran this long counts as having started well.
const STABLE: Duration = Duration::from_secs(10);
/// Lines of a service longer than this are cut.
const MAX_LINE: u64 = 1024;

/// The Wayland proxy's file, if this guest has one and a device for it.
pub fn proxy() -> Option<PathBuf> {
    let file = Path::new(mounts::BIN).join("bulkhead-wayland-proxy");
    (file.exists() && Path::new("/dev/dri/renderD128").exists()).then_some(file)
}

/// Where a service listens.
pub enum Socket {
    /// The service makes it; what is left of the run before is removed.
    Made(PathBuf),
    /// It is here already, and the service is started when somebody connects. Commands need not
    /// wait for such a service, and most never need it.
    Given(UnixListener),
    /// It has none that matters here.
    None,
}

/// Who a service runs as.
pub struct Account {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Where it starts.
    pub home: String,
    /// Its whole environment.
    pub environment: Vec<(String, String)>,
}

impl Account {
    /// The desktop user, with everything that its session has.
    pub fn desktop_user() -> Self {
        Account {
            uid: user::UID,
            gid: user::UID,
            home: user::HOME.to_owned(),
            environment: user::environment(false),
        }
    }
}

/// A program that is started again whenever it ends.
pub struct Service {
    /// For messages.
    pub name: String,
    /// What to run.
    pub argv: Vec<String>,
    /// Its socket.
    pub socket: Socket,
    /// Who is told when it starts and ends.
    pub status: Option<Arc<Outbox>>,
    /// Who it runs as.
    pub account: Account,
}

impl Service {
    /// Supervises it on a thread.
    pub fn start(self, reaper: Reaper) {
        let result = thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || {
                let mut restarts = 0;
                let mut pause = Duration::from_millis(100);
                while !power::is_going_down() {
                    let begin = Instant::now();
                    match self.run_once(&reaper, restarts) {
                        _ if power::is_going_down() => return,
                        Ok(how) => say(&format!("{} ended: {how}", self.name)),
                        Err(error) => say(&format!("{}: {error}", self.name)),
                    }
                    self.tell(false, restarts);
                    if begin.elapsed() > STABLE {
                        pause = Duration::from_millis(100);
                    }
                    thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_secs(10));
                    restarts += 1;
                }
            });
        if let Err(error) = result {
            say(&format!("thread: {error}"));
        }
    }

    fn tell(&self, running: bool, restarts: u32) {
        if let Some(outbox) = &self.status {
            // The daemon may be gone; the service matters all the same.
            let _ = outbox.send(&Message::ProxyStatus(ProxyStatus { running, restarts }));
        }
    }

    fn run_once(&self, reaper: &Reaper, restarts: u32) -> Result<String, crate::spawn::SpawnError> {
        let given = match &self.socket {
            Socket::Made(path) => {
                let _ = std::fs::remove_file(path);
                open_render_nodes();
                None
            }
            Socket::Given(listener) => {
                wait_for_client(listener)?;
                Some(listener.as_fd())
            }
            Socket::None => None,
        };
        let (reader, writer) = pipe()?;
        let null = null()?;
        let program = Program {
            argv: self.argv.clone(),
            environment: self.account.environment.clone(),
            cwd: self.account.home.clone().into(),
            ids: Some((self.account.uid, self.account.gid)),
            stdio: [null.as_fd(), writer.as_fd(), writer.as_fd()],
            terminal: false,
            arg0: None,
            listener: given,
        };
        let child = program.spawn(reaper)?;
        drop(writer);
        self.tell(true, restarts);
        relay_lines(self.name.clone(), reader);
        Ok(match child.ended.recv() {
            Ok(reason) => format!("{reason:?}"),
            Err(_) => "unknown".to_owned(),
        })
    }
}

fn wait_for_client(listener: &UnixListener) -> std::io::Result<()> {
    let mut polled = libc::pollfd {
        fd: listener.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: the pointer and count describe one pollfd.
    check(unsafe { libc::poll(&mut polled, 1, -1) }.into()).map(|_| ())
}

/// The bus daemon takes its socket over by systemd's convention, in which it must know its own
/// process identifier; the shell that becomes it has the same one.
pub const BUS_SCRIPT: &str = "export LISTEN_FDS=1 LISTEN_PID=$$; exec dbus-daemon --session \
                              --address=systemd: --nofork --nopidfile --nosyslog";

/// The session bus: its socket at once, its daemon when the first program connects.
pub fn session_bus(reaper: &Reaper) -> std::io::Result<()> {
    if !Path::new("/usr/bin/dbus-daemon").exists() {
        return Ok(());
    }
    let _ = std::fs::remove_file(user::BUS_SOCKET);
    let listener = UnixListener::bind(user::BUS_SOCKET)?;
    give(Path::new(user::BUS_SOCKET), user::UID, user::UID)?;
    Service {
        name: "dbus".into(),
        argv: ["/bin/sh", "-c", BUS_SCRIPT].map(String::from).into(),
        socket: Socket::Given(listener),
        status: None,
        account: Account::desktop_user(),
    }
    .start(reaper.clone());
    Ok(())
}

/// Shows a service's output on the console, line by line.
fn relay_lines(name: String, output: OwnedFd) {
    let result = thread::Builder::new().spawn(move || {
        let mut reader = BufReader::new(std::fs::File::from(output));
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => say(&format!(
                    "{name}: {}",
                    String::from_utf8_lossy(&line).trim_end()
                )),
            }
        }
    });
    if let Err(error) = result {
        say(&format!("thread: {error}"));
    }
}

/// Lets the desktop user use the GPU's render nodes.
fn open_render_nodes() {
    let Ok(nodes) = std::fs::read_dir("/dev/dri") else {
        return;
    };
    for node in nodes.flatten() {
        if node.file_name().as_encoded_bytes().starts_with(b"renderD")
            && let Err(error) = give(&node.path(), user::UID, user::UID)
        {
            say(&format!("{}: {error}", node.path().display()));
        }
    }
}

/// A root shell on the virtio console, started again whenever it ends.
pub fn console_shell(reaper: Reaper) {
    const DEVICE: &str = "/dev/hvc0";
    if !Path::new(DEVICE).exists() {
        return;
    }
    let result = thread::Builder::new()
        .name("console".into())
        .spawn(move || {
            while !power::is_going_down() {
                let device = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .custom_flags(libc::O_NOCTTY)
                    .open(DEVICE)
                    .map_err(crate::spawn::SpawnError::from);
                let ended = device.and_then(|device| {
                    let shell = if Path::new("/bin/bash").exists() {
                        "/bin/bash"
                    } else {
                        "/bin/sh"
                    };
                    let mut environment = user::environment(true);
                    environment.push(("TERM".into(), "linux".into()));
                    let child = Program {
                        argv: vec![shell.to_owned()],
                        environment,
                        cwd: "/root".into(),
                        ids: None,
                        stdio: [device.as_fd(); 3],
                        terminal: true,
                        arg0: Some("-bash".into()),
                        listener: None,
                    }
                    .spawn(&reaper)?;
                    let _ = child.ended.recv();
                    Ok(())
                });
                if let Err(error) = ended {
                    say(&format!("{DEVICE}: {error}"));
                    thread::sleep(Duration::from_secs(10));
                }
                thread::sleep(Duration::from_millis(500));
            }
        });
    if let Err(error) = result {
        say(&format!("thread: {error}"));
    }
}
