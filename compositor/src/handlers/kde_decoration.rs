//! `org_kde_kwin_server_decoration`: what GTK 3 asks instead of `xdg-decoration`. The answer is
//! the same: the border is ours.

use smithay::reexports::{
    wayland_protocols_misc::server_decoration::server::{
        org_kde_kwin_server_decoration::{self, Mode, OrgKdeKwinServerDecoration as Decoration},
        org_kde_kwin_server_decoration_manager::{
            self, Mode as DefaultMode, OrgKdeKwinServerDecorationManager as Manager,
        },
    },
    wayland_server::{Client, DataInit, Dispatch, DisplayHandle, GlobalDispatch, New},
};

use crate::state::State;

impl GlobalDispatch<Manager, ()> for State {
    fn bind(
        _: &mut Self,
        _: &DisplayHandle,
        _: &Client,
        resource: New<Manager>,
        (): &(),
        init: &mut DataInit<'_, Self>,
    ) {
        init.init(resource, ()).default_mode(DefaultMode::Server);
    }
}

impl Dispatch<Manager, ()> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &Manager,
        request: org_kde_kwin_server_decoration_manager::Request,
        (): &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        if let org_kde_kwin_server_decoration_manager::Request::Create { id, .. } = request {
            init.init(id, ()).mode(Mode::Server);
        }
    }
}

impl Dispatch<Decoration, ()> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        decoration: &Decoration,
        request: org_kde_kwin_server_decoration::Request,
        (): &(),
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
        if let org_kde_kwin_server_decoration::Request::RequestMode { .. } = request {
            decoration.mode(Mode::Server);
        }
    }
}
