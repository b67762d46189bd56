//! `xdg-activation`: applications use it to raise each other. Tokens are given to whoever asks, as
//! the protocol wants, and mean nothing: only the user raises windows.

use smithay::reexports::{
    wayland_protocols::xdg::activation::v1::server::{
        xdg_activation_token_v1::{self, XdgActivationTokenV1},
        xdg_activation_v1::{self, XdgActivationV1},
    },
    wayland_server::{Client, DataInit, Dispatch, DisplayHandle, GlobalDispatch, New},
};

use crate::state::State;

impl GlobalDispatch<XdgActivationV1, ()> for State {
    fn bind(
        _: &mut Self,
        _: &DisplayHandle,
        _: &Client,
        resource: New<XdgActivationV1>,
        (): &(),
        init: &mut DataInit<'_, Self>,
    ) {
        init.init(resource, ());
    }
}

impl Dispatch<XdgActivationV1, ()> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &XdgActivationV1,
        request: xdg_activation_v1::Request,
        (): &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        if let xdg_activation_v1::Request::GetActivationToken { id } = request {
            init.init(id, ());
        }
    }
}

impl Dispatch<XdgActivationTokenV1, ()> for State {
    fn request(
        state: &mut Self,
        _: &Client,
        token: &XdgActivationTokenV1,
        request: xdg_activation_token_v1::Request,
        (): &(),
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
        if let xdg_activation_token_v1::Request::Commit = request {
            state.activation_tokens = state.activation_tokens.wrapping_add(1);
            token.done(format!("bulkhead-{}", state.activation_tokens));
        }
    }
}
