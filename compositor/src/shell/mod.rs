//! Windows and popups: what a client shows, joined with where [`crate::layout`] puts it.

pub(crate) mod buffers;
mod commit;
mod layer;
mod popup;
pub mod title;
mod window;

use std::collections::{BTreeMap, HashMap};

pub use layer::LayerWindow;
pub use popup::{Popup, PopupParent};
use smithay::{
    backend::renderer::utils::with_renderer_surface_state,
    desktop::utils::bbox_from_surface_tree,
    reexports::wayland_server::{Resource, backend::ObjectId, protocol::wl_surface::WlSurface},
    wayland::{
        compositor::{get_parent, with_states},
        shell::xdg::SurfaceCachedState,
    },
};
pub use window::{Stage, Window};

use crate::{
    domain::DomainId,
    layout::{MAX_SIZE_PX, Rect, WindowId},
};

/// Everything with an xdg role.
#[derive(Debug, Default)]
pub struct Shell {
    /// Toplevels by name.
    pub windows: BTreeMap<WindowId, Window>,
    /// Popups, parents before children.
    pub popups: Vec<Popup>,
    /// Panels, menus and backgrounds of the host, the oldest first.
    pub layers: Vec<LayerWindow>,
    /// Which surface an `xdg_surface` belongs to; smithay keeps that to itself.
    pub(crate) xdg_surfaces: HashMap<ObjectId, WlSurface>,
    last_id: u64,
}

impl Shell {
    /// A fresh name for a window or popup.
    pub fn new_id(&mut self) -> WindowId {
        self.last_id += 1;
        WindowId(self.last_id)
    }

    /// The window whose own surface this is.
    pub fn window_of(&self, surface: &WlSurface) -> Option<WindowId> {
        self.windows
            .values()
            .find(|w| w.surface() == surface)
            .map(|w| w.id)
    }

    /// The popup whose own surface this is.
    pub fn popup_of(&self, surface: &WlSurface) -> Option<&Popup> {
        self.popups
            .iter()
            .find(|p| p.surface.wl_surface() == surface)
    }

    /// A popup by name.
    pub fn popup(&self, id: WindowId) -> Option<&Popup> {
        self.popups.iter().find(|p| p.id == id)
    }

    /// The window that a surface belongs to: its own, or that of the parent of its popup.
    pub fn root_window(&self, surface: &WlSurface) -> Option<WindowId> {
        let root = root_of(surface);
        if let Some(id) = self.window_of(&root) {
            return Some(id);
        }
        self.popup_of(&root).map(|p| p.root)
    }

    /// The domain of a window or popup.
    pub fn domain_of(&self, surface: &WlSurface) -> Option<DomainId> {
        let root = self.root_window(surface)?;
        self.windows.get(&root).map(|w| w.domain)
    }
}

/// The surface at the top of a tree of subsurfaces. The guard bounds the depth.
pub fn root_of(surface: &WlSurface) -> WlSurface {
    let mut root = surface.clone();
    while let Some(parent) = get_parent(&root) {
        root = parent;
    }
    root
}

/// Does the surface show a buffer?
pub fn has_buffer(surface: &WlSurface) -> bool {
    surface.is_alive()
        && with_renderer_surface_state(surface, |state| state.buffer().is_some()).unwrap_or(false)
}

/// The part of a surface that is the window, without the shadows around it: what the client said,
/// or everything it shows.
pub fn window_geometry(surface: &WlSurface) -> Rect {
    let said = with_states(surface, |states| {
        states
            .cached_state
            .get::<SurfaceCachedState>()
            .current()
            .geometry
    });
    let untrusted = said.unwrap_or_else(|| bbox_from_surface_tree(surface, (0, 0)));
    Rect {
        x: untrusted.loc.x.clamp(-MAX_SIZE_PX, MAX_SIZE_PX),
        y: untrusted.loc.y.clamp(-MAX_SIZE_PX, MAX_SIZE_PX),
        w: untrusted.size.w.clamp(1, MAX_SIZE_PX),
        h: untrusted.size.h.clamp(1, MAX_SIZE_PX),
    }
}
