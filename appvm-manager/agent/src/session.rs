//! One exec connection: starts the command, carries its streams, tells how it ended.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bulkhead_protocol::pump::{Incoming, Outbox, Outgoing, Stop};
use bulkhead_protocol::{ExecRequest, ExitReason, Message, Stream, User, read_message};

use crate::console::say;
use crate::reaper::{Child, Reaper};
use crate::spawn::{Program, pipe};
use crate::{pty, user};
use bulkhead_protocol::connection::Connection;

/// How long the daemon may take to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a process group has between the polite signals and SIGKILL when its caller is gone.
const GRACE: Duration = Duration::from_secs(2);
/// How long a command waits for the session's services to listen.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(3);

/// Where commands run.
#[derive(Clone)]
pub struct Context {
    /// Who waits for children.
    pub reaper: Reaper,
    /// Whether commands run as the guest's desktop user, with its environment. In tests they run
    /// as whoever runs the agent, with what it inherited.
    pub in_guest: bool,
    /// Sockets that must exist before a user's command starts.
    pub services: Arc<Sockets>,
}

/// Sockets that will exist soon; which ones is known only when the guest's hardware is.
#[derive(Default)]
pub struct Sockets {
    paths: Mutex<Option<Vec<PathBuf>>>,
    changed: Condvar,
}

impl Sockets {
    /// Says which.
    pub fn known(&self, paths: Vec<PathBuf>) {
        *self.paths.lock().unwrap_or_else(PoisonError::into_inner) = Some(paths);
        self.changed.notify_all();
    }

