//! The event loop: one process, one thread, many applications.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use crate::channel::unix::UnixChannel;
use crate::channel::virtgpu::{VirtgpuChannel, find_render_node};
use crate::channel::{Channel, ChannelError};
use crate::client::{Client, ClientError, Ready};
use crate::event::{self, Watch};
use crate::shared::Shared;
use crate::stats::Stats;

/// Applications at a time.
const MAX_CLIENTS: usize = 256;
/// When all applications together hold more host memory than this, what shows nothing goes back.
const MANY_BLOB_BYTES: u64 = 256 * 1024 * 1024;

const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;
const FIRST_CLIENT: u64 = 2;
/// Tokens of a client: its number times four, and what of it.
const KINDS: u64 = 4;
const SOCKET: u64 = 0;
const CHANNEL: u64 = 1;
const PIPES: u64 = 2;

/// Where applications' windows go.
#[derive(Clone, Debug)]
pub enum Host {
    /// Through the virtio-gpu of this render node, or the first that fits.
    Virtgpu(Option<PathBuf>),
    /// To the compositor that listens on this socket.
    Socket(PathBuf),
}

/// Why the proxy cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The socket for applications cannot be made.
    #[error("cannot listen on {path}: {source}", path = path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another proxy or compositor serves this socket.
    #[error("{path} is in use by another program; choose another socket", path = .0.display())]
    InUse(PathBuf),
    /// The way to the host does not work.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The kernel refused something that every kernel grants.
    #[error("{what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(Errno) -> ServerError {
    move |errno| ServerError::System {
        what,
        source: errno.into(),
    }
}

struct Served {
    client: Client,
    watch: Watch,
}

/// The proxy.
pub struct Server {
    epoll: OwnedFd,
    listener: UnixListener,
    signals: OwnedFd,
    host: Host,
    shared: Rc<Shared>,
    stats_file: PathBuf,
    /// Whether the counters are also written at the end.
    final_stats: bool,
    clients: HashMap<u64, Served>,
    last_client: u64,
}

/// Listens on a socket. One that a dead proxy left behind is replaced; one that is in use is not.
fn listen(path: &Path) -> Result<UnixListener, ServerError> {
    let failed = |source| ServerError::Listen {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
    }
    if UnixStream::connect(path).is_ok() {
        return Err(ServerError::InUse(path.to_owned()));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// SIGTERM and SIGINT end the proxy, SIGUSR1 writes the counters; all three as events.
fn signal_fd() -> Result<OwnedFd, ServerError> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initializes the set, the other calls use the initialized one, and the
    // descriptor, where it is one, was made for us.
    let fd = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1] {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            let source = io::Error::last_os_error();
            return Err(ServerError::System {
                what: "making a signal descriptor",
                source,
            });
        }
        OwnedFd::from_raw_fd(fd)
    };
    Ok(fd)
}

impl Server {
    /// Opens the socket for applications. The host is only connected to when one comes.
    pub fn new(
        socket: &Path,
        host: Host,
        stats_file: Option<PathBuf>,
    ) -> Result<Self, ServerError> {
        let host = match host {
            Host::Virtgpu(None) => Host::Virtgpu(Some(find_render_node()?)),
            other => other,
        };
        let listener = listen(socket)?;
        let signals = signal_fd()?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(system("making an epoll set"))?;
        for (fd, token) in [(listener.as_fd(), LISTENER), (signals.as_fd(), SIGNALS)] {
            epoll::add(&epoll, fd, EventData::new_u64(token), EventFlags::IN)
                .map_err(system("watching a descriptor"))?;
        }
        let shared = Shared::new().map_err(|source| ServerError::System {
            what: "reading random numbers",
            source,
        })?;
        Ok(Self {
            epoll,
            listener,
            signals,
            host,
            shared,
            final_stats: stats_file.is_some(),
            // Beside the socket is a place that belongs to the user and is gone with the session.
            stats_file: stats_file.unwrap_or_else(|| socket.with_file_name("wayland-proxy.json")),
            clients: HashMap::new(),
            last_client: 0,
        })
    }

    /// The counters.
    pub fn stats(&self) -> &Rc<Stats> {
        &self.shared.stats
    }

    /// Serves until a signal ends it.
    pub fn run(&mut self) -> Result<(), ServerError> {
        while self.turn(None)? {}
        if self.final_stats {
            self.write_stats();
        }
        Ok(())
    }

