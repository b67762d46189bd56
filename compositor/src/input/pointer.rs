//! The pointer: which surface it is over, and the desktop's own gestures (title bar, border,
//! close button, Super+drag).

use std::collections::HashSet;

use smithay::{
    backend::input::{Axis, AxisSource, ButtonState},
    desktop::{WindowSurfaceType, utils::under_from_surface_tree},
    input::pointer::{AxisFrame, ButtonEvent, CursorImageStatus, MotionEvent},
    reexports::wayland_server::{Resource, protocol::wl_surface::WlSurface},
    utils::{Logical, Point as SmithayPoint, SERIAL_COUNTER},
};

use crate::{
    layout::{Change, Edges, Part, Point, Rect, WindowId},
    shell::window_geometry,
    state::State,
};

pub(super) const BTN_LEFT: u32 = 0x110;
const BTN_RIGHT: u32 = 0x111;

/// Where the pointer is and what it does.
#[derive(Debug, Default)]
pub struct Pointing {
    /// Its place on the desktop.
    pub at: SmithayPoint<f64, Logical>,
    /// It has moved at least once; before that it is not shown.
    pub seen: bool,
    /// Buttons that are down.
    down: HashSet<u32>,
    /// Buttons whose press the desktop took; their release is not shown to a client either.
    taken: HashSet<u32>,
    /// A close button was pressed on this window.
    closing: Option<WindowId>,
}

impl Pointing {
    pub(crate) fn cell(&self) -> Point {
        cell_at(self.at)
    }
}

/// The pixel that a position is in.
pub(crate) fn cell_at(at: SmithayPoint<f64, Logical>) -> Point {
    // `as` saturates, and positions are on the desktop anyway.
    Point::new(at.x.floor() as i32, at.y.floor() as i32)
}

impl State {
    /// What is under a point: a client's surface with its own corner, if the point is on a
    /// client's pixels.
    pub(crate) fn surface_under(
        &self,
        at: SmithayPoint<f64, Logical>,
    ) -> Option<(WlSurface, SmithayPoint<f64, Logical>)> {
        let cell = cell_at(at);
        if let Some((_, surface, corner)) = self.layer_under(at, true) {
            return Some((surface, corner));
        }
        for placed in self.layout.stack().rev() {
            if let Some((popup, rect)) = self.popup_at(placed.id, cell) {
                let surface = self.shell.popup(popup)?.surface.wl_surface().clone();
                return within(&surface, rect, at, cell);
            }
            if placed.outer().contains(cell) {
                let surface = self.shell.windows.get(&placed.id)?.surface().clone();
                return within(&surface, placed.client, at, cell);
            }
        }
        self.layer_under(at, false)
            .map(|(_, surface, corner)| (surface, corner))
    }

    /// The pointer is at another place of the desktop.
    pub(crate) fn pointer_motion(&mut self, x: f64, y: f64, time: u32) {
        let number = |v: f64| if v.is_finite() { v } else { 0.0 };
        let (x, y) = (number(x), number(y));
        let cell = cell_at((x, y).into());
        // Where no output is, it goes along the edge of the nearest.
        let shown = self.layout.shown(cell);
        let limit = |v: f64, cell: i32, shown: i32| match cell == shown {
            true => v,
            false => v.clamp(f64::from(shown), f64::from(shown) + 255.0 / 256.0),
        };
        self.pointing.at = (limit(x, cell.x, shown.x), limit(y, cell.y, shown.y)).into();
        self.pointing.seen = true;
        self.dirty = true;
        let at = self.pointing.at;
        let Some(pointer) = self.seat.get_pointer() else {
            return;
        };
        let mut under = self.surface_under(at);
        if self.layout.grabbed().is_some() {
            if let Some(change) = self.layout.drag_to(self.pointing.cell()) {
                self.apply(change);
            }
            under = None;
        } else if self.drag.is_some() {
            self.drag_motion(under, at, time);
            under = None;
        } else if let Some(grabbing) = self.shell.grabbing_popup() {
            // While a menu is open only its own client sees the pointer.
            let owner = grabbing.surface.wl_surface().id();
            under = under.filter(|(surface, _)| surface.id().same_client_as(&owner));
        }
        if under.is_none() {
            self.set_desktop_cursor();
        }
        let event = MotionEvent {
            location: at,
            serial: SERIAL_COUNTER.next_serial(),
            time,
        };
        pointer.motion(self, under, &event);
        pointer.frame(self);
    }

