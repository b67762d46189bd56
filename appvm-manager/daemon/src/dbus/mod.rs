//! The D-Bus interface `org.bulkhead.Manager1`, and [`domains`] beside it on the same object.
//!
//! Errors are named `org.bulkhead.Manager1.Error.` and [`crate::Error::kind`]; their text is
//! ready for a person.

mod calls;
mod convert;
mod domains;
mod network;
mod signals;

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_protocol::{DomainName, Label, WindowSize};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedFd, interface};

use crate::Error;
use crate::config::DomainConfig;
use crate::logs::Log;
use crate::manager::Manager;
use crate::power::Power;
use crate::session::Stdio;
use crate::settings::configure;

pub use convert::ApiError;
use convert::{Dict, Result, describe, exec_options, flag_options, invalid};

/// The daemon's name on the session bus.
pub const NAME: &str = "org.bulkhead.Manager";
/// Its object.
pub const PATH: &str = "/org/bulkhead/Manager";

fn caller(header: &Header<'_>) -> String {
    header.sender().map(ToString::to_string).unwrap_or_default()
}

fn patience(timeout_ms: u32) -> Option<Duration> {
    (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms.into()))
}

/// The object on the bus.
pub struct Api {
    manager: Arc<Manager>,
}

#[interface(name = "org.bulkhead.Manager1")]
impl Api {
    /// Makes a domain. Settings: label (s), template (s), kind (s), memory_mib (u), cpus (u),
    /// home_size_mib (u), snapshots (u), stop_timeout_s (u), tags and pci (as), default_disposable
    /// (s), net_domain (s), provides_network and autostart (s: yes or no). A number may also be text.
    async fn create_domain(&self, name: &str, settings: Dict) -> Result<()> {
        let name: DomainName = name.parse()?;
        let config = configure(
            DomainConfig::new(name, Label::Gray),
            convert::settings(settings)?,
        )?;
        Ok(self.manager.create_for_person(&config).await?)
    }

