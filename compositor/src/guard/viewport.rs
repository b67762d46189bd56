//! `wp_viewporter`: sizes that arithmetic and renderers can bear.

use smithay::{
    reexports::{
        wayland_protocols::wp::viewporter::server::{
            wp_viewport::{self, WpViewport},
            wp_viewporter::{self, WpViewporter},
        },
        wayland_server::{Client, DataInit, Resource, delegate_global_dispatch},
    },
    wayland::viewporter::{ViewportState, ViewporterState},
};

use super::guarded;
use crate::{layout::MAX_SIZE_PX, state::State};

delegate_global_dispatch!(State: [WpViewporter: ()] => ViewporterState);
guarded!(WpViewporter, () => ViewporterState, check_viewporter);
guarded!(WpViewport, ViewportState => ViewportState, check_viewport);

fn check_viewporter(
    _: &mut State,
    _: &Client,
    _: &WpViewporter,
    request: wp_viewporter::Request,
    _: &mut DataInit<'_, State>,
) -> Option<wp_viewporter::Request> {
    Some(request)
}

fn check_viewport(
    _: &mut State,
    _: &Client,
    viewport: &WpViewport,
    request: wp_viewport::Request,
    _: &mut DataInit<'_, State>,
) -> Option<wp_viewport::Request> {
    use wp_viewport::Request;
    let too_large = match &request {
        Request::SetDestination { width, height } => width.max(height) > &MAX_SIZE_PX,
        Request::SetSource {
            x,
            y,
            width,
            height,
        } => {
            let limit = f64::from(MAX_SIZE_PX) * 4.0;
            [x, y, width, height].into_iter().any(|v| *v > limit)
        }
        _ => false,
    };
    if too_large {
        viewport.post_error(wp_viewport::Error::BadValue, "larger than any output");
        return None;
    }
    Some(request)
}
