//! What can go wrong, in words that tell a person what to do.

use std::io;
use std::path::{Path, PathBuf};

use bulkhead_protocol::{DomainName, InvalidName, UnknownLabel};

/// The result of everything that the manager does.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say it; the fields are what they name.
pub enum Error {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Label(#[from] UnknownLabel),
    #[error("there is no domain `{0}`; `bulkhead list` shows all, `bulkhead create {0}` makes it")]
    NoSuchDomain(DomainName),
    #[error("domain `{0}` exists already; choose another name or `bulkhead remove {0}` first")]
    Exists(DomainName),
    #[error("domain `{name}`: {dir} holds data of an earlier domain of that name; move it away first", dir = .dir.display())]
    Leftover { name: DomainName, dir: PathBuf },
    #[error("no domain may be called `{name}`: {reason}; choose another name")]
    ReservedName {
        name: DomainName,
        reason: &'static str,
    },
    #[error("domain `{name}` is a disposable: {reason}")]
    Disposable {
        name: DomainName,
        reason: &'static str,
    },
    #[error("domain `{0}` is being made or changed right now; try again in a moment")]
    Busy(DomainName),
    #[error("domain `{name}`: {reason}")]
    Volume { name: DomainName, reason: String },
    #[error("{0}")]
    Plan(String),
    #[error("domain `{0}` is running already")]
    AlreadyRunning(DomainName),
    #[error("domain `{0}` is not running; start it with `bulkhead start {0}`")]
    NotRunning(DomainName),
    #[error("domain `{0}` is running; stop it first with `bulkhead stop {0}`")]
    StillRunning(DomainName),
    #[error("{file}, line {line}: {reason}", file = .file.display())]
    Config {
        file: PathBuf,
        line: usize,
        reason: String,
    },
    #[error("{0}")]
    Setting(String),
    #[error("{file}: {reason}; {remedy}", file = .file.display())]
    Image {
        file: PathBuf,
        reason: String,
        remedy: String,
    },
    #[error(
        "{dir}: the disk is full: {free_mib} MiB are free, {needed_mib} are needed; remove files or \
         domains", dir = .dir.display()
    )]
    Space {
        dir: PathBuf,
        free_mib: u64,
        needed_mib: u64,
    },
    #[error("{what} {path}: {source}", path = .path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{path}: the path is too long for a socket (at most 107 bytes); set XDG_RUNTIME_DIR to a shorter one", path = .0.display())]
    LongPath(PathBuf),
    #[error("domain `{name}` did not start: {reason}")]
    Start { name: DomainName, reason: String },
    #[error("domain `{0}` was stopped while it started")]
    StoppedEarly(DomainName),
    #[error("domain `{name}` stopped while the command ran: {reason}")]
    Lost { name: DomainName, reason: String },
    #[error("domain `{name}`: {reason}")]
    Guest { name: DomainName, reason: String },
    #[error("domain `{domain}` has no application `{app}`; `bulkhead apps` shows all")]
    NoSuchApplication { domain: DomainName, app: String },
    #[error("{0}")]
    Icon(#[from] bulkhead_apps::IconError),
    #[error(transparent)]
    Compositor(#[from] crate::compositor::Refused),
    #[error("{0}")]
    Power(String),
    #[error("the machine is being switched off; nothing is started any more")]
    Ending,
    #[error("{0}")]
    Template(String),
    #[error("there is no template `{name}`; {known}")]
    NoSuchTemplate { name: DomainName, known: String },
    #[error("template `{name}` is used by {users}; {remedy}")]
    TemplateInUse {
        name: DomainName,
        users: String,
        remedy: &'static str,
    },
    #[error(
        "template `{0}` does not allow disposables; write `disposable = true` in its template.toml"
    )]
    NotDisposable(DomainName),
    #[error(transparent)]
    Answer(#[from] crate::rpc::ask::AnswerError),
    #[error("domain `{name}` did not start: its network domain `{net}`: {reason}")]
    NetDomain {
        name: DomainName,
        net: DomainName,
        reason: String,
    },
    #[error(
        "domain `{name}` is the network of {users}, which run; stop them first, or say `bulkhead stop \
         --force {name}`"
    )]
    NetInUse { name: DomainName, users: String },
    #[error(transparent)]
    Net(#[from] crate::net::LinkError),
    #[error("the policy refuses it: {0}")]
    Denied(String),
    #[error("Wi-Fi of `{name}`: {reason}")]
    Wifi { name: DomainName, reason: String },
    #[error("no command with the token `{0}` runs for this caller")]
    NoSession(String),
}

impl Error {
    /// For `map_err` on file operations.
    pub fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
        move |source| {
            // A full disk has one message and one remedy wherever it shows.
            if source.raw_os_error() == Some(libc::ENOSPC) {
                let dir = path.parent().unwrap_or(path).to_owned();
                return Error::Space {
                    dir,
                    free_mib: 0,
                    needed_mib: 1,
                };
            }
            Error::Io {
                what,
                path: path.to_owned(),
                source,
            }
        }
    }

    /// The last part of the D-Bus error name.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Name(_)
            | Error::Label(_)
            | Error::Setting(_)
            | Error::ReservedName { .. }
            | Error::Disposable { .. } => "InvalidArgument",
            Error::Busy(_) => "Busy",
            Error::Volume { .. } => "Volume",
            Error::Plan(_) => "PlanChanged",
            Error::NoSuchDomain(_) => "NoSuchDomain",
            Error::Exists(_) | Error::Leftover { .. } => "Exists",
            Error::AlreadyRunning(_) => "AlreadyRunning",
            Error::NotRunning(_) => "NotRunning",
            Error::StillRunning(_) => "StillRunning",
            Error::Config { .. } => "BadConfiguration",
            Error::Image { .. } => "BadImage",
            Error::Space { .. } => "DiskFull",
            Error::Io { .. } | Error::LongPath(_) => "Io",
            Error::Start { .. } | Error::StoppedEarly(_) => "StartFailed",
            Error::Lost { .. } => "Lost",
            Error::Guest { .. } => "Guest",
            Error::Answer(_) => "BadAnswer",
            Error::Denied(_) => "Denied",
            Error::NoSession(_) => "NoSession",
            Error::NoSuchApplication { .. } => "NoSuchApplication",
            Error::Icon(_) => "NoIcon",
            Error::Compositor(_) => "Compositor",
            Error::Power(_) => "NoPower",
            Error::Ending => "Ending",
            Error::Template(_) => "BadTemplate",
            Error::NoSuchTemplate { .. } => "NoSuchTemplate",
            Error::TemplateInUse { .. } => "TemplateInUse",
            Error::NotDisposable(_) => "NotDisposable",
            Error::NetDomain { .. } => "NetDomain",
            Error::NetInUse { .. } => "NetInUse",
            Error::Net(_) => "Network",
            Error::Wifi { .. } => "Wifi",
        }
    }
}
