//! One command in a guest: the daemon's end of an exec connection, on threads of its own.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use bulkhead_protocol::client::Stdio;
use bulkhead_protocol::client::{ClientError, Pumps, converse};
use bulkhead_protocol::pump::Outbox;
use bulkhead_protocol::{EXEC_PORT, ExecRequest, Message, ReadError, WindowSize};

use crate::domain::now_us;
use crate::text::clean;

/// How long a guest may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// The VMM's answer to CONNECT is one short line.
const MAX_ANSWER: usize = 64;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// As a shell tells it.
    pub status: i32,
    /// Why it could not be run, where that is so.
    pub message: String,
    /// When the guest had started it, `CLOCK_MONOTONIC`.
    pub started_us: u64,
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The guest does not take the connection.
    #[error("its agent cannot be reached: {0}")]
    Connect(io::Error),
    /// The connection ended before the command did.
    #[error("the connection to its agent broke: {0}")]
    Broken(ReadError),
    /// The guest broke the protocol.
    #[error("its agent broke the protocol: {0}")]
    Protocol(String),
    /// The host lacks something.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The caller went away.
    #[error("the caller went away")]
    Cancelled,
}

impl From<ClientError> for SessionError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Broken(error) => SessionError::Broken(error),
            ClientError::Protocol(reason) => SessionError::Protocol(reason),
            ClientError::Io(error) => SessionError::Io(error),
        }
    }
}

#[derive(Default)]
struct Live {
    outbox: Option<Arc<Outbox>>,
    connection: Option<UnixStream>,
    pumps: Option<Arc<Pumps>>,
    cancelled: bool,
}

/// Reaches a running command from elsewhere.
#[derive(Clone, Default)]
pub struct Handle(Arc<Mutex<Live>>);

impl Handle {
    fn live(&self) -> std::sync::MutexGuard<'_, Live> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, message: &Message) -> bool {
        let outbox = self.live().outbox.clone();
        outbox.is_some_and(|outbox| outbox.send(message).is_ok())
    }

    /// Sends a signal to the command's process group.
    pub fn signal(&self, number: u8) -> bool {
        self.send(&Message::Signal { number })
    }

    /// Tells the command's terminal its size.
    pub fn resize(&self, size: WindowSize) -> bool {
        self.send(&Message::Resize(size))
    }

    /// Cuts the connection; the agent then ends the command.
    pub fn cancel(&self) {
        let mut live = self.live();
        live.cancelled = true;
        if let Some(connection) = &live.connection {
            let _ = connection.shutdown(Shutdown::Both);
        }
        if let Some(pumps) = &live.pumps {
            pumps.abort();
        }
    }
}

/// Connects to a port of the guest through its VMM's socket.
pub(crate) fn connect(vsock: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(vsock)?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\n") {
        if stream.read(&mut byte)? == 0 || answer.len() >= MAX_ANSWER {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                "the guest refused",
            ));
        }
        answer.push(byte[0]);
    }
    if !answer.starts_with(b"OK ") {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "the guest refused",
        ));
    }
    stream.set_read_timeout(None)?;
    Ok(stream)
}

/// Runs a command to its end and calls `on_start` with the time when the guest has started it.
/// Blocks: call it on a thread of its own.
pub fn run(
    vsock: &Path,
    request: ExecRequest,
    stdio: Stdio,
    handle: &Handle,
    on_start: impl FnOnce(u64),
) -> Result<Outcome, SessionError> {
    let connection = connect(vsock, EXEC_PORT).map_err(SessionError::Connect)?;
    let outbox = Arc::new(Outbox::new(connection.try_clone()?));
    let pumps = Arc::new(Pumps::new()?);
    {
        let mut live = handle.live();
        if live.cancelled {
            return Err(SessionError::Cancelled);
        }
        live.outbox = Some(outbox.clone());
        live.connection = Some(connection.try_clone()?);
        live.pumps = Some(pumps.clone());
    }
    let mut started_us = 0;
    let started = || {
        started_us = now_us();
        on_start(started_us);
    };
    let mut reader = connection.try_clone()?;
    let request = Message::Exec(request);
    let result = converse(&mut reader, &outbox, &pumps, &request, stdio, started);
    let _ = connection.shutdown(Shutdown::Both);
    let mut live = handle.live();
    let cancelled = live.cancelled;
    *live = Live {
        cancelled,
        ..Live::default()
    };
    match result {
        Err(_) if cancelled => Err(SessionError::Cancelled),
        Err(error) => Err(error.into()),
        Ok(outcome) => Ok(Outcome {
            status: outcome.status,
            message: clean(&outcome.message, 300),
            started_us,
        }),
    }
}
