//! Clipboard, primary selection and drag-and-drop, each within one domain.
//!
//! Our own, because smithay shows a selection to whichever client has the keyboard and has no
//! place to refuse. Here every domain has a clipboard of its own: what is copied in one domain is
//! pasted only in that domain, and copying in another one changes nothing there. The data itself
//! goes from client to client through a pipe; the compositor reads it only when the user moves it
//! to another domain ([`crossing`]).

mod crossing;
mod drag;
mod dragging;
mod pipe;
mod primary;
mod protocol;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

pub use crossing::CrossingLimits;
pub(crate) use crossing::Ends;
use crossing::{Crossing, Parcel};
pub(crate) use drag::Drag;
use dragging::Dragging;
pub(crate) use dragging::{Decision, Light};
use smithay::reexports::{
    wayland_protocols::wp::primary_selection::zv1::server::{
        zwp_primary_selection_device_v1::ZwpPrimarySelectionDeviceV1,
        zwp_primary_selection_source_v1::ZwpPrimarySelectionSourceV1,
    },
    wayland_server::{
        Client, Resource,
        protocol::{wl_data_device::WlDataDevice, wl_data_source::WlDataSource},
    },
};

use crate::{domain::DomainId, guard::domain_of, state::State};

/// A source offers at most this many types of data…
const MAX_MIME_TYPES: usize = 128;
/// … each with a name of at most this length.
const MAX_MIME_BYTES: usize = 256;

/// The types of data that a source offers.
#[derive(Debug, Default)]
pub struct MimeTypes(Mutex<Vec<String>>);

impl MimeTypes {
    /// Adds a type; what is too much is left out.
    fn add(&self, untrusted_mime: String) {
        let Ok(mut types) = self.0.lock() else { return };
        if types.len() < MAX_MIME_TYPES
            && untrusted_mime.len() <= MAX_MIME_BYTES
            && !types.contains(&untrusted_mime)
        {
            types.push(untrusted_mime);
        }
    }

    fn list(&self) -> Vec<String> {
        self.0.lock().map(|types| types.clone()).unwrap_or_default()
    }

    fn has(&self, mime: &str) -> bool {
        self.0
            .lock()
            .is_ok_and(|types| types.iter().any(|t| t == mime))
    }
}

/// What a clipboard holds.
#[derive(Clone, Debug)]
enum Clip {
    /// A client of the domain has it.
    Own(WlDataSource),
    /// It came from another domain, and is kept here until something is copied in this one.
    Pasted(Arc<Parcel>),
}

impl Clip {
    fn is_alive(&self) -> bool {
        match self {
            Self::Own(source) => source.is_alive(),
            Self::Pasted(_) => true,
        }
    }

    fn is_of(&self, source: &WlDataSource) -> bool {
        matches!(self, Self::Own(own) if own == source)
    }
}

/// What one domain has copied.
#[derive(Debug, Default)]
struct Board {
    clipboard: Option<Clip>,
    primary: Option<ZwpPrimarySelectionSourceV1>,
}

/// All domains' clipboards, and the devices through which clients hear of them.
#[derive(Debug, Default)]
pub struct Selections {
    boards: HashMap<DomainId, Board>,
    devices: Vec<WlDataDevice>,
    primary_devices: Vec<ZwpPrimarySelectionDeviceV1>,
    crossing: Crossing,
    dragging: Dragging,
}

impl Selections {
    /// Nothing is copied anywhere.
    pub fn new(limits: CrossingLimits) -> Self {
        Self {
            crossing: Crossing::with_limits(limits),
            dragging: Dragging::with_limits(limits),
            ..Self::default()
        }
    }

    fn devices_of(&self, client: &Client) -> Vec<WlDataDevice> {
        let own = |d: &&WlDataDevice| d.client().is_some_and(|c| c == *client);
        self.devices.iter().filter(own).cloned().collect()
    }
}

impl State {
    /// A domain is gone, and what it copied, and what was pasted into it.
    pub(crate) fn forget_selections(&mut self, domain: DomainId) {
        self.selections.boards.remove(&domain);
        self.stop_serving_domain(domain);
        self.stop_redrawing_for(domain);
        self.end_drops_of(domain);
    }

    /// The client that has the keyboard.
    fn keyboard_client(&self) -> Option<Client> {
        self.seat.get_keyboard()?.current_focus()?.client()
    }

    fn has_keyboard(&self, client: &Client) -> bool {
        self.keyboard_client()
            .is_some_and(|focused| focused == *client)
    }

    /// The keyboard went to a client (or to none): it hears what its own domain has copied.
    pub(crate) fn offer_selections_to(&mut self, client: Option<Client>) {
        if let Some(client) = client {
            self.offer_clipboard(&client);
            self.offer_primary(&client);
        }
    }

    /// A domain's clipboard changed; its client with the keyboard hears of it.
    fn clipboard_changed(&mut self, domain: DomainId) {
        if let Some(client) = self
            .keyboard_client()
            .filter(|c| domain_of(c) == Some(domain))
        {
            self.offer_clipboard(&client);
        }
    }

    fn primary_changed(&mut self, domain: DomainId) {
        if let Some(client) = self
            .keyboard_client()
            .filter(|c| domain_of(c) == Some(domain))
        {
            self.offer_primary(&client);
        }
    }

    fn board(&mut self, domain: DomainId) -> &mut Board {
        self.selections.boards.entry(domain).or_default()
    }
}
