//! One command in a guest: the daemon's end of an exec connection, on threads of its own.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bulkhead_protocol::pump::{Incoming, Outbox, Outgoing, Stop};
use bulkhead_protocol::{
    EXEC_PORT, ExecRequest, Message, ReadError, Stream, WindowSize, read_message,
};

use crate::domain::now_us;
use crate::text::clean;

/// How long a guest may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// The VMM's answer to CONNECT is one short line.
const MAX_ANSWER: usize = 64;

/// The three descriptors of a caller.
pub struct Stdio {
    /// Read by the command.
    pub stdin: OwnedFd,
    /// Written by the command.
    pub stdout: OwnedFd,
    /// Written by the command.
    pub stderr: OwnedFd,
}

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
    Broken(#[from] ReadError),
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

struct Pumps {
    stdin: Outgoing,
    stdout: Incoming,
    stderr: Incoming,
}

impl Pumps {
    fn abort(&self) {
        self.stdin.stop(Stop::Now);
        self.stdout.abort();
        self.stderr.abort();
    }
}

/// Connects to a port of the guest through its VMM's socket.
fn connect(vsock: &Path, port: u32) -> io::Result<UnixStream> {
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
    let pumps = Arc::new(Pumps {
        stdin: Outgoing::new(Stream::Stdin)?,
        stdout: Incoming::new(Stream::Stdout)?,
        stderr: Incoming::new(Stream::Stderr)?,
    });
    {
        let mut live = handle.live();
        if live.cancelled {
            return Err(SessionError::Cancelled);
        }
        live.outbox = Some(outbox.clone());
        live.connection = Some(connection.try_clone()?);
        live.pumps = Some(pumps.clone());
    }
    let result = converse(&connection, &outbox, &pumps, request, stdio, on_start);
    let _ = connection.shutdown(Shutdown::Both);
    let mut live = handle.live();
    let cancelled = live.cancelled;
    *live = Live {
        cancelled,
        ..Live::default()
    };
    match result {
        Err(_) if cancelled => Err(SessionError::Cancelled),
        result => result,
    }
}

fn converse(
    connection: &UnixStream,
    outbox: &Arc<Outbox>,
    pumps: &Arc<Pumps>,
    request: ExecRequest,
    stdio: Stdio,
    on_start: impl FnOnce(u64),
) -> Result<Outcome, SessionError> {
    let mut reader = connection.try_clone()?;
    outbox.send(&Message::Exec(request))?;
    let started_us = match read_message(&mut reader)? {
        Message::Started { .. } => now_us(),
        Message::Refused { status, message } => {
            let message = clean(&message, 300);
            return Ok(Outcome {
                status: status.into(),
                message,
                started_us: 0,
            });
        }
        other => return Err(unexpected(&other)),
    };
    on_start(started_us);
    let stdin = {
        let (pumps, outbox) = (pumps.clone(), outbox.clone());
        thread::Builder::new().name("stdin".into()).spawn(move || {
            let _ = pumps.stdin.run(stdio.stdin, &outbox);
        })?
    };
    let stdout = {
        let (pumps, outbox) = (pumps.clone(), outbox.clone());
        thread::Builder::new()
            .name("stdout".into())
            .spawn(move || {
                let _ = pumps.stdout.run(stdio.stdout, &outbox);
            })?
    };
    let stderr = {
        let (pumps, outbox) = (pumps.clone(), outbox.clone());
        thread::Builder::new()
            .name("stderr".into())
            .spawn(move || {
                let _ = pumps.stderr.run(stdio.stderr, &outbox);
            })?
    };
    let result = receive(&mut reader, pumps);
    // What arrived is written out in any case; after an error the guest has no more to say.
    pumps.stdin.stop(Stop::Now);
    pumps.stdout.finish();
    pumps.stderr.finish();
    for thread in [stdin, stdout, stderr] {
        let _ = thread.join();
    }
    Ok(Outcome {
        status: result?,
        message: String::new(),
        started_us,
    })
}

/// Takes what the guest sends until the command ends: its status.
fn receive(reader: &mut UnixStream, pumps: &Pumps) -> Result<i32, SessionError> {
    let overrun =
        |error: bulkhead_protocol::pump::Overrun| SessionError::Protocol(error.to_string());
    loop {
        match read_message(reader)? {
            Message::Data {
                stream: Stream::Stdout,
                bytes,
            } => {
                pumps.stdout.push(bytes).map_err(overrun)?;
            }
            Message::Data {
                stream: Stream::Stderr,
                bytes,
            } => {
                pumps.stderr.push(bytes).map_err(overrun)?;
            }
            Message::Eof {
                stream: Stream::Stdout,
            } => pumps.stdout.finish(),
            Message::Eof {
                stream: Stream::Stderr,
            } => pumps.stderr.finish(),
            Message::Eof {
                stream: Stream::Stdin,
            } => pumps.stdin.stop(Stop::Now),
            Message::Credit {
                stream: Stream::Stdin,
                bytes,
            } => {
                pumps.stdin.add_credit(bytes).map_err(overrun)?;
            }
            Message::Exit(reason) => return Ok(reason.shell_status()),
            other => return Err(unexpected(&other)),
        }
    }
}

fn unexpected(message: &Message) -> SessionError {
    SessionError::Protocol(format!("unexpected `{}`", message.name()))
}
