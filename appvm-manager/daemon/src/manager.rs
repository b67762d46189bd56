//! Everything that can be asked of the manager; [`crate::dbus`] only translates.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_protocol::{DomainName, ExecRequest, WindowSize};
use tokio::sync::{broadcast, oneshot};

use crate::apps::Catalog;
use crate::broker::Broker;
use crate::compositor::{Compositor, News};
use crate::config::DomainConfig;
use crate::dirs::Dirs;
use crate::domain::{Domain, State, now_us};
use crate::images::Images;
use crate::session::{self, Handle, Outcome, SessionError, Stdio};
use crate::store::Store;
use crate::windows::{WindowInfo, Windows};
use crate::{Error, Result};

/// What the daemon was started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The VMM's program.
    pub vmm: PathBuf,
    /// The folder of images.
    pub images: PathBuf,
    /// The program that carries frames between domains' network cards.
    pub link: PathBuf,
    /// What leads to the host's own network.
    pub uplink: crate::net::Programs,
    /// Where the broker of physical devices listens, if there is one.
    pub broker: PathBuf,
    /// The program that decodes icons.
    pub icon_worker: PathBuf,
    /// The compositor's control socket.
    pub compositor_control: PathBuf,
    /// Added to every guest's command line.
    pub guest_cmdline: String,
    /// How long a guest may take until its agent is ready.
    pub start_timeout_s: u32,
}

/// What the manager tells everyone.
#[derive(Debug, Clone)]
pub enum Event {
    /// A domain's state changed.
    State(DomainName, State),
    /// A domain was made.
    Added(DomainName),
    /// A domain was removed.
    Removed(DomainName),
    /// The applications of some domain changed.
    Applications,
    /// A window showed its first frame.
    Mapped {
        /// Whose.
        domain: DomainName,
        /// The compositor's number for it.
        id: u64,
        /// The guest's word, cleaned.
        title: String,
        /// `CLOCK_MONOTONIC`.
        time_us: u64,
    },
    /// The windows changed.
    Windows,
    /// Another window has the keyboard, or none, or the same one another title.
    Focus(Option<WindowInfo>),
    /// The user wants the menu.
    Menu {
        /// `CLOCK_MONOTONIC`.
        time_us: u64,
    },
    /// A question to the user is open.
    AskOpened(u64),
    /// It is answered, or withdrawn.
    AskClosed(u64),
    /// A call between domains ended, one way or another: a line for the user.
    Call(String),
    /// The compositor told the user something.
    Notice(String),
}

/// A domain as callers see it.
#[derive(Debug, Clone)]
pub struct Info {
    /// Its name.
    pub name: DomainName,
    /// Its file.
    pub file: PathBuf,
    /// Its configuration, or what is wrong with it.
    pub config: std::result::Result<DomainConfig, String>,
    /// What it does.
    pub state: State,
    /// The VMM's process.
    pub pid: Option<i32>,
    /// How much disk its volumes take.
    pub disk_bytes: u64,
    /// Why its last start made no snapshot of its home, where that is so.
    pub snapshot_problem: String,
}

/// The manager.
pub struct Manager {
    pub(crate) options: Options,
    pub(crate) dirs: Dirs,
    pub(crate) store: Store,
    pub(crate) broker: Arc<Broker>,
    pub(crate) images: Images,
    /// The way to the compositor.
    pub compositor: Compositor,
    domains: Mutex<BTreeMap<DomainName, Arc<Domain>>>,
    sessions: Mutex<HashMap<(String, String), (DomainName, Handle)>>,
    windows: Mutex<Windows>,
    pub(crate) catalog: Catalog,
    pub(crate) icons: bulkhead_apps::Icons,
    /// The machine is about to be switched off: nothing is started any more.
    pub(crate) ending: AtomicBool,
    pub(crate) calls: crate::rpc::Calls,
    pub(crate) net: crate::net::Net,
    pub(crate) redraws: crate::pictures::Redraws,
    events: broadcast::Sender<Event>,
    cids: AtomicU32,
}

