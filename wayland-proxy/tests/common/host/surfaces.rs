//! Surfaces, what they are, and when they have been shown.

use super::*;

impl Dispatch<wl_compositor::WlCompositor, ()> for State {
    fn request(
        state: &mut Self,
        _: &Client,
        _: &wl_compositor::WlCompositor,
        request: wl_compositor::Request,
        _: &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        match request {
            wl_compositor::Request::CreateSurface { id } => {
                let surface = init.init(id, ());
                state.surfaces.push(surface);
            }
            wl_compositor::Request::CreateRegion { id } => drop(init.init(id, ())),
            _ => {}
        }
    }
}

impl Dispatch<wl_callback::WlCallback, ()> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &wl_callback::WlCallback,
        _: wl_callback::Request,
        _: &(),
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
    }
}

impl Dispatch<wl_subcompositor::WlSubcompositor, ()> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &wl_subcompositor::WlSubcompositor,
        request: wl_subcompositor::Request,
        _: &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        if let wl_subcompositor::Request::GetSubsurface { id, .. } = request {
            init.init(id, ());
        }
    }
}

impl Dispatch<wl_surface::WlSurface, ()> for State {
    fn request(
        state: &mut Self,
        _: &Client,
        surface: &wl_surface::WlSurface,
        request: wl_surface::Request,
        _: &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        match request {
            wl_surface::Request::Attach { buffer, .. } => {
                state.pending.insert(surface.id(), buffer);
            }
            wl_surface::Request::Frame { callback } => {
                let callback = init.init(callback, ());
                state.callbacks.push(callback);
            }
            wl_surface::Request::Commit => {
                state.log.push("wl_surface.commit".into());
                state
                    .callbacks
                    .drain(..)
                    .for_each(|callback| callback.done(0));
                let Some(attached) = state.pending.remove(&surface.id()) else {
                    return;
                };
                let old = match &attached {
                    Some(buffer) => state.current.insert(surface.id(), buffer.clone()),
                    None => state.current.remove(&surface.id()),
                };
                if let Some(buffer) = &attached {
                    state.take_picture(surface, buffer);
                }
                match state.release {
                    Release::Replaced => old.iter().for_each(wl_buffer::WlBuffer::release),
                    Release::ByAnother => old
                        .iter()
                        .filter(|old| Some(*old) != attached.as_ref())
                        .for_each(wl_buffer::WlBuffer::release),
                    Release::Immediately => attached.iter().for_each(wl_buffer::WlBuffer::release),
                    Release::Held => state.held.extend(attached),
                }
            }
            wl_surface::Request::Destroy => {
                state.log.push("wl_surface.destroy".into());
                state.pending.remove(&surface.id());
                if let Some(buffer) = state.current.remove(&surface.id()) {
                    buffer.release();
                }
            }
            _ => {}
        }
    }
}

impl Dispatch<xdg_wm_base::XdgWmBase, ()> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &xdg_wm_base::XdgWmBase,
        request: xdg_wm_base::Request,
        _: &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        if let xdg_wm_base::Request::GetXdgSurface { id, .. } = request {
            init.init(id, ());
        }
    }
}

impl Dispatch<xdg_surface::XdgSurface, ()> for State {
    fn request(
        state: &mut Self,
        _: &Client,
        surface: &xdg_surface::XdgSurface,
        request: xdg_surface::Request,
        _: &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        match request {
            xdg_surface::Request::GetToplevel { id } => {
                let toplevel = init.init(id, ());
                toplevel.configure(640, 480, vec![4, 0, 0, 0]);
                surface.configure(77);
            }
            other => state.log.push(format!("xdg_surface: {other:?}")),
        }
    }
}
