//! The D-Bus interface `org.bulkhead.Manager1`.
//!
//! Errors are named `org.bulkhead.Manager1.Error.` and [`crate::Error::kind`]; their text is
//! ready for a person.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_protocol::{DomainName, ExecRequest, Label, User, WindowSize};
use futures_util::StreamExt;
use tokio::sync::broadcast;
use zbus::message::Header;
use zbus::names::ErrorName;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, DBusError, Message, OwnedFd, OwnedVariant, Str, interface};

use crate::Error;
use crate::config::DomainConfig;
use crate::lifecycle::{Setting, configure};
use crate::logs::Log;
use crate::manager::{Event, Info, Manager};
use crate::session::Stdio;

/// The daemon's name on the session bus.
pub const NAME: &str = "org.bulkhead.Manager";
/// Its object.
pub const PATH: &str = "/org/bulkhead/Manager";

/// An error on its way to a caller.
#[derive(Debug)]
pub struct ApiError {
    name: String,
    text: String,
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        ApiError {
            name: format!("org.bulkhead.Manager1.Error.{}", error.kind()),
            text: error.to_string(),
        }
    }
}

impl From<bulkhead_protocol::InvalidName> for ApiError {
    fn from(error: bulkhead_protocol::InvalidName) -> Self {
        Error::from(error).into()
    }
}

impl DBusError for ApiError {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&(self.text.as_str(),))
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::try_from(self.name.as_str()).unwrap_or_else(|_| {
            ErrorName::from_static_str_unchecked("org.freedesktop.DBus.Error.Failed")
        })
    }

    fn description(&self) -> Option<&str> {
        Some(&self.text)
    }
}

type Result<T> = std::result::Result<T, ApiError>;
type Dict = HashMap<String, OwnedVariant>;

fn invalid(text: impl Into<String>) -> ApiError {
    Error::Setting(text.into()).into()
}

fn text(value: impl Into<String>) -> OwnedVariant {
    OwnedVariant::from(Str::from(value.into()))
}

fn describe(info: &Info) -> Dict {
    let mut dict = Dict::from([
        ("name".into(), text(info.name.as_str())),
        ("state".into(), text(info.state.name())),
        ("detail".into(), text(info.state.detail())),
        ("file".into(), text(info.file.to_string_lossy())),
        ("disk_bytes".into(), info.disk_bytes.into()),
    ]);
    if let Some(pid) = info.pid {
        dict.insert("pid".into(), pid.into());
    }
    match &info.config {
        Ok(config) => {
            dict.insert("label".into(), text(config.label.name()));
            dict.insert("colour".into(), text(config.label.colour()));
            dict.insert("kind".into(), text(config.kind.name()));
            dict.insert("template".into(), text(config.template.as_str()));
            dict.insert("memory_mib".into(), config.memory_mib.into());
            dict.insert("cpus".into(), u32::from(config.cpus).into());
            dict.insert("home_size_mib".into(), config.home_size_mib.into());
        }
        Err(error) => {
            dict.insert("error".into(), text(error.as_str()));
        }
    }
    dict
}

fn settings(dict: Dict) -> Result<Vec<(String, Setting)>> {
    let convert = |value: &OwnedVariant| {
        if let Ok(text) = <&str>::try_from(value) {
            return Some(Setting::Text(text.to_owned()));
        }
        let number = u64::try_from(value).ok();
        let number = number.or_else(|| u32::try_from(value).ok().map(u64::from));
        let number = number.or_else(|| u16::try_from(value).ok().map(u64::from));
        let number = number.or_else(|| u8::try_from(value).ok().map(u64::from));
        let number = number.or_else(|| {
            i32::try_from(value)
                .ok()
                .and_then(|n| u64::try_from(n).ok())
        });
        number
            .or_else(|| {
                i64::try_from(value)
                    .ok()
                    .and_then(|n| u64::try_from(n).ok())
            })
            .map(Setting::Number)
    };
    dict.into_iter()
        .map(|(key, value)| match convert(&value) {
            Some(setting) => Ok((key, setting)),
            None => Err(invalid(format!(
                "{key}: neither text nor a number that is not negative"
            ))),
        })
        .collect()
}

/// How `Exec` is to run a command.
struct ExecOptions {
    request: ExecRequest,
    token: String,
    start: bool,
}

