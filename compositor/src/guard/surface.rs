//! `wl_compositor`, `wl_surface`, `wl_region`: counts, and numbers that arithmetic can bear.
//! Clients do send damage of `i32::MAX`; smithay's checked builds panic on some sums of such.

use smithay::{
    reexports::{
        wayland_protocols::wp::presentation_time::server::{
            wp_presentation::{self, WpPresentation},
            wp_presentation_feedback::{self, WpPresentationFeedback},
        },
        wayland_server::{
            Client, DataInit, New, Resource,
            backend::ClientId,
            delegate_global_dispatch,
            protocol::{
                wl_callback::{self, WlCallback},
                wl_compositor::{self, WlCompositor},
                wl_region::{self, WlRegion},
                wl_surface::{self, WlSurface},
            },
        },
    },
    wayland::{
        compositor::{CompositorState, RegionUserData, SurfaceUserData, is_sync_subsurface},
        presentation::{PresentationFeedbackState, PresentationState},
    },
};

use super::{
    MAX_COORDINATE,
    account::{Placeholder, SurfaceRecord},
    coordinate, guarded, length,
};
use crate::state::State;

/// Rectangles of damage kept one by one; after these the whole surface counts as damaged.
const MAX_DAMAGES: u32 = 256;
/// Commits of a synchronised subsurface that wait for their parent. Each one keeps a buffer.
const MAX_WAITING_COMMITS: u32 = 128;
/// Buffers drawn at a larger scale than this make no sense on any screen.
const MAX_SCALE: i32 = 16;

delegate_global_dispatch!(State: [WlCompositor: ()] => CompositorState);
delegate_global_dispatch!(State: [WpPresentation: u32] => PresentationState);
guarded!(WlCompositor, () => CompositorState, check_compositor);
guarded!(WlSurface, SurfaceUserData => CompositorState, check_surface);
guarded!(WlRegion, RegionUserData => CompositorState, check_region, destroyed: region_destroyed);
guarded!(WlCallback, () => CompositorState, check_callback, destroyed: callback_destroyed);
guarded!(WpPresentation, u32 => PresentationState, check_presentation);
guarded!(WpPresentationFeedback, () => PresentationFeedbackState, check_feedback,
    destroyed: feedback_destroyed);

fn check_compositor(
    state: &mut State,
    client: &Client,
    compositor: &WlCompositor,
    request: wl_compositor::Request,
    init: &mut DataInit<'_, State>,
) -> Option<wl_compositor::Request> {
    match request {
        wl_compositor::Request::CreateSurface { id } => {
            let domain = state.charge(client, compositor, |d| d.usage.take_surface(&d.quota))?;
            let surface: WlSurface = init.custom_init(id, Placeholder::data());
            let record = SurfaceRecord {
                domain,
                damages: 0,
                waiting_commits: 0,
            };
            state.accounts.surfaces.insert(surface.id(), record);
            Some(wl_compositor::Request::CreateSurface {
                id: New::wrap(surface),
            })
        }
        wl_compositor::Request::CreateRegion { id } => {
            let region: WlRegion = init.custom_init(id, Placeholder::data());
            state.accounts.regions.insert(region.id(), 0);
            Some(wl_compositor::Request::CreateRegion {
                id: New::wrap(region),
            })
        }
        other => Some(other),
    }
}

fn check_surface(
    state: &mut State,
    client: &Client,
    surface: &WlSurface,
    request: wl_surface::Request,
    _: &mut DataInit<'_, State>,
) -> Option<wl_surface::Request> {
    use wl_surface::Request;
    match request {
        Request::Attach { buffer, x, y } => Some(Request::Attach {
            buffer,
            x: coordinate(x),
            y: coordinate(y),
        }),
        Request::Offset { x, y } => Some(Request::Offset {
            x: coordinate(x),
            y: coordinate(y),
        }),
        Request::Damage {
            x,
            y,
            width,
            height,
        } => {
            let [x, y, width, height] = damage(state, surface, [x, y, width, height])?;
            Some(Request::Damage {
                x,
                y,
                width,
                height,
            })
        }
        Request::DamageBuffer {
            x,
            y,
            width,
            height,
        } => {
            let [x, y, width, height] = damage(state, surface, [x, y, width, height])?;
            Some(Request::DamageBuffer {
                x,
                y,
                width,
                height,
            })
        }
        Request::Frame { callback } => {
            state.charge(client, surface, |d| d.usage.take_callback(&d.quota))?;
            Some(Request::Frame { callback })
        }
        Request::SetBufferScale { scale } if scale > MAX_SCALE => {
            surface.post_error(wl_surface::Error::InvalidScale, "the scale is at most 16");
            None
        }
        Request::Commit => {
            let waits = is_sync_subsurface(surface);
            let record = state.accounts.surfaces.get_mut(&surface.id())?;
            record.damages = 0;
            record.waiting_commits = if waits { record.waiting_commits + 1 } else { 0 };
            if record.waiting_commits > MAX_WAITING_COMMITS {
                surface.post_error(2u32, "too many commits wait for the parent's commit");
                return None;
            }
            if !waits {
                state.release_waiting(surface);
            }
            Some(Request::Commit)
        }
        other => Some(other),
    }
}