    /// Something moved under the pointer.
    pub(crate) fn pointer_moved_under(&mut self) {
        if self.pointing.seen {
            let (at, time) = (self.pointing.at, self.now_ms());
            self.pointer_motion(at.x, at.y, time);
        }
    }

    /// A button by its evdev code.
    pub(crate) fn pointer_button(&mut self, button: u32, pressed: bool, time: u32) {
        let Some(pointer) = self.seat.get_pointer() else {
            return;
        };
        let known = if pressed {
            self.pointing.down.insert(button)
        } else {
            self.pointing.down.remove(&button)
        };
        if !known {
            return;
        }
        self.keys.not_a_tap();
        let taken = if pressed {
            let taken = self.press(button);
            self.keyboard_is_meant();
            taken
        } else {
            self.release(button)
        };
        if taken {
            return;
        }
        let serial = SERIAL_COUNTER.next_serial();
        if pressed {
            if let Some(surface) = pointer.current_focus() {
                self.serials.pressed(serial, &surface, Some(button));
            }
        } else {
            self.serials.released(button);
        }
        let state = if pressed {
            ButtonState::Pressed
        } else {
            ButtonState::Released
        };
        pointer.button(
            self,
            &ButtonEvent {
                serial,
                time,
                button,
                state,
            },
        );
        pointer.frame(self);
        if !pressed && self.pointing.down.is_empty() {
            if self.drag.is_some() {
                self.drop_drag();
            } else {
                // The surface that held the pointer while the button was down lets go.
                self.pointer_moved_under();
            }
        }
    }

    /// A press: answers whether the desktop keeps it.
    fn press(&mut self, button: u32) -> bool {
        let at = self.pointing.cell();
        let hit = self.hit(at);
        if let Some(grabbing) = self.shell.grabbing_popup() {
            let owner = grabbing.surface.wl_surface().id();
            let inside = self
                .surface_under(self.pointing.at)
                .is_some_and(|(surface, _)| surface.id().same_client_as(&owner));
            if !inside {
                self.dismiss_grabs();
                self.pointer_moved_under();
                self.pointing.taken.insert(button);
                return true;
            }
            return false;
        }
        let layer = self.layer_under(self.pointing.at, true).or_else(|| {
            let below = self.layer_under(self.pointing.at, false);
            below.filter(|_| hit.is_none())
        });
        if let Some(root) = layer.map(|(layer, ..)| layer.surface.wl_surface().clone()) {
            if self.layer_under(self.pointing.at, true).is_none() {
                self.layout.unfocus();
                self.refresh_focus();
            }
            self.press_on_layer(&root);
            return false;
        }
        let had_layer = self.layer_focus.take().is_some();
        let Some((id, part)) = hit else {
            self.layout.unfocus();
            self.refresh_focus();
            self.pointing.taken.insert(button);
            return true;
        };
        if had_layer || self.layout.focused() != Some(id) {
            self.layout.focus(id);
            self.dirty = true;
            self.refresh_focus();
            self.pointer_moved_under();
        }
        let gesture = self.keys.modifiers.logo;
        let kept = match (part, button) {
            (_, BTN_LEFT) if gesture => {
                self.begin_move(id);
                true
            }
            (_, BTN_RIGHT) if gesture => {
                let client = self.layout.get(id).map(|w| w.client).unwrap_or_default();
                self.begin_resize(id, Edges::quarter(client, at));
                true
            }
            (Some(Part::Client), _) => false,
            (Some(Part::Title), BTN_LEFT) => {
                self.begin_move(id);
                true
            }
            (Some(Part::Border(edges)), BTN_LEFT) => {
                self.begin_resize(id, edges);
                true
            }
            (Some(Part::Close), BTN_LEFT) => {
                self.pointing.closing = Some(id);
                true
            }
            // A popup without a grab: a click in its client's pixels is the client's.
            (None, _) => false,
            _ => true,
        };
        if kept {
            self.pointing.taken.insert(button);
        }
        kept
    }

