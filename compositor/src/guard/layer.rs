//! `zwlr_layer_shell_v1`: for the host's own programs only. They are trusted, and their mistakes
//! are still not to take the desktop down.

use smithay::{
    reexports::{
        wayland_protocols_wlr::layer_shell::v1::server::{
            zwlr_layer_shell_v1::{self, ZwlrLayerShellV1},
            zwlr_layer_surface_v1::{self, ZwlrLayerSurfaceV1},
        },
        wayland_server::{Client, DataInit, Resource, delegate_global_dispatch},
    },
    wayland::shell::wlr_layer::{
        WlrLayerShellGlobalData, WlrLayerShellState, WlrLayerSurfaceUserData,
    },
};

use super::{coordinate, domain_of, guarded};
use crate::{domain::DomainId, layout::MAX_SIZE_PX, shell::has_buffer, state::State};

delegate_global_dispatch!(State: [ZwlrLayerShellV1: WlrLayerShellGlobalData] => WlrLayerShellState);
guarded!(ZwlrLayerShellV1, () => WlrLayerShellState, check_layer_shell);
guarded!(ZwlrLayerSurfaceV1, WlrLayerSurfaceUserData => WlrLayerShellState, check_layer_surface);

fn check_layer_shell(
    state: &mut State,
    client: &Client,
    shell: &ZwlrLayerShellV1,
    request: zwlr_layer_shell_v1::Request,
    _: &mut DataInit<'_, State>,
) -> Option<zwlr_layer_shell_v1::Request> {
    if let zwlr_layer_shell_v1::Request::GetLayerSurface { surface, .. } = &request {
        // Nobody else can bind the global; this is the second lock.
        if domain_of(client) != Some(DomainId::HOST) {
            shell.post_error(zwlr_layer_shell_v1::Error::Role, "for the host alone");
            return None;
        }
        if state.shell.layer_of(surface).is_some()
            || state.shell.xdg_surfaces.values().any(|s| s == surface)
        {
            shell.post_error(
                zwlr_layer_shell_v1::Error::Role,
                "the surface has a role already",
            );
            return None;
        }
        if has_buffer(surface) {
            shell.post_error(
                zwlr_layer_shell_v1::Error::AlreadyConstructed,
                "the surface has a buffer before it has a role",
            );
            return None;
        }
    }
    Some(request)
}

fn check_layer_surface(
    _: &mut State,
    _: &Client,
    _: &ZwlrLayerSurfaceV1,
    request: zwlr_layer_surface_v1::Request,
    _: &mut DataInit<'_, State>,
) -> Option<zwlr_layer_surface_v1::Request> {
    use zwlr_layer_surface_v1::Request;
    let size = |untrusted: u32| untrusted.min(MAX_SIZE_PX.unsigned_abs());
    Some(match request {
        Request::SetSize { width, height } => Request::SetSize {
            width: size(width),
            height: size(height),
        },
        Request::SetExclusiveZone { zone } => Request::SetExclusiveZone {
            zone: zone.clamp(-1, MAX_SIZE_PX),
        },
        Request::SetMargin {
            top,
            right,
            bottom,
            left,
        } => Request::SetMargin {
            top: coordinate(top),
            right: coordinate(right),
            bottom: coordinate(bottom),
            left: coordinate(left),
        },
        // The host's programs have no popups; smithay would not check whose popup it is.
        Request::GetPopup { .. } => return None,
        other => other,
    })
}
