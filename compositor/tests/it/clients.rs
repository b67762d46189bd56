//! A Wayland client that keeps everything it is told.

use std::{
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use wayland_client::{
    Connection, EventQueue, Proxy, QueueHandle,
    globals::registry_queue_init,
    protocol::{
        wl_buffer::WlBuffer,
        wl_compositor::WlCompositor,
        wl_data_device::WlDataDevice,
        wl_data_device_manager::{DndAction, WlDataDeviceManager},
        wl_data_source::WlDataSource,
        wl_output,
        wl_seat::WlSeat,
        wl_shm::{self, WlShm},
        wl_subcompositor::WlSubcompositor,
        wl_surface::WlSurface,
    },
};
use wayland_protocols::{
    wp::{
        primary_selection::zv1::client::{
            zwp_primary_selection_device_manager_v1::ZwpPrimarySelectionDeviceManagerV1,
            zwp_primary_selection_device_v1::ZwpPrimarySelectionDeviceV1,
            zwp_primary_selection_source_v1::ZwpPrimarySelectionSourceV1,
        },
        viewporter::client::wp_viewporter::WpViewporter,
    },
    xdg::shell::client::{
        xdg_popup::XdgPopup, xdg_surface::XdgSurface, xdg_toplevel::XdgToplevel,
        xdg_wm_base::XdgWmBase,
    },
};

pub use crate::told::{Ignore, Manner, Told};
use wayland_protocols_wlr::layer_shell::v1::client::{
    zwlr_layer_shell_v1::{Layer, ZwlrLayerShellV1},
    zwlr_layer_surface_v1::{Anchor, KeyboardInteractivity, ZwlrLayerSurfaceV1},
};

/// What a test's panel asks for.
pub struct Panel {
    pub layer: Layer,
    pub anchor: Anchor,
    pub size: (u32, u32),
    pub zone: i32,
    pub keyboard: KeyboardInteractivity,
}

pub struct Client {
    pub connection: Connection,
    pub queue: EventQueue<Told>,
    pub qh: QueueHandle<Told>,
    pub told: Told,
    pub compositor: WlCompositor,
    pub subcompositor: WlSubcompositor,
    pub shm: WlShm,
    pub wm_base: XdgWmBase,
    pub seat: WlSeat,
    pub viewporter: WpViewporter,
    pub data_manager: WlDataDeviceManager,
    pub primary_manager: ZwpPrimarySelectionDeviceManagerV1,
    pub device: WlDataDevice,
    pub primary_device: ZwpPrimarySelectionDeviceV1,
    pub activation:
        wayland_protocols::xdg::activation::v1::client::xdg_activation_v1::XdgActivationV1,
    pub globals: Vec<(String, u32)>,
    /// Only the host's own programs have it.
    pub layer_shell: Option<ZwlrLayerShellV1>,
}

pub struct Window {
    pub surface: WlSurface,
    pub xdg: XdgSurface,
    pub toplevel: XdgToplevel,
}

pub fn memory(bytes: usize) -> OwnedFd {
    let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, bytes as u64).unwrap();
    fd
}

impl Client {
    pub fn connect(desk: &crate::fixture::Desk, domain: &str) -> Self {
        Self::try_connect(desk, domain).expect("the client is welcome")
    }

    pub fn try_connect(desk: &crate::fixture::Desk, domain: &str) -> Option<Self> {
        let stream = UnixStream::connect(desk.socket(domain)).unwrap();
        let connection = Connection::from_socket(stream).unwrap();
        let (list, mut queue) = registry_queue_init::<Told>(&connection).ok()?;
        let qh = queue.handle();
        let globals = list
            .contents()
            .clone_list()
            .into_iter()
            .map(|g| (g.interface, g.version))
            .collect();
        let mut told = Told::default();
        let seat: WlSeat = list.bind(&qh, 1..=9, ()).ok()?;
        told.pointer = Some(seat.get_pointer(&qh, ()));
        seat.get_keyboard(&qh, ());
        seat.get_touch(&qh, ());
        let _: wl_output::WlOutput = list.bind(&qh, 1..=4, ()).ok()?;
        let data_manager: WlDataDeviceManager = list.bind(&qh, 1..=3, ()).ok()?;
        let primary_manager: ZwpPrimarySelectionDeviceManagerV1 = list.bind(&qh, 1..=1, ()).ok()?;
        let device = data_manager.get_data_device(&seat, &qh, ());
        let primary_device = primary_manager.get_device(&seat, &qh, ());
        let client = Self {
            compositor: list.bind(&qh, 1..=4, ()).ok()?,
            subcompositor: list.bind(&qh, 1..=1, ()).ok()?,
            shm: list.bind(&qh, 1..=1, ()).ok()?,
            wm_base: list.bind(&qh, 1..=6, ()).ok()?,
            viewporter: list.bind(&qh, 1..=1, ()).ok()?,
            activation: list.bind(&qh, 1..=1, ()).ok()?,
            layer_shell: list.bind(&qh, 1..=4, ()).ok(),
            seat,
            data_manager,
            primary_manager,
            device,
            primary_device,
            globals,
            told: {
                queue.roundtrip(&mut told).ok()?;
                told
            },
            connection,
            queue,
            qh,
        };
        Some(client)
    }

