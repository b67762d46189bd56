//! A Wayland client that keeps everything it is told.

use std::{
    collections::HashMap,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use wayland_client::{
    Connection, Dispatch, EventQueue, Proxy, QueueHandle, WEnum, delegate_noop,
    event_created_child,
    globals::{GlobalListContents, registry_queue_init},
    protocol::{
        wl_buffer::WlBuffer,
        wl_callback,
        wl_compositor::WlCompositor,
        wl_data_device::{self, WlDataDevice},
        wl_data_device_manager::{DndAction, WlDataDeviceManager},
        wl_data_offer::{self, WlDataOffer},
        wl_data_source::{self, WlDataSource},
        wl_keyboard, wl_output, wl_pointer,
        wl_region::WlRegion,
        wl_registry,
        wl_seat::{self, WlSeat},
        wl_shm::{self, WlShm},
        wl_shm_pool::WlShmPool,
        wl_subcompositor::WlSubcompositor,
        wl_subsurface::WlSubsurface,
        wl_surface::{self, WlSurface},
        wl_touch,
    },
};
use wayland_protocols::{
    wp::{
        primary_selection::zv1::client::{
            zwp_primary_selection_device_manager_v1::ZwpPrimarySelectionDeviceManagerV1,
            zwp_primary_selection_device_v1::{self, ZwpPrimarySelectionDeviceV1},
            zwp_primary_selection_offer_v1::{self, ZwpPrimarySelectionOfferV1},
            zwp_primary_selection_source_v1::{self, ZwpPrimarySelectionSourceV1},
        },
        viewporter::client::{wp_viewport::WpViewport, wp_viewporter::WpViewporter},
    },
    xdg::shell::client::{
        xdg_popup::{self, XdgPopup},
        xdg_positioner::XdgPositioner,
        xdg_surface::{self, XdgSurface},
        xdg_toplevel::{self, XdgToplevel},
        xdg_wm_base::{self, XdgWmBase},
    },
};

#[derive(Default)]
pub struct Told {
    pub log: Vec<String>,
    pub serial: u32,
    pub configures: HashMap<u32, (i32, i32)>,
    pub configured: HashMap<u32, u32>,
    pub states: HashMap<u32, Vec<u32>>,
    pub popups_done: usize,
    pub popup_place: Option<(i32, i32, i32, i32)>,
    pub frames: usize,
    pub offers: HashMap<u32, Vec<String>>,
    pub clipboard: Option<WlDataOffer>,
    pub primary: Option<ZwpPrimarySelectionOfferV1>,
    pub drag_offer: Option<WlDataOffer>,
    pub drag_enter_serial: u32,
    /// What this client gives to whoever pastes from it.
    pub gives: Vec<u8>,
    pub outputs: Vec<(i32, i32)>,
    pub keymap: usize,
    pub enter_serial: u32,
    pub pointer: Option<wl_pointer::WlPointer>,
}

impl Told {
    pub fn has(&self, what: &str) -> bool {
        self.log.iter().any(|line| line == what)
    }

    fn say(&mut self, what: impl Into<String>) {
        self.log.push(what.into());
    }
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
    pub globals: Vec<(String, u32)>,
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
        let source = self.data_manager.create_data_source(&self.qh, ());
        source.offer("text/plain".into());
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
        let offer = self.told.clipboard.clone()?;
        let (read, write) = rustix::pipe::pipe().unwrap();
        offer.receive("text/plain".into(), write.as_fd());
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

fn give(told: &mut Told, fd: OwnedFd) {
    let data = told.gives.clone();
    told.say("send");
    std::thread::spawn(move || {
        let _ = std::fs::File::from(fd).write_all(&data);
    });
}

impl Dispatch<wl_registry::WlRegistry, GlobalListContents> for Told {
    fn event(
        _: &mut Self,
        _: &wl_registry::WlRegistry,
        _: wl_registry::Event,
        _: &GlobalListContents,
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
    }
}

impl Dispatch<wl_callback::WlCallback, ()> for Told {
    fn event(
        told: &mut Self,
        _: &wl_callback::WlCallback,
        _: wl_callback::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        told.frames += 1;
    }
}

impl Dispatch<XdgWmBase, ()> for Told {
    fn event(
        _: &mut Self,
        base: &XdgWmBase,
        event: xdg_wm_base::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        if let xdg_wm_base::Event::Ping { serial } = event {
            base.pong(serial);
        }
    }
}

impl Dispatch<XdgSurface, ()> for Told {
    fn event(
        told: &mut Self,
        xdg: &XdgSurface,
        event: xdg_surface::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        if let xdg_surface::Event::Configure { serial } = event {
            xdg.ack_configure(serial);
            *told.configured.entry(xdg.id().protocol_id()).or_default() += 1;
        }
    }
}

impl Dispatch<XdgToplevel, ()> for Told {
    fn event(
        told: &mut Self,
        toplevel: &XdgToplevel,
        event: xdg_toplevel::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        let key = toplevel.id().protocol_id();
        match event {
            xdg_toplevel::Event::Configure {
                width,
                height,
                states,
            } => {
                told.configures.insert(key, (width, height));
                let states = states
                    .chunks_exact(4)
                    .map(|c| u32::from_ne_bytes(c.try_into().unwrap()))
                    .collect();
                told.states.insert(key, states);
            }
            xdg_toplevel::Event::Close => told.say("close"),
            _ => {}
        }
    }
}

impl Dispatch<XdgPopup, ()> for Told {
    fn event(
        told: &mut Self,
        _: &XdgPopup,
        event: xdg_popup::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        match event {
            xdg_popup::Event::PopupDone => told.popups_done += 1,
            xdg_popup::Event::Configure {
                x,
                y,
                width,
                height,
            } => told.popup_place = Some((x, y, width, height)),
            _ => {}
        }
    }
}

impl Dispatch<wl_output::WlOutput, ()> for Told {
    fn event(
        told: &mut Self,
        _: &wl_output::WlOutput,
        event: wl_output::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        if let wl_output::Event::Mode { width, height, .. } = event {
            told.outputs.push((width, height));
        }
    }
}

impl Dispatch<wl_pointer::WlPointer, ()> for Told {
    fn event(
        told: &mut Self,
        _: &wl_pointer::WlPointer,
        event: wl_pointer::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        use wl_pointer::Event;
        match event {
            Event::Enter {
                serial,
                surface_x,
                surface_y,
                ..
            } => {
                told.enter_serial = serial;
                told.say(format!("pointer enter {surface_x},{surface_y}"));
            }
            Event::Leave { .. } => told.say("pointer leave"),
            Event::Motion {
                surface_x,
                surface_y,
                ..
            } => told.say(format!("pointer {surface_x},{surface_y}")),
            Event::Button {
                serial,
                button,
                state,
                ..
            } => {
                if state == WEnum::Value(wl_pointer::ButtonState::Pressed) {
                    told.serial = serial;
                    told.say(format!("press {button:#x}"));
                } else {
                    told.say(format!("release {button:#x}"));
                }
            }
            Event::Axis { value, .. } => told.say(format!("axis {value}")),
            _ => {}
        }
    }
}

impl Dispatch<wl_keyboard::WlKeyboard, ()> for Told {
    fn event(
        told: &mut Self,
        _: &wl_keyboard::WlKeyboard,
        event: wl_keyboard::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        use wl_keyboard::Event;
        match event {
            Event::Keymap { size, .. } => told.keymap = size as usize,
            Event::Enter { .. } => told.say("keyboard enter"),
            Event::Leave { .. } => told.say("keyboard leave"),
            Event::Key { key, state, .. } => {
                let down = state == WEnum::Value(wl_keyboard::KeyState::Pressed);
                told.say(format!("key {key} {}", if down { "down" } else { "up" }));
            }
            Event::RepeatInfo { rate, delay } => told.say(format!("repeat {rate} {delay}")),
            _ => {}
        }
    }
}

impl Dispatch<wl_touch::WlTouch, ()> for Told {
    fn event(
        told: &mut Self,
        _: &wl_touch::WlTouch,
        event: wl_touch::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        match event {
            wl_touch::Event::Down { x, y, .. } => told.say(format!("touch down {x},{y}")),
            wl_touch::Event::Up { .. } => told.say("touch up"),
            wl_touch::Event::Motion { x, y, .. } => told.say(format!("touch {x},{y}")),
            _ => {}
        }
    }
}

impl Dispatch<WlDataDevice, ()> for Told {
    fn event(
        told: &mut Self,
        _: &WlDataDevice,
        event: wl_data_device::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        use wl_data_device::Event;
        match event {
            Event::DataOffer { id } => {
                told.offers.insert(id.id().protocol_id(), Vec::new());
            }
            Event::Selection { id } => told.clipboard = id,
            Event::Enter { serial, id, .. } => {
                told.drag_enter_serial = serial;
                told.drag_offer = id;
                told.say("drag enter");
            }
            Event::Leave => told.say("drag leave"),
            Event::Motion { .. } => told.say("drag motion"),
            Event::Drop => told.say("drag drop"),
            _ => {}
        }
    }

    event_created_child!(Told, WlDataDevice, [
        wl_data_device::EVT_DATA_OFFER_OPCODE => (WlDataOffer, ()),
    ]);
}

impl Dispatch<WlDataOffer, ()> for Told {
    fn event(
        told: &mut Self,
        offer: &WlDataOffer,
        event: wl_data_offer::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        match event {
            wl_data_offer::Event::Offer { mime_type } => {
                told.offers
                    .entry(offer.id().protocol_id())
                    .or_default()
                    .push(mime_type);
            }
            wl_data_offer::Event::Action { dnd_action } => {
                told.say(format!("offer action {dnd_action:?}"))
            }
            _ => {}
        }
    }
}

impl Dispatch<WlDataSource, ()> for Told {
    fn event(
        told: &mut Self,
        _: &WlDataSource,
        event: wl_data_source::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        use wl_data_source::Event;
        match event {
            Event::Send { fd, .. } => give(told, fd),
            Event::Cancelled => told.say("cancelled"),
            Event::DndDropPerformed => told.say("dropped"),
            Event::DndFinished => told.say("finished"),
            Event::Target { mime_type } => told.say(format!("target {mime_type:?}")),
            _ => {}
        }
    }
}

impl Dispatch<ZwpPrimarySelectionDeviceV1, ()> for Told {
    fn event(
        told: &mut Self,
        _: &ZwpPrimarySelectionDeviceV1,
        event: zwp_primary_selection_device_v1::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        if let zwp_primary_selection_device_v1::Event::Selection { id } = event {
            told.primary = id;
        }
    }

    event_created_child!(Told, ZwpPrimarySelectionDeviceV1, [
        zwp_primary_selection_device_v1::EVT_DATA_OFFER_OPCODE => (ZwpPrimarySelectionOfferV1, ()),
    ]);
}

impl Dispatch<ZwpPrimarySelectionOfferV1, ()> for Told {
    fn event(
        _: &mut Self,
        _: &ZwpPrimarySelectionOfferV1,
        _: zwp_primary_selection_offer_v1::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
    }
}

impl Dispatch<ZwpPrimarySelectionSourceV1, ()> for Told {
    fn event(
        told: &mut Self,
        _: &ZwpPrimarySelectionSourceV1,
        event: zwp_primary_selection_source_v1::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        match event {
            zwp_primary_selection_source_v1::Event::Send { fd, .. } => give(told, fd),
            _ => told.say("cancelled"),
        }
    }
}

impl Dispatch<WlSeat, ()> for Told {
    fn event(
        _: &mut Self,
        _: &WlSeat,
        _: wl_seat::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
    }
}
impl Dispatch<WlSurface, ()> for Told {
    fn event(
        _: &mut Self,
        _: &WlSurface,
        _: wl_surface::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
    }
}

delegate_noop!(Told: ignore WlShm);
delegate_noop!(Told: ignore WlBuffer);
delegate_noop!(Told: WlCompositor);
delegate_noop!(Told: WlSubcompositor);
delegate_noop!(Told: WlSubsurface);
delegate_noop!(Told: WlRegion);
delegate_noop!(Told: WlShmPool);
delegate_noop!(Told: XdgPositioner);
delegate_noop!(Told: WpViewporter);
delegate_noop!(Told: WpViewport);
delegate_noop!(Told: WlDataDeviceManager);
delegate_noop!(Told: ZwpPrimarySelectionDeviceManagerV1);

/// Both actions that tests use.
pub const COPY: DndAction = DndAction::Copy;
