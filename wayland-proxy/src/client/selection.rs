//! Copy, paste and drop.
//!
//! An application that receives an offer passes a descriptor for the data to be written to. Two
//! ways lead from the source to it. Through the host: a pipe there, whose data comes and goes over
//! the channel. And the short one, when source and receiver are both applications of this proxy:
//! the descriptor itself is handed from the one to the other, and not a byte leaves the guest.
//!
//! To recognize the short way, every source is given one more type, a marker that names it with a
//! secret of this process. The marker of an offer is kept from the application. Which application
//! may see an offer at all stays the host's decision.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use super::objects::ClientObject;
use super::{Client, ClientError};
use crate::channel::{HostDescriptor, OutFd};
use crate::shared::{Paste, SourceKey};
use crate::stats::Stats;

/// `wl_data_source.offer`, and the same of the primary selection.
const OFFER: u16 = 0;
/// `wl_data_source.send` and `zwp_primary_selection_source_v1.send`.
fn send_opcode(object: &ClientObject) -> u16 {
    let name = |desc: &wayland_backend::protocol::MessageDesc| desc.name == "send";
    object
        .interface
        .events
        .iter()
        .position(name)
        .unwrap_or_default() as u16
}

/// What is known of an application's sources and offers.
#[derive(Debug, Default)]
pub struct Selections {
    sources: HashMap<u32, SourceKey>,
    /// Which source of this process an offer stands for.
    offers: HashMap<u32, SourceKey>,
}

impl Client {
    /// The application made a source: it gets its marker.
    pub(super) fn add_source(&mut self, id: u32, host: u32) -> Result<(), ClientError> {
        let serial = self.shared.next_key();
        let source = SourceKey {
            client: self.key,
            object: id,
            serial,
        };
        let marker = self.shared.pastes.add(source);
        self.selection.sources.insert(id, source);
        self.send_host(host, OFFER, |m| m.string(Some(marker.as_bytes())))
    }

    /// The source is destroyed or replaced.
    pub(super) fn forget_source(&mut self, id: u32) {
        if let Some(source) = self.selection.sources.remove(&id) {
            self.shared.pastes.remove(source);
        }
    }

    /// Takes note of an offer's marker. `false` for any other type.
    pub(super) fn is_marker(&mut self, id: u32, mime: &[u8]) -> bool {
        let marker = self.shared.pastes.is_marker(mime);
        if marker && let Some(source) = self.shared.pastes.find(mime) {
            self.selection.offers.insert(id, source);
        }
        marker
    }

    /// The application destroyed an offer.
    pub(super) fn forget_offer(&mut self, id: u32) {
        self.selection.offers.remove(&id);
    }

    /// The application wants an offer's data written to its descriptor.
    pub(super) fn receive_offer(
        &mut self,
        id: u32,
        object: ClientObject,
        opcode: u16,
        mime: &[u8],
        fd: OwnedFd,
    ) -> Result<(), ClientError> {
        let local = self.selection.offers.get(&id).copied();
        if let Some(source) = local.filter(|source| self.shared.pastes.is_living(*source)) {
            Stats::add(&self.shared.stats.local_pastes, 1);
            self.shared.pastes.push(Paste {
                source,
                mime: mime.to_vec(),
                fd,
            });
            return Ok(());
        }
        let Some(host) = object.host else {
            return Ok(());
        };
        if !self.pipes.has_room() {
            // Closing the descriptor tells the application that there is no data.
            tracing::warn!("an application pastes too much at once");
            return Ok(());
        }
        let pipe = self.channel.open_read_pipe();
        self.pipes.add_sink(pipe, fd);
        let start = self.to_host.bytes().len();
        self.to_host.push_fd(start, OutFd::ReadPipe(pipe));
        self.send_host(host, opcode, |m| m.string(Some(mime)))
    }

    /// The host wants a source's data written to its pipe.
    pub(super) fn send_source(
        &mut self,
        id: u32,
        opcode: u16,
        mime: &[u8],
        descriptor: HostDescriptor,
    ) -> Result<(), ClientError> {
        let HostDescriptor::WritePipe(pipe) = descriptor else {
            tracing::warn!("dropped a request for data: its descriptor is not a pipe");
            return Ok(());
        };
        if !self.pipes.has_room() || self.shared.pastes.is_marker(mime) {
            return self.close_host_pipe(pipe);
        }
        let file = self.pipes.add_source(pipe).map_err(ClientError::Socket)?;
        self.ask_source(id, opcode, mime, file)
    }

    /// Another application of this process pastes from a source of this one.
    pub fn paste(&mut self, paste: Paste) -> Result<(), ClientError> {
        let Paste { source, mime, fd } = paste;
        let object = self
            .objects
            .client(source.object)
            .filter(|o| !o.destroyed)
            .copied();
        let current = self.selection.sources.get(&source.object) == Some(&source);
        // Otherwise the descriptor is closed: the pasting application sees the end at once.
        if let Some(object) = object.filter(|_| current) {
            self.ask_source(source.object, send_opcode(&object), &mime, fd)?;
        }
        self.flush()
    }

    /// Tells the application to write a source's data to a descriptor.
    fn ask_source(
        &mut self,
        id: u32,
        opcode: u16,
        mime: &[u8],
        file: OwnedFd,
    ) -> Result<(), ClientError> {
        let start = self.to_client.bytes().len();
        self.to_client.push_fd(start, file);
        self.send_client(id, opcode, |m| m.string(Some(mime)))
    }
}