    /// Waits for events, no longer than `limit`, and handles them. `false` when the proxy is to
    /// end.
    pub fn turn(&mut self, limit: Option<Duration>) -> Result<bool, ServerError> {
        let events = event::wait(&self.epoll, 64, self.timeout(limit))
            .map_err(system("waiting for events"))?;
        let mut ready: HashMap<u64, Ready> = HashMap::new();
        let mut go_on = true;
        for (token, flags) in events {
            match token {
                LISTENER => self.accept(),
                SIGNALS => go_on &= self.signal(),
                _ => {
                    let ready = ready.entry((token - FIRST_CLIENT) / KINDS).or_default();
                    match (token - FIRST_CLIENT) % KINDS {
                        // Sending has no mark of its own: every turn sends what waits.
                        SOCKET => {
                            ready.socket |= flags != EventFlags::OUT;
                            ready.hung_up |= flags.contains(EventFlags::RDHUP);
                        }
                        CHANNEL => ready.channel = true,
                        _ => ready.pipes = true,
                    }
                }
            }
        }
        let now = Instant::now();
        for (id, served) in &self.clients {
            if served
                .client
                .deadline()
                .is_some_and(|deadline| deadline <= now)
            {
                ready.entry(*id).or_default();
            }
        }
        for (id, ready) in ready {
            self.handle(id, |client| client.handle(ready));
        }
        while let Some(paste) = self.shared.pastes.pop() {
            let id = paste.source.client;
            let found = self
                .clients
                .iter()
                .find(|(_, served)| served.client.key() == id);
            if let Some((id, _)) = found {
                self.handle(*id, |client| client.paste(paste));
            }
        }
        if self.shared.stats.blob_bytes.get() > MANY_BLOB_BYTES {
            let ids: Vec<u64> = self.clients.keys().copied().collect();
            for id in ids {
                self.handle(id, Client::release_memory);
            }
        }
        Ok(go_on)
    }

    fn timeout(&self, limit: Option<Duration>) -> Option<Timespec> {
        let deadline = self
            .clients
            .values()
            .filter_map(|served| served.client.deadline())
            .min();
        let until = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let wait = until.into_iter().chain(limit).min()?;
        // Rounded up to the next millisecond: better late than to spin.
        let wait = wait + Duration::from_millis(1);
        Some(Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: i64::from(wait.subsec_nanos()),
        })
    }

    fn handle(&mut self, id: u64, work: impl FnOnce(&mut Client) -> Result<(), ClientError>) {
        let Some(served) = self.clients.get_mut(&id) else {
            return;
        };
        let result = work(&mut served.client).and_then(|()| {
            let interest = served.client.socket_interest();
            served
                .watch
                .set(&self.epoll, served.client.socket(), interest)
                .map_err(|errno| ClientError::Socket(errno.into()))
        });
        if let Err(error) = result {
            match error {
                ClientError::Closed => tracing::debug!(client = id, "{error}"),
                _ => {
                    Stats::add(&self.shared.stats.clients_ended_by_error, 1);
                    tracing::warn!(client = id, "disconnected: {error}");
                }
            }
            // Closing the descriptors takes them out of the epoll set.
            self.clients.remove(&id);
        }
    }

    fn accept(&mut self) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!("cannot accept an application: {error}");
                    return;
                }
            };
            if self.clients.len() >= MAX_CLIENTS {
                tracing::warn!("refused an application: {MAX_CLIENTS} are connected");
                continue;
            }
            if let Err(error) = self.add_client(stream.into()) {
                tracing::warn!("refused an application: {error}");
            }
        }
    }

    fn connect(&self) -> Result<Box<dyn Channel>, ChannelError> {
        let stats = self.shared.stats.clone();
        Ok(match &self.host {
            Host::Socket(path) => Box::new(UnixChannel::connect(path, stats)?),
            Host::Virtgpu(Some(path)) => Box::new(VirtgpuChannel::open(path, stats)?),
            Host::Virtgpu(None) => Box::new(VirtgpuChannel::open(&find_render_node()?, stats)?),
        })
    }

    /// Serves a connected application.
    pub fn add_client(&mut self, socket: OwnedFd) -> Result<(), ClientError> {
        let client = Client::new(socket, self.connect()?, self.shared.clone())?;
        self.last_client += 1;
        let id = self.last_client;
        let token = |kind| FIRST_CLIENT + id * KINDS + kind;
        for (fd, kind) in [(client.channel_fd(), CHANNEL), (client.pipes_fd(), PIPES)] {
            epoll::add(
                &self.epoll,
                fd,
                EventData::new_u64(token(kind)),
                EventFlags::IN,
            )
            .map_err(|errno| ClientError::Socket(errno.into()))?;
        }
        self.clients.insert(
            id,
            Served {
                client,
                watch: Watch::new(token(SOCKET)),
            },
        );
        Stats::add(&self.shared.stats.clients, 1);
        self.handle(id, |client| client.handle(Ready::default()));
        Ok(())
    }

    /// Handles signals; `false` when the proxy is to end.
    fn signal(&mut self) -> bool {
        let mut go_on = true;
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        while let Ok(len) = rustix::io::read(&self.signals, &mut info[..]) {
            if len < info.len() {
                break;
            }
            let [a, b, c, d, ..] = info;
            match i32::from_ne_bytes([a, b, c, d]) {
                libc::SIGUSR1 => self.write_stats(),
                _ => go_on = false,
            }
        }
        go_on
    }

    fn write_stats(&self) {
        if let Err(error) = self.shared.stats.write(&self.stats_file) {
            tracing::warn!("cannot write {}: {error}", self.stats_file.display());
        }
    }
}
