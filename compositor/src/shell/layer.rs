//! What the host's own programs show around the windows: panels, menus, backgrounds. They come
//! through the host's socket only, have no border and belong to no domain.

use smithay::{
    desktop::{WindowSurfaceType, utils::under_from_surface_tree},
    reexports::wayland_server::{Resource, protocol::wl_surface::WlSurface},
    utils::{Logical, Point as SmithayPoint},
    wayland::{
        compositor::with_states,
        shell::wlr_layer::{
            Anchor, KeyboardInteractivity, Layer as Height, LayerSurface, LayerSurfaceCachedState,
            LayerSurfaceData,
        },
    },
};

use super::has_buffer;
use crate::{
    layout::{
        Rect, Size,
        zones::{Layer, Sides, Wish, arrange},
    },
    state::State,
};

/// A panel, menu or background.
#[derive(Debug)]
pub struct LayerWindow {
    /// smithay's handle.
    pub surface: LayerSurface,
    /// What its program calls it.
    pub namespace: String,
    /// Shows a buffer.
    pub mapped: bool,
    /// Where it is.
    pub rect: Rect,
    /// Commits of its surface tree.
    pub commits: u64,
    /// Pictures of the desktop that showed something new of it.
    pub frames: u64,
    /// Something was committed since the last picture.
    pub fresh: bool,
    /// When the last of its pictures was shown, CLOCK_MONOTONIC in microseconds; 0 before.
    pub shown_us: u64,
}

impl LayerWindow {
    /// How high it is now.
    pub fn layer(&self) -> Layer {
        self.state(|state| height(state.layer))
    }

    /// Whether it wants the keyboard.
    pub fn keyboard(&self) -> KeyboardInteractivity {
        self.state(|state| state.keyboard_interactivity)
    }

    fn state<T>(&self, read: impl FnOnce(&LayerSurfaceCachedState) -> T) -> T {
        with_states(self.surface.wl_surface(), |states| {
            read(
                states
                    .cached_state
                    .get::<LayerSurfaceCachedState>()
                    .current(),
            )
        })
    }

    fn wish(&self) -> Wish {
        self.state(|state| Wish {
            layer: height(state.layer),
            anchor: Sides {
                top: state.anchor.contains(Anchor::TOP),
                right: state.anchor.contains(Anchor::RIGHT),
                bottom: state.anchor.contains(Anchor::BOTTOM),
                left: state.anchor.contains(Anchor::LEFT),
            },
            size: Size::new(state.size.w, state.size.h),
            margin: Sides {
                top: state.margin.top,
                right: state.margin.right,
                bottom: state.margin.bottom,
                left: state.margin.left,
            },
            zone: state.exclusive_zone.into(),
            shown: self.mapped,
        })
    }
}

fn height(layer: Height) -> Layer {
    match layer {
        Height::Background => Layer::Background,
        Height::Bottom => Layer::Bottom,
        Height::Top => Layer::Top,
        Height::Overlay => Layer::Overlay,
    }
}

/// Layers from the highest to the lowest, above or below the windows.
fn heights(above: bool) -> [Layer; 2] {
    if above {
        [Layer::Overlay, Layer::Top]
    } else {
        [Layer::Bottom, Layer::Background]
    }
}

impl super::Shell {
    /// What is shown above or below the windows, the highest first. Of one layer the newest is the
    /// highest.
    pub fn layers_shown(&self, above: bool) -> Vec<&LayerWindow> {
        let mut shown = Vec::new();
        for height in heights(above) {
            let of_height = |l: &&LayerWindow| l.mapped && l.layer() == height;
            shown.extend(self.layers.iter().rev().filter(of_height));
        }
        shown
    }

    /// The layer whose own surface this is.
    pub fn layer_of(&self, surface: &WlSurface) -> Option<&LayerWindow> {
        self.layers
            .iter()
            .find(|l| l.surface.wl_surface() == surface)
    }

    /// The layer that has the keyboard whatever window has the focus.
    pub fn exclusive_layer(&self) -> Option<&LayerWindow> {
        self.layers_shown(true)
            .into_iter()
            .find(|l| l.keyboard() == KeyboardInteractivity::Exclusive)
    }
}

impl State {
    /// One of the host's programs made a layer. Nothing is shown before its first buffer.
    pub(crate) fn layer_created(&mut self, surface: LayerSurface, namespace: String) {
        self.shell.layers.push(LayerWindow {
            surface,
            namespace: super::title::clean(&namespace),
            mapped: false,
            rect: Rect::default(),
            commits: 0,
            frames: 0,
            fresh: false,
            shown_us: 0,
        });
    }

    pub(crate) fn layer_gone(&mut self, surface: &WlSurface) {
        let before = self.shell.layers.len();
        self.shell
            .layers
            .retain(|l| l.surface.wl_surface() != surface);
        if self.shell.layers.len() != before {
            self.arrange_layers();
            self.refresh_focus();
        }
    }

