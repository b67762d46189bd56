//! The called side: what the manager runs in the target of a call that is allowed.
//!
//! A service is a program in one of [`FOLDERS`], named like the service, or like the service with
//! `+` and the argument, which then counts first (as Qubes' `qrexec-agent` does it). What no folder
//! has may be built in. The other domain's bytes come on the standard input, the answer goes out on
//! the standard output; the error stream goes to a file of this domain and never to the caller.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bulkhead_protocol::{CONNECT_SERVICE, DomainName};
use bulkhead_transfer::{
    Cancel, FormatError, Incoming, Limits, Progress, ReceiveError, Received, Watch,
    clean_up_partial, landed, receive_and_answer,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use crate::{Failure, picture, services, tcp, url};

/// Where services are looked for, first match first. `~` is the user's home.
pub const FOLDERS: [&str; 6] = [
    "/usr/local/etc/bulkhead/rpc",
    "/etc/bulkhead/rpc",
    "/usr/lib/bulkhead/rpc",
    "/usr/local/etc/qubes-rpc",
    "/etc/qubes-rpc",
    "~/.local/share/bulkhead/rpc",
];
/// No such service; as a shell says it of a program.
const NOT_FOUND: u8 = 127;
/// How long a sender of files may send nothing.
const SILENCE: Duration = Duration::from_secs(120);
/// A log that has grown to this size, in bytes, begins anew.
const MAX_LOG: u64 = 1 << 20;

/// What is asked of this domain. The manager has checked all of it against the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The service.
    pub service: String,
    /// Its argument; empty: none.
    pub argument: String,
    /// The domain that calls.
    pub source: DomainName,
}

impl Request {
    /// From the manager's words. They become file names, so they are looked at once more.
    pub fn new(service: &str, argument: &str, source: &str) -> Result<Self, Failure> {
        let word = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._+@:".contains(&b))
        };
        if service.is_empty() || service.starts_with('.') || !word(service) || !word(argument) {
            return Err(Failure::usage(format!(
                "`{}` is no service",
                service.escape_default()
            )));
        }
        let source = source
            .parse()
            .map_err(|error| Failure::usage(format!("{error}")))?;
        Ok(Request {
            service: service.to_owned(),
            argument: argument.to_owned(),
            source,
        })
    }

    fn full_name(&self) -> String {
        format!("{}+{}", self.service, self.argument)
    }

    /// The program, if some folder has one.
    fn program(&self, folders: &[PathBuf]) -> Option<PathBuf> {
        let runs = |path: &PathBuf| {
            std::fs::metadata(path)
                .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
        };
        let named = |name: &str| folders.iter().map(|folder| folder.join(name)).find(runs);
        named(&self.full_name()).or_else(|| named(&self.service))
    }
}

/// Answers the call on the standard streams. Gives the exit status, unless a program of the domain
/// takes this process over.
pub fn serve(request: &Request) -> Result<u8, Failure> {
    // Before the error stream becomes the log's.
    let manager = std::env::var_os(landed::WANTED)
        .and_then(|_| io::stderr().as_fd().try_clone_to_owned().ok())
        .map(File::from);
    log_errors();
    let home = std::env::home_dir().unwrap_or_else(|| PathBuf::from("/"));
    let folders: Vec<PathBuf> = FOLDERS
        .iter()
        .map(|folder| match folder.strip_prefix("~/") {
            Some(rest) => home.join(rest),
            None => PathBuf::from(folder),
        })
        .collect();
    if let Some(program) = request.program(&folders) {
        let error = become_program(&program, request);
        return Err(Failure::new(126, format!("{}: {error}", program.display())));
    }
    match request.service.as_str() {
        services::COPY => {
            let received = receive(request, &home)?;
            if let Some(manager) = manager {
                let folder = home.join("Incoming").join(request.source.as_str());
                // The files are here, whoever knows of it.
                if let Err(error) = landed::write(manager, &folder, &received.names) {
                    eprintln!("the manager cannot be told where the files are: {error}");
                }
            }
            Ok(0)
        }
        CONNECT_SERVICE => tcp::serve(&request.argument),
        services::OPEN_URL => open_url().map(|()| 0),
        picture::DECODE => picture::decode(io::stdin().lock(), io::stdout().lock())
            .map(|()| 0)
            .map_err(|error| Failure::new(1, error.to_string())),
        services::OPEN_FILE => {
            let received = receive(request, &home)?;
            let folder = home.join("Incoming").join(request.source.as_str());
            match received.names.first() {
                Some(name) => open_with_desktop(folder.join(name).as_os_str()).map(|()| 0),
                None => Ok(0),
            }
        }
        other => Err(Failure::new(
            NOT_FOUND,
            format!("this domain has no service `{other}`"),
        )),
    }
}

/// The variables are those that Qubes' services know.
fn become_program(program: &Path, request: &Request) -> io::Error {
    let mut command = Command::new(program);
    if !request.argument.is_empty() {
        command.arg(&request.argument);
    }
    command
        .env_remove(landed::WANTED)
        .env("QREXEC_REMOTE_DOMAIN", request.source.as_str())
        .env("QREXEC_SERVICE_FULL_NAME", request.full_name())
        .env("QREXEC_SERVICE_ARGUMENT", &request.argument)
        .env("BULKHEAD_SOURCE", request.source.as_str())
        .exec()
}

