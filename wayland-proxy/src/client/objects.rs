//! The two tables of objects of one application, and how their ids belong together.
//!
//! The application and the host name the same object by different ids: the proxy has objects of
//! its own on the host's side (the pool of a picture, a second registry), and answers for some of
//! the application's objects itself (its pools and buffers), which the host never hears of.

use std::collections::HashMap;

use wayland_backend::protocol::Interface;

use crate::wire::SERVER_ID_START;

/// `wl_display` on both sides.
pub const DISPLAY_ID: u32 = 1;

/// Objects of one application at a time.
const MAX_OBJECTS: usize = 100_000;

/// What the proxy itself knows about an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `wl_display`.
    Display,
    /// `wl_registry`.
    Registry,
    /// `wl_shm`, answered here.
    Shm,
    /// `wl_shm_pool`, answered here.
    ShmPool,
    /// `wl_buffer`, answered here unless the host has it too.
    Buffer,
    /// `wl_surface`.
    Surface,
    /// `wl_subcompositor`.
    Subcompositor,
    /// `wp_viewporter`.
    Viewporter,
    /// `wl_callback`.
    Callback,
    /// `wl_keyboard`.
    Keyboard,
    /// `wl_data_source` and its primary-selection sister.
    DataSource,
    /// `wl_data_offer` and its primary-selection sister.
    DataOffer,
    /// Relayed by its signature alone.
    Other,
}

impl Role {
    fn of(interface: &Interface) -> Self {
        match interface.name {
            "wl_display" => Self::Display,
            "wl_registry" => Self::Registry,
            "wl_shm" => Self::Shm,
            "wl_shm_pool" => Self::ShmPool,
            "wl_buffer" => Self::Buffer,
            "wl_surface" => Self::Surface,
            "wl_subcompositor" => Self::Subcompositor,
            "wp_viewporter" => Self::Viewporter,
            "wl_callback" => Self::Callback,
            "wl_keyboard" => Self::Keyboard,
            "wl_data_source" | "zwp_primary_selection_source_v1" => Self::DataSource,
            "wl_data_offer" | "zwp_primary_selection_offer_v1" => Self::DataOffer,
            _ => Self::Other,
        }
    }
}

/// An object as the application knows it.
#[derive(Clone, Copy, Debug)]
pub struct ClientObject {
    /// Its generated table.
    pub interface: &'static Interface,
    /// The version it was bound with.
    pub version: u32,
    /// What the proxy knows about it.
    pub role: Role,
    /// Its id on the host; `None` when the host does not have it.
    pub host: Option<u32>,
    /// The application destroyed it and waits for the id to come back.
    pub destroyed: bool,
}

impl ClientObject {
    /// A living object.
    pub fn new(interface: &'static Interface, version: u32, host: Option<u32>) -> Self {
        Self {
            interface,
            version,
            role: Role::of(interface),
            host,
            destroyed: false,
        }
    }
}

/// An object that the proxy made for itself on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnObject {
    /// Where the proxy learns what the host offers.
    Registry,
    /// Its `done` tells that everything the host offers is known.
    SetupDone,
    /// The host's `wl_shm`.
    Shm,
    /// The pool of a blob.
    Pool,
    /// The buffer of a blob.
    Buffer,
}

/// Whose an object of the host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counterpart {
    /// The application's, under this id.
    Client(u32),
    /// The proxy's own.
    Own(OwnObject),
    /// Nobody's any more, but the host may still send events for it.
    Dead,
}

/// An object as the host knows it.
#[derive(Clone, Copy, Debug)]
pub struct HostObject {
    /// Its generated table.
    pub interface: &'static Interface,
    /// Its version.
    pub version: u32,
    /// Whose it is.
    pub counterpart: Counterpart,
}

/// Why an id from the application cannot name a new object.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdError {
    /// Used already, or out of order.
    #[error("{0} cannot be the id of a new object")]
    Invalid(u32),
    /// Too many objects.
    #[error("an application may have {MAX_OBJECTS} objects")]
    TooMany,
}

/// Both tables.
#[derive(Debug)]
pub struct Objects {
    /// By the application's ids below [`SERVER_ID_START`].
    client: Vec<Option<ClientObject>>,
    /// By the application's ids from [`SERVER_ID_START`] on, which the proxy hands out.
    client_offered: Vec<Option<ClientObject>>,
    free_offered: Vec<u32>,
    /// By the host's ids below [`SERVER_ID_START`], which the proxy hands out without gaps.
    host: Vec<Option<HostObject>>,
    free_host: Vec<u32>,
    /// By the host's ids from [`SERVER_ID_START`] on.
    host_offered: HashMap<u32, HostObject>,
}

