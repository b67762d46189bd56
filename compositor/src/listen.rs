//! How clients come in and are served: one listening socket per domain, one event source per
//! client, so that a client can be served, measured and ended alone.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use smithay::reexports::{
    calloop::{Interest, Mode, PostAction, RegistrationToken, generic::Generic},
    wayland_server::{
        Display,
        backend::{ClientId, DisconnectReason, protocol::ProtocolError},
    },
};

use crate::{
    domain::{
        ClientState, Colour, Domain, DomainError, DomainId, HOST_NAME, Quota, Usage, check_name,
    },
    server::SharedDisplay,
    state::State,
};

/// Connections taken from one domain before others get their turn.
const ACCEPTS_PER_TURN: usize = 8;
/// A client whose requests keep the compositor busy for so long without a pause is cut off.
const FLOOD: Duration = Duration::from_millis(1500);
/// After a flood the domain's new connections are refused for this long.
const PENALTY: Duration = Duration::from_secs(5);
/// Every so many served requests a client's objects are counted.
const COUNT_OBJECTS_EVERY: usize = 512;

impl State {
    /// The manager hands over a domain's listening socket.
    pub(crate) fn add_domain(
        &mut self,
        name: &str,
        label: &str,
        colour: &str,
        socket: OwnedFd,
        display: &SharedDisplay,
    ) -> Result<DomainId, DomainError> {
        check_name(name)?;
        let colour: Colour = colour.parse()?;
        if self.domains.by_name(name).is_some() {
            return Err(DomainError::Exists(name.into()));
        }
        let id = self.domains.new_id();
        let listener = UnixListener::from(socket);
        let usable = listener.set_nonblocking(true).is_ok() && listener.local_addr().is_ok();
        if !usable {
            return Err(DomainError::Socket(name.into()));
        }
        let listener = self
            .accept_from(id, listener, display)
            .map_err(|_| DomainError::Socket(name.into()))?;
        tracing::info!(domain = name, label, "domain added");
        self.domains.insert(Domain {
            id,
            name: name.into(),
            label: label.chars().take(32).collect(),
            colour,
            usage: Usage::default(),
            quota: self.default_quota,
            commits: 0,
            listener,
            refuse_until: None,
        });
        Ok(id)
    }

    /// Makes the socket of the host's own programs.
    pub(crate) fn add_host(&mut self, path: &Path, display: &SharedDisplay) -> io::Result<()> {
        let socket = crate::control::packets::listen(path, rustix::net::SocketType::STREAM)?;
        let listener = self.accept_from(DomainId::HOST, socket.into(), display)?;
        self.domains.insert(Domain {
            id: DomainId::HOST,
            name: HOST_NAME.into(),
            label: String::new(),
            colour: Colour {
                red: 0,
                green: 0,
                blue: 0,
            },
            usage: Usage::default(),
            // Trusted, and still bounded: a program that leaks is stopped before the desktop is.
            quota: Quota::default(),
            commits: 0,
            listener,
            refuse_until: None,
        });
        Ok(())
    }

    fn accept_from(
        &self,
        id: DomainId,
        listener: UnixListener,
        display: &SharedDisplay,
    ) -> io::Result<RegistrationToken> {
        let display = display.clone();
        let source = Generic::new(listener, Interest::READ, Mode::Level);
        self.events
            .insert_source(source, move |_, listener, state: &mut Self| {
                for _ in 0..ACCEPTS_PER_TURN {
                    match listener.accept() {
                        Ok((stream, _)) => state.connect(id, stream, &display),
                        Err(_) => break,
                    }
                }
                Ok(PostAction::Continue)
            })
            .map_err(|error| io::Error::other(error.to_string()))
    }

