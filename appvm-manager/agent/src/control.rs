//! The control connection to the daemon.

use std::io;
use std::sync::Arc;

use bulkhead_protocol::pump::Outbox;
use bulkhead_protocol::{Hello, Message, PROTOCOL_VERSION, Power, Ready, read_message};

use crate::console::{boot_ms, say};
use bulkhead_protocol::connection::Connection;

/// What the daemon asked for, at the end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// To go down.
    Power(Power),
    /// Nothing; it is gone.
    Nothing,
}

/// The agent's side.
pub struct Link {
    connection: Connection,
    outbox: Arc<Outbox>,
}

impl Link {
    /// Over an open connection.
    pub fn new(connection: Connection) -> io::Result<Self> {
        let outbox = Arc::new(Outbox::new(connection.try_clone()?));
        Ok(Link { connection, outbox })
    }

    /// Where status messages may be sent.
    pub fn outbox(&self) -> Arc<Outbox> {
        self.outbox.clone()
    }

    /// The first words.
    pub fn hello(&mut self) -> io::Result<()> {
        self.outbox.send(&Message::Hello(Hello {
            version: PROTOCOL_VERSION,
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            boot_ms: boot_ms(),
        }))
    }

    /// Commands can be run now.
    pub fn ready(&mut self, stages: Vec<(String, u64)>) -> io::Result<()> {
        self.outbox.send(&Message::Ready(Ready {
            boot_ms: boot_ms(),
            stages,
        }))
    }

    /// Listens until the daemon asks for something or goes away.
    pub fn wait(mut self) -> Asked {
        loop {
            match read_message(&mut self.connection) {
                Ok(Message::Welcome { version }) if version != PROTOCOL_VERSION => say(&format!(
                    "the daemon speaks version {version} of the protocol, this agent \
                     {PROTOCOL_VERSION}: rebuild the images"
                )),
                Ok(Message::Welcome { .. }) => {}
                Ok(Message::Power(power)) => return Asked::Power(power),
                Ok(other) => say(&format!("control: unexpected {}", other.name())),
                Err(_) => return Asked::Nothing,
            }
        }
    }
}
