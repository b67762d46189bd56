//! The event loop: everything that happens, in one thread.

use std::{
    cell::RefCell,
    os::unix::net::UnixStream,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use smithay::{
    input::{SeatState, pointer::CursorImageStatus},
    reexports::{
        calloop::EventLoop,
        wayland_server::{
            Display,
            backend::{ClientData, ClientId, DisconnectReason},
        },
    },
};

use crate::{
    backend::{
        Backend, Screen,
        wish::{MAX_SCALE, OutputWish},
    },
    control::Control,
    domain::{Domains, Quota},
    guard::Accounts,
    input::{Keys, Pointing, Serials},
    layout::{Layout, Size},
    listen::Watchdog,
    protocols::{self, Protocols},
    render::CursorArt,
    selection::{CrossingLimits, Selections},
    shell::Shell,
    state::State,
};

/// The display is shared by the event sources that serve clients; they never run inside each
/// other.
pub(crate) type SharedDisplay = Rc<RefCell<Display<State>>>;

/// Where the desktop is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// In memory.
    Headless,
    /// In a window of the desktop that runs already.
    Winit,
    /// On a screen of its own.
    Drm,
}

impl std::str::FromStr for BackendKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "headless" => Ok(Self::Headless),
            "winit" => Ok(Self::Winit),
            "drm" => Ok(Self::Drm),
            _ => Err(format!(
                "there is no backend '{text}'; use drm, headless or winit"
            )),
        }
    }
}

/// How the compositor is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the desktop is shown.
    pub backend: BackendKind,
    /// Its size, in pixels of the desktop.
    pub size: (u16, u16),
    /// Pixels of the picture in each direction to one of the desktop, where no screen says
    /// otherwise.
    pub scale: i32,
    /// What screens are to be like, where the backend has some.
    pub outputs: Vec<OutputWish>,
    /// Where the manager's control socket is made.
    pub control: Option<PathBuf>,
    /// Where the Wayland socket of the host's own programs is made, if at all.
    pub host_socket: Option<PathBuf>,
    /// Where the socket for tests is made, if at all.
    pub test_socket: Option<PathBuf>,
    /// End on SIGTERM and SIGINT. For a program of its own, not for a thread of another one.
    pub stop_on_signals: bool,
    /// What each domain may hold.
    pub quota: Quota,
    /// What may cross from one domain's clipboard to another's at a time.
    pub crossing: CrossingLimits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backend: BackendKind::Headless,
            size: (1280, 800),
            scale: 1,
            outputs: Vec::new(),
            control: None,
            host_socket: None,
            test_socket: None,
            stop_on_signals: false,
            quota: Quota::default(),
            crossing: CrossingLimits::default(),
        }
    }
}

/// Why the compositor cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StartError {
    #[error(
        "cannot make the socket {path}: {source}; is its folder there, and not another compositor's?"
    )]
    Socket {
        path: String,
        source: std::io::Error,
    },
    #[error("the event loop failed: {0}")]
    EventLoop(String),
    #[error("no keymap: {0}; is the package xkb-data installed?")]
    Keymap(String),
    #[error("cannot draw: {0}")]
    Renderer(String),
    #[error(
        "cannot open a window: {0}; is there a desktop (WAYLAND_DISPLAY or DISPLAY)? '--backend headless' needs none"
    )]
    Window(String),
    #[error("this build has no winit backend; build it with the feature 'winit'")]
    NoWinit,
    #[cfg(feature = "drm")]
    #[error(transparent)]
    Screen(#[from] crate::backend::drm::ScreenError),
    #[error("this build has no drm backend; build it with the feature 'drm'")]
    NoDrm,
}

fn event_loop_error(error: impl std::fmt::Display) -> StartError {
    StartError::EventLoop(error.to_string())
}

/// The compositor, ready to run.
pub struct Server {
    events: EventLoop<'static, State>,
    display: SharedDisplay,
    reaper: ClientId,
    state: State,
    sockets: Vec<PathBuf>,
}

#[derive(Debug)]
struct NoData;
impl ClientData for NoData {
    fn initialized(&self, _: ClientId) {}
    fn disconnected(&self, _: ClientId, _: DisconnectReason) {}
}

