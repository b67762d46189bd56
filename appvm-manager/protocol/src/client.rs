//! The asking end of an exec or a call connection: a command's streams and its end.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::pump::{Incoming, Outbox, Outgoing, Stop};
use crate::{Message, ReadError, Stream, read_message};

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
    /// Why it could not be run, where that is so: untrusted text.
    pub message: String,
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection ended before the command did.
    #[error("the connection broke: {0}")]
    Broken(#[from] ReadError),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    /// This side lacks something.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What carries the three streams.
pub struct Pumps {
    stdin: Outgoing,
    stdout: Incoming,
    stderr: Incoming,
    output_is_whole: AtomicBool,
}

impl Pumps {
    /// For one command.
    pub fn new() -> io::Result<Self> {
        Ok(Pumps {
            stdin: Outgoing::new(Stream::Stdin)?,
            stdout: Incoming::new(Stream::Stdout)?,
            stderr: Incoming::new(Stream::Stderr)?,
            output_is_whole: AtomicBool::new(false),
        })
    }

    /// Whether the command has ended its output itself. Known before the caller's descriptor is closed:
    /// one that is closed without it stands at the place where the connection broke.
    pub fn output_is_whole(&self) -> bool {
        self.output_is_whole.load(Ordering::Acquire)
    }

    /// Ends all three at once.
    pub fn abort(&self) {
        self.stdin.stop(Stop::Now);
        self.stdout.abort();
        self.stderr.abort();
    }
}

/// Sends `request`, calls `on_start` when the command runs, carries its streams, and waits for its
/// end. Messages come from `reader`, and go to `outbox`.
pub fn converse(
    reader: &mut impl Read,
    outbox: &Arc<Outbox>,
    pumps: &Arc<Pumps>,
    request: &Message,
    stdio: Stdio,
    on_start: impl FnOnce(),
) -> Result<Outcome, ClientError> {
    outbox.send(request)?;
    match read_message(reader)? {
        Message::Started { .. } => on_start(),
        Message::Refused { status, message } => {
            return Ok(Outcome {
                status: status.into(),
                message,
            });
        }
        other => return Err(unexpected(&other)),
    }
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
    let result = receive(reader, pumps);
    // What arrived is written out in any case; after an error the peer has no more to say.
    pumps.stdin.stop(Stop::Now);
    pumps.stdout.finish();
    pumps.stderr.finish();
    for thread in [stdin, stdout, stderr] {
        let _ = thread.join();
    }
    Ok(Outcome {
        status: result?,
        message: String::new(),
    })
}

/// Takes what the peer sends until the command ends: its status.
fn receive(reader: &mut impl Read, pumps: &Pumps) -> Result<i32, ClientError> {
    let overrun = |error: crate::pump::Overrun| ClientError::Protocol(error.to_string());
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
            } => {
                pumps.output_is_whole.store(true, Ordering::Release);
                pumps.stdout.finish();
            }
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
            Message::Exit(reason) => {
                pumps.output_is_whole.store(true, Ordering::Release);
                return Ok(reason.shell_status());
            }
            other => return Err(unexpected(&other)),
        }
    }
}

fn unexpected(message: &Message) -> ClientError {
    ClientError::Protocol(format!("unexpected `{}`", message.name()))
}
