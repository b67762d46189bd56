//! What the compositor keeps with each connection.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use smithay::{
    reexports::wayland_server::backend::{ClientData, ClientId, DisconnectReason},
    wayland::compositor::CompositorClientState,
};

use super::DomainId;

/// The data of one connection.
#[derive(Debug)]
pub struct ClientState {
    /// The domain whose socket the client came through.
    pub domain: DomainId,
    /// The domain's name when it came, for logs.
    pub domain_name: String,
    pub(crate) compositor: CompositorClientState,
    /// A second descriptor of the connection, which wakes the event loop. It is shut down with
    /// the connection: a descriptor left open would keep the peer waiting for ever.
    pub(crate) socket: Arc<OwnedFd>,
    /// Set once the connection is gone.
    pub(crate) gone: Arc<AtomicBool>,
}

impl ClientData for ClientState {
    fn initialized(&self, _: ClientId) {}

    fn disconnected(&self, _: ClientId, reason: DisconnectReason) {
        self.gone.store(true, Ordering::Relaxed);
        // A peer that is gone already makes this fail, which is as good.
        let _ = rustix::net::shutdown(&*self.socket, rustix::net::Shutdown::Both);
        match reason {
            DisconnectReason::ConnectionClosed => {
                tracing::debug!(domain = %self.domain_name, "client left");
            }
            DisconnectReason::ProtocolError(error) => {
                tracing::warn!(domain = %self.domain_name, code = error.code,
                    interface = %error.object_interface, message = %error.message,
                    "client disconnected");
            }
        }
    }
}
