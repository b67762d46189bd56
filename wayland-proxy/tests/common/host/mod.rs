//! The host compositor of the tests, on the real wayland-server: it refuses what any compositor
//! refuses.

mod pictures;
pub mod selection;
mod surfaces;

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec};
use wayland_protocols::ext::idle_notify::v1::server::ext_idle_notifier_v1::{
    self, ExtIdleNotifierV1,
};
use wayland_protocols::xdg::shell::server::{xdg_surface, xdg_toplevel, xdg_wm_base};
use wayland_server::backend::{ClientData, ObjectId};
use wayland_server::protocol::{
    wl_buffer, wl_callback, wl_compositor, wl_data_device, wl_data_device_manager, wl_data_offer,
    wl_data_source, wl_keyboard, wl_region, wl_seat, wl_shm, wl_shm_pool, wl_subcompositor,
    wl_subsurface, wl_surface,
};
use wayland_server::{
    Client, DataInit, Dispatch, Display, DisplayHandle, GlobalDispatch, ListeningSocket, New,
    Resource,
};

type Job = Box<dyn FnOnce(&mut State, &DisplayHandle) + Send>;

/// When buffers are released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// When the next picture replaces them, even one in the same buffer.
    Replaced,
    /// When a picture in another buffer replaces them: smithay's way.
    ByAnother,
    /// At once.
    Immediately,
    /// When the test says so.
    Held,
}

pub struct Picture {
    pub surface: ObjectId,
    pub width: i32,
    pub height: i32,
    pub stride: i32,
    pub bytes: Vec<u8>,
}

pub struct Buffer {
    file: Arc<OwnedFd>,
    offset: i32,
    width: i32,
    height: i32,
    stride: i32,
}

pub struct State {
    /// Everything asked, as `interface.request` with a few arguments.
    pub log: Vec<String>,
    pub pictures: Vec<Picture>,
    pub release: Release,
    pub held: Vec<wl_buffer::WlBuffer>,
    pub pools: usize,
    pub keymap: Vec<u8>,
    pending: HashMap<ObjectId, Option<wl_buffer::WlBuffer>>,
    current: HashMap<ObjectId, wl_buffer::WlBuffer>,
    callbacks: Vec<wl_callback::WlCallback>,
    pub surfaces: Vec<wl_surface::WlSurface>,
    pub keyboards: Vec<wl_keyboard::WlKeyboard>,
    pub devices: Vec<wl_data_device::WlDataDevice>,
    pub source: Option<wl_data_source::WlDataSource>,
    pub clients: Arc<Mutex<usize>>,
}

struct Counted(Arc<Mutex<usize>>);

impl ClientData for Counted {
    fn disconnected(
        &self,
        _: wayland_server::backend::ClientId,
        _: wayland_server::backend::DisconnectReason,
    ) {
        *self.0.lock().unwrap() -= 1;
    }
}

pub struct TestHost {
    jobs: Sender<Job>,
    stop: Arc<AtomicBool>,
    /// The host reads nothing from its clients while this is set.
    pub frozen: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TestHost {
    pub fn start(path: &Path) -> Self {
        let (jobs, receiver) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let frozen = Arc::new(AtomicBool::new(false));
        let listener = ListeningSocket::bind_absolute(path.to_owned()).unwrap();
        let (stopped, is_frozen) = (stop.clone(), frozen.clone());
        let thread = std::thread::spawn(move || serve(listener, receiver, &stopped, &is_frozen));
        Self {
            jobs,
            stop,
            frozen,
            thread: Some(thread),
        }
    }

    /// Runs something on the host's thread.
    pub fn with<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut State, &DisplayHandle) -> T + Send + 'static,
    ) -> T {
        let (sender, receiver) = channel();
        self.jobs
            .send(Box::new(move |state, display| {
                drop(sender.send(job(state, display)))
            }))
            .unwrap();
        receiver.recv().unwrap()
    }

    pub fn log(&self) -> Vec<String> {
        self.with(|state, _| state.log.clone())
    }

    pub fn set_release(&self, release: Release) {
        self.with(move |state, _| state.release = release);
    }

    /// The newest picture, with the padding of rows taken out.
    pub fn last_picture(&self) -> Option<(i32, i32, Vec<u8>)> {
        self.with(|state, _| {
            let picture = state.pictures.pop()?;
            state.pictures.clear();
            let rows = picture.bytes.chunks(picture.stride as usize);
            let row = picture.width as usize * 4;
            let tight = rows.flat_map(|bytes| bytes[..row].to_vec()).collect();
            Some((picture.width, picture.height, tight))
        })
    }

    /// The buffer that the one surface shows.
    pub fn shown(&self) -> Option<ObjectId> {
        self.with(|state, _| state.current.values().next().map(Resource::id))
    }

    /// Pieces of memory that it was given so far.
    pub fn pools(&self) -> usize {
        self.with(|state, _| state.pools)
    }

    pub fn clients(&self) -> usize {
        self.with(|state, _| *state.clients.lock().unwrap())
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let result = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            result.expect("the host panicked");
        }
    }
}

