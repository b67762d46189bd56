//! What happens when a client commits: windows appear, change their size, and vanish.

use smithay::{
    backend::renderer::utils::on_commit_buffer_handler,
    reexports::{
        wayland_protocols::xdg::shell::server::xdg_toplevel,
        wayland_server::{Resource, protocol::wl_surface::WlSurface},
    },
    utils::{SERIAL_COUNTER, Transform},
    wayland::{
        compositor::{is_sync_subsurface, send_surface_state, with_states},
        fractional_scale::with_fractional_scale,
        shell::xdg::{SurfaceCachedState, ToplevelSurface},
    },
};

use super::buffers::Replaced;
use super::{Stage, Window, has_buffer, root_of, title, window_geometry};
use crate::{
    domain::DomainId,
    layout::{Mode, Size, WindowId},
    render::FrameArt,
    state::State,
};

impl State {
    /// A client made a toplevel. Nothing is shown before its first buffer.
    pub(crate) fn window_created(&mut self, toplevel: ToplevelSurface) {
        let Some(domain) = self.domain_of_surface(toplevel.wl_surface()) else {
            return;
        };
        if domain == DomainId::HOST {
            // Windows have borders in a domain's colour; the host has none.
            tracing::warn!("one of the host's programs wants a window; it is not shown");
            toplevel.send_close();
            return;
        }
        let id = self.shell.new_id();
        let window = Window {
            id,
            domain,
            toplevel,
            title: String::new(),
            app_id: String::new(),
            stage: Stage::Waiting,
            wanted_mode: Mode::Floating,
            commits: 0,
            frames: 0,
            fresh: false,
            announced: false,
            retitled: false,
            art: FrameArt::default(),
        };
        self.shell.windows.insert(id, window);
    }

    pub(crate) fn window_gone(&mut self, surface: &WlSurface) {
        let Some(id) = self.shell.window_of(surface) else {
            return;
        };
        self.unmap(id);
        self.shell.windows.remove(&id);
    }

    /// Every commit of every surface comes through here.
    pub(crate) fn surface_committed(&mut self, surface: &WlSurface) {
        let before = Replaced::shown(surface);
        on_commit_buffer_handler::<Self>(surface);
        self.replaced.keep(surface, before);
        self.last_commit = std::time::Instant::now();
        self.dirty = true;
        let scale = self.scale;
        with_states(surface, |states| {
            with_fractional_scale(states, |fraction| {
                fraction.set_preferred_scale(f64::from(scale));
            });
            send_surface_state(surface, states, scale, Transform::Normal);
        });
        if let Some(domain) = self.domain_of_surface(surface)
            && let Some(domain) = self.domains.get_mut(domain)
        {
            domain.commits += 1;
        }
        if is_sync_subsurface(surface) {
            return;
        }
        let root = root_of(surface);
        if let Some(id) = self.shell.window_of(&root) {
            if let Some(window) = self.shell.windows.get_mut(&id) {
                window.commits += 1;
                window.fresh = true;
            }
            self.window_committed(id, &root);
        } else if let Some(popup) = self
            .shell
            .popups
            .iter_mut()
            .find(|p| p.surface.wl_surface() == &root)
        {
            popup.commits += 1;
            popup.fresh = true;
            self.popup_committed(&root);
        }
        self.layer_committed(&root);
        self.drag_icon_committed(surface);
    }

    fn window_committed(&mut self, id: WindowId, surface: &WlSurface) {
        let Some(window) = self.shell.windows.get(&id) else {
            return;
        };
        let toplevel = window.toplevel.clone();
        if has_buffer(surface) && !toplevel.ensure_configured() {
            // The client drew before it was told how; smithay has told it that this is an error.
            return;
        }
        if !toplevel.is_initial_configure_sent() {
            self.send_first_configure(id);
            return;
        }
        let (min, max) = with_states(surface, |states| {
            let mut cached = states.cached_state.get::<SurfaceCachedState>();
            let current = cached.current();
            (current.min_size, current.max_size)
        });
        match (window.stage, has_buffer(surface)) {
            (Stage::Waiting, true) => self.map(id),
            (Stage::Mapped, false) => self.unmap(id),
            (Stage::Mapped, true) => {
                let size = window_geometry(surface).size();
                if self.layout.get(id).is_some_and(|w| w.client.size() != size) {
                    self.layout.committed(id, size);
                    self.pointer_moved_under();
                }
            }
            (Stage::Waiting, false) => {}
        }
        self.layout
            .set_limits(id, Size::new(min.w, min.h), Size::new(max.w, max.h));
    }

    fn send_first_configure(&mut self, id: WindowId) {
        let bounds = self.layout.bounds_of(id);
        let Some(window) = self.shell.windows.get(&id) else {
            return;
        };
        let mode = window.wanted_mode;
        window.toplevel.with_pending_state(|state| {
            state.bounds = Some((bounds.w, bounds.h).into());
            if mode != Mode::Floating {
                state.size = Some((bounds.w, bounds.h).into());
                state.states.set(match mode {
                    Mode::Fullscreen => xdg_toplevel::State::Fullscreen,
                    _ => xdg_toplevel::State::Maximized,
                });
            }
        });
        window.toplevel.send_configure();
    }

