//! What a desktop user's session has: environment, D-Bus, and on request the desktop itself.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{
    boot::{HOME, RUNTIME, USER_ID, kvm_group, note},
    children::{Identity, spawn},
    protocol::User,
};

/// How long D-Bus and the desktop may take to start on an emulated machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The log of D-Bus and the desktop; it comes back with the other results.
const LOG: &str = "/out/session.log";

static STARTED: Mutex<(bool, bool)> = Mutex::new((false, false));

/// The environment of a command.
#[must_use]
pub fn environment(user: User) -> BTreeMap<String, String> {
    let (home, name) = match user {
        User::User => (HOME, "user"),
        User::Root => ("/root", "root"),
    };
    [
        (
            "PATH",
            "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:/usr/lib/bulkhead:/share",
        ),
        ("HOME", home),
        ("USER", name),
        ("LOGNAME", name),
        ("SHELL", "/bin/bash"),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
        ("XDG_RUNTIME_DIR", RUNTIME),
        ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/1000/bus"),
        ("RUST_BACKTRACE", "1"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .chain([
        ("XDG_CONFIG_HOME".to_owned(), format!("{home}/.config")),
        ("XDG_DATA_HOME".to_owned(), format!("{home}/.local/share")),
        ("XDG_CACHE_HOME".to_owned(), format!("{home}/.cache")),
        (
            "BULKHEAD_TEST_SOCKET".to_owned(),
            format!("{RUNTIME}/bulkhead/test.sock"),
        ),
    ])
    .collect()
}

/// Who runs a command.
#[must_use]
pub fn identity(user: User, root: Option<PathBuf>, folder: Option<PathBuf>) -> Identity {
    let (id, home) = match user {
        User::User => (USER_ID, HOME),
        User::Root => (0, "/root"),
    };
    let groups = kvm_group().into_iter().chain([id]).collect();
    Identity {
        id,
        groups,
        root,
        folder: folder.unwrap_or_else(|| home.into()),
    }
}

/// Makes sure that D-Bus runs, and the desktop if it is asked for.
pub fn ensure(desktop: Option<&[String]>) -> Result<(), String> {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    // As the disk image's session has it: the memory of guests with physical devices is locked.
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    setrlimit(Resource::Memlock, unlimited)
        .map_err(|error| format!("raising the limit of locked memory: {error}"))?;
    if !started.0 && Path::new("/usr/bin/dbus-daemon").exists() {
        let arguments = [
            "--session",
            "--nofork",
            "--nosyslog",
            "--nopidfile",
            "--address=unix:path=/run/user/1000/bus",
        ];
        start(
            "dbus-daemon",
            &arguments.map(str::to_owned),
            &format!("{RUNTIME}/bus"),
        )?;
        started.0 = true;
    }
    if let Some(arguments) = desktop
        && !started.1
    {
        let socket = format!("{RUNTIME}/bulkhead/test.sock");
        // Without the panel: scenarios look at windows, and say where they are.
        let mut words: Vec<String> = vec!["session".to_owned(), "--no-ui".to_owned()];
        words.extend_from_slice(arguments);
        for (flag, value) in [
            ("--backend", "headless"),
            ("--size", "1280x800"),
            ("--test-socket", &socket),
        ] {
            if !words.iter().any(|word| word == flag) {
                words.extend([flag.to_owned(), value.to_owned()]);
            }
        }
        start("bulkhead", &words, &socket)?;
        started.1 = true;
    }
    Ok(())
}

/// Starts a service of the user and waits for its socket.
fn start(program: &str, arguments: &[String], socket: &str) -> Result<(), String> {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(LOG)
        .or_else(|_| {
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open("/run/user/1000/session.log")
        })
        .map_err(|error| format!("opening the session's log: {error}"))?;
    let _ = chown(LOG, Some(USER_ID), Some(USER_ID));
    let _ = symlink(LOG, format!("{RUNTIME}/session.log"));
    let errors = log.try_clone().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(environment(User::User))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    let began = Instant::now();
    let (_child, exit) = spawn(&mut command, identity(User::User, None, None))
        .map_err(|error| format!("starting {program}: {error}"))?;
    while began.elapsed() < START_TIMEOUT {
        if Path::new(socket).exists() {
            note(&format!(
                "{program} is up after {} ms",
                began.elapsed().as_millis()
            ));
            return Ok(());
        }
        if let Ok(exit) = exit.recv_timeout(Duration::from_millis(20)) {
            return Err(format!("{program} ended at once ({exit:?}): {}", log_end()));
        }
    }
    Err(format!(
        "{program} did not open {socket} in time: {}",
        log_end()
    ))
}

fn log_end() -> String {
    let text = fs::read_to_string(LOG).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(15)..)
        .unwrap_or_default()
        .join("\n")
}