/// Counts a rectangle of damage and makes it harmless.
fn damage(state: &mut State, surface: &WlSurface, untrusted: [i32; 4]) -> Option<[i32; 4]> {
    let [x, y, width, height] = untrusted;
    if width <= 0 || height <= 0 {
        return None;
    }
    let record = state.accounts.surfaces.get_mut(&surface.id())?;
    record.damages = record.damages.saturating_add(1);
    match record.damages {
        1..MAX_DAMAGES => Some([coordinate(x), coordinate(y), length(width), length(height)]),
        MAX_DAMAGES => Some([0, 0, MAX_COORDINATE, MAX_COORDINATE]),
        _ => None,
    }
}

fn check_region(
    state: &mut State,
    client: &Client,
    region: &WlRegion,
    request: wl_region::Request,
    _: &mut DataInit<'_, State>,
) -> Option<wl_region::Request> {
    use wl_region::Request;
    if let Request::Add { .. } | Request::Subtract { .. } = request {
        let count = state.accounts.regions.get(&region.id()).copied()?;
        state.charge(client, region, |d| {
            let mut count = count;
            crate::domain::take(
                &mut count,
                d.quota.rects_per_region,
                "rectangles in a region",
            )
        })?;
        state.accounts.regions.insert(region.id(), count + 1);
    }
    match request {
        Request::Add {
            x,
            y,
            width,
            height,
        } => Some(Request::Add {
            x: coordinate(x),
            y: coordinate(y),
            width: length(width),
            height: length(height),
        }),
        Request::Subtract {
            x,
            y,
            width,
            height,
        } => Some(Request::Subtract {
            x: coordinate(x),
            y: coordinate(y),
            width: length(width),
            height: length(height),
        }),
        other => Some(other),
    }
}

fn region_destroyed(state: &mut State, _: &ClientId, region: &WlRegion) {
    state.accounts.regions.remove(&region.id());
}

fn check_callback(
    _: &mut State,
    _: &Client,
    _: &WlCallback,
    request: wl_callback::Request,
    _: &mut DataInit<'_, State>,
) -> Option<wl_callback::Request> {
    Some(request)
}

fn callback_destroyed(state: &mut State, client: &ClientId, _: &WlCallback) {
    state.callback_answered(client);
}

fn check_presentation(
    state: &mut State,
    client: &Client,
    presentation: &WpPresentation,
    request: wp_presentation::Request,
    _: &mut DataInit<'_, State>,
) -> Option<wp_presentation::Request> {
    if let wp_presentation::Request::Feedback { .. } = request {
        state.charge(client, presentation, |d| d.usage.take_callback(&d.quota))?;
    }
    Some(request)
}

fn check_feedback(
    _: &mut State,
    _: &Client,
    _: &WpPresentationFeedback,
    request: wp_presentation_feedback::Request,
    _: &mut DataInit<'_, State>,
) -> Option<wp_presentation_feedback::Request> {
    Some(request)
}

fn feedback_destroyed(state: &mut State, client: &ClientId, _: &WpPresentationFeedback) {
    state.callback_answered(client);
}

impl State {
    fn callback_answered(&mut self, client: &ClientId) {
        if let Some(domain) = self.accounts.clients.get(client).copied() {
            self.refund(domain, |d| {
                d.usage.callbacks = d.usage.callbacks.saturating_sub(1)
            });
        }
    }

    /// A surface that is not synchronised commits: whatever waited below it is taken now.
    fn release_waiting(&mut self, surface: &WlSurface) {
        for child in smithay::wayland::compositor::get_children(surface) {
            // The list names the surface itself too, for its place among its children.
            if child == *surface || !is_sync_subsurface(&child) {
                continue;
            }
            if let Some(record) = self.accounts.surfaces.get_mut(&child.id()) {
                record.waiting_commits = 0;
            }
            self.release_waiting(&child);
        }
    }

    pub(crate) fn surface_destroyed(&mut self, surface: &WlSurface) {
        // Roles usually go before their surface; a client that goes away may do otherwise.
        self.window_gone(surface);
        self.popup_gone(surface);
        self.layer_gone(surface);
        self.drag_surface_gone(surface);
        if let Some(record) = self.accounts.surfaces.remove(&surface.id()) {
            self.refund(record.domain, |d| {
                d.usage.surfaces = d.usage.surfaces.saturating_sub(1);
            });
        }
        self.dirty = true;
    }
}