    /// The first buffer: the window takes its place and the focus (not before; some clients crash
    /// when they get the keyboard without having drawn).
    fn map(&mut self, id: WindowId) {
        let Some(window) = self.shell.windows.get_mut(&id) else {
            return;
        };
        let mut size = window_geometry(window.surface()).size();
        window.stage = Stage::Mapped;
        let (mode, surface) = (window.wanted_mode, window.surface().clone());
        let bounds = self.layout.bounds_of(id);
        if size.w > bounds.w || size.h > bounds.h {
            size = Size::new(size.w.min(bounds.w), size.h.min(bounds.h));
            let wanted = size;
            window
                .toplevel
                .with_pending_state(|s| s.size = Some((wanted.w, wanted.h).into()));
            window.toplevel.send_pending_configure();
        }
        self.layout.insert(id, size);
        if mode != Mode::Floating {
            self.layout.set_mode(id, mode);
        }
        self.output.enter(&surface);
        self.refresh_focus();
        self.pointer_moved_under();
    }

    pub(crate) fn unmap(&mut self, id: WindowId) {
        self.dismiss_popups(id);
        let Some(window) = self.shell.windows.get_mut(&id) else {
            return;
        };
        if !window.mapped() {
            return;
        }
        window.stage = Stage::Waiting;
        window.wanted_mode = Mode::Floating;
        let surface = window.surface().clone();
        let announced = std::mem::take(&mut window.announced);
        self.layout.remove(id);
        if surface.is_alive() {
            self.output.leave(&surface);
        }
        if announced {
            self.announce_closed(id);
        }
        self.dirty = true;
        self.refresh_focus();
        self.pointer_moved_under();
    }

    pub(crate) fn title_committed(&mut self, surface: &WlSurface, new: Option<String>) {
        let Some(id) = self.shell.window_of(surface) else {
            return;
        };
        if let Some(window) = self.shell.windows.get_mut(&id) {
            let clean = title::clean(&new.unwrap_or_default());
            if window.title != clean {
                window.title = clean;
                window.retitled = true;
                self.dirty = true;
                self.announce_titles_soon();
            }
        }
    }

    pub(crate) fn app_id_committed(&mut self, surface: &WlSurface, new: Option<String>) {
        let Some(id) = self.shell.window_of(surface) else {
            return;
        };
        if let Some(window) = self.shell.windows.get_mut(&id) {
            let clean = title::clean(&new.unwrap_or_default());
            if window.app_id != clean {
                window.app_id = clean;
                window.retitled = true;
                self.announce_titles_soon();
            }
        }
    }

    /// Tells a client to draw a size, and its states.
    pub(crate) fn configure(&mut self, id: WindowId, size: Option<Size>) {
        let Some(window) = self.shell.windows.get(&id) else {
            return;
        };
        let mode = self.layout.get(id).map_or(window.wanted_mode, |w| w.mode);
        let focused = self.layout.focused() == Some(id);
        let resizing = self.layout.resizing(id);
        let drawn = self.layout.get(id).map(|w| w.client.size());
        if !window.toplevel.is_initial_configure_sent() {
            return;
        }
        let seen = window.toplevel.current_state().size;
        window.toplevel.with_pending_state(|state| {
            let mut set = |on: bool, flag: xdg_toplevel::State| {
                if on {
                    state.states.set(flag)
                } else {
                    state.states.unset(flag)
                };
            };
            set(focused, xdg_toplevel::State::Activated);
            set(resizing, xdg_toplevel::State::Resizing);
            set(mode == Mode::Maximised, xdg_toplevel::State::Maximized);
            set(mode == Mode::Fullscreen, xdg_toplevel::State::Fullscreen);
            // A client that has seen the last size and chose another one since keeps that. One that is
            // slow and still draws the size from before must not be told that size again.
            let chosen = state.size.is_some() && state.size == seen;
            let own = drawn.filter(|_| chosen && mode == Mode::Floating && !resizing);
            if let Some(size) = size.or(own) {
                state.size = Some((size.w.max(1), size.h.max(1)).into());
            }
        });
        window.toplevel.send_pending_configure();
    }

    /// A client or the user asks for another mode.
    pub(crate) fn change_mode(&mut self, id: WindowId, mode: Mode) {
        let Some(window) = self.shell.windows.get_mut(&id) else {
            return;
        };
        if !window.mapped() {
            window.wanted_mode = mode;
            if window.toplevel.is_initial_configure_sent() {
                self.send_first_configure(id);
            }
            return;
        }
        let size = self.layout.set_mode(id, mode);
        self.configure(id, size);
        // A client may wait for an answer even where nothing changes.
        if let Some(window) = self.shell.windows.get(&id) {
            window.toplevel.send_configure();
        }
        self.dirty = true;
        self.pointer_moved_under();
    }

    /// Makes keyboard focus and "activated" follow the layout and the popup that holds the
    /// keyboard.
    pub(crate) fn refresh_focus(&mut self) {
        let window = self.layout.focused();
        let popup = self
            .shell
            .grabbing_popup()
            .filter(|p| Some(p.root) == window && p.mapped);
        let surface = self
            .keyboard_layer()
            .or_else(|| popup.map(|p| p.surface.wl_surface().clone()))
            .or_else(|| {
                window
                    .and_then(|id| self.shell.windows.get(&id))
                    .map(|w| w.surface().clone())
            });
        let Some(keyboard) = self.seat.get_keyboard() else {
            return;
        };
        if keyboard.current_focus() != surface {
            keyboard.set_focus(self, surface, SERIAL_COUNTER.next_serial());
            self.dirty = true;
        }
        if self.activated != window {
            let before = std::mem::replace(&mut self.activated, window);
            for id in before.into_iter().chain(window) {
                self.configure(id, None);
            }
            self.announce_focus(window);
        }
    }
}