impl Manager {
    /// With its folders in place.
    pub fn new(options: Options, dirs: Dirs) -> Result<Arc<Self>> {
        let store = Store::open(dirs.clone())?;
        // Sockets of an earlier daemon, whose VMMs ended with it.
        for entry in std::fs::read_dir(&dirs.runtime)
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
        let images = Images::new(options.images.clone()).with_own(dirs.templates.clone());
        images.sweep();
        let icons = bulkhead_apps::Icons::new(options.icon_worker.clone(), dirs.icons.clone());
        let manager = Arc::new(Manager {
            images,
            icons,
            catalog: Catalog::default(),
            windows: Mutex::default(),
            ending: AtomicBool::new(false),
            compositor: Compositor::new(options.compositor_control.clone()),
            net: crate::net::Net::new(options.link.clone(), options.uplink.clone()),
            broker: Arc::new(Broker::new(options.broker.clone())),
            options,
            store,
            domains: Mutex::default(),
            sessions: Mutex::default(),
            calls: crate::rpc::Calls {
                asks: crate::rpc::ask::Asks::default(),
                log: crate::rpc::log::Log::new(dirs.transfers()),
                quota: crate::rpc::quota::Quota::default(),
                drops: crate::rpc::drops::Drops::default(),
                grants: crate::rpc::grants::Grants::default(),
            },
            redraws: crate::pictures::Redraws::default(),
            events: broadcast::Sender::new(256),
            cids: AtomicU32::new(3),
            dirs,
        });
        manager.sweep_disposables();
        Ok(manager)
    }

    /// Follows what happens.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Follows the compositor for ever.
    pub async fn follow_compositor(self: Arc<Self>) {
        let manager = self.clone();
        let on_news = move |news| manager.take_news(news);
        self.compositor.clone().follow(on_news).await;
    }

    fn take_news(self: &Arc<Self>, news: News) {
        let changed = match &news {
            News::Came(windows) => self.locked_windows().replace(windows),
            News::Gone => self.locked_windows().replace(&[]),
            News::Event(event) => self.locked_windows().apply(event),
        };
        if let News::Gone = news {
            self.redraws.all_ended();
        }
        if let News::Event(event) = news {
            let domain = event.domain.as_deref().and_then(|name| name.parse().ok());
            match (event.event.as_str(), domain, event.id) {
                ("window_mapped", Some(domain), Some(id)) => {
                    let title = crate::text::clean(event.title.as_deref().unwrap_or_default(), 200);
                    let time_us = event.time_us;
                    self.tell(Event::Mapped {
                        domain,
                        id,
                        title,
                        time_us,
                    });
                }
                ("menu", _, _) => {
                    let time_us = event.time_us;
                    self.tell(Event::Menu { time_us });
                }
                ("power", _, _) => self.clone().power_button(),
                ("paste", _, _) => self.clone().paste_asked(&event),
                ("redrawn", _, _) => self.redraws.ended(&event),
                ("drag_over", _, _) => self.clone().drag_asked(&event),
                ("drop", _, _) => self.clone().drop_asked(&event),
                ("notice", _, _) => {
                    let text = crate::text::clean(event.text.as_deref().unwrap_or_default(), 300);
                    tracing::info!(text, "notice");
                    self.tell(Event::Notice(text));
                }
                _ => {}
            }
        }
        if changed.windows {
            self.tell(Event::Windows);
        }
        if changed.focus {
            self.tell(Event::Focus(self.focused_window()));
        }
    }