/// A stream whose other side may not be silent for too long.
struct Patient<S> {
    stream: S,
    patience: Duration,
}

impl<S: Read + AsFd> Read for Patient<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let timeout = Timespec::try_from(self.patience).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&self.stream, PollFlags::IN)];
        if retry_on_intr(|| poll(&mut fds, Some(&timeout)))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.read(buffer)
    }
}

fn receive(request: &Request, home: &Path) -> Result<Received, Failure> {
    let failed = |error: ReceiveError| Failure::new(1, error.to_string());
    let open = |stream: io::Result<std::os::fd::OwnedFd>| {
        stream
            .map(File::from)
            .map_err(|error| failed(ReceiveError::Stream(FormatError::Read(error))))
    };
    let stream = Patient {
        stream: open(io::stdin().as_fd().try_clone_to_owned())?,
        patience: SILENCE,
    };
    let answer = open(io::stdout().as_fd().try_clone_to_owned())?;
    let into = Incoming::open(&home.join("Incoming"), &request.source).map_err(|error| {
        // The sender waits for a word.
        let _ = error.status(0, 0).write(&answer);
        failed(error)
    })?;
    if let Err(error) = clean_up_partial(&into) {
        eprintln!("{error}");
    }
    let mut silent = |_: &Progress<'_>| {};
    let mut watch = Watch::new(&mut silent, Cancel::default());
    match receive_and_answer(stream, answer, &into, Limits::default(), &mut watch) {
        // The files are here, whatever the sender knows of it.
        Err(ReceiveError::Unanswered { received, .. }) => Ok(received),
        result => result.map_err(failed),
    }
}

fn open_url() -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(1, error.to_string());
    let mut untrusted = Vec::new();
    io::stdin()
        .take(url::MAX_URL as u64 + 2)
        .read_to_end(&mut untrusted)
        .map_err(failed)?;
    let address = url::check(&untrusted).map_err(|error| Failure::new(1, error.to_string()))?;
    open_with_desktop(address.as_ref())
}

/// Hands it to the program that this domain has for it. Such a program is never the file itself.
fn open_with_desktop(what: &std::ffi::OsStr) -> Result<(), Failure> {
    let openers: [(&str, &[&str]); 2] = [("xdg-open", &[]), ("gio", &["open"])];
    for (program, arguments) in openers {
        let status = Command::new(program)
            .args(arguments)
            .arg(what)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        match status {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => {
                return Err(Failure::new(1, format!("{program}: {status}")));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::new(1, format!("{program}: {error}"))),
        }
    }
    Err(Failure::new(
        NOT_FOUND,
        "this domain has neither xdg-open nor gio; install xdg-utils in its template",
    ))
}

/// From here on, what is told on the error stream stays in this domain.
fn log_errors() {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").unwrap_or_else(|| "/tmp".into());
    let path = Path::new(&folder).join("bulkhead-rpc.log");
    let too_long = std::fs::metadata(&path).is_ok_and(|data| data.len() > MAX_LOG);
    let log = File::options()
        .create(true)
        .append(!too_long)
        .write(true)
        .truncate(too_long)
        .mode(0o600)
        .open(&path)
        .or_else(|_| File::options().write(true).open("/dev/null"));
    if let Ok(log) = log {
        // Standard error stays as it was if this fails, which helps more than an end.
        let _ = rustix::stdio::dup2_stderr(&log);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(service: &str, argument: &str) -> Request {
        Request::new(service, argument, "work").unwrap()
    }

    #[test]
    fn the_program_for_the_argument_counts_first_and_must_be_executable() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [one.path().to_owned(), two.path().to_owned()];
        let make = |path: PathBuf, mode: u32| {
            std::fs::write(&path, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        assert_eq!(request("x.Y", "").program(&folders), None);
        make(one.path().join("x.Y"), 0o755);
        make(two.path().join("x.Y+a"), 0o755);
        assert_eq!(
            request("x.Y", "a").program(&folders),
            Some(two.path().join("x.Y+a"))
        );
        assert_eq!(
            request("x.Y", "b").program(&folders),
            Some(one.path().join("x.Y"))
        );
        make(two.path().join("x.Z"), 0o644);
        assert_eq!(request("x.Z", "").program(&folders), None);
        std::fs::create_dir(two.path().join("x.D")).unwrap();
        assert_eq!(request("x.D", "").program(&folders), None);
    }

    #[test]
    fn a_silent_sender_is_given_up() {
        let (reader, writer) = io::pipe().unwrap();
        let mut patient = Patient {
            stream: reader,
            patience: Duration::from_millis(20),
        };
        let mut buffer = [0; 4];
        let error = patient.read(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        io::Write::write_all(&mut &writer, b"x").unwrap();
        assert_eq!(patient.read(&mut buffer).unwrap(), 1);
        drop(writer);
        assert_eq!(patient.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn no_word_leads_out_of_the_folders() {
        for service in ["../x", "a/b", "", ".", "..", ".x", "a b"] {
            assert!(Request::new(service, "", "work").is_err(), "{service}");
        }
        assert!(Request::new("x.Y", "../a", "work").is_err());
        assert!(Request::new("x.Y", "a/b", "work").is_err());
        assert!(Request::new("x.Y", "", "../work").is_err());
        assert_eq!(request("x.Y", "").full_name(), "x.Y+");
    }
}