fn exec_options(argv: Vec<String>, options: Dict) -> Result<ExecOptions> {
    let mut parsed = ExecOptions {
        request: ExecRequest {
            argv,
            ..ExecRequest::default()
        },
        token: String::new(),
        start: true,
    };
    let (mut columns, mut rows) = (None, None);
    for (key, value) in options {
        let wrong = |_| invalid(format!("the option `{key}` has the wrong type"));
        match key.as_str() {
            "env" => {
                let env = HashMap::<String, String>::try_from(value).map_err(wrong)?;
                parsed.request.env = env.into_iter().collect();
            }
            "cwd" => parsed.request.cwd = Some(String::try_from(value).map_err(wrong)?),
            "user" => {
                parsed.request.user = match String::try_from(value).map_err(wrong)?.as_str() {
                    "user" => User::User,
                    "root" => User::Root,
                    other => return Err(invalid(format!("no user `{other}`; use user or root"))),
                }
            }
            "token" => parsed.token = String::try_from(value).map_err(wrong)?,
            "start" => parsed.start = bool::try_from(value).map_err(wrong)?,
            "tty_columns" => columns = Some(u16::try_from(value).map_err(wrong)?),
            "tty_rows" => rows = Some(u16::try_from(value).map_err(wrong)?),
            _ => return Err(invalid(format!("there is no option `{key}`"))),
        }
    }
    if let (Some(columns), Some(rows)) = (columns, rows) {
        parsed.request.tty = Some(WindowSize { columns, rows });
    }
    Ok(parsed)
}

fn caller(header: &Header<'_>) -> String {
    header.sender().map(ToString::to_string).unwrap_or_default()
}

/// The object on the bus.
pub struct Api {
    manager: Arc<Manager>,
}

#[interface(name = "org.bulkhead.Manager1")]
impl Api {
    /// Makes a domain. Settings: label (s), template (s), kind (s), memory_mib (u), cpus (u),
    /// home_size_mib (u), stop_timeout_s (u).
    async fn create_domain(&self, name: &str, settings: Dict) -> Result<()> {
        let name: DomainName = name.parse()?;
        let config = configure(
            DomainConfig::new(name, Label::Gray),
            self::settings(settings)?,
        )?;
        Ok(self.manager.create(&config)?)
    }

    /// Removes a halted domain with its home.
    async fn remove_domain(&self, name: &str) -> Result<()> {
        Ok(self.manager.remove(&name.parse()?).await?)
    }

    /// All domains.
    #[zbus(out_args("domains"))]
    async fn list_domains(&self) -> Result<Vec<Dict>> {
        Ok(self.manager.list()?.iter().map(describe).collect())
    }

    /// One domain: name, state, detail, file, disk_bytes; pid while it runs; its settings, or
    /// error where its file is wrong.
    #[zbus(out_args("domain"))]
    async fn get_domain(&self, name: &str) -> Result<Dict> {
        Ok(describe(&self.manager.info(&name.parse()?)?))
    }

    /// Starts a domain; answers when its agent takes commands.
    async fn start_domain(&self, name: &str) -> Result<()> {
        Ok(self.manager.start(&name.parse()?).await?)
    }

