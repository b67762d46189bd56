//! `wp_primary_selection`: what is selected now, pasted with the middle button.

use std::os::fd::AsFd;

use smithay::reexports::{
    wayland_protocols::wp::primary_selection::zv1::server::{
        zwp_primary_selection_device_manager_v1::{self, ZwpPrimarySelectionDeviceManagerV1},
        zwp_primary_selection_device_v1::{self, ZwpPrimarySelectionDeviceV1},
        zwp_primary_selection_offer_v1::{self, ZwpPrimarySelectionOfferV1},
        zwp_primary_selection_source_v1::{self, ZwpPrimarySelectionSourceV1},
    },
    wayland_server::{
        Client, DataInit, Dispatch, DisplayHandle, GlobalDispatch, New, Resource, backend::ClientId,
    },
};

use super::MimeTypes;
use crate::{guard::domain_of, state::State};

impl GlobalDispatch<ZwpPrimarySelectionDeviceManagerV1, ()> for State {
    fn bind(
        _: &mut Self,
        _: &DisplayHandle,
        _: &Client,
        resource: New<ZwpPrimarySelectionDeviceManagerV1>,
        (): &(),
        init: &mut DataInit<'_, Self>,
    ) {
        init.init(resource, ());
    }
}

impl Dispatch<ZwpPrimarySelectionDeviceManagerV1, ()> for State {
    fn request(
        state: &mut Self,
        client: &Client,
        _: &ZwpPrimarySelectionDeviceManagerV1,
        request: zwp_primary_selection_device_manager_v1::Request,
        (): &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        use zwp_primary_selection_device_manager_v1::Request;
        match request {
            Request::CreateSource { id } => {
                init.init(id, MimeTypes::default());
            }
            Request::GetDevice { id, .. } => {
                let device = init.init(id, ());
                state.selections.primary_devices.push(device);
                if state.has_keyboard(client) {
                    state.offer_primary(client);
                }
            }
            _ => {}
        }
    }
}

impl Dispatch<ZwpPrimarySelectionSourceV1, MimeTypes> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &ZwpPrimarySelectionSourceV1,
        request: zwp_primary_selection_source_v1::Request,
        types: &MimeTypes,
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
        if let zwp_primary_selection_source_v1::Request::Offer { mime_type } = request {
            types.add(mime_type);
        }
    }

    fn destroyed(
        state: &mut Self,
        _: ClientId,
        source: &ZwpPrimarySelectionSourceV1,
        _: &MimeTypes,
    ) {
        let domain = state
            .selections
            .boards
            .iter_mut()
            .find(|(_, board)| board.primary.as_ref() == Some(source))
            .map(|(domain, board)| {
                board.primary = None;
                *domain
            });
        if let Some(domain) = domain {
            state.primary_changed(domain);
        }
    }
}

impl Dispatch<ZwpPrimarySelectionDeviceV1, ()> for State {
    fn request(
        state: &mut Self,
        client: &Client,
        _: &ZwpPrimarySelectionDeviceV1,
        request: zwp_primary_selection_device_v1::Request,
        (): &(),
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
        let zwp_primary_selection_device_v1::Request::SetSelection { source, .. } = request else {
            return;
        };
        let allowed = state.has_keyboard(client);
        let (Some(domain), true) = (domain_of(client), allowed) else {
            if let Some(source) = source {
                source.cancelled();
            }
            return;
        };
        let old = std::mem::replace(&mut state.board(domain).primary, source.clone());
        if let Some(old) = old.filter(|old| Some(old) != source.as_ref() && old.is_alive()) {
            old.cancelled();
        }
        state.primary_changed(domain);
    }

    fn destroyed(state: &mut Self, _: ClientId, device: &ZwpPrimarySelectionDeviceV1, (): &()) {
        state.selections.primary_devices.retain(|d| d != device);
    }
}

impl Dispatch<ZwpPrimarySelectionOfferV1, ZwpPrimarySelectionSourceV1> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &ZwpPrimarySelectionOfferV1,
        request: zwp_primary_selection_offer_v1::Request,
        source: &ZwpPrimarySelectionSourceV1,
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
        if let zwp_primary_selection_offer_v1::Request::Receive { mime_type, fd } = request
            && source.is_alive()
            && source
                .data::<MimeTypes>()
                .is_some_and(|types| types.has(&mime_type))
        {
            source.send(mime_type, fd.as_fd());
        }
    }
}

impl State {
    /// Tells a client what its domain's primary selection is.
    pub(super) fn offer_primary(&mut self, client: &Client) {
        let Some(domain) = domain_of(client) else {
            return;
        };
        let source = self
            .board(domain)
            .primary
            .clone()
            .filter(Resource::is_alive);
        let own = |d: &&ZwpPrimarySelectionDeviceV1| d.client().is_some_and(|c| c == *client);
        let devices: Vec<_> = self
            .selections
            .primary_devices
            .iter()
            .filter(own)
            .cloned()
            .collect();
        for device in devices {
            let offer = source.as_ref().and_then(|source| {
                let offer = client
                    .create_resource::<ZwpPrimarySelectionOfferV1, _, Self>(
                        &self.display,
                        device.version(),
                        source.clone(),
                    )
                    .ok()?;
                device.data_offer(&offer);
                for mime in source.data::<MimeTypes>()?.list() {
                    offer.offer(mime);
                }
                Some(offer)
            });
            device.selection(offer.as_ref());
        }
    }
}
