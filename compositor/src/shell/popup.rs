//! Popups: menus and the like. A popup has a parent of its own client, stays on the output, and
//! has a border of its own. Parents are always older than their children, so there are no rings
//! (with smithay's own popup tree a popup that is its own parent makes an endless loop).

use smithay::{
    reexports::wayland_server::protocol::wl_surface::WlSurface,
    utils::{Logical, Rectangle},
    wayland::shell::xdg::{PopupSurface, PositionerState},
};

use super::{Shell, has_buffer, window_geometry};
use crate::{
    domain::DomainId,
    layout::{Layout, POPUP_BORDER_PX, Point, Rect, WindowId},
    render::FrameArt,
    state::State,
};

/// Menus within menus within menus end here.
pub const MAX_DEPTH: usize = 16;

/// What a popup belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PopupParent {
    /// A window.
    Window(WindowId),
    /// Another popup, older than this one.
    Popup(WindowId),
}

/// A popup.
#[derive(Debug)]
pub struct Popup {
    /// Its name, from the same numbers as windows.
    pub id: WindowId,
    /// Whose it is.
    pub domain: DomainId,
    /// smithay's handle.
    pub surface: PopupSurface,
    /// What it belongs to.
    pub parent: PopupParent,
    /// The window at the root.
    pub root: WindowId,
    /// Steps from that window.
    pub depth: usize,
    /// Where it was told to be, from the corner of its parent's pixels.
    pub place: Rect,
    /// Shows a buffer.
    pub mapped: bool,
    /// Holds keyboard and pointer until dismissed.
    pub grab: bool,
    /// Commits of its surface tree.
    pub commits: u64,
    /// Pictures of the desktop that showed something new of it.
    pub frames: u64,
    /// Something was committed since the last picture.
    pub fresh: bool,
    /// Its border.
    pub art: FrameArt,
}

impl Shell {
    /// Where a popup's pixels are on the desktop, cut to fit with its border.
    pub fn popup_rect(&self, layout: &Layout, id: WindowId) -> Option<Rect> {
        let popup = self.popup(id)?;
        let parent = self.parent_rect(layout, popup.parent)?;
        let size = if popup.mapped {
            window_geometry(popup.surface.wl_surface()).size()
        } else {
            popup.place.size()
        };
        let wanted = Rect {
            x: parent.x.saturating_add(popup.place.x),
            y: parent.y.saturating_add(popup.place.y),
            w: size.w,
            h: size.h,
        };
        Some(clamp_to(layout.area_of(popup.root), wanted))
    }

    fn parent_rect(&self, layout: &Layout, parent: PopupParent) -> Option<Rect> {
        match parent {
            PopupParent::Window(id) => layout.get(id).map(|w| w.client),
            PopupParent::Popup(id) => self.popup_rect(layout, id),
        }
    }

    /// Popups of a window from the lowest to the highest.
    pub fn popups_of(&self, root: WindowId) -> impl DoubleEndedIterator<Item = &Popup> {
        self.popups.iter().filter(move |p| p.root == root)
    }

    /// The popup that holds keyboard and pointer now.
    pub fn grabbing_popup(&self) -> Option<&Popup> {
        self.popups.iter().rev().find(|p| p.grab)
    }
}

/// Keeps a popup with its border on its window's output: moved first, then cut.
fn clamp_to(area: Rect, wanted: Rect) -> Rect {
    let room_w = area.w.saturating_sub(2 * POPUP_BORDER_PX).max(1);
    let room_h = area.h.saturating_sub(2 * POPUP_BORDER_PX).max(1);
    let (w, h) = (wanted.w.clamp(1, room_w), wanted.h.clamp(1, room_h));
    Rect {
        x: wanted.x.clamp(
            area.x + POPUP_BORDER_PX,
            area.x + POPUP_BORDER_PX + room_w - w,
        ),
        y: wanted.y.clamp(
            area.y + POPUP_BORDER_PX,
            area.y + POPUP_BORDER_PX + room_h - h,
        ),
        w,
        h,
    }
}

impl State {
    /// A client made a popup. The guard has seen that the parent exists and has a role.
    pub(crate) fn popup_created(&mut self, surface: PopupSurface, positioner: PositionerState) {
        let parent = surface
            .get_parent_surface()
            .and_then(|parent| self.popup_parent(&parent));
        let Some((parent, root, depth, domain)) = parent else {
            surface.send_popup_done();
            return;
        };
        if depth > MAX_DEPTH {
            surface.send_popup_done();
            return;
        }
        let id = self.shell.new_id();
        let place = self.popup_place(parent, &positioner);
        surface.with_pending_state(|state| {
            state.positioner = positioner;
            state.geometry = to_smithay(place);
        });
        self.shell.popups.push(Popup {
            id,
            domain,
            surface,
            parent,
            root,
            depth,
            place,
            mapped: false,
            grab: false,
            commits: 0,
            frames: 0,
            fresh: false,
            art: FrameArt::default(),
        });
    }

