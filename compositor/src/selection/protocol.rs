//! `wl_data_device_manager`: the clipboard, and the objects that drags use.

use std::{
    os::fd::AsFd,
    sync::{Arc, Mutex, Weak},
};

use smithay::reexports::wayland_server::{
    Client, DataInit, Dispatch, DisplayHandle, GlobalDispatch, New, Resource,
    backend::ClientId,
    protocol::{
        wl_data_device::{self, WlDataDevice},
        wl_data_device_manager::{self, DndAction, WlDataDeviceManager},
        wl_data_offer::{self, WlDataOffer},
        wl_data_source::{self, WlDataSource},
    },
};

use super::{Clip, MimeTypes, crossing::Parcel};
use crate::{guard::domain_of, state::State};

/// A source's data.
#[derive(Debug, Default)]
pub struct SourceData {
    pub(super) types: MimeTypes,
    pub(super) actions: Mutex<Option<DndAction>>,
}

/// An offer's data: where it comes from, and, for drags, what was agreed.
#[derive(Debug)]
pub struct OfferData {
    pub(super) source: Option<WlDataSource>,
    /// What came from another domain. An old offer must not keep it.
    pub(super) pasted: Weak<Parcel>,
    pub(super) drag: Option<Mutex<Agreement>>,
}

/// What target and source of a drag agreed on so far.
#[derive(Debug, Default)]
pub struct Agreement {
    pub(super) accepted: bool,
    pub(super) action: Option<DndAction>,
    pub(super) dropped: bool,
}

impl GlobalDispatch<WlDataDeviceManager, ()> for State {
    fn bind(
        _: &mut Self,
        _: &DisplayHandle,
        _: &Client,
        resource: New<WlDataDeviceManager>,
        (): &(),
        init: &mut DataInit<'_, Self>,
    ) {
        init.init(resource, ());
    }
}

impl Dispatch<WlDataDeviceManager, ()> for State {
    fn request(
        state: &mut Self,
        client: &Client,
        _: &WlDataDeviceManager,
        request: wl_data_device_manager::Request,
        (): &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        use wl_data_device_manager::Request;
        match request {
            Request::CreateDataSource { id } => {
                init.init(id, SourceData::default());
            }
            Request::GetDataDevice { id, .. } => {
                let device = init.init(id, ());
                state.selections.devices.push(device);
                if state.has_keyboard(client) {
                    state.offer_clipboard(client);
                }
            }
            _ => {}
        }
    }
}

impl Dispatch<WlDataSource, SourceData> for State {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &WlDataSource,
        request: wl_data_source::Request,
        data: &SourceData,
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
        use wl_data_source::Request;
        match request {
            Request::Offer { mime_type } => data.types.add(mime_type),
            Request::SetActions { dnd_actions } => {
                if let (Ok(mut actions), Ok(known)) =
                    (data.actions.lock(), dnd_actions.into_result())
                {
                    *actions = Some(known);
                }
            }
            _ => {}
        }
    }

    fn destroyed(state: &mut Self, _: ClientId, source: &WlDataSource, _: &SourceData) {
        let domain = state
            .selections
            .boards
            .iter_mut()
            .find(|(_, board)| board.clipboard.as_ref().is_some_and(|c| c.is_of(source)))
            .map(|(domain, board)| {
                board.clipboard = None;
                *domain
            });
        if let Some(domain) = domain {
            state.clipboard_changed(domain);
        }
        state.drag_source_gone(source);
    }
}

impl Dispatch<WlDataDevice, ()> for State {
    fn request(
        state: &mut Self,
        client: &Client,
        _: &WlDataDevice,
        request: wl_data_device::Request,
        (): &(),
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
        use wl_data_device::Request;
        match request {
            Request::SetSelection { source, .. } => state.set_clipboard(client, source),
            Request::StartDrag {
                source,
                origin,
                icon,
                serial,
            } => {
                state.start_drag(client, source, &origin, icon, serial.into());
            }
            _ => {}
        }
    }