impl Objects {
    /// The two displays and nothing else.
    pub fn new(display: &'static Interface) -> Self {
        let counterpart = Counterpart::Client(DISPLAY_ID);
        Self {
            client: vec![None, Some(ClientObject::new(display, 1, Some(DISPLAY_ID)))],
            client_offered: Vec::new(),
            free_offered: Vec::new(),
            host: vec![
                None,
                Some(HostObject {
                    interface: display,
                    version: 1,
                    counterpart,
                }),
            ],
            free_host: Vec::new(),
            host_offered: HashMap::new(),
        }
    }

    fn client_slot(&mut self, id: u32) -> Option<&mut Option<ClientObject>> {
        match id.checked_sub(SERVER_ID_START) {
            Some(index) => self.client_offered.get_mut(index as usize),
            None => self.client.get_mut(id as usize),
        }
    }

    /// The application's object, destroyed or not.
    pub fn client(&self, id: u32) -> Option<&ClientObject> {
        match id.checked_sub(SERVER_ID_START) {
            Some(index) => self.client_offered.get(index as usize)?.as_ref(),
            None => self.client.get(id as usize)?.as_ref(),
        }
    }

    /// The host's object.
    pub fn host(&self, id: u32) -> Option<&HostObject> {
        if id >= SERVER_ID_START {
            return self.host_offered.get(&id);
        }
        self.host.get(id as usize)?.as_ref()
    }

    /// Whether the application may make an object with this id: its own range, unused, no gaps.
    pub fn check_new(&self, untrusted_id: u32) -> Result<(), IdError> {
        if untrusted_id >= SERVER_ID_START || untrusted_id as usize > self.client.len() {
            return Err(IdError::Invalid(untrusted_id));
        }
        if self.client(untrusted_id).is_some() || untrusted_id == 0 {
            return Err(IdError::Invalid(untrusted_id));
        }
        if self.client.len() >= MAX_OBJECTS {
            return Err(IdError::TooMany);
        }
        Ok(())
    }

    /// Adds an object under an id that [`Objects::check_new`] accepted.
    pub fn add_client(&mut self, id: u32, object: ClientObject) -> Result<(), IdError> {
        self.check_new(id)?;
        if id as usize == self.client.len() {
            self.client.push(None);
        }
        *self.client_slot(id).ok_or(IdError::Invalid(id))? = Some(object);
        Ok(())
    }

    /// Adds an object that the host made; gives the application's id for it.
    pub fn add_offered(&mut self, object: ClientObject) -> Result<u32, IdError> {
        if let Some(id) = self.free_offered.pop() {
            if let Some(slot) = self.client_slot(id) {
                *slot = Some(object);
            }
            return Ok(id);
        }
        if self.client_offered.len() >= MAX_OBJECTS {
            return Err(IdError::TooMany);
        }
        self.client_offered.push(Some(object));
        Ok(SERVER_ID_START + (self.client_offered.len() - 1) as u32)
    }

    /// The application destroyed an object of its own range: the id stays taken until the host
    /// gives it back.
    pub fn mark_destroyed(&mut self, id: u32) {
        if let Some(Some(object)) = self.client_slot(id) {
            object.destroyed = true;
        }
    }

    /// The application's id is free again.
    pub fn remove_client(&mut self, id: u32) {
        if let Some(slot) = self.client_slot(id)
            && slot.take().is_some()
            && id >= SERVER_ID_START
        {
            self.free_offered.push(id);
        }
    }

    /// Adds an object to the host's side and gives its id. The next message has to make it: the
    /// host expects new ids without gaps.
    pub fn add_host(&mut self, object: HostObject) -> u32 {
        if let Some(id) = self.free_host.pop()
            && let Some(slot) = self.host.get_mut(id as usize)
        {
            *slot = Some(object);
            return id;
        }
        self.host.push(Some(object));
        (self.host.len() - 1) as u32
    }

    /// Tells whose a host object is, when the application's id is only known after its own.
    pub fn set_counterpart(&mut self, id: u32, counterpart: Counterpart) {
        let slot = match id >= SERVER_ID_START {
            true => self.host_offered.get_mut(&id),
            false => self.host.get_mut(id as usize).and_then(Option::as_mut),
        };
        if let Some(object) = slot {
            object.counterpart = counterpart;
        }
    }

    /// The host made an object. `false` when the id is not the host's to give.
    #[must_use]
    pub fn add_host_offered(&mut self, id: u32, object: HostObject) -> bool {
        if id < SERVER_ID_START || self.host_offered.len() >= MAX_OBJECTS {
            return false;
        }
        self.host_offered.insert(id, object);
        true
    }

    /// The host gave an id back.
    pub fn remove_host(&mut self, id: u32) -> Option<HostObject> {
        let object = self.host.get_mut(id as usize)?.take()?;
        self.free_host.push(id);
        Some(object)
    }

    /// All living objects of a role, with the application's ids.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = (u32, &ClientObject)> {
        let all = self.client.iter().enumerate();
        let objects = all.filter_map(|(id, object)| Some((id as u32, object.as_ref()?)));
        objects.filter(move |(_, object)| object.role == role && !object.destroyed)
    }
}