    /// Tells everyone who listens; nobody may.
    pub(crate) fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    pub(crate) fn locked_windows(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All windows.
    pub fn windows(&self) -> Vec<WindowInfo> {
        self.locked_windows()
            .list(|name| self.compositor.label_of(name))
    }

    /// The window that has the keyboard.
    pub fn focused_window(&self) -> Option<WindowInfo> {
        self.locked_windows()
            .focused(|name| self.compositor.label_of(name))
    }

    /// Raises a window and gives it the keyboard.
    pub async fn activate_window(&self, id: u64) -> Result<()> {
        Ok(self.compositor.activate(id).await?)
    }

    /// Asks a window's client to close it.
    pub async fn close_window(&self, id: u64) -> Result<()> {
        Ok(self.compositor.close(id).await?)
    }

    pub(crate) fn next_cid(&self) -> u32 {
        self.cids.fetch_add(1, Ordering::Relaxed)
    }

    /// The only way in which a state changes.
    pub(crate) fn set_state(&self, domain: &Domain, state: State) {
        let changed = domain.state.send_if_modified(|current| {
            let changed = *current != state;
            if changed {
                *current = state.clone();
            }
            changed
        });
        if changed {
            tracing::info!(domain = %domain.name, state = %state, "state");
            self.tell(Event::State(domain.name.clone(), state));
        }
    }

    fn domains(&self) -> MutexGuard<'_, BTreeMap<DomainName, Arc<Domain>>> {
        self.domains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every domain that this daemon has had to do with.
    pub(crate) fn known_domains(&self) -> Vec<Arc<Domain>> {
        self.domains().values().cloned().collect()
    }

    /// A domain that exists, or still runs although its file was removed by hand.
    pub(crate) fn domain(&self, name: &DomainName) -> Result<Arc<Domain>> {
        let mut domains = self.domains();
        let known = domains.get(name);
        let runs = known.is_some_and(|domain| domain.machine().is_some());
        if !runs && !self.store.exists(name) {
            return Err(Error::NoSuchDomain(name.clone()));
        }
        let fresh = || Arc::new(Domain::new(name.clone()));
        Ok(domains.entry(name.clone()).or_insert_with(fresh).clone())
    }

    /// Forgets a domain that is no more.
    pub(crate) fn forget(&self, name: &DomainName) {
        self.domains().remove(name);
    }

    /// Makes a domain. Takes long where its root is its own and must be copied.
    pub async fn create(self: &Arc<Self>, config: &DomainConfig) -> Result<()> {
        self.images.check_template(&config.template)?;
        let template = self.images.template_folder(&config.template);
        let (store, new) = (self.store.clone(), config.clone());
        let create = move || store.create(&new, template.as_deref());
        let created = tokio::task::spawn_blocking(create).await;
        created.unwrap_or_else(|error| Err(Error::Setting(error.to_string())))?;
        self.net_settings_changed(None, config);
        self.tell(Event::Added(config.name.clone()));
        self.tell(Event::Applications);
        Ok(())
    }

    /// Removes a domain that does not run, with everything in it.
    pub async fn remove(&self, name: &DomainName) -> Result<()> {
        let domain = self.domain(name)?;
        let Ok(_nobody_starts_it) = domain.transition.try_lock() else {
            return Err(Error::StillRunning(name.clone()));
        };
        if domain.machine().is_some() {
            return Err(Error::StillRunning(name.clone()));
        }
        self.store.remove(name)?;
        self.forget(name);
        self.devices_changed();
        self.tell(Event::Removed(name.clone()));
        self.tell(Event::Applications);
        Ok(())
    }

    /// Every domain.
    pub fn list(&self) -> Result<Vec<Info>> {
        self.store
            .names()?
            .iter()
            .map(|name| self.info(name))
            .collect()
    }

    /// One domain.
    pub fn info(&self, name: &DomainName) -> Result<Info> {
        use std::os::unix::fs::MetadataExt;
        let domain = self.domain(name)?;
        let config = self.store.load(name).map_err(|error| error.to_string());
        let state = domain.state.borrow().clone();
        let disk_bytes = std::fs::metadata(self.store.home_file(name))
            .map_or(0, |data| data.blocks().saturating_mul(512));
        Ok(Info {
            name: name.clone(),
            file: self.store.config_file(name),
            config,
            state,
            pid: domain.machine().map(|machine| machine.pid),
            disk_bytes,
            snapshot_problem: domain.snapshot_problem(),
        })
    }

    /// A domain's label, if it has one that can be read.
    pub fn label(&self, name: &DomainName) -> Option<bulkhead_protocol::Label> {
        self.store.load(name).ok().map(|config| config.label)
    }

    /// The points in time of a domain's last start.
    pub fn timings(&self, name: &DomainName) -> Result<crate::domain::Timings> {
        Ok(self.domain(name)?.timings())
    }

    /// The folder of a domain's logs.
    pub fn logs(&self, name: &DomainName) -> Result<PathBuf> {
        self.domain(name)?;
        Ok(self.dirs.logs_of(name))
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<(String, String), (DomainName, Handle)>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a command in a domain, which is started if need be and if `start` allows it, and
    /// waits for its end. `caller` and `token` name it for [`Manager::signal`] and the like.
    pub async fn exec(
        self: &Arc<Self>,
        name: &DomainName,
        request: ExecRequest,
        stdio: Stdio,
        (caller, token): (String, String),
        start: bool,
    ) -> Result<Outcome> {
        let domain = self.domain(name)?;
        let key = (caller, token);
        let handle = Handle::default();
        {
            let mut sessions = self.sessions();
            if sessions.contains_key(&key) {
                let reason = format!("the token `{}` is in use by this caller", key.1);
                return Err(Error::Setting(reason));
            }
            sessions.insert(key.clone(), (name.clone(), handle.clone()));
        }
        let result = self.exec_with(&domain, request, stdio, handle, start).await;
        self.sessions().remove(&key);
        result
    }

    async fn exec_with(
        self: &Arc<Self>,
        domain: &Arc<Domain>,
        request: ExecRequest,
        stdio: Stdio,
        handle: Handle,
        start: bool,
    ) -> Result<Outcome> {
        let name = &domain.name;
        let machine = if start {
            self.ensure_running(name).await?
        } else {
            match domain.machine() {
                Some(machine) if *domain.state.borrow() == State::Running => machine,
                _ => return Err(Error::NotRunning(name.clone())),
            }
        };
        domain.mark("exec", now_us());
        let vsock = machine.vsock.clone();
        let (sender, outcome) = oneshot::channel();
        let marked = domain.clone();
        let spawned = std::thread::Builder::new()
            .name(format!("exec {name}"))
            .spawn(move || {
                let on_start = |time| marked.mark("started", time);
                // The caller may be gone.
                let _ = sender.send(session::run(&vsock, request, stdio, &handle, on_start));
            });
        let guest = |reason: String| Error::Guest {
            name: name.clone(),
            reason,
        };
        spawned.map_err(|error| guest(error.to_string()))?;
        match outcome.await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(SessionError::Cancelled)) => Err(guest("the command was cancelled".to_owned())),
            Ok(Err(SessionError::Broken(_))) => {
                // Either the machine ended, or the guest's agent cut the connection.
                let ended = machine.gone();
                let reason =
                    match tokio::time::timeout(std::time::Duration::from_secs(3), ended).await {
                        Ok(ended) => ended.reason,
                        Err(_) => "its agent closed the connection".to_owned(),
                    };
                Err(Error::Lost {
                    name: name.clone(),
                    reason,
                })
            }
            Ok(Err(error)) => Err(guest(error.to_string())),
            Err(_) => Err(guest("the command's thread ended".to_owned())),
        }
    }

