//! `xdg_shell`: toplevels and popups.

use smithay::{
    reexports::{
        wayland_protocols::xdg::shell::server::xdg_toplevel::ResizeEdge,
        wayland_server::{
            Resource,
            protocol::{wl_output::WlOutput, wl_seat::WlSeat, wl_surface::WlSurface},
        },
    },
    utils::Serial,
    wayland::{
        compositor::with_states,
        shell::xdg::{
            PopupSurface, PositionerState, ToplevelSurface, XdgShellHandler, XdgShellState,
            XdgToplevelSurfaceData,
        },
    },
};

use crate::{
    layout::{Edges, Mode},
    state::State,
};

impl XdgShellHandler for State {
    fn xdg_shell_state(&mut self) -> &mut XdgShellState {
        &mut self.protocols.xdg_shell
    }

    fn new_toplevel(&mut self, surface: ToplevelSurface) {
        self.window_created(surface);
    }

    fn new_popup(&mut self, surface: PopupSurface, positioner: PositionerState) {
        self.popup_created(surface, positioner);
    }

    fn reposition_request(&mut self, popup: PopupSurface, positioner: PositionerState, token: u32) {
        self.popup_repositioned(&popup, positioner, token);
    }

    /// A popup may hold keyboard and pointer only when the user just clicked, typed or tapped in
    /// its own client, only above the popup that holds them already, and not while one of the
    /// host's programs insists on the keyboard.
    fn grab(&mut self, popup: PopupSurface, _: WlSeat, serial: Serial) {
        let surface = popup.wl_surface();
        let Some(id) = self.shell.popup_of(surface).map(|p| (p.id, p.root)) else {
            return;
        };
        let allowed = self.serials.pressed_by(surface, serial)
            && self.layout.focused() == Some(id.1)
            && self.shell.exclusive_layer().is_none();
        if !allowed {
            popup.send_popup_done();
            self.popup_gone(surface);
            return;
        }
        if let Some(popup) = self.shell.popups.iter_mut().find(|p| p.id == id.0) {
            popup.grab = true;
        }
        self.refresh_focus();
    }

    fn move_request(&mut self, surface: ToplevelSurface, _: WlSeat, serial: Serial) {
        let Some(id) = self.dragged_by(surface.wl_surface(), serial) else {
            return;
        };
        self.begin_move(id);
    }

    fn resize_request(
        &mut self,
        surface: ToplevelSurface,
        _: WlSeat,
        serial: Serial,
        edge: ResizeEdge,
    ) {
        let Some(id) = self.dragged_by(surface.wl_surface(), serial) else {
            return;
        };
        self.begin_resize(id, edges_of(edge));
    }

    fn maximize_request(&mut self, surface: ToplevelSurface) {
        self.mode_requested(surface.wl_surface(), Mode::Maximised);
    }

    fn unmaximize_request(&mut self, surface: ToplevelSurface) {
        self.mode_requested(surface.wl_surface(), Mode::Floating);
    }

    fn fullscreen_request(&mut self, surface: ToplevelSurface, _: Option<WlOutput>) {
        self.mode_requested(surface.wl_surface(), Mode::Fullscreen);
    }

    fn unfullscreen_request(&mut self, surface: ToplevelSurface) {
        self.mode_requested(surface.wl_surface(), Mode::Floating);
    }

    fn toplevel_destroyed(&mut self, surface: ToplevelSurface) {
        self.window_gone(surface.wl_surface());
    }

    fn popup_destroyed(&mut self, surface: PopupSurface) {
        self.popup_gone(surface.wl_surface());
    }

    fn title_changed(&mut self, surface: ToplevelSurface) {
        let title = toplevel_text(surface.wl_surface(), |title, _| title);
        self.title_committed(surface.wl_surface(), title);
    }

    fn app_id_changed(&mut self, surface: ToplevelSurface) {
        let app_id = toplevel_text(surface.wl_surface(), |_, app_id| app_id);
        self.app_id_committed(surface.wl_surface(), app_id);
    }
}

fn toplevel_text(
    surface: &WlSurface,
    pick: impl FnOnce(Option<String>, Option<String>) -> Option<String>,
) -> Option<String> {
    if !surface.is_alive() {
        return None;
    }
    with_states(surface, |states| {
        let data = states.data_map.get::<XdgToplevelSurfaceData>()?;
        let data = data.lock().ok()?;
        pick(data.title.clone(), data.app_id.clone())
    })
}

fn edges_of(edge: ResizeEdge) -> Edges {
    use ResizeEdge as E;
    Edges {
        left: matches!(edge, E::Left | E::TopLeft | E::BottomLeft),
        right: matches!(edge, E::Right | E::TopRight | E::BottomRight),
        top: matches!(edge, E::Top | E::TopLeft | E::TopRight),
        bottom: matches!(edge, E::Bottom | E::BottomLeft | E::BottomRight),
    }
}

impl State {
    fn mode_requested(&mut self, surface: &WlSurface, mode: Mode) {
        if let Some(id) = self.shell.window_of(surface) {
            self.change_mode(id, mode);
        }
    }

    /// The window that a client may drag: only while a button is held that was pressed on that
    /// very window.
    fn dragged_by(&self, surface: &WlSurface, serial: Serial) -> Option<crate::layout::WindowId> {
        let id = self.shell.window_of(surface)?;
        self.serials.held_on(surface, serial).then_some(id)
    }
}
