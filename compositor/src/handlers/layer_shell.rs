//! `zwlr_layer_shell_v1`: panels and menus, for clients of the host's socket alone.

use smithay::{
    reexports::wayland_server::protocol::wl_output::WlOutput,
    wayland::shell::wlr_layer::{Layer, LayerSurface, WlrLayerShellHandler, WlrLayerShellState},
};

use crate::state::State;

impl WlrLayerShellHandler for State {
    fn shell_state(&mut self) -> &mut WlrLayerShellState {
        &mut self.protocols.layer_shell
    }

    fn new_layer_surface(
        &mut self,
        surface: LayerSurface,
        _: Option<WlOutput>,
        _: Layer,
        namespace: String,
    ) {
        self.layer_created(surface, namespace);
    }

    fn layer_destroyed(&mut self, surface: LayerSurface) {
        self.layer_gone(surface.wl_surface());
    }
}