    fn release(&mut self, button: u32) -> bool {
        if self.layout.grabbed().is_some() && self.pointing.down.is_empty() {
            if let Some(id) = self.layout.end_drag() {
                self.configure(id, None);
            }
            self.pointer_moved_under();
        }
        if let Some(id) = self.pointing.closing.take()
            && self.layout.hit(self.pointing.cell()) == Some((id, Part::Close))
        {
            self.close(id);
        }
        // The client that asked to be moved saw the press; it sees the release too.
        self.pointing.taken.remove(&button)
    }

    /// The window at a point, popups included, and the part of it (none for a popup).
    fn hit(&self, at: Point) -> Option<(WindowId, Option<Part>)> {
        for placed in self.layout.stack().rev() {
            if self.popup_at(placed.id, at).is_some() {
                return Some((placed.id, None));
            }
            if placed.outer().contains(at) {
                return self.layout.hit(at).map(|(id, part)| (id, Some(part)));
            }
        }
        None
    }

    /// Scrolling, in the units of `wl_pointer.axis`; 15 is one step of a wheel.
    pub(crate) fn pointer_axis(&mut self, horizontal: f64, vertical: f64, time: u32) {
        let Some(pointer) = self.seat.get_pointer() else {
            return;
        };
        let mut frame = AxisFrame::new(time).source(AxisSource::Wheel);
        for (axis, value) in [(Axis::Horizontal, horizontal), (Axis::Vertical, vertical)] {
            let value = if value.is_finite() {
                value.clamp(-10_000.0, 10_000.0)
            } else {
                0.0
            };
            if value != 0.0 {
                // Clamped above.
                #[allow(clippy::cast_possible_truncation)]
                let v120 = (value * 8.0) as i32;
                frame = frame.value(axis, value).v120(axis, v120);
            }
        }
        pointer.axis(self, frame);
        pointer.frame(self);
    }

    /// Takes hold of a window at the pointer to move it.
    pub(crate) fn begin_move(&mut self, id: WindowId) {
        self.dismiss_popups(id);
        self.layout.focus(id);
        if let Some(change) = self.layout.begin_move(id, self.pointing.cell()) {
            self.apply(change);
        }
        self.take_pointer_from_client();
        self.refresh_focus();
    }

    /// Takes hold of edges of a window at the pointer.
    pub(crate) fn begin_resize(&mut self, id: WindowId, edges: Edges) {
        self.dismiss_popups(id);
        self.layout.focus(id);
        if self.layout.begin_resize(id, edges, self.pointing.cell()) {
            self.configure(id, None);
            self.take_pointer_from_client();
        }
        self.refresh_focus();
    }

    /// While the desktop drags a window the client does not see the pointer.
    fn take_pointer_from_client(&mut self) {
        if let Some(pointer) = self.seat.get_pointer() {
            pointer.unset_grab(self, SERIAL_COUNTER.next_serial(), self.now_ms());
        }
        self.pointer_moved_under();
    }

    fn apply(&mut self, change: Change) {
        self.dirty = true;
        if let Change::Resize(id, size) = change {
            self.configure(id, Some(size));
        }
    }

    /// What is down now is the desktop's: no client learns of its release, nor can name its press any
    /// more.
    pub(crate) fn take_buttons(&mut self) {
        for button in &self.pointing.down {
            self.serials.released(*button);
            self.pointing.taken.insert(*button);
        }
    }

    fn set_desktop_cursor(&mut self) {
        let named = CursorImageStatus::default_named();
        if self.cursor != named {
            self.cursor = named;
        }
    }
}

/// The surface of a tree at a point, when the point is on the part that the tree may show.
fn within(
    surface: &WlSurface,
    client: Rect,
    at: SmithayPoint<f64, Logical>,
    cell: Point,
) -> Option<(WlSurface, SmithayPoint<f64, Logical>)> {
    if !client.contains(cell) {
        return None;
    }
    let geometry = window_geometry(surface);
    let corner = (
        client.x.saturating_sub(geometry.x),
        client.y.saturating_sub(geometry.y),
    );
    under_from_surface_tree(surface, at, corner, WindowSurfaceType::ALL)
        .map(|(surface, corner)| (surface, corner.to_f64()))
}