fn serve(listener: ListeningSocket, jobs: Receiver<Job>, stop: &AtomicBool, frozen: &AtomicBool) {
    let mut display = Display::<State>::new().unwrap();
    let mut handle = display.handle();
    handle.create_global::<State, wl_compositor::WlCompositor, ()>(6, ());
    // Not on the allow-list; before others so that names differ from a list without it.
    handle.create_global::<State, wl_subcompositor::WlSubcompositor, ()>(1, ());
    handle.create_global::<State, ExtIdleNotifierV1, ()>(1, ());
    handle.create_global::<State, wl_shm::WlShm, ()>(1, ());
    handle.create_global::<State, wl_seat::WlSeat, ()>(9, ());
    handle.create_global::<State, wl_data_device_manager::WlDataDeviceManager, ()>(3, ());
    handle.create_global::<State, xdg_wm_base::XdgWmBase, ()>(7, ());
    let mut state = State {
        log: Vec::new(),
        pictures: Vec::new(),
        release: Release::Replaced,
        held: Vec::new(),
        pools: 0,
        keymap: b"xkb_keymap { this is not really one };\0".to_vec(),
        pending: HashMap::new(),
        current: HashMap::new(),
        callbacks: Vec::new(),
        surfaces: Vec::new(),
        keyboards: Vec::new(),
        devices: Vec::new(),
        source: None,
        clients: Arc::default(),
    };
    while !stop.load(Ordering::Relaxed) {
        while let Ok(job) = jobs.try_recv() {
            job(&mut state, &handle);
        }
        while let Some(stream) = listener.accept().unwrap() {
            *state.clients.lock().unwrap() += 1;
            let data = Arc::new(Counted(state.clients.clone()));
            handle.insert_client(stream, data).unwrap();
        }
        if !frozen.load(Ordering::Relaxed) {
            display.dispatch_clients(&mut state).unwrap();
        }
        display.flush_clients().unwrap();
        let fd = display.backend().poll_fd().try_clone_to_owned().unwrap();
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: 1_000_000,
        };
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        let _ = rustix::event::poll(&mut fds, Some(&timeout));
    }
}

macro_rules! global {
    ($($interface:ty),*) => {
        $(impl GlobalDispatch<$interface, ()> for State {
            fn bind(
                state: &mut Self, _: &DisplayHandle, _: &Client, new: New<$interface>,
                _: &(), init: &mut DataInit<'_, Self>,
            ) {
                let bound = init.init(new, ());
                state.bound(&bound);
            }
        })*
    };
}

macro_rules! quiet {
    ($($interface:ty),*) => {
        $(impl Dispatch<$interface, ()> for State {
            fn request(
                state: &mut Self, _: &Client, _: &$interface, request: <$interface as Resource>::Request,
                _: &(), _: &DisplayHandle, _: &mut DataInit<'_, Self>,
            ) {
                state.log.push(format!("{}: {request:?}", <$interface>::interface().name));
            }
        })*
    };
}

trait Bound<T> {
    fn bound(&mut self, _resource: &T) {}
}
impl Bound<wl_subcompositor::WlSubcompositor> for State {}
impl Bound<wl_compositor::WlCompositor> for State {}
impl Bound<wl_data_device_manager::WlDataDeviceManager> for State {}
impl Bound<xdg_wm_base::XdgWmBase> for State {}
impl Bound<ExtIdleNotifierV1> for State {}
impl Bound<wl_shm::WlShm> for State {
    fn bound(&mut self, shm: &wl_shm::WlShm) {
        shm.format(wl_shm::Format::Argb8888);
        shm.format(wl_shm::Format::Xrgb8888);
        shm.format(wl_shm::Format::Nv12);
    }
}
impl Bound<wl_seat::WlSeat> for State {
    fn bound(&mut self, seat: &wl_seat::WlSeat) {
        seat.capabilities(wl_seat::Capability::Keyboard);
    }
}

global!(
    wl_subcompositor::WlSubcompositor,
    wl_compositor::WlCompositor,
    wl_shm::WlShm,
    wl_seat::WlSeat,
    wl_data_device_manager::WlDataDeviceManager,
    xdg_wm_base::XdgWmBase,
    ExtIdleNotifierV1
);
quiet!(
    wl_subsurface::WlSubsurface,
    wl_keyboard::WlKeyboard,
    wl_region::WlRegion,
    xdg_toplevel::XdgToplevel,
    wl_buffer_unit::Never
);

/// Keeps the macro's list uniform.
mod wl_buffer_unit {
    pub use wayland_server::protocol::wl_output::WlOutput as Never;
}

impl Dispatch<ExtIdleNotifierV1, ()> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &ExtIdleNotifierV1,
        _: ext_idle_notifier_v1::Request,
        _: &(),
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
        panic!("the proxy lets a client use what is not on the allow-list");
    }
}

impl Dispatch<wl_seat::WlSeat, ()> for State {
    fn request(
        state: &mut Self,
        _: &Client,
        _: &wl_seat::WlSeat,
        request: wl_seat::Request,
        _: &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        if let wl_seat::Request::GetKeyboard { id } = request {
            let keyboard = init.init(id, ());
            let file = rustix::fs::memfd_create("keymap", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
            rustix::io::pwrite(&file, &state.keymap, 0).unwrap();
            keyboard.keymap(
                wl_keyboard::KeymapFormat::XkbV1,
                file.as_fd(),
                state.keymap.len() as u32,
            );
            state.keyboards.push(keyboard);
        }
    }
}
