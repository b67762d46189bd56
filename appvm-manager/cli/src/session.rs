//! `bulkhead session`: compositor, manager, panel and menu, kept running.

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

/// Before a program that ended is started again.
const PAUSE: Duration = Duration::from_millis(300);
/// The panel and the menu.
const UI: &str = "bulkhead-ui";

/// One of the programs.
struct Part {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    child: Child,
    starts: Vec<Instant>,
}

/// The program beside this one, or wherever PATH has it.
pub fn program(name: &str) -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name(name));
    beside
        .filter(|file| file.exists())
        .unwrap_or_else(|| name.into())
}

/// Whether that program can be started.
fn is_installed(program: &Path) -> bool {
    if program.is_absolute() {
        return program.exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn spawn(
    name: &str,
    program: &Path,
    arguments: &[OsString],
    environment: &[(&'static str, OsString)],
) -> Result<Child, Error> {
    Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
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
        Part::start_with(name, program(name), arguments, Vec::new())
    }

    fn start_with(
        name: &'static str,
        program: PathBuf,
        arguments: Vec<OsString>,
        environment: Vec<(&'static str, OsString)>,
    ) -> Result<Self, Error> {
        let child = spawn(name, &program, &arguments, &environment)?;
        Ok(Part {
            name,
            program,
            arguments,
            environment,
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
        self.child = spawn(self.name, &self.program, &self.arguments, &self.environment)?;
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

    let ui = if args.no_ui { None } else { ui_program() };
    let host_socket = folder.join("host-wayland.sock");
    let mut arguments: Vec<OsString> = vec!["--backend".into(), (&args.backend).into()];
    // A screen knows its size.
    let default = (args.backend != "drm").then(|| "1280x800".to_owned());
    if let Some(size) = args.size.clone().or(default) {
        arguments.extend(["--size".into(), size.into()]);
    }
    arguments.extend(flag("--control", &control));
    if ui.is_some() {
        arguments.extend(flag("--host-socket", &host_socket));
    }
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
    let mut ui = ui.map(|program| Ui::new(program, host_socket));

    let result = loop {
        let (part, status) = tokio::select! {
            _ = terminate.recv() => break Ok(0),
            _ = interrupt.recv() => break Ok(0),
            _ = hangup.recv() => break Ok(0),
            status = compositor.child.wait() => (&mut compositor, status),
            status = manager.child.wait() => (&mut manager, status),
            () = Ui::tend(&mut ui) => continue,
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
        tokio::time::sleep(PAUSE).await;
        if let Err(error) = part.restart() {
            break Err(error);
        }
    };
    ready.abort();
    if let Some(ui) = &mut ui {
        ui.end().await;
    }
    // The manager first: it stops the domains while their windows can still be shown.
    manager.end().await;
    compositor.end().await;
    result
}

/// The panel and the menu: without them the desktop can still be used from a terminal, so they
/// never end it.
struct Ui {
    program: PathBuf,
    host_socket: PathBuf,
    parts: Vec<Part>,
    started: bool,
}

impl Ui {
    fn new(program: PathBuf, host_socket: PathBuf) -> Self {
        Ui {
            program,
            host_socket,
            parts: Vec::new(),
            started: false,
        }
    }

    /// Starts them when the compositor listens for them, and again when one ends. Returns when
    /// something was done; dropping it in between does no harm.
    async fn tend(ui: &mut Option<Self>) {
        let Some(ui) = ui else {
            return std::future::pending().await;
        };
        if !ui.started {
            while !ui.host_socket.exists() {
                tokio::time::sleep(PAUSE / 4).await;
            }
            ui.started = true;
            for what in ["panel", "menu"] {
                let display = vec![("WAYLAND_DISPLAY", ui.host_socket.clone().into())];
                let arguments = vec![what.into()];
                match Part::start_with(what, ui.program.clone(), arguments, display) {
                    Ok(part) => ui.parts.push(part),
                    Err(error) => eprintln!("bulkhead: {error}; going on without"),
                }
            }
            return;
        }
        let waits = ui
            .parts
            .iter_mut()
            .map(|part| Box::pin(part.child.wait()))
            .collect::<Vec<_>>();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        let (status, index, _) = futures_util::future::select_all(waits).await;
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let Some(part) = ui.parts.get_mut(index) else {
            return;
        };
        eprintln!(
            "bulkhead: the {} ended ({status}); starting it again",
            part.name
        );
        // A child that has been waited for answers at once: being dropped here is no loss.
        tokio::time::sleep(PAUSE).await;
        if let Err(error) = part.restart() {
            eprintln!("bulkhead: {error}; going on without");
            ui.parts.remove(index);
        }
    }

    async fn end(&mut self) {
        for part in &mut self.parts {
            part.end().await;
        }
    }
}

/// The program of panel and menu, if it is installed.
fn ui_program() -> Option<PathBuf> {
    let program = program(UI);
    if is_installed(&program) {
        return Some(program);
    }
    eprintln!(
        "bulkhead: {UI} is not installed: there is no panel and no menu; use `bulkhead launch`"
    );
    None
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
