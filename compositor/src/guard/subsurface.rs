//! `wl_subcompositor`: trees of surfaces are walked by recursion, so their depth has a bound, and
//! a surface is never its own ancestor.

use smithay::{
    reexports::wayland_server::{
        Client, DataInit, Resource, delegate_global_dispatch,
        protocol::{
            wl_subcompositor::{self, WlSubcompositor},
            wl_subsurface::{self, WlSubsurface},
            wl_surface::WlSurface,
        },
    },
    wayland::compositor::{CompositorState, SubsurfaceUserData, get_children, get_parent},
};

use super::{coordinate, guarded};
use crate::state::State;

/// Deep enough for any toolkit, shallow enough for any stack.
const MAX_DEPTH: usize = 16;

delegate_global_dispatch!(State: [WlSubcompositor: ()] => CompositorState);
guarded!(WlSubcompositor, () => CompositorState, check_subcompositor);
guarded!(WlSubsurface, SubsurfaceUserData => CompositorState, check_subsurface);

fn check_subcompositor(
    _: &mut State,
    _: &Client,
    subcompositor: &WlSubcompositor,
    request: wl_subcompositor::Request,
    _: &mut DataInit<'_, State>,
) -> Option<wl_subcompositor::Request> {
    if let wl_subcompositor::Request::GetSubsurface {
        surface, parent, ..
    } = &request
    {
        let Some(above) = ancestors_without(parent, surface) else {
            subcompositor.post_error(
                wl_subcompositor::Error::BadSurface,
                "a surface cannot be its own ancestor",
            );
            return None;
        };
        if above + height(surface, 0) > MAX_DEPTH {
            subcompositor.post_error(
                wl_subcompositor::Error::BadSurface,
                "subsurfaces nest too deep",
            );
            return None;
        }
    }
    Some(request)
}

/// Counts a surface and its ancestors, unless `other` is one of them.
fn ancestors_without(surface: &WlSurface, other: &WlSurface) -> Option<usize> {
    let mut count = 0;
    let mut next = Some(surface.clone());
    while let Some(surface) = next {
        if surface == *other {
            return None;
        }
        count += 1;
        next = get_parent(&surface);
    }
    Some(count)
}

/// Levels below and including a surface. Bounded, since every tree was built through this check.
fn height(surface: &WlSurface, level: usize) -> usize {
    if level > MAX_DEPTH {
        return level;
    }
    let below = get_children(surface)
        .iter()
        .filter(|child| *child != surface)
        .map(|child| height(child, level + 1))
        .max();
    1 + below.unwrap_or(0)
}

fn check_subsurface(
    _: &mut State,
    _: &Client,
    _: &WlSubsurface,
    request: wl_subsurface::Request,
    _: &mut DataInit<'_, State>,
) -> Option<wl_subsurface::Request> {
    Some(match request {
        wl_subsurface::Request::SetPosition { x, y } => wl_subsurface::Request::SetPosition {
            x: coordinate(x),
            y: coordinate(y),
        },
        other => other,
    })
}
