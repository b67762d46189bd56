//! `xdg-decoration`: the answer is always "server side"; a guest never draws its own border.

use smithay::reexports::{
    wayland_protocols::xdg::decoration::zv1::server::{
        zxdg_decoration_manager_v1::{self, ZxdgDecorationManagerV1},
        zxdg_toplevel_decoration_v1::{self, Mode, ZxdgToplevelDecorationV1},
    },
    wayland_protocols::xdg::shell::server::xdg_toplevel::XdgToplevel,
    wayland_server::{
        Client, DataInit, Dispatch, DisplayHandle, GlobalDispatch, New, Resource, Weak,
    },
};

use crate::state::State;

/// The toplevel that a decoration object is about.
#[derive(Debug)]
pub struct Decorated(Weak<XdgToplevel>);

impl GlobalDispatch<ZxdgDecorationManagerV1, ()> for State {
    fn bind(
        _: &mut Self,
        _: &DisplayHandle,
        _: &Client,
        resource: New<ZxdgDecorationManagerV1>,
        (): &(),
        init: &mut DataInit<'_, Self>,
    ) {
        init.init(resource, ());
    }
}

impl Dispatch<ZxdgDecorationManagerV1, ()> for State {
    fn request(
        state: &mut Self,
        _: &Client,
        _: &ZxdgDecorationManagerV1,
        request: zxdg_decoration_manager_v1::Request,
        (): &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        if let zxdg_decoration_manager_v1::Request::GetToplevelDecoration { id, toplevel } = request
        {
            let decoration = init.init(id, Decorated(toplevel.downgrade()));
            state.answer_decoration(&decoration, &toplevel);
        }
    }
}

impl Dispatch<ZxdgToplevelDecorationV1, Decorated> for State {
    fn request(
        state: &mut Self,
        _: &Client,
        decoration: &ZxdgToplevelDecorationV1,
        request: zxdg_toplevel_decoration_v1::Request,
        data: &Decorated,
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
        use zxdg_toplevel_decoration_v1::Request;
        if let Request::SetMode { .. } | Request::UnsetMode = request
            && let Ok(toplevel) = data.0.upgrade()
        {
            state.answer_decoration(decoration, &toplevel);
        }
    }
}

impl State {
    fn answer_decoration(&mut self, decoration: &ZxdgToplevelDecorationV1, toplevel: &XdgToplevel) {
        decoration.configure(Mode::ServerSide);
        // The mode takes effect with the next configure of the surface.
        let window = self
            .shell
            .windows
            .values()
            .find(|w| w.toplevel.xdg_toplevel() == toplevel);
        if let Some(window) = window.filter(|w| w.toplevel.is_initial_configure_sent()) {
            window.toplevel.send_configure();
        }
    }
}