    /// Removes a halted domain with its home.
    async fn remove_domain(&self, name: &str) -> Result<()> {
        Ok(self.manager.remove_unused(&name.parse()?).await?)
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

    /// Stops a domain in order; after `timeout_ms` (0: as its file says) it is killed. Refused
    /// where others that run reach the network through it.
    async fn stop_domain(&self, name: &str, timeout_ms: u32) -> Result<()> {
        let timeout = patience(timeout_ms);
        Ok(self.manager.stop_unused(&name.parse()?, timeout).await?)
    }

    /// The same, whoever reaches the network through it.
    async fn force_stop_domain(&self, name: &str, timeout_ms: u32) -> Result<()> {
        let timeout = patience(timeout_ms);
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

    /// The applications of all domains: domain, app, name, generic_name, comment, icon, label,
    /// colour, template (s), keywords and categories (as), disposable (b: it can be launched in a
    /// new disposable). All text is cleaned and capped; it is a template's word all the same.
    #[zbus(out_args("applications"))]
    async fn list_applications(&self) -> Result<Vec<Dict>> {
        let applications = self.manager.applications().await?;
        Ok(applications.iter().map(convert::application).collect())
    }

    /// An icon that `ListApplications` named: red, green, blue and alpha of each pixel.
    #[zbus(out_args("width", "height", "rgba"))]
    async fn get_icon(&self, icon: &str) -> Result<(u16, u16, Vec<u8>)> {
        let picture = self.manager.icon(icon).await?;
        let size = bulkhead_apps::icons::SIZE;
        Ok((size, size, picture.rgba))
    }

    /// Launches an application; its domain is started if need be. Answers when the program runs,
    /// with the domain that it runs in. Options: disposable (b): in a new domain of the same
    /// template and label that is removed with the last window.
    #[zbus(out_args("domain"))]
    async fn launch_application(&self, domain: &str, app: &str, options: Dict) -> Result<String> {
        let [disposable] = flag_options(options, ["disposable"])?;
        let name = self
            .manager
            .launch(&domain.parse()?, app, disposable)
            .await?;
        Ok(name.to_string())
    }

    /// The windows of all domains: id (t), domain, label, colour, title, app_id (s), focused (b).
    #[zbus(out_args("windows"))]
    async fn list_windows(&self) -> Vec<Dict> {
        self.manager.windows().iter().map(convert::window).collect()
    }

    /// Raises a window and gives it the keyboard.
    async fn activate_window(&self, id: u64) -> Result<()> {
        Ok(self.manager.activate_window(id).await?)
    }

    /// Asks a window's client to close it.
    async fn close_window(&self, id: u64) -> Result<()> {
        Ok(self.manager.close_window(id).await?)
    }

    /// Asks for the menu, as a tap on the Super key does.
    async fn request_menu(&self) {
        let time_us = crate::domain::now_us();
        self.manager.tell(crate::manager::Event::Menu { time_us });
    }

    /// Keeps what the domain with the keyboard has copied for another one, as Ctrl+Shift+C does.
    async fn copy_across(&self) -> Result<()> {
        Ok(self.manager.copy_across().await?)
    }

    /// Gives it to the domain with the keyboard, as Ctrl+Shift+V does, if the policy allows it.
    async fn paste_across(&self) -> Result<()> {
        Ok(self.manager.paste_across().await?)
    }

    /// Stops all domains in order, then switches the machine off.
    async fn power_off(&self) -> Result<()> {
        Ok(self.manager.power(Power::Off).await?)
    }

    /// Stops all domains in order, then restarts the machine.
    async fn reboot(&self) -> Result<()> {
        Ok(self.manager.power(Power::Reboot).await?)
    }

    /// All templates: name, description, suite, folder, origin (s: system or user), size_bytes
    /// (t), applications (u), disposable (b), domains (as: who uses it), or error (s).
    #[zbus(out_args("templates"))]
    async fn list_templates(&self) -> Result<Vec<Dict>> {
        let templates = self.manager.templates().await?;
        Ok(templates.iter().map(convert::template).collect())
    }

    /// Copies a template (a folder, or a root image alone) to the user's own, whole or not at
    /// all, and gives its name. Options: name (s), replace (b).
    #[zbus(out_args("name"))]
    async fn import_template(&self, path: &str, options: Dict) -> Result<String> {
        let options = convert::import_options(options)?;
        let name = self
            .manager
            .import_template(Path::new(path), options)
            .await?;
        Ok(name.to_string())
    }

    /// Removes one of the user's own templates that no domain uses.
    async fn remove_template(&self, name: &str) -> Result<()> {
        Ok(self.manager.remove_template(&name.parse()?).await?)
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

    /// `ListApplications` would answer something else than before.
    #[zbus(signal)]
    async fn applications_changed(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;

    /// `ListWindows` would answer something else than before. Several changes are one signal.
    #[zbus(signal)]
    async fn windows_changed(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;

    /// Another window has the keyboard, or the same one another title; id 0 is none.
    #[zbus(signal)]
    async fn focus_changed(
        emitter: &SignalEmitter<'_>,
        id: u64,
        domain: &str,
        label: &str,
        colour: &str,
        title: &str,
    ) -> zbus::Result<()>;

    /// The user wants the menu, since this CLOCK_MONOTONIC time.
    #[zbus(signal)]
    async fn menu_requested(emitter: &SignalEmitter<'_>, time_us: u64) -> zbus::Result<()>;

    /// The compositor told the user something: what was copied or pasted across domains, or why
    /// not.
    #[zbus(signal)]
    async fn notice(emitter: &SignalEmitter<'_>, text: &str) -> zbus::Result<()>;
}

/// Puts the manager on the session bus.
pub async fn serve(manager: Arc<Manager>) -> zbus::Result<Connection> {
    let api = Api {
        manager: manager.clone(),
    };
    let connection = zbus::connection::Builder::session()
        .serve_at(PATH, api)
        .serve_at(PATH, calls::Calls::new(manager.clone()))
        .serve_at(PATH, domains::Domains::new(manager.clone()))
        .serve_at(PATH, network::Network::new(manager.clone()))
        .build()
        .await?;
    connection
        .request_name_with_flags(NAME, zbus::fdo::RequestNameFlags::DO_NOT_QUEUE)
        .await?;
    tokio::spawn(signals::tell(manager.clone(), connection.clone()));
    tokio::spawn(signals::watch_callers(manager, connection.clone()));
    Ok(connection)
}
