//! `bulkhead session`: compositor and manager, kept running.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::args;
use crate::error::Error;

/// A program that ends this often within [`WINDOW`] will not work.
const MOST_RESTARTS: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// The manager stops all domains before it ends.
const END_PATIENCE: Duration = Duration::from_secs(60);

/// One of the two programs.
struct Part {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
    child: Child,
    starts: Vec<Instant>,
}

/// The program beside this one, or wherever PATH has it.
fn program(name: &str) -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name(name));
    beside
        .filter(|file| file.exists())
        .unwrap_or_else(|| name.into())
}

fn spawn(name: &str, program: &Path, arguments: &[OsString]) -> Result<Child, Error> {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        // Ctrl-C reaches only this program, which then ends the parts in their order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            Error::Other(format!(
                "{name}: {}: {error}; is it installed?",
                program.display()
            ))
        })
}

impl Part {
    fn start(name: &'static str, arguments: Vec<OsString>) -> Result<Self, Error> {
        let program = program(name);
        let child = spawn(name, &program, &arguments)?;
        Ok(Part {
            name,
            program,
            arguments,
            child,
            starts: vec![Instant::now()],
        })
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.starts.retain(|start| start.elapsed() < WINDOW);
        if self.starts.len() >= MOST_RESTARTS {
            let text = format!("{} keeps ending; see its messages above", self.name);
            return Err(Error::Other(text));
        }
        self.child = spawn(self.name, &self.program, &self.arguments)?;
        self.starts.push(Instant::now());
        Ok(())
    }

    async fn end(&mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // SAFETY: no pointers; the child has not been waited for, so the number is its own.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        if tokio::time::timeout(END_PATIENCE, self.child.wait())
            .await
            .is_err()
        {
            let _ = self.child.kill().await;
        }
    }
}

pub async fn session(args: args::Session) -> Result<u8, Error> {
    if std::env::var_os("DBUS_SESSION_BUS_ADDRESS").is_none() {
        let text = "DBUS_SESSION_BUS_ADDRESS is not set: there is no session bus; use \
                    `dbus-run-session -- bulkhead session`";
        return Err(Error::Other(text.into()));
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .ok_or_else(|| {
            Error::Other("XDG_RUNTIME_DIR is not set; log in to a desktop session or set it".into())
        })?;
    let folder = runtime.join("bulkhead");
    private_folder(&folder)?;
    let control = folder.join("compositor.sock");
    let flag = |name: &str, value: &Path| [OsString::from(name), value.as_os_str().to_owned()];

    let mut arguments: Vec<OsString> = ["--backend", &args.backend, "--size", &args.size]
        .map(OsString::from)
        .into();
    arguments.extend(flag("--control", &control));
    if let Some(socket) = &args.test_socket {
        arguments.extend(flag("--test-socket", socket));
    }
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| Error::Io("signals", error))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|error| Error::Io("signals", error))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(|error| Error::Io("signals", error))?;
    let mut compositor = Part::start("bulkhead-compositor", arguments)?;

    let mut arguments = Vec::new();
    arguments.extend(flag("--compositor-control", &control));
    for (name, value) in [("--images", &args.images), ("--vmm", &args.vmm)] {
        if let Some(value) = value {
            arguments.extend(flag(name, value));
        }
    }
    if let Some(words) = &args.guest_cmdline {
        arguments.push(format!("--guest-cmdline={words}").into());
    }
    let mut manager = Part::start("bulkheadd", arguments)?;
    let ready = tokio::spawn(announce(control));

    let result = loop {
        let (part, status) = tokio::select! {
            _ = terminate.recv() => break Ok(0),
            _ = interrupt.recv() => break Ok(0),
            _ = hangup.recv() => break Ok(0),
            status = compositor.child.wait() => (&mut compositor, status),
            status = manager.child.wait() => (&mut manager, status),
        };
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        // The user closes the desktop's window: that ends the session.
        if part.name == "bulkhead-compositor" && status == "exit status: 0" {
            break Ok(0);
        }
        eprintln!(
            "bulkhead: {} ended ({status}); starting it again",
            part.name
        );
        tokio::time::sleep(Duration::from_millis(300)).await;
        if let Err(error) = part.restart() {
            break Err(error);
        }
    };
    ready.abort();
    // The manager first: it stops the domains while their windows can still be shown.
    manager.end().await;
    compositor.end().await;
    result
}

fn private_folder(folder: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| {
            Error::Other(format!(
                "{}: {error}; is XDG_RUNTIME_DIR yours?",
                folder.display()
            ))
        })
}

/// Says once that the desktop can be used.
async fn announce(control: PathBuf) {
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if !control.exists() {
            continue;
        }
        if let Ok(manager) = crate::bus::manager().await
            && manager.list_domains().await.is_ok()
        {
            eprintln!("bulkhead: session ready");
            return;
        }
    }
}