impl Server {
    /// Sets everything up; sockets exist when this returns.
    pub fn new(options: Options) -> Result<Self, StartError> {
        let events = EventLoop::<State>::try_new().map_err(event_loop_error)?;
        if options.stop_on_signals {
            crate::signals::stop_on_signals(&events.handle()).map_err(event_loop_error)?;
        }
        let display = Display::<State>::new().map_err(event_loop_error)?;
        let dh = display.handle();
        let display = Rc::new(RefCell::new(display));
        let at_first = Screen {
            size: area(options.size),
            scale: options.scale.clamp(1, MAX_SCALE),
            refresh_mhz: 60_000,
        };
        let (backend, screen, others) = match options.backend {
            BackendKind::Headless => {
                let backend = Backend::headless(at_first.size, at_first.scale)?;
                (backend, at_first, Vec::new())
            }
            #[cfg(feature = "winit")]
            BackendKind::Winit => {
                let (backend, size) = Backend::winit(at_first.size, &events.handle())?;
                let screen = Screen {
                    size,
                    scale: 1,
                    ..at_first
                };
                (backend, screen, Vec::new())
            }
            #[cfg(not(feature = "winit"))]
            BackendKind::Winit => return Err(StartError::NoWinit),
            #[cfg(feature = "drm")]
            BackendKind::Drm => {
                let (backend, screen, others) = Backend::drm(options.outputs, &events.handle())?;
                (backend, screen.unwrap_or(at_first), others)
            }
            #[cfg(not(feature = "drm"))]
            BackendKind::Drm => return Err(StartError::NoDrm),
        };
        let protocols = Protocols::new(&dh);
        let output = protocols::output(&dh, screen);
        let mut seat_state = SeatState::new();
        let seat = protocols::seat(&dh, &mut seat_state)?;
        let watchdog = Watchdog::start().map_err(event_loop_error)?;
        let mut layout = Layout::new(screen.size);
        layout.set_others(others);
        let now = Instant::now();
        let state = State {
            display: dh.clone(),
            events: events.handle(),
            stop: events.get_signal(),
            protocols,
            seat_state,
            seat,
            output,
            scale: screen.scale,
            domains: Domains::default(),
            default_quota: options.quota,
            accounts: Accounts::default(),
            shell: Shell::default(),
            layout,
            activated: None,
            layer_focus: None,
            selections: Selections::new(options.crossing),
            drag: None,
            notice: None,
            serials: Serials::default(),
            keys: Keys::default(),
            pointing: Pointing::default(),
            cursor: CursorImageStatus::default_named(),
            cursor_art: CursorArt::default(),
            backend: Some(backend),
            replaced: Default::default(),
            waiting_feedback: None,
            failure: None,
            dirty: true,
            frame_timer_armed: false,
            frame_time: screen.frame_time(),
            last_frame: now.checked_sub(Duration::from_secs(1)).unwrap_or(now),
            pictures: 0,
            last_commit: now,
            watchdog,
            control: Control::default(),
            activation_tokens: 0,
        };
        let reaper = reaper(&dh).map_err(event_loop_error)?;
        let mut server = Self {
            events,
            display,
            reaper,
            state,
            sockets: Vec::new(),
        };
        if let Some(path) = &options.control {
            server.listen(path, false)?;
        }
        if let Some(path) = &options.host_socket {
            server.listen_for_host(path)?;
        }
        if let Some(path) = &options.test_socket {
            tracing::warn!(path = %path.display(), "the test interface is open");
            server.listen(path, true)?;
        }
        Ok(server)
    }

    fn listen(&mut self, path: &std::path::Path, test: bool) -> Result<(), StartError> {
        crate::control::listen(&self.state.events, path, test, &self.display).map_err(
            |source| StartError::Socket {
                path: path.display().to_string(),
                source,
            },
        )?;
        self.sockets.push(path.into());
        Ok(())
    }

    fn listen_for_host(&mut self, path: &std::path::Path) -> Result<(), StartError> {
        self.state
            .add_host(path, &self.display)
            .map_err(|source| StartError::Socket {
                path: path.display().to_string(),
                source,
            })?;
        self.sockets.push(path.into());
        Ok(())
    }

    /// A handle that ends [`Self::run`] from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.events.get_signal())
    }

    /// Runs until stopped.
    pub fn run(self) -> Result<(), StartError> {
        let Self {
            mut events,
            display,
            reaper,
            mut state,
            sockets,
        } = self;
        let result = events.run(None, &mut state, |state| {
            // Clients that were ended outside of their own turn are taken down here.
            if let Ok(mut display) = display.try_borrow_mut() {
                let _ = display
                    .backend()
                    .dispatch_single_client(state, reaper.clone());
            }
            state.draw_if_due();
            state.send_events();
            if let Err(error) = state.display.flush_clients() {
                tracing::debug!(%error, "a client could not be written to");
            }
        });
        for path in sockets {
            // Whoever took it away already did what was wanted.
            let _ = std::fs::remove_file(path);
        }
        result.map_err(event_loop_error)?;
        state.failure.take().map_or(Ok(()), Err)
    }
}

/// Ends the event loop.
#[derive(Clone)]
pub struct Stopper(smithay::reexports::calloop::LoopSignal);

impl Stopper {
    /// Ends it; [`Server::run`] returns.
    pub fn stop(&self) {
        self.0.stop();
        self.0.wakeup();
    }
}

fn area(size: (u16, u16)) -> Size {
    Size::new(i32::from(size.0.max(1)), i32::from(size.1.max(1)))
}

/// A client that was never there: serving it makes the backend take down whoever is marked as
/// ended, and nothing else.
fn reaper(
    dh: &smithay::reexports::wayland_server::DisplayHandle,
) -> Result<ClientId, std::io::Error> {
    let (ours, _) = UnixStream::pair()?;
    let mut dh = dh.clone();
    let client = dh.insert_client(ours, Arc::new(NoData))?;
    dh.backend_handle()
        .kill_client(client.id(), DisconnectReason::ConnectionClosed);
    Ok(client.id())
}