    /// Everything sent so far has been carried out. False when the client was disconnected.
    pub fn sync(&mut self) -> bool {
        self.queue.roundtrip(&mut self.told).is_ok()
    }

    /// Waits until the client has been told something.
    pub fn until(&mut self, what: &str, check: impl Fn(&Told) -> bool) {
        let began = Instant::now();
        while !check(&self.told) {
            assert!(
                self.sync(),
                "disconnected while waiting: {what}: {:?}",
                self.error()
            );
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "still waiting: {what}"
            );
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// The protocol error that ended the client.
    pub fn error(&self) -> Option<String> {
        self.connection
            .protocol_error()
            .map(|e| format!("{}: {} {}", e.object_interface, e.code, e.message))
    }

    /// Waits until the compositor has thrown the client out.
    pub fn assert_thrown_out(&mut self) {
        let began = Instant::now();
        while self.sync() {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "the client is still there"
            );
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    pub fn buffer(&self, w: i32, h: i32, argb: u32) -> WlBuffer {
        let bytes = (w * h * 4) as usize;
        let fd = memory(bytes);
        let mut file = std::fs::File::from(fd.try_clone().unwrap());
        file.write_all(&argb.to_le_bytes().repeat((w * h) as usize))
            .unwrap();
        let pool = self.shm.create_pool(fd.as_fd(), bytes as i32, &self.qh, ());
        let buffer = pool.create_buffer(0, w, h, w * 4, wl_shm::Format::Argb8888, &self.qh, ());
        pool.destroy();
        buffer
    }

    pub fn surface(&self) -> WlSurface {
        self.compositor.create_surface(&self.qh, ())
    }

    pub fn show(&self, surface: &WlSurface, w: i32, h: i32, argb: u32) {
        let buffer = self.buffer(w, h, argb);
        surface.attach(Some(&buffer), 0, 0);
        surface.damage(0, 0, i32::MAX, i32::MAX);
        surface.commit();
    }

    /// A window up to its first configure.
    pub fn bare_window(&mut self) -> Window {
        let surface = self.surface();
        let xdg = self.wm_base.get_xdg_surface(&surface, &self.qh, ());
        let toplevel = xdg.get_toplevel(&self.qh, ());
        surface.commit();
        let key = xdg.id().protocol_id();
        self.until("the first configure", |t| t.configured.contains_key(&key));
        Window {
            surface,
            xdg,
            toplevel,
        }
    }

    /// A window on the desktop.
    pub fn window(&mut self, w: i32, h: i32, argb: u32) -> Window {
        let window = self.bare_window();
        self.show(&window.surface, w, h, argb);
        assert!(self.sync(), "{:?}", self.error());
        window
    }

    /// Binds a global as layer-shell that was never announced.
    pub fn bind_layer_shell_by_number(&mut self, number: u32) {
        let registry = self.connection.display().get_registry(&self.qh, Ignore);
        let _: ZwlrLayerShellV1 = registry.bind(number, 4, &self.qh, ());
    }

    /// A panel of the host, up to its first configure.
    pub fn bare_panel(&mut self, panel: &Panel) -> (WlSurface, ZwlrLayerSurfaceV1) {
        let surface = self.surface();
        let shell = self.layer_shell.clone().expect("a client of the host");
        let name = "panel".to_owned();
        let layer = shell.get_layer_surface(&surface, None, panel.layer, name, &self.qh, ());
        layer.set_size(panel.size.0, panel.size.1);
        layer.set_anchor(panel.anchor);
        layer.set_exclusive_zone(panel.zone);
        layer.set_keyboard_interactivity(panel.keyboard);
        surface.commit();
        let key = layer.id().protocol_id();
        self.until("the panel's configure", |t| t.layers.contains_key(&key));
        (surface, layer)
    }

    /// A panel on the desktop, at the size that it was told.
    pub fn panel(&mut self, panel: &Panel, argb: u32) -> (WlSurface, ZwlrLayerSurfaceV1) {
        let (surface, layer) = self.bare_panel(panel);
        let (w, h) = self.told.layers[&layer.id().protocol_id()];
        self.show(&surface, w as i32, h as i32, argb);
        assert!(self.sync(), "{:?}", self.error());
        (surface, layer)
    }

    pub fn popup(
        &mut self,
        parent: &XdgSurface,
        place: (i32, i32),
        size: (i32, i32),
    ) -> (WlSurface, XdgSurface, XdgPopup) {
        let surface = self.surface();
        let xdg = self.wm_base.get_xdg_surface(&surface, &self.qh, ());
        let positioner = self.wm_base.create_positioner(&self.qh, ());
        positioner.set_size(size.0, size.1);
        positioner.set_anchor_rect(place.0, place.1, 1, 1);
        use wayland_protocols::xdg::shell::client::xdg_positioner::{Anchor, Gravity};
        positioner.set_anchor(Anchor::TopLeft);
        positioner.set_gravity(Gravity::BottomRight);
        let popup = xdg.get_popup(Some(parent), &positioner, &self.qh, ());
        (surface, xdg, popup)
    }

    pub fn shown_popup(
        &mut self,
        parent: &XdgSurface,
        place: (i32, i32),
        size: (i32, i32),
        argb: u32,
    ) -> (WlSurface, XdgSurface, XdgPopup) {
        let popup = self.popup(parent, place, size);
        popup.0.commit();
        let key = popup.1.id().protocol_id();
        self.until("the popup's configure", |t| t.configured.contains_key(&key));
        self.show(&popup.0, size.0, size.1, argb);
        assert!(self.sync());
        popup
    }

    /// Copies: the client offers text and gives `data` to whoever pastes.
    pub fn copy(&mut self, data: &[u8]) -> WlDataSource {
        self.copy_as(&["text/plain"], data)
    }

    /// Copies something of these types.
    pub fn copy_as(&mut self, types: &[&str], data: &[u8]) -> WlDataSource {
        let source = self.data_manager.create_data_source(&self.qh, ());
        for mime in types {
            source.offer((*mime).into());
        }
        self.told.gives = data.to_vec();
        self.device.set_selection(Some(&source), self.told.serial);
        assert!(self.sync());
        source
    }

    pub fn copy_primary(&mut self, data: &[u8]) -> ZwpPrimarySelectionSourceV1 {
        let source = self.primary_manager.create_source(&self.qh, ());
        source.offer("text/plain".into());
        self.told.gives = data.to_vec();
        self.primary_device
            .set_selection(Some(&source), self.told.serial);
        assert!(self.sync());
        source
    }

    /// The reading end of what a paste gives.
    pub fn paste(&mut self) -> Option<std::fs::File> {
        self.paste_as("text/plain")
    }

    pub fn paste_as(&mut self, mime: &str) -> Option<std::fs::File> {
        let offer = self.told.clipboard.clone()?;
        let (read, write) = rustix::pipe::pipe().unwrap();
        offer.receive(mime.into(), write.as_fd());
        self.connection.flush().unwrap();
        Some(read.into())
    }
}

/// Pastes in one client from another; both are served meanwhile.
pub fn pasted(from: &mut Client, into: &mut Client) -> Vec<u8> {
    let mut file = into.paste().expect("something to paste");
    assert!(into.sync());
    from.sync();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    });
    while !reader.is_finished() {
        from.sync();
        std::thread::sleep(Duration::from_millis(2));
    }
    reader.join().unwrap()
}

/// Both actions that tests use.
pub const COPY: DndAction = DndAction::Copy;
