//! What the manager may ask: one JSON object a packet, descriptors on the same packet, one answer a
//! packet. `{"ok":true}` and what was asked for, or `{"ok":false,"error":"…"}`.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use bulkhead_mac::Mac;
use bulkhead_ring::{Broken, MapError, Memory};
use rustix::net::{AddressFamily, SocketType, getpeername, sockopt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::link::Link;
use crate::packets;
use crate::port::{Cable, Port};
use crate::ports::{AddError, Entry, Side};
use crate::switch::{Client, Trunk};

/// The longest packet of a network unless its trunk says otherwise.
pub const DEFAULT_MTU: u16 = 1500;
/// Ports in one answer: each takes at most about 2 KiB of a packet.
const PORTS_AN_ANSWER: usize = 24;

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    /// A network domain's port; with its socket and ring.
    AddTrunk {
        name: String,
        mac: Mac,
        #[serde(default = "default_mtu")]
        mtu: u16,
    },
    /// A client's port; with its socket and ring. Its trunk may come later.
    AddClient {
        name: String,
        trunk: String,
        vlan: u16,
        mac: Mac,
        address: Ipv4Addr,
        /// Bytes a second in each direction.
        #[serde(default)]
        rate: Option<u64>,
    },
    Remove {
        name: String,
    },
    Stats {
        /// The last name of the answer before.
        #[serde(default)]
        after: Option<String>,
    },
}

fn default_mtu() -> u16 {
    DEFAULT_MTU
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("a request is at most 64 KiB")]
    TooLong,
    #[error("{0}; see net-vm/README.md for the requests")]
    Unreadable(#[from] serde_json::Error),
    #[error("send exactly two descriptors with it, the port's socket and its ring; {0} came")]
    Descriptors(usize),
    #[error("send no descriptor with it")]
    NoDescriptors,
    #[error("the descriptor is no connected SOCK_SEQPACKET socket of this machine: use socketpair")]
    NotASocket,
    #[error("{0}; make it with bulkhead_ring::Memory::create")]
    NoRing(#[from] MapError),
    #[error("{0}; give the card a new cable")]
    BrokenRing(#[from] Broken),
    #[error(transparent)]
    Add(#[from] AddError),
    #[error("there is no port {0:?}; it may have been removed when its other end was closed")]
    NoPort(String),
    #[error("the port cannot be watched: {0}; is the limit of descriptors too low?")]
    Watch(std::io::Error),
}

impl Link {
    /// Answers one request.
    pub(crate) fn request(
        &mut self,
        request: &[u8],
        truncated: bool,
        fds: Vec<OwnedFd>,
        now: Instant,
    ) -> Vec<u8> {
        let answer = self
            .try_request(request, truncated, fds, now)
            .unwrap_or_else(|error| {
                match error {
                    // A card that goes is often faster than the manager.
                    RequestError::NoPort(_) => tracing::debug!(%error, "a request is refused"),
                    _ => tracing::warn!(%error, "a request is refused"),
                }
                json!({ "ok": false, "error": error.to_string() })
            });
        answer.to_string().into_bytes()
    }

    fn try_request(
        &mut self,
        request: &[u8],
        truncated: bool,
        fds: Vec<OwnedFd>,
        now: Instant,
    ) -> Result<Value, RequestError> {
        if truncated || request.len() > packets::MAX_BYTES {
            return Err(RequestError::TooLong);
        }
        match serde_json::from_slice(request)? {
            Request::AddTrunk { name, mac, mtu } => {
                let trunk = Trunk { mac, mtu };
                let (socket, memory) = socket_and_ring(fds)?;
                self.ports.check_trunk(&name, trunk)?;
                tracing::info!(port = name, %mac, mtu, "a trunk");
                let port = Port::trunk(Cable::new(socket, memory)?);
                self.add(&name, &name, Side::Trunk(trunk), port, now)
                    .map_err(RequestError::Watch)?;
            }
            Request::AddClient {
                name,
                trunk,
                vlan,
                mac,
                address,
                rate,
            } => {
                let client = Client { mac, address, vlan };
                let (socket, memory) = socket_and_ring(fds)?;
                self.ports.check_client(&name, &trunk, client, rate)?;
                tracing::info!(port = name, trunk, vlan, %mac, %address, rate, "a client");
                let port = Port::client(Cable::new(socket, memory)?, rate, now);
                self.add(&name, &trunk, Side::Client(client), port, now)
                    .map_err(RequestError::Watch)?;
            }
            Request::Remove { name } => {
                no_descriptors(&fds)?;
                let id = self.ports.by_name(&name);
                if !id.is_some_and(|id| self.remove(id, "the manager asked for it", now)) {
                    return Err(RequestError::NoPort(name.chars().take(64).collect()));
                }
            }
            Request::Stats { after } => {
                no_descriptors(&fds)?;
                return Ok(self.stats(after.as_deref()));
            }
        }
        Ok(json!({ "ok": true }))
    }

    /// Some ports in the order of their names, and whether there are more.
    fn stats(&self, after: Option<&str>) -> Value {
        let mut entries: Vec<&Entry> = self
            .ports
            .iter()
            .map(|(_, entry)| entry)
            .filter(|entry| after.is_none_or(|after| entry.name.as_str() > after))
            .collect();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let more = entries.len() > PORTS_AN_ANSWER;
        entries.truncate(PORTS_AN_ANSWER);
        let ports: Vec<Value> = entries
            .into_iter()
            .map(|entry| self.port_stats(entry))
            .collect();
        json!({ "ok": true, "ports": ports, "more": more })
    }

    fn port_stats(&self, entry: &Entry) -> Value {
        let (kind, vlan) = match entry.side {
            Side::Trunk(_) => (Kind::Trunk, None),
            Side::Client(client) => (Kind::Client, Some(client.vlan)),
        };
        let stats = entry.port.stats();
        json!({
            "name": entry.name,
            "kind": kind,
            "trunk": self.ports.trunk_name(entry.network),
            "vlan": vlan,
            "plugged": entry.port.is_plugged(),
            "in": stats.received,
            "out": stats.sent,
            "waiting": entry.port.waiting(),
            "refused": stats.refused(),
            "lost": stats.lost(),
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Trunk,
    Client,
}

fn no_descriptors(fds: &[OwnedFd]) -> Result<(), RequestError> {
    match fds {
        [] => Ok(()),
        _ => Err(RequestError::NoDescriptors),
    }
}

fn socket_and_ring(fds: Vec<OwnedFd>) -> Result<(OwnedFd, Memory), RequestError> {
    let [socket, ring] =
        <[OwnedFd; 2]>::try_from(fds).map_err(|fds| RequestError::Descriptors(fds.len()))?;
    if !is_connected_seqpacket(&socket) {
        return Err(RequestError::NotASocket);
    }
    Ok((socket, Memory::map(ring)?))
}

/// Whether a descriptor is what ports and the manager have.
pub fn is_connected_seqpacket(socket: &OwnedFd) -> bool {
    sockopt::socket_type(socket) == Ok(SocketType::SEQPACKET)
        && sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX)
        && getpeername(socket).is_ok()
}
