//! `xdg_shell`: roles are given once, parents exist and are of the same client, and numbers are
//! such that arithmetic can bear them.
//!
//! With smithay 0.7 alone a popup can be its own parent, a surface can be two windows, and a
//! negative geometry panics in checked builds.

use smithay::{
    reexports::{
        wayland_protocols::xdg::shell::server::{
            xdg_popup::{self, XdgPopup},
            xdg_positioner::{self, XdgPositioner},
            xdg_surface::{self, XdgSurface},
            xdg_toplevel::{self, XdgToplevel},
            xdg_wm_base::{self, XdgWmBase},
        },
        wayland_server::{
            Client, DataInit, New, Resource, backend::ClientId, delegate_global_dispatch,
            protocol::wl_surface::WlSurface,
        },
    },
    wayland::shell::xdg::{
        XdgPositionerUserData, XdgShellState, XdgShellSurfaceUserData, XdgSurfaceUserData,
        XdgWmBaseUserData,
    },
};

use super::{account::Placeholder, coordinate, guarded, length};
use crate::{layout::MAX_SIZE_PX, shell::has_buffer, state::State};

/// Titles and application names are cut before anything keeps them.
const MAX_TEXT_BYTES: usize = 1024;

delegate_global_dispatch!(State: [XdgWmBase: ()] => XdgShellState);
guarded!(XdgWmBase, XdgWmBaseUserData => XdgShellState, check_wm_base);
guarded!(XdgPositioner, XdgPositionerUserData => XdgShellState, check_positioner);
guarded!(XdgSurface, XdgSurfaceUserData => XdgShellState, check_xdg_surface,
    destroyed: xdg_surface_destroyed);
guarded!(XdgToplevel, XdgShellSurfaceUserData => XdgShellState, check_toplevel);
guarded!(XdgPopup, XdgShellSurfaceUserData => XdgShellState, check_popup);

fn check_wm_base(
    state: &mut State,
    _: &Client,
    wm_base: &XdgWmBase,
    request: xdg_wm_base::Request,
    init: &mut DataInit<'_, State>,
) -> Option<xdg_wm_base::Request> {
    let xdg_wm_base::Request::GetXdgSurface { id, surface } = request else {
        return Some(request);
    };
    if state
        .shell
        .xdg_surfaces
        .values()
        .any(|known| *known == surface)
    {
        wm_base.post_error(
            xdg_wm_base::Error::Role,
            "the surface has an xdg_surface already",
        );
        return None;
    }
    if has_buffer(&surface) {
        wm_base.post_error(
            xdg_wm_base::Error::InvalidSurfaceState,
            "the surface has a buffer before it has a role",
        );
        return None;
    }
    let xdg_surface: XdgSurface = init.custom_init(id, Placeholder::data());
    state
        .shell
        .xdg_surfaces
        .insert(xdg_surface.id(), surface.clone());
    Some(xdg_wm_base::Request::GetXdgSurface {
        id: New::wrap(xdg_surface),
        surface,
    })
}

fn check_positioner(
    _: &mut State,
    _: &Client,
    _: &XdgPositioner,
    request: xdg_positioner::Request,
    _: &mut DataInit<'_, State>,
) -> Option<xdg_positioner::Request> {
    use xdg_positioner::Request;
    // Zero and negative sizes go on: smithay answers them with the protocol's own error.
    let size = |untrusted: i32| untrusted.clamp(-1, MAX_SIZE_PX);
    Some(match request {
        Request::SetSize { width, height } => Request::SetSize {
            width: size(width),
            height: size(height),
        },
        Request::SetAnchorRect {
            x,
            y,
            width,
            height,
        } => Request::SetAnchorRect {
            x: coordinate(x),
            y: coordinate(y),
            width: size(width),
            height: size(height),
        },
        Request::SetOffset { x, y } => Request::SetOffset {
            x: coordinate(x),
            y: coordinate(y),
        },
        Request::SetParentSize {
            parent_width,
            parent_height,
        } => Request::SetParentSize {
            parent_width: length(parent_width),
            parent_height: length(parent_height),
        },
        other => other,
    })
}

fn has_role(state: &State, surface: &WlSurface) -> bool {
    state.shell.window_of(surface).is_some() || state.shell.popup_of(surface).is_some()
}