    fn destroyed(state: &mut Self, _: ClientId, device: &WlDataDevice, (): &()) {
        state.selections.devices.retain(|d| d != device);
    }
}

impl Dispatch<WlDataOffer, OfferData> for State {
    fn request(
        state: &mut Self,
        client: &Client,
        offer: &WlDataOffer,
        request: wl_data_offer::Request,
        data: &OfferData,
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
        use wl_data_offer::Request;
        match request {
            Request::Receive { mime_type, fd } => {
                if let Some(pasted) = data.pasted.upgrade() {
                    let known = pasted.kind().types().any(|known| known == mime_type);
                    if let Some(domain) = domain_of(client).filter(|_| known) {
                        state.serve_pasted(domain, pasted.under(&mime_type), fd);
                    }
                    return;
                }
                // A source that is gone, or a type that it never offered: the pipe just closes.
                let source = data.source.as_ref().filter(|s| s.is_alive());
                if let Some(source) = source
                    && source
                        .data::<SourceData>()
                        .is_some_and(|source| source.types.has(&mime_type))
                {
                    source.send(mime_type, fd.as_fd());
                }
            }
            Request::Accept { mime_type, .. } => state.drag_accepted(data, mime_type),
            Request::SetActions {
                dnd_actions,
                preferred_action,
            } => {
                let actions = dnd_actions.into_result().unwrap_or(DndAction::empty());
                let preferred = preferred_action.into_result().unwrap_or(DndAction::empty());
                state.drag_actions(offer, data, actions, preferred);
            }
            Request::Finish => state.drag_finished(offer, data),
            _ => {}
        }
    }

    fn destroyed(state: &mut Self, _: ClientId, _: &WlDataOffer, data: &OfferData) {
        state.drag_offer_gone(data);
    }
}

impl State {
    fn set_clipboard(&mut self, client: &Client, source: Option<WlDataSource>) {
        let allowed = self.has_keyboard(client);
        let (Some(domain), true) = (domain_of(client), allowed) else {
            // Only who has the keyboard may copy; else a guest could replace what the user copied.
            if let Some(source) = source {
                source.cancelled();
            }
            return;
        };
        let new = source.clone().map(Clip::Own);
        let old = std::mem::replace(&mut self.board(domain).clipboard, new);
        if let Some(Clip::Own(old)) = old
            && Some(&old) != source.as_ref()
            && old.is_alive()
        {
            old.cancelled();
        }
        self.clipboard_changed(domain);
    }

    /// Tells a client what its domain's clipboard holds.
    pub(super) fn offer_clipboard(&mut self, client: &Client) {
        let Some(domain) = domain_of(client) else {
            return;
        };
        let clip = self.board(domain).clipboard.clone().filter(Clip::is_alive);
        for device in self.selections.devices_of(client) {
            let offer = clip
                .as_ref()
                .and_then(|clip| self.offer(client, &device, clip));
            device.selection(offer.as_ref());
        }
    }

    fn offer(&self, client: &Client, device: &WlDataDevice, clip: &Clip) -> Option<WlDataOffer> {
        let (types, data) = match clip {
            Clip::Own(source) => (
                source.data::<SourceData>()?.types.list(),
                OfferData {
                    source: Some(source.clone()),
                    pasted: Weak::new(),
                    drag: None,
                },
            ),
            Clip::Pasted(parcel) => (
                parcel.kind().types().map(str::to_owned).collect(),
                OfferData {
                    source: None,
                    pasted: Arc::downgrade(parcel),
                    drag: None,
                },
            ),
        };
        self.announce_offer(client, device, types, data)
    }

    /// Creates an offer and tells its types.
    pub(super) fn announce_offer(
        &self,
        client: &Client,
        device: &WlDataDevice,
        types: Vec<String>,
        data: OfferData,
    ) -> Option<WlDataOffer> {
        let dh = &self.display;
        let offer = client.create_resource::<WlDataOffer, _, Self>(dh, device.version(), data);
        let offer = offer.ok()?;
        device.data_offer(&offer);
        for mime in types {
            offer.offer(mime);
        }
        Some(offer)
    }
}