    fn popup_parent(&self, parent: &WlSurface) -> Option<(PopupParent, WindowId, usize, DomainId)> {
        if let Some(id) = self.shell.window_of(parent) {
            let window = self.shell.windows.get(&id)?;
            return Some((PopupParent::Window(id), id, 1, window.domain));
        }
        let popup = self.shell.popup_of(parent)?;
        Some((
            PopupParent::Popup(popup.id),
            popup.root,
            popup.depth + 1,
            popup.domain,
        ))
    }

    /// Where a positioner puts a popup, seen from its parent's corner.
    fn popup_place(&self, parent: PopupParent, positioner: &PositionerState) -> Rect {
        let root = match parent {
            PopupParent::Window(id) => Some(id),
            PopupParent::Popup(id) => self.shell.popup(id).map(|popup| popup.root),
        };
        let area = root.map_or(self.layout.area(), |root| self.layout.area_of(root));
        let origin = self
            .shell
            .parent_rect(&self.layout, parent)
            .unwrap_or_default();
        let target = Rectangle::<i32, Logical>::new(
            (
                area.x + POPUP_BORDER_PX - origin.x,
                area.y + POPUP_BORDER_PX - origin.y,
            )
                .into(),
            (
                (area.w - 2 * POPUP_BORDER_PX).max(1),
                (area.h - 2 * POPUP_BORDER_PX).max(1),
            )
                .into(),
        );
        let place = positioner.get_unconstrained_geometry(target);
        let wanted = Rect {
            x: origin.x.saturating_add(place.loc.x),
            y: origin.y.saturating_add(place.loc.y),
            w: place.size.w,
            h: place.size.h,
        };
        let clamped = clamp_to(area, wanted);
        Rect {
            x: clamped.x - origin.x,
            y: clamped.y - origin.y,
            ..clamped
        }
    }

    pub(crate) fn popup_repositioned(
        &mut self,
        surface: &PopupSurface,
        positioner: PositionerState,
        token: u32,
    ) {
        let Some(popup) = self.shell.popup_of(surface.wl_surface()) else {
            return;
        };
        let (id, parent) = (popup.id, popup.parent);
        let place = self.popup_place(parent, &positioner);
        surface.with_pending_state(|state| {
            state.positioner = positioner;
            state.geometry = to_smithay(place);
        });
        surface.send_repositioned(token);
        if let Some(popup) = self.shell.popups.iter_mut().find(|p| p.id == id) {
            popup.place = place;
        }
        self.dirty = true;
    }

    /// A popup shows or no longer shows a buffer.
    pub(crate) fn popup_committed(&mut self, surface: &WlSurface) {
        let Some(popup) = self
            .shell
            .popups
            .iter_mut()
            .find(|p| p.surface.wl_surface() == surface)
        else {
            return;
        };
        if has_buffer(surface) && !popup.surface.ensure_configured() {
            return;
        }
        if !popup.surface.is_initial_configure_sent() {
            // The parent may have gone in between; then the client is told by popup_done.
            if let Err(error) = popup.surface.send_configure() {
                tracing::debug!(%error, "popup could not be configured");
            }
            return;
        }
        let now = has_buffer(surface);
        if popup.mapped != now {
            popup.mapped = now;
            if now {
                self.output.enter(surface);
            }
            self.refresh_focus();
        }
    }

    pub(crate) fn popup_gone(&mut self, surface: &WlSurface) {
        let Some(index) = self
            .shell
            .popups
            .iter()
            .position(|p| p.surface.wl_surface() == surface)
        else {
            return;
        };
        let popup = self.shell.popups.remove(index);
        // Children of a popup that went away go with it.
        let orphans: Vec<_> = self
            .shell
            .popups
            .iter()
            .filter(|p| p.parent == PopupParent::Popup(popup.id))
            .map(|p| p.surface.clone())
            .collect();
        for orphan in orphans {
            orphan.send_popup_done();
            self.popup_gone(orphan.wl_surface());
        }
        self.dirty = true;
        self.refresh_focus();
    }

    /// Dismisses every popup of a window, the highest first.
    pub(crate) fn dismiss_popups(&mut self, root: WindowId) {
        let surfaces: Vec<_> = self
            .shell
            .popups_of(root)
            .rev()
            .map(|p| p.surface.clone())
            .collect();
        for surface in surfaces {
            surface.send_popup_done();
            self.popup_gone(surface.wl_surface());
        }
    }

    /// The popup under a point, with the point's window: menus are above their own window.
    pub(crate) fn popup_at(&self, root: WindowId, at: Point) -> Option<(WindowId, Rect)> {
        self.shell
            .popups_of(root)
            .rev()
            .filter(|p| p.mapped)
            .find_map(|popup| {
                let rect = self.shell.popup_rect(&self.layout, popup.id)?;
                let b = POPUP_BORDER_PX;
                rect.grown(b, b, b, b)
                    .contains(at)
                    .then_some((popup.id, rect))
            })
    }
}

fn to_smithay(rect: Rect) -> Rectangle<i32, Logical> {
    Rectangle::new(
        (rect.x, rect.y).into(),
        (rect.w.max(1), rect.h.max(1)).into(),
    )
}