    /// A domain goes away: its socket closes, its clients are disconnected, its windows vanish.
    pub(crate) fn remove_domain(&mut self, name: &str) -> Result<(), DomainError> {
        let id = self
            .domains
            .by_name(name)
            .ok_or_else(|| DomainError::Unknown(name.into()))?;
        let windows: Vec<_> = self
            .shell
            .windows
            .values()
            .filter(|w| w.domain == id)
            .map(|w| w.id)
            .collect();
        for window in windows {
            self.unmap(window);
        }
        if let Some(domain) = self.domains.remove(id) {
            self.events.remove(domain.listener);
        }
        let clients: Vec<_> = self
            .accounts
            .clients
            .iter()
            .filter(|(_, domain)| **domain == id)
            .map(|(client, _)| client.clone())
            .collect();
        for client in clients {
            self.kill(client, "the domain was removed");
        }
        self.forget_selections(id);
        tracing::info!(domain = name, "domain removed");
        Ok(())
    }

    /// Ends a client, with a reason that it can log.
    pub(crate) fn kill(&self, client: ClientId, reason: &str) {
        let error = ProtocolError {
            code: 3, // wl_display.error.implementation
            object_id: 1,
            object_interface: "wl_display".into(),
            message: reason.into(),
        };
        self.display
            .backend_handle()
            .kill_client(client, DisconnectReason::ProtocolError(error));
    }

    fn connect(&mut self, id: DomainId, stream: UnixStream, display: &SharedDisplay) {
        let Some(domain) = self.domains.get_mut(id) else {
            return;
        };
        if domain
            .refuse_until
            .is_some_and(|until| Instant::now() < until)
        {
            return;
        }
        if let Err(error) = domain.usage.take_client(&domain.quota) {
            tracing::warn!(domain = %domain.name, %error, "connection refused");
            return;
        }
        let name = domain.name.clone();
        if let Err(error) = self.insert_client(id, name.clone(), stream, display) {
            tracing::warn!(domain = %name, %error, "connection lost at once");
            if let Some(domain) = self.domains.get_mut(id) {
                domain.usage.clients = domain.usage.clients.saturating_sub(1);
            }
        }
    }

    fn insert_client(
        &mut self,
        domain: DomainId,
        domain_name: String,
        stream: UnixStream,
        display: &SharedDisplay,
    ) -> std::io::Result<()> {
        stream.set_nonblocking(true)?;
        let socket = Arc::new(OwnedFd::from(stream.try_clone()?));
        let gone = Arc::new(AtomicBool::new(false));
        let data = ClientState {
            domain,
            domain_name,
            compositor: smithay::wayland::compositor::CompositorClientState::default(),
            socket: socket.clone(),
            gone: gone.clone(),
        };
        let client = self.display.insert_client(stream, Arc::new(data))?;
        let id = client.id();
        self.accounts.clients.insert(id.clone(), domain);
        let display = display.clone();
        let mut served = 0;
        let source = Generic::new(socket, Interest::READ, Mode::Level);
        let inserted = self
            .events
            .insert_source(source, move |_, socket, state: &mut Self| {
                if !gone.load(Ordering::Relaxed) {
                    served += state.serve(&id, socket.as_fd(), &display);
                    if served >= COUNT_OBJECTS_EVERY {
                        served = 0;
                        state.count_objects(&id, domain);
                    }
                }
                if gone.load(Ordering::Relaxed) {
                    state.client_left(&id, domain);
                    return Ok(PostAction::Remove);
                }
                Ok(PostAction::Continue)
            });
        inserted
            .map(|_| ())
            .map_err(|error| std::io::Error::other(error.to_string()))
    }