    /// A layer's surface tree has new contents or a new wish.
    pub(crate) fn layer_committed(&mut self, root: &WlSurface) {
        let shows = has_buffer(root);
        let Some(layer) = self
            .shell
            .layers
            .iter_mut()
            .find(|l| l.surface.wl_surface() == root)
        else {
            return;
        };
        layer.commits += 1;
        layer.fresh = true;
        let surface = layer.surface.clone();
        let before = std::mem::replace(&mut layer.mapped, false);
        let told = with_states(root, |states| {
            states
                .data_map
                .get::<LayerSurfaceData>()
                .and_then(|data| data.lock().ok().map(|d| d.initial_configure_sent))
                .unwrap_or(false)
        });
        if shows && !surface.ensure_configured() {
            return;
        }
        layer.mapped = shows;
        if before && !shows {
            // As if it were new: it waits for a configure again.
            with_states(root, |states| {
                if let Some(Ok(mut data)) = states
                    .data_map
                    .get::<LayerSurfaceData>()
                    .map(|data| data.lock())
                {
                    data.initial_configure_sent = false;
                    data.configured = false;
                }
            });
            self.output.leave(root);
        } else if !before && shows {
            self.output.enter(root);
            if self.shell.exclusive_layer().is_some() {
                // A guest's open menu would keep the pointer from it.
                self.dismiss_grabs();
            }
        }
        self.arrange_layers();
        if !told {
            surface.send_configure();
        }
        self.refresh_focus();
    }

    /// Gives every layer its place, and windows what is left.
    pub(crate) fn arrange_layers(&mut self) {
        let wishes: Vec<Wish> = self.shell.layers.iter().map(LayerWindow::wish).collect();
        let main = self.layout.main();
        let (places, area) = arrange(main, &wishes);
        for (layer, rect) in self.shell.layers.iter_mut().zip(places) {
            layer.rect = rect;
            layer
                .surface
                .with_pending_state(|state| state.size = Some((rect.w, rect.h).into()));
            let told = with_states(layer.surface.wl_surface(), |states| {
                states
                    .data_map
                    .get::<LayerSurfaceData>()
                    .and_then(|data| data.lock().ok().map(|d| d.initial_configure_sent))
                    .unwrap_or(false)
            });
            if told {
                layer.surface.send_pending_configure();
            }
        }
        for (id, wanted) in self.layout.set_area(main, area) {
            self.configure(id, Some(wanted));
        }
        self.dirty = true;
        self.pointer_moved_under();
    }

    /// The desktop lies on other outputs: a first one of this size, and those beside it.
    #[cfg(any(feature = "drm", feature = "winit"))]
    pub(crate) fn outputs_changed(&mut self, main: Size, others: Vec<Rect>) {
        let whole = Rect::new(0, 0, main.w, main.h);
        if self.shell.layers.is_empty() {
            for (id, wanted) in self.layout.set_area(main, whole) {
                self.configure(id, Some(wanted));
            }
        } else {
            self.layout.set_main(main);
            self.arrange_layers();
        }
        for (id, wanted) in self.layout.set_others(others) {
            self.configure(id, Some(wanted));
        }
        self.dirty = true;
        self.pointer_moved_under();
    }

    /// The layer's surface under a point, above or below the windows.
    pub(crate) fn layer_under(
        &self,
        at: SmithayPoint<f64, Logical>,
        above: bool,
    ) -> Option<(&LayerWindow, WlSurface, SmithayPoint<f64, Logical>)> {
        let cell = crate::input::cell_at(at);
        self.shell
            .layers_shown(above)
            .into_iter()
            .filter(|layer| layer.rect.contains(cell))
            .find_map(|layer| {
                let root = layer.surface.wl_surface();
                if !root.is_alive() {
                    return None;
                }
                let corner = (layer.rect.x, layer.rect.y);
                under_from_surface_tree(root, at, corner, WindowSurfaceType::ALL)
                    .map(|(surface, corner)| (layer, surface, corner.to_f64()))
            })
    }

    /// A press on a layer: one that takes the keyboard on demand gets it.
    pub(crate) fn press_on_layer(&mut self, root: &WlSurface) {
        let wants = self
            .shell
            .layer_of(root)
            .is_some_and(|layer| layer.keyboard() == KeyboardInteractivity::OnDemand);
        if wants {
            self.layer_focus = Some(root.downgrade());
            self.refresh_focus();
        }
    }

    /// The layer that has the keyboard: one that insists, or the one that was clicked last.
    pub(crate) fn keyboard_layer(&self) -> Option<WlSurface> {
        if let Some(layer) = self.shell.exclusive_layer() {
            return Some(layer.surface.wl_surface().clone());
        }
        let clicked = self.layer_focus.as_ref()?.upgrade().ok()?;
        let layer = self.shell.layer_of(&clicked)?;
        (layer.mapped && layer.keyboard() != KeyboardInteractivity::None).then_some(clicked)
    }
}
