//! A connection to the compositor that never blocks: bytes and descriptors out, bytes and
//! descriptors in.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::super::resources::HostMemory;
use super::command::MAX_IDENTIFIERS;

/// So much may wait for a compositor that does not read.
const MAX_QUEUED_BYTES: usize = 1 << 20;
/// So many descriptors may wait with it.
const MAX_QUEUED_DESCRIPTORS: usize = 256;

/// A descriptor on its way to the compositor.
#[derive(Debug)]
pub enum Outgoing {
    /// The memory of a blob.
    Memory(Arc<HostMemory>),
    /// The write end of a pipe, ours until it is sent.
    Pipe(OwnedFd),
}

impl AsFd for Outgoing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Memory(memory) => memory.fd.as_fd(),
            Self::Pipe(fd) => fd.as_fd(),
        }
    }
}

/// What came from the compositor.
#[derive(Debug)]
pub enum Incoming {
    /// Nothing yet.
    Nothing,
    /// So many bytes, and descriptors that belong to them.
    Message(usize, Vec<OwnedFd>),
    /// The compositor closed the connection.
    End,
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// Too much waits.
    #[error("the compositor does not read, and too much waits for it")]
    PeerNotReading,
    /// Descriptors were lost.
    #[error(
        "descriptors from the compositor did not fit (too many at once, or this process has too many open)"
    )]
    DescriptorsLost,
    /// An unexpected failure.
    #[error("socket of the compositor: {0}")]
    Host(#[from] Errno),
}

#[derive(Debug)]
struct Waiting {
    data: Vec<u8>,
    sent: usize,
    descriptors: Vec<Outgoing>,
}

/// The connection.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    waiting_descriptors: usize,
    broken: bool,
}

impl Connection {
    /// Connects to the socket at `path`. An answer is not waited for.
    pub fn open(path: &Path) -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self::over(socket))
    }

    /// Takes over a connected stream socket that does not block.
    pub fn over(socket: OwnedFd) -> Self {
        Self {
            socket,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            waiting_descriptors: 0,
            broken: false,
        }
    }

    /// Whether nothing waits for the peer.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends `data` with `descriptors`, or queues what the socket does not take now. To a broken
    /// connection nothing is sent; its end will be seen by reading.
    pub fn send(&mut self, data: &[u8], descriptors: Vec<Outgoing>) -> Result<(), ConnectionError> {
        if self.broken {
            return Ok(());
        }
        let (sent, descriptors) = if self.waiting.is_empty() {
            match self.try_send(data, &descriptors)? {
                0 => (0, descriptors),
                sent => (sent, Vec::new()),
            }
        } else {
            (0, descriptors)
        };
        let rest = data.get(sent..).unwrap_or_default();
        if rest.is_empty() || self.broken {
            return Ok(());
        }
        if self.waiting_bytes + rest.len() > MAX_QUEUED_BYTES
            || self.waiting_descriptors + descriptors.len() > MAX_QUEUED_DESCRIPTORS
        {
            return Err(ConnectionError::PeerNotReading);
        }
        self.waiting_bytes += rest.len();
        self.waiting_descriptors += descriptors.len();
        self.waiting.push_back(Waiting {
            data: rest.to_vec(),
            sent: 0,
            descriptors,
        });
        Ok(())
    }

    /// Sends what waits, as far as the socket takes it.
    pub fn flush(&mut self) -> Result<(), ConnectionError> {
        while let Some(mut front) = self.waiting.pop_front() {
            let rest = front.data.get(front.sent..).unwrap_or_default();
            let sent = self.try_send(rest, &front.descriptors)?;
            if self.broken {
                self.waiting.clear();
                return Ok(());
            }
            self.waiting_bytes = self.waiting_bytes.saturating_sub(sent);
            front.sent += sent;
            if sent > 0 {
                self.waiting_descriptors -= front.descriptors.len();
                front.descriptors.clear();
            }
            if front.sent < front.data.len() {
                self.waiting.push_front(front);
                if sent == 0 {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// How many bytes the socket took; the descriptors went with them unless that is 0.
    fn try_send(&mut self, data: &[u8], descriptors: &[Outgoing]) -> Result<usize, Errno> {
        let fds: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_IDENTIFIERS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
            // The parser lets no more than fit through.
            return Err(Errno::MSGSIZE);
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            let sent =
                rustix::net::sendmsg(&self.socket, &[IoSlice::new(data)], &mut ancillary, flags);
            match sent {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    self.broken = true;
                    return Ok(0);
                }
                other => return other,
            }
        }
    }

    /// Takes what the compositor sent, at most `buffer.len()` bytes.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<Incoming, ConnectionError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_IDENTIFIERS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let message = loop {
            let mut parts = [IoSliceMut::new(buffer)];
            match rustix::net::recvmsg(&self.socket, &mut parts, &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Incoming::Nothing),
                Err(Errno::CONNRESET) => return Ok(Incoming::End),
                other => break other?,
            }
        };
        let mut descriptors = Vec::new();
        for control in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = control {
                descriptors.extend(fds);
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > MAX_IDENTIFIERS {
            return Err(ConnectionError::DescriptorsLost);
        }
        if message.bytes == 0 {
            return Ok(Incoming::End);
        }
        Ok(Incoming::Message(message.bytes, descriptors))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
