//! The host's side of the console.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

/// Output that nobody takes is kept up to here; what comes later is dropped, because a console
/// that nobody reads must stop neither the guest nor grow the VMM.
const KEPT_BYTES: usize = 256 << 10;
/// A pipe or terminal that polls writable takes so much without blocking (`PIPE_BUF`).
const WRITE_BYTES: usize = 4096;

/// Where the console leads.
#[derive(Debug)]
pub enum Endpoint {
    /// One descriptor for both directions, or two (standard input and output).
    Files {
        /// Input to the guest; `None` after its end.
        input: Option<File>,
        /// Output of the guest; `None` after a failure.
        output: Option<File>,
    },
    /// A listening socket with at most one client.
    Listener {
        /// The socket.
        listener: UnixListener,
        /// The client.
        client: Option<UnixStream>,
    },
}

/// An endpoint with output that waits to be taken.
pub struct Port {
    endpoint: Endpoint,
    waiting: std::collections::VecDeque<u8>,
    dropped: u64,
}

impl Endpoint {
    /// A copy that shares the descriptors: the device keeps one and its worker uses the other.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Files { input, output } => Self::Files {
                input: input.as_ref().map(File::try_clone).transpose()?,
                output: output.as_ref().map(File::try_clone).transpose()?,
            },
            Self::Listener { listener, client } => Self::Listener {
                listener: listener.try_clone()?,
                client: client.as_ref().map(UnixStream::try_clone).transpose()?,
            },
        })
    }
}

impl Port {
    /// A port with nothing waiting.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            waiting: std::collections::VecDeque::new(),
            dropped: 0,
        }
    }

    /// The descriptor that becomes readable when there is input (or a client).
    pub fn input(&self) -> Option<BorrowedFd<'_>> {
        match &self.endpoint {
            Endpoint::Files { input, .. } => input.as_ref().map(AsFd::as_fd),
            Endpoint::Listener {
                client: Some(client),
                ..
            } => Some(client.as_fd()),
            Endpoint::Listener { .. } => None,
        }
    }

    /// The descriptor that becomes readable when a client wants to connect.
    pub fn listener(&self) -> Option<BorrowedFd<'_>> {
        match &self.endpoint {
            Endpoint::Listener { listener, .. } => Some(listener.as_fd()),
            Endpoint::Files { .. } => None,
        }
    }

    /// The descriptor to wait for while output is waiting.
    pub fn blocked_output(&self) -> Option<BorrowedFd<'_>> {
        if self.waiting.is_empty() {
            return None;
        }
        match &self.endpoint {
            Endpoint::Files { output, .. } => output.as_ref().map(AsFd::as_fd),
            Endpoint::Listener { client, .. } => client.as_ref().map(AsFd::as_fd),
        }
    }

    /// Takes a client; a second one is turned away.
    pub fn accept(&mut self) {
        let Endpoint::Listener { listener, client } = &mut self.endpoint else {
            return;
        };
        match listener.accept() {
            Ok((stream, _)) if client.is_none() => {
                if let Err(error) = stream.set_nonblocking(true) {
                    tracing::warn!("console: {error}");
                    return;
                }
                *client = Some(stream);
            }
            Ok(_) => tracing::info!("console: a second client was turned away"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => tracing::warn!("console: accepting a client: {error}"),
        }
    }

    /// Reads input that poll announced. At its end the input goes away.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        let result = match &mut self.endpoint {
            Endpoint::Files {
                input: Some(file), ..
            } => file.read(buffer),
            Endpoint::Listener {
                client: Some(client),
                ..
            } => client.read(buffer),
            _ => return 0,
        };
        match result {
            Ok(0) => self.end_input(),
            Ok(count) => return count,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                tracing::info!("console: reading: {error}");
                self.end_input();
            }
        }
        0
    }

    /// Queues output of the guest.
    pub fn write(&mut self, bytes: &[u8]) {
        let is_open = match &self.endpoint {
            Endpoint::Files { output, .. } => output.is_some(),
            Endpoint::Listener { client, .. } => client.is_some(),
        };
        if !is_open {
            return;
        }
        let room = KEPT_BYTES.saturating_sub(self.waiting.len());
        let taken = bytes.len().min(room);
        self.waiting.extend(bytes.iter().take(taken));
        self.dropped = self.dropped.saturating_add((bytes.len() - taken) as u64);
    }

    /// Writes one piece of what is waiting, to a descriptor that poll found writable.
    pub fn flush(&mut self) {
        let (front, _) = self.waiting.as_slices();
        let piece = front
            .get(..front.len().min(WRITE_BYTES))
            .unwrap_or_default();
        let result = match &mut self.endpoint {
            Endpoint::Files {
                output: Some(file), ..
            } => file.write(piece),
            Endpoint::Listener {
                client: Some(client),
                ..
            } => client.write(piece),
            _ => return self.waiting.clear(),
        };
        match result {
            Ok(count) => drop(self.waiting.drain(..count)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                tracing::info!("console: writing: {error}");
                self.end_output();
            }
        }
        if self.waiting.is_empty() && self.dropped > 0 {
            tracing::warn!(
                "console: {} bytes were dropped, nobody read them",
                self.dropped
            );
            self.dropped = 0;
        }
    }

    fn end_input(&mut self) {
        match &mut self.endpoint {
            Endpoint::Files { input, .. } => *input = None,
            Endpoint::Listener { .. } => self.end_output(),
        }
    }

    fn end_output(&mut self) {
        self.waiting.clear();
        match &mut self.endpoint {
            Endpoint::Files { output, .. } => *output = None,
            Endpoint::Listener { client, .. } => *client = None,
        }
    }
}