    /// Reads and carries out what one client sent. A panic in there is a bug; it costs that client
    /// its connection, not the user the desktop.
    fn serve(
        &mut self,
        client: &ClientId,
        socket: std::os::fd::BorrowedFd<'_>,
        display: &SharedDisplay,
    ) -> usize {
        let Ok(mut display) = display.try_borrow_mut() else {
            return 0;
        };
        let display: &mut Display<Self> = &mut display;
        self.watchdog.begin(socket);
        let began = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| {
            display
                .backend()
                .dispatch_single_client(self, client.clone())
        }));
        let cut_off = self.watchdog.end();
        if cut_off || began.elapsed() > FLOOD {
            self.punish_flood(client);
        }
        match result {
            Ok(Ok(count)) => count,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Ok(Err(_)) => {
                // The connection is gone; the backend notices when it is told to end it.
                self.display
                    .backend_handle()
                    .kill_client(client.clone(), DisconnectReason::ConnectionClosed);
                0
            }
            Err(_) => {
                tracing::error!("a request made the compositor panic; its client is disconnected");
                self.kill(client.clone(), "internal error");
                0
            }
        }
    }

    fn punish_flood(&mut self, client: &ClientId) {
        let Some(domain) = self.accounts.clients.get(client).copied() else {
            return;
        };
        if let Some(domain) = self.domains.get_mut(domain) {
            tracing::warn!(domain = %domain.name, "a client flooded the compositor");
            domain.refuse_until = Some(Instant::now() + PENALTY);
        }
        self.kill(client.clone(), "too many requests at once");
    }

    /// Objects that no other quota counts (regions, positioners, sources) have a bound too.
    fn count_objects(&mut self, client: &ClientId, domain: DomainId) {
        let Some(limit) = self.domains.get(domain).map(|d| d.quota.objects_per_client) else {
            return;
        };
        let mut count = 0u32;
        let counted = self
            .display
            .backend_handle()
            .with_all_objects_for(client.clone(), |_| count = count.saturating_add(1));
        if counted.is_ok() && count > limit {
            self.kill(client.clone(), "too many objects");
        }
    }

    fn client_left(&mut self, client: &ClientId, domain: DomainId) {
        self.accounts.clients.remove(client);
        if let Some(domain) = self.domains.get_mut(domain) {
            domain.usage.clients = domain.usage.clients.saturating_sub(1);
        }
        self.dirty = true;
    }
}

/// Cuts a client off that keeps the compositor busy without a pause. Reading from a socket goes on
/// as long as there is something to read, so a client that writes faster than it is served would
/// starve all others. The watchdog's own thread shuts the reading side of such a client's socket,
/// which ends the reading.
pub(crate) struct Watchdog {
    shared: Arc<WatchdogShared>,
}

struct WatchdogShared {
    watched: std::sync::Mutex<Watched>,
    changed: std::sync::Condvar,
}

#[derive(Default)]
struct Watched {
    since: Option<(Instant, OwnedFd)>,
    cut_off: bool,
    /// The thread sleeps until it is woken: nothing has been served for a while.
    asleep: bool,
    stop: bool,
}

impl Watchdog {
    pub(crate) fn start() -> std::io::Result<Self> {
        let shared = Arc::new(WatchdogShared {
            watched: std::sync::Mutex::default(),
            changed: std::sync::Condvar::new(),
        });
        let theirs = shared.clone();
        std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || theirs.watch())?;
        Ok(Self { shared })
    }

    fn begin(&self, socket: std::os::fd::BorrowedFd<'_>) {
        let Ok(socket) = socket.try_clone_to_owned() else {
            return;
        };
        if let Ok(mut watched) = self.shared.watched.lock() {
            watched.since = Some((Instant::now(), socket));
            watched.cut_off = false;
            if std::mem::take(&mut watched.asleep) {
                self.shared.changed.notify_one();
            }
        }
    }

    fn end(&self) -> bool {
        self.shared.watched.lock().is_ok_and(|mut watched| {
            watched.since = None;
            watched.cut_off
        })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Ok(mut watched) = self.shared.watched.lock() {
            watched.stop = true;
        }
        self.shared.changed.notify_all();
    }
}

impl WatchdogShared {
    fn watch(&self) {
        let Ok(mut watched) = self.watched.lock() else {
            return;
        };
        loop {
            if watched.since.is_none() && !watched.stop {
                watched.asleep = true;
                let Ok(guard) = self.changed.wait(watched) else {
                    return;
                };
                watched = guard;
            }
            let Ok((guard, _)) = self.changed.wait_timeout(watched, FLOOD / 3) else {
                return;
            };
            watched = guard;
            if watched.stop {
                return;
            }
            let late = watched
                .since
                .as_ref()
                .is_some_and(|(since, _)| since.elapsed() > FLOOD);
            if late && let Some((_, socket)) = watched.since.take() {
                let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Read);
                watched.cut_off = true;
            }
        }
    }
}