    /// Waits until they exist, for a bounded time.
    fn wait(&self) {
        let end = Instant::now() + SERVICE_TIMEOUT;
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        while paths.is_none() {
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                return;
            };
            (paths, _) = self
                .changed
                .wait_timeout(paths, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let paths = paths.clone().unwrap_or_default();
        while !paths.iter().all(|path| path.exists()) && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Serves one connection to its end.
pub fn serve(context: &Context, mut connection: Connection) {
    if let Err(error) = try_serve(context, &mut connection) {
        say(&format!("exec: {error}"));
    }
    connection.shutdown();
}

fn try_serve(context: &Context, connection: &mut Connection) -> io::Result<()> {
    connection.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    let request = match read_message(connection).map_err(io::Error::other)? {
        Message::Exec(request) => request,
        other => {
            return Err(io::Error::other(format!(
                "{} instead of exec",
                other.name()
            )));
        }
    };
    connection.set_read_timeout(None)?;
    let outbox = Arc::new(Outbox::new(connection.try_clone()?));
    match start(context, &request) {
        Ok(started) => run(context, connection, &outbox, started),
        Err((status, message)) => outbox.send(&Message::Refused { status, message }),
    }
}

/// A command that runs, and our ends of its streams.
struct Started {
    child: Child,
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

fn start(context: &Context, request: &ExecRequest) -> Result<Started, (u8, String)> {
    let as_root = request.user == User::Root;
    if context.in_guest && !as_root {
        context.services.wait();
    }
    let mut environment = if context.in_guest {
        user::environment(as_root)
    } else {
        std::env::vars().collect()
    };
    for (name, value) in &request.env {
        if name.is_empty() || name.contains('=') {
            return Err((
                125,
                format!("`{name}` is no name for an environment variable"),
            ));
        }
        environment.retain(|(present, _)| present != name);
        environment.push((name.clone(), value.clone()));
    }
    if request.tty.is_some() && !request.env.iter().any(|(name, _)| name == "TERM") {
        environment.retain(|(present, _)| present != "TERM");
        environment.push(("TERM".into(), "xterm-256color".into()));
    }
    let home = environment
        .iter()
        .find(|(name, _)| name == "HOME")
        .map(|(_, home)| home.as_str());
    let cwd = PathBuf::from(request.cwd.as_deref().or(home).unwrap_or("/"));
    let (argv, arg0) = if request.argv.is_empty() {
        let shell = if Path::new("/bin/bash").exists() {
            "/bin/bash"
        } else {
            "/bin/sh"
        };
        (vec![shell.to_owned()], Some("-sh".to_owned()))
    } else {
        (request.argv.clone(), None)
    };
    let lacking = |error: io::Error| (125, format!("the guest cannot run it: {error}"));
    let (ours, theirs) = if let Some(size) = request.tty {
        let (master, slave) = pty::open(size).map_err(lacking)?;
        if context.in_guest && !as_root {
            pty::give(slave.as_fd(), user::UID);
        }
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(lacking);
        let ours = (copy(&master)?, copy(&master)?, None, Some(master));
        (ours, [copy(&slave)?, copy(&slave)?, slave])
    } else {
        let (stdin, stdout, stderr) = (
            pipe().map_err(lacking)?,
            pipe().map_err(lacking)?,
            pipe().map_err(lacking)?,
        );
        (
            (stdin.1, stdout.0, Some(stderr.0), None),
            [stdin.0, stdout.1, stderr.1],
        )
    };
    let program = Program {
        argv,
        environment,
        cwd,
        ids: (context.in_guest && !as_root).then_some((user::UID, user::UID)),
        stdio: [theirs[0].as_fd(), theirs[1].as_fd(), theirs[2].as_fd()],
        terminal: request.tty.is_some(),
        arg0,
        listener: None,
    };
    let child = program
        .spawn(&context.reaper)
        .map_err(|error| (error.status(), error.to_string()))?;
    let (stdin, stdout, stderr, terminal) = ours;
    Ok(Started {
        child,
        stdin,
        stdout,
        stderr,
        terminal,
    })
}

/// The pumps of a command.
struct Pumps {
    stdin: Incoming,
    stdout: Outgoing,
    stderr: Outgoing,
}

fn run(
    context: &Context,
    connection: &mut Connection,
    outbox: &Arc<Outbox>,
    started: Started,
) -> io::Result<()> {
    let pid = started.child.pid;
    let pumps = Arc::new(Pumps {
        stdin: Incoming::new(Stream::Stdin)?,
        stdout: Outgoing::new(Stream::Stdout)?,
        stderr: Outgoing::new(Stream::Stderr)?,
    });
    outbox.send(&Message::Started { pid: pid as u32 })?;
    let mut writers = Vec::new();
    let stdin_thread = {
        let (pumps, outbox) = (pumps.clone(), outbox.clone());
        thread::Builder::new().spawn(move || {
            let _ = pumps.stdin.run(started.stdin, &outbox);
        })?
    };
    {
        let (pumps, outbox) = (pumps.clone(), outbox.clone());
        writers.push(thread::Builder::new().spawn(move || {
            let _ = pumps.stdout.run(started.stdout, &outbox);
        })?);
    }
    if let Some(stderr) = started.stderr {
        let (pumps, outbox) = (pumps.clone(), outbox.clone());
        writers.push(thread::Builder::new().spawn(move || {
            let _ = pumps.stderr.run(stderr, &outbox);
        })?);
    }
    let reader = connection.try_clone()?;
    let receiver: JoinHandle<()> = {
        let (pumps, reaper) = (pumps.clone(), context.reaper.clone());
        let terminal = started.terminal;
        thread::Builder::new().spawn(move || receive(reader, &pumps, &reaper, pid, terminal))?
    };

    let reason = started.child.ended.recv().unwrap_or(ExitReason::Signal(9));
    pumps.stdin.abort();
    pumps.stdout.stop(Stop::WhenQuiet);
    pumps.stderr.stop(Stop::WhenQuiet);
    for thread in writers {
        let _ = thread.join();
    }
    let _ = stdin_thread.join();
    // The daemon may be gone, which is why the command ended.
    let _ = outbox.send(&Message::Exit(reason));
    // The daemon closes after it has read the exit; one that does not is cut off.
    let end = Instant::now() + GRACE;
    while !receiver.is_finished() && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    connection.shutdown();
    let _ = receiver.join();
    Ok(())
}

/// Takes what the daemon sends until it closes; then the command must end too.
fn receive(
    mut connection: Connection,
    pumps: &Pumps,
    reaper: &Reaper,
    pid: i32,
    terminal: Option<OwnedFd>,
) {
    while let Ok(message) = read_message(&mut connection) {
        let fine = match message {
            Message::Data {
                stream: Stream::Stdin,
                bytes,
            } => pumps.stdin.push(bytes).is_ok(),
            Message::Eof {
                stream: Stream::Stdin,
            } => {
                if terminal.is_some() {
                    // A terminal has no end of file; the character that means it is ^D.
                    let _ = pumps.stdin.push(vec![4]);
                } else {
                    pumps.stdin.finish();
                }
                true
            }
            Message::Eof {
                stream: Stream::Stdout,
            } => {
                pumps.stdout.stop(Stop::Now);
                true
            }
            Message::Eof {
                stream: Stream::Stderr,
            } => {
                pumps.stderr.stop(Stop::Now);
                true
            }
            Message::Credit {
                stream: Stream::Stdout,
                bytes,
            } => pumps.stdout.add_credit(bytes).is_ok(),
            Message::Credit {
                stream: Stream::Stderr,
                bytes,
            } => pumps.stderr.add_credit(bytes).is_ok(),
            Message::Signal { number } => {
                reaper.signal_group(pid, number.into());
                true
            }
            Message::Resize(size) => {
                if let Some(terminal) = &terminal {
                    let _ = pty::resize(terminal.as_fd(), size);
                }
                true
            }
            _ => false,
        };
        if !fine {
            break;
        }
    }
    connection.shutdown();
    // The signals first: a command that saw the end of its input before them could take what was cut
    // off for whole.
    let told = reaper.signal_group(pid, libc::SIGHUP) && reaper.signal_group(pid, libc::SIGTERM);
    pumps.stdin.abort();
    pumps.stdout.stop(Stop::Now);
    pumps.stderr.stop(Stop::Now);
    drop(terminal);
    if told {
        reaper.signal_group(pid, libc::SIGCONT);
        let end = Instant::now() + GRACE;
        while Instant::now() < end && reaper.signal_group(pid, 0) {
            thread::sleep(Duration::from_millis(20));
        }
        reaper.signal_group(pid, libc::SIGKILL);
    }
}
