//! What a client is told, and what it does by itself.

use std::{
    collections::HashMap,
    io::Write,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use wayland_client::{
    Connection, Dispatch, Proxy, QueueHandle, WEnum, delegate_noop, event_created_child,
    globals::GlobalListContents,
    protocol::{
        wl_buffer::{self, WlBuffer},
        wl_callback,
        wl_compositor::WlCompositor,
        wl_data_device::{self, WlDataDevice},
        wl_data_device_manager::WlDataDeviceManager,
        wl_data_offer::{self, WlDataOffer},
        wl_data_source::{self, WlDataSource},
        wl_keyboard, wl_output, wl_pointer,
        wl_region::WlRegion,
        wl_registry,
        wl_seat::{self, WlSeat},
        wl_shm::WlShm,
        wl_shm_pool::WlShmPool,
        wl_subcompositor::WlSubcompositor,
        wl_subsurface::WlSubsurface,
        wl_surface::{self, WlSurface},
        wl_touch,
    },
};
use wayland_protocols::xdg::activation::v1::client::{
    xdg_activation_token_v1::{self, XdgActivationTokenV1},
    xdg_activation_v1::XdgActivationV1,
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
use wayland_protocols_wlr::layer_shell::v1::client::{
    zwlr_layer_shell_v1::ZwlrLayerShellV1,
    zwlr_layer_surface_v1::{self, ZwlrLayerSurfaceV1},
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
    /// How it gives it.
    pub manner: Manner,
    /// Bytes that it gave so far, and whether it was cut off.
    pub given: Arc<AtomicUsize>,
    pub cut: Arc<AtomicBool>,
    pub outputs: Vec<(i32, i32)>,
    pub keymap: usize,
    pub token: Option<String>,
    pub enter_serial: u32,
    pub pointer: Option<wl_pointer::WlPointer>,
    /// The sizes that panels were told.
    pub layers: HashMap<u32, (u32, u32)>,
}

impl Told {
    pub fn has(&self, what: &str) -> bool {
        self.log.iter().any(|line| line == what)
    }

    pub fn say(&mut self, what: impl Into<String>) {
        self.log.push(what.into());
    }
}

/// How a client gives what it has copied.
#[derive(Clone, Copy, Default)]
pub enum Manner {
    /// All of it, and then it closes the pipe.
    #[default]
    Whole,
    /// Again and again, for ever.
    Endless,
    /// All of it, and the pipe stays open.
    Stalled,
    /// All of it, and the pipe stays open for a while.
    Late,
    /// A byte now and then, for ever.
    Dribbling,
}

fn give(told: &mut Told, mime: &str, fd: OwnedFd) {
    let (data, manner) = (told.gives.clone(), told.manner);
    let (given, cut) = (told.given.clone(), told.cut.clone());
    told.say("send");
    told.say(format!("send {mime}"));
    std::thread::spawn(move || {
        let mut file = std::fs::File::from(fd);
        let wait = |ms| std::thread::sleep(std::time::Duration::from_millis(ms));
        let most = if matches!(manner, Manner::Dribbling) {
            1
        } else {
            65_536
        };
        loop {
            for piece in data.chunks(most) {
                if file.write_all(piece).is_err() {
                    cut.store(true, Ordering::SeqCst);
                    return;
                }
                given.fetch_add(piece.len(), Ordering::SeqCst);
                if most == 1 {
                    wait(40);
                }
            }
            match manner {
                Manner::Whole => return,
                Manner::Endless | Manner::Dribbling => {}
                Manner::Late => return wait(400),
                // For longer than any test.
                Manner::Stalled => wait(60_000),
            }
        }
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

/// The data of an object whose events say nothing new.
pub struct Ignore;

impl Dispatch<wl_registry::WlRegistry, Ignore> for Told {
    fn event(
        _: &mut Self,
        _: &wl_registry::WlRegistry,
        _: wl_registry::Event,
        _: &Ignore,
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

impl Dispatch<ZwlrLayerSurfaceV1, ()> for Told {
    fn event(
        told: &mut Self,
        layer: &ZwlrLayerSurfaceV1,
        event: zwlr_layer_surface_v1::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        if let zwlr_layer_surface_v1::Event::Configure {
            serial,
            width,
            height,
        } = event
        {
            layer.ack_configure(serial);
            told.layers
                .insert(layer.id().protocol_id(), (width, height));
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
        match event {
            wl_output::Event::Mode { width, height, .. } => told.outputs.push((width, height)),
            wl_output::Event::Scale { factor } => told.say(format!("output scale {factor}")),
            _ => {}
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
            Event::Send { fd, mime_type } => give(told, &mime_type, fd),
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
            zwp_primary_selection_source_v1::Event::Send { fd, mime_type } => {
                give(told, &mime_type, fd)
            }
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

impl Dispatch<XdgActivationTokenV1, ()> for Told {
    fn event(
        told: &mut Self,
        _: &XdgActivationTokenV1,
        event: xdg_activation_token_v1::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        if let xdg_activation_token_v1::Event::Done { token } = event {
            told.token = Some(token);
        }
    }
}

delegate_noop!(Told: ZwlrLayerShellV1);
delegate_noop!(Told: XdgActivationV1);
delegate_noop!(Told: ignore WlShm);

impl Dispatch<WlBuffer, ()> for Told {
    fn event(
        told: &mut Self,
        buffer: &WlBuffer,
        _: wl_buffer::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        // The only event: it is the client's again.
        told.say(format!("buffer {} back", buffer.id().protocol_id()));
    }
}
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