fn check_xdg_surface(
    state: &mut State,
    _: &Client,
    xdg_surface: &XdgSurface,
    request: xdg_surface::Request,
    _: &mut DataInit<'_, State>,
) -> Option<xdg_surface::Request> {
    use xdg_surface::Request;
    let surface = state.shell.xdg_surfaces.get(&xdg_surface.id()).cloned();
    match request {
        Request::GetToplevel { .. } | Request::GetPopup { .. } => {
            let Some(surface) = surface.filter(Resource::is_alive) else {
                xdg_surface.post_error(xdg_surface::Error::NotConstructed, "no surface");
                return None;
            };
            if has_role(state, &surface) {
                xdg_surface.post_error(
                    xdg_surface::Error::AlreadyConstructed,
                    "the surface is a window or popup already",
                );
                return None;
            }
            if let Request::GetPopup { parent, .. } = &request {
                let parent = parent
                    .as_ref()
                    .and_then(|parent| state.shell.xdg_surfaces.get(&parent.id()))
                    .filter(|parent| parent.is_alive() && **parent != surface);
                // A parent that smithay would only ask for later must be there now.
                if !parent.is_some_and(|parent| has_role(state, parent)) {
                    xdg_surface.post_error(
                        xdg_wm_base::Error::InvalidPopupParent as u32,
                        "a popup needs a window or popup of the same client as its parent",
                    );
                    return None;
                }
            }
            Some(request)
        }
        Request::SetWindowGeometry {
            x,
            y,
            width,
            height,
        } => {
            if width <= 0 || height <= 0 {
                xdg_surface.post_error(
                    xdg_surface::Error::InvalidSize,
                    "a window has at least one pixel",
                );
                return None;
            }
            Some(Request::SetWindowGeometry {
                x: x.clamp(-MAX_SIZE_PX, MAX_SIZE_PX),
                y: y.clamp(-MAX_SIZE_PX, MAX_SIZE_PX),
                width: width.min(MAX_SIZE_PX),
                height: height.min(MAX_SIZE_PX),
            })
        }
        other => Some(other),
    }
}

fn xdg_surface_destroyed(state: &mut State, _: &ClientId, xdg_surface: &XdgSurface) {
    if let Some(surface) = state.shell.xdg_surfaces.remove(&xdg_surface.id()) {
        // A client that goes away destroys its objects in any order.
        state.window_gone(&surface);
        state.popup_gone(&surface);
    }
}

fn cut(mut untrusted: String) -> String {
    if untrusted.len() > MAX_TEXT_BYTES {
        let end = (0..=MAX_TEXT_BYTES)
            .rev()
            .find(|i| untrusted.is_char_boundary(*i));
        untrusted.truncate(end.unwrap_or(0));
    }
    untrusted
}

fn check_toplevel(
    _: &mut State,
    _: &Client,
    toplevel: &XdgToplevel,
    request: xdg_toplevel::Request,
    _: &mut DataInit<'_, State>,
) -> Option<xdg_toplevel::Request> {
    use xdg_toplevel::Request;
    #[cfg(test)]
    if let Request::SetTitle { title } = &request {
        assert_ne!(title, crate::tests::TITLE_THAT_PANICS);
    }
    Some(match request {
        Request::SetTitle { title } => Request::SetTitle { title: cut(title) },
        Request::SetAppId { app_id } => Request::SetAppId {
            app_id: cut(app_id),
        },
        Request::SetMinSize { width, height } | Request::SetMaxSize { width, height }
            if width < 0 || height < 0 =>
        {
            toplevel.post_error(xdg_toplevel::Error::InvalidSize, "sizes are not negative");
            return None;
        }
        Request::SetMinSize { width, height } => Request::SetMinSize {
            width: width.min(MAX_SIZE_PX),
            height: height.min(MAX_SIZE_PX),
        },
        Request::SetMaxSize { width, height } => Request::SetMaxSize {
            width: width.min(MAX_SIZE_PX),
            height: height.min(MAX_SIZE_PX),
        },
        other => other,
    })
}

fn check_popup(
    _: &mut State,
    _: &Client,
    _: &XdgPopup,
    request: xdg_popup::Request,
    _: &mut DataInit<'_, State>,
) -> Option<xdg_popup::Request> {
    Some(request)
}
