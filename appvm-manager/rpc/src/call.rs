//! The calling side: one connection to the manager, three streams, an exit status.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use bulkhead_protocol::client::{ClientError, Outcome, Pumps, Stdio, converse};
use bulkhead_protocol::connection::Connection;
use bulkhead_protocol::pump::Outbox;
use bulkhead_protocol::text::clean;
use bulkhead_protocol::{CALL_PORT, CallRequest, HOST_CID, Message};

use crate::{BROKEN, Failure};

/// Tests say by this variable where their manager listens.
const SOCKET_VARIABLE: &str = "BULKHEAD_CALL_SOCKET";
/// What is shown of a refusal.
const MAX_REASON: usize = 300;

/// Calls `service` of `target` with these streams, and waits for its end: the service's status.
pub fn call(target: &str, service: &str, stdio: Stdio) -> Result<u8, Failure> {
    let request = CallRequest {
        target: target.to_owned(),
        service: service.to_owned(),
        drop: None,
    };
    call_with(request, stdio)
}

/// Makes this call.
pub fn call_with(request: CallRequest, stdio: Stdio) -> Result<u8, Failure> {
    Line::open()?.call(request, stdio)
}

/// A connection to the manager on which nothing was said yet.
pub struct Line {
    connection: Connection,
    pumps: Arc<Pumps>,
}

impl Line {
    /// Connects.
    pub fn open() -> Result<Self, Failure> {
        let connection = connect().map_err(|error| {
            broken(
                "the manager cannot be reached, which only works in a domain of Bulkhead",
                &error,
            )
        })?;
        let pumps = Pumps::new().map_err(|error| broken("the streams", &error))?;
        Ok(Line {
            connection,
            pumps: Arc::new(pumps),
        })
    }

    /// Another handle, whose `shutdown` breaks the call off.
    pub fn handle(&self) -> Result<Connection, Failure> {
        self.connection
            .try_clone()
            .map_err(|error| broken("the connection", &error))
    }

    /// Tells whether the service has ended its output itself.
    pub fn pumps(&self) -> Arc<Pumps> {
        self.pumps.clone()
    }

    /// Calls, and waits for the service's end: its status.
    pub fn call(self, request: CallRequest, stdio: Stdio) -> Result<u8, Failure> {
        let outbox = Arc::new(Outbox::new(self.handle()?));
        let request = Message::Call(request);
        let mut reader = self.connection;
        let outcome = converse(&mut reader, &outbox, &self.pumps, &request, stdio, || {});
        reader.shutdown();
        match outcome {
            Ok(Outcome { status, message }) if message.is_empty() => {
                Ok(u8::try_from(status).unwrap_or(BROKEN))
            }
            Ok(Outcome { status, message }) => Err(Failure::new(
                u8::try_from(status).unwrap_or(BROKEN),
                clean(&message, MAX_REASON),
            )),
            Err(ClientError::Broken(_)) => Err(Failure::new(
                BROKEN,
                "the call ended before the service did: the other domain or the manager broke it off",
            )),
            Err(error) => Err(Failure::new(BROKEN, error.to_string())),
        }
    }
}

fn broken(what: &str, error: &io::Error) -> Failure {
    Failure::new(BROKEN, format!("{what}: {error}"))
}

fn connect() -> io::Result<Connection> {
    match std::env::var_os(SOCKET_VARIABLE) {
        Some(path) => Connection::to_unix(&PathBuf::from(path)),
        None => Connection::to_vsock(HOST_CID, CALL_PORT),
    }
}

/// This program's own three streams.
pub fn own_streams() -> io::Result<Stdio> {
    use std::os::fd::AsFd;
    Ok(Stdio {
        stdin: io::stdin().as_fd().try_clone_to_owned()?,
        stdout: io::stdout().as_fd().try_clone_to_owned()?,
        stderr: io::stderr().as_fd().try_clone_to_owned()?,
    })
}

/// A stream that nobody reads.
pub fn nowhere() -> io::Result<OwnedFd> {
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    Ok(null.into())
}