    /// Stops a domain in order; after `timeout_ms` (0: as its file says) it is killed.
    async fn stop_domain(&self, name: &str, timeout_ms: u32) -> Result<()> {
        let timeout = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms.into()));
        Ok(self.manager.stop(&name.parse()?, timeout).await?)
    }

    /// Ends a domain at once.
    async fn kill_domain(&self, name: &str) -> Result<()> {
        Ok(self.manager.kill(&name.parse()?).await?)
    }

    /// Runs a command and answers when it has ended. No arguments: a login shell. Options: env
    /// (a{ss}), cwd (s), user (s: user or root), tty_columns and tty_rows (q) for a terminal,
    /// token (s) to name it for `SignalCommand`, start (b, default true).
    ///
    /// `status` is that of a shell (128 + a signal's number); `message` is not empty where the
    /// guest could not run the command; `started_us` is CLOCK_MONOTONIC.
    #[zbus(out_args("status", "message", "started_us"))]
    #[allow(clippy::too_many_arguments)]
    async fn exec(
        &self,
        #[zbus(header)] header: Header<'_>,
        name: &str,
        argv: Vec<String>,
        options: Dict,
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    ) -> Result<(i32, String, u64)> {
        let options = exec_options(argv, options)?;
        let stdio = Stdio {
            stdin: stdin.into(),
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        let key = (caller(&header), options.token);
        let outcome = self
            .manager
            .exec(&name.parse()?, options.request, stdio, key, options.start)
            .await?;
        Ok((outcome.status, outcome.message, outcome.started_us))
    }

    /// Sends a signal to a command of this caller.
    async fn signal_command(
        &self,
        #[zbus(header)] header: Header<'_>,
        token: &str,
        signal: u8,
    ) -> Result<()> {
        Ok(self.manager.signal(&caller(&header), token, signal).await?)
    }

    /// Tells a command of this caller the size of its terminal.
    async fn resize_command(
        &self,
        #[zbus(header)] header: Header<'_>,
        token: &str,
        columns: u16,
        rows: u16,
    ) -> Result<()> {
        let size = WindowSize { columns, rows };
        Ok(self.manager.resize(&caller(&header), token, size).await?)
    }

    /// A stream socket that is the guest's console (hvc0). What comes out of it is the guest's.
    #[zbus(out_args("socket"))]
    async fn open_console(&self, name: &str) -> Result<OwnedFd> {
        let socket = self.manager.console(&name.parse()?).await?;
        Ok(std::os::fd::OwnedFd::from(socket).into())
    }

    /// A log, `serial` (the guest's words) or `vmm`, for reading. When it grows too long it is
    /// set aside, and a new call gives the new one.
    #[zbus(out_args("file"))]
    async fn open_log(&self, name: &str, log: &str) -> Result<OwnedFd> {
        let name: DomainName = name.parse()?;
        let log = match log {
            "serial" => Log::Serial,
            "vmm" => Log::Vmm,
            other => return Err(invalid(format!("no log `{other}`; use serial or vmm"))),
        };
        let file = log.file(&self.manager.logs(&name)?);
        match File::open(&file) {
            Ok(open) => Ok(std::os::fd::OwnedFd::from(open).into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let reason = "there is no log yet; it has not been started".to_owned();
                Err(Error::Guest { name, reason }.into())
            }
            Err(error) => Err(Error::io("open", &file)(error).into()),
        }
    }

    /// The points in time of a domain's last start: request, spawned, hello, ready, exec in
    /// microseconds of CLOCK_MONOTONIC; `guest.…` in milliseconds since the guest's boot.
    #[zbus(out_args("timings"))]
    async fn get_timings(&self, name: &str) -> Result<HashMap<String, u64>> {
        Ok(self.manager.timings(&name.parse()?)?.into_iter().collect())
    }

    /// The daemon's version.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    /// Whether a compositor shows the domains' windows.
    #[zbus(property)]
    fn compositor_connected(&self) -> bool {
        self.manager.compositor.is_connected()
    }

    /// A domain's state changed: halted, starting (detail: preparing, kernel, agent), running,
    /// stopping, failed (detail: why).
    #[zbus(signal)]
    async fn domain_state_changed(
        emitter: &SignalEmitter<'_>,
        name: &str,
        state: &str,
        detail: &str,
    ) -> zbus::Result<()>;

    /// A domain was made.
    #[zbus(signal)]
    async fn domain_added(emitter: &SignalEmitter<'_>, name: &str) -> zbus::Result<()>;

    /// A domain was removed.
    #[zbus(signal)]
    async fn domain_removed(emitter: &SignalEmitter<'_>, name: &str) -> zbus::Result<()>;

    /// A window of a domain showed its first frame, at this CLOCK_MONOTONIC time. The title is
    /// the guest's word.
    #[zbus(signal)]
    async fn window_mapped(
        emitter: &SignalEmitter<'_>,
        domain: &str,
        id: u64,
        title: &str,
        time_us: u64,
    ) -> zbus::Result<()>;
}

/// Puts the manager on the session bus.
pub async fn serve(manager: Arc<Manager>) -> zbus::Result<Connection> {
    let api = Api {
        manager: manager.clone(),
    };
    let connection = zbus::connection::Builder::session()
        .serve_at(PATH, api)
        .build()
        .await?;
    connection
        .request_name_with_flags(NAME, zbus::fdo::RequestNameFlags::DO_NOT_QUEUE)
        .await?;
    tokio::spawn(tell(manager.clone(), connection.clone()));
    tokio::spawn(watch_callers(manager, connection.clone()));
    Ok(connection)
}

/// Turns the manager's events into signals.
async fn tell(manager: Arc<Manager>, connection: Connection) {
    let mut events = manager.events();
    let mut connected = manager.compositor.connected();
    let interface = match connection.object_server().interface::<_, Api>(PATH).await {
        Ok(interface) => interface,
        Err(error) => return tracing::error!(%error, "no signals"),
    };
    let emitter = interface.signal_emitter();
    loop {
        let result = tokio::select! {
            event = events.recv() => match event {
                Ok(Event::State(name, state)) => {
                    Api::domain_state_changed(emitter, name.as_str(), state.name(), state.detail())
                        .await
                }
                Ok(Event::Added(name)) => Api::domain_added(emitter, name.as_str()).await,
                Ok(Event::Removed(name)) => Api::domain_removed(emitter, name.as_str()).await,
                Ok(Event::Window(event)) => {
                    Api::window_mapped(
                        emitter, &event.domain, event.id, &event.title, event.time_us,
                    )
                    .await
                }
                Err(broadcast::error::RecvError::Lagged(_)) => Ok(()),
                Err(broadcast::error::RecvError::Closed) => return,
            },
            Ok(()) = connected.changed() => {
                interface.get().await.compositor_connected_changed(emitter).await
            }
        };
        if let Err(error) = result {
            tracing::warn!(%error, "signal");
        }
    }
}

/// Ends the commands of callers that leave the bus.
async fn watch_callers(manager: Arc<Manager>, connection: Connection) {
    let stream = async {
        zbus::fdo::DBusProxy::new(&connection)
            .await?
            .receive_name_owner_changed()
            .await
    };
    let mut changes = match stream.await {
        Ok(changes) => changes,
        Err(error) => return tracing::error!(%error, "callers that leave are not noticed"),
    };
    while let Some(change) = changes.next().await {
        let Ok(arguments) = change.args() else {
            continue;
        };
        if arguments.new_owner.is_none() && arguments.name.starts_with(':') {
            manager.caller_left(&arguments.name);
        }
    }
}