    fn session(&self, caller: &str, token: &str) -> Result<Handle> {
        let key = (caller.to_owned(), token.to_owned());
        let found = self.sessions().get(&key).map(|(_, handle)| handle.clone());
        found.ok_or_else(|| Error::NoSession(token.to_owned()))
    }

    /// Sends a signal to a caller's command.
    pub async fn signal(&self, caller: &str, token: &str, number: u8) -> Result<()> {
        if !(1..=31).contains(&number) {
            return Err(Error::Setting(format!("there is no signal {number}")));
        }
        let handle = self.session(caller, token)?;
        match tell_guest(move || handle.signal(number)).await {
            true => Ok(()),
            // Its domain is still starting.
            false => Err(Error::NoSession(token.to_owned())),
        }
    }

    /// Tells a caller's command the size of its terminal.
    pub async fn resize(&self, caller: &str, token: &str, size: WindowSize) -> Result<()> {
        let handle = self.session(caller, token)?;
        tell_guest(move || handle.resize(size)).await;
        Ok(())
    }

    /// Ends the commands of a caller that has left the bus.
    pub fn caller_left(&self, caller: &str) {
        let gone: Vec<Handle> = self
            .sessions()
            .iter()
            .filter(|((owner, _), _)| owner == caller)
            .map(|(_, (_, handle))| handle.clone())
            .collect();
        gone.iter().for_each(Handle::cancel);
    }

    /// A connection to a domain's console.
    pub async fn console(&self, name: &DomainName) -> Result<std::os::unix::net::UnixStream> {
        let domain = self.domain(name)?;
        let machine = domain
            .machine()
            .ok_or_else(|| Error::NotRunning(name.clone()))?;
        let connect = async {
            let socket = tokio::net::UnixStream::connect(&machine.console)
                .await?
                .into_std()?;
            socket.set_nonblocking(false)?;
            Ok(socket)
        };
        connect
            .await
            .map_err(Error::io("connect to the console", &machine.console))
    }
}

/// Sends something to a guest, which may not listen: then a thread waits, not the daemon.
async fn tell_guest(send: impl FnOnce() -> bool + Send + 'static) -> bool {
    let sent = tokio::task::spawn_blocking(send);
    let patience = std::time::Duration::from_secs(2);
    match tokio::time::timeout(patience, sent).await {
        Ok(sent) => sent.unwrap_or(false),
        // Slow is not lost: it still waits to be sent.
        Err(_) => true,
    }
}
