//! The way to the host compositor: one channel per application.
//!
//! Two implementations with the same meaning. [`virtgpu`] is the real one: a virtio-gpu
//! cross-domain context, in a guest. [`unix`] speaks to a compositor's socket directly: it runs
//! the whole proxy on any machine without a VM, for tests and for debugging.

pub mod unix;
pub mod virtgpu;
mod virtgpu_abi;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use crate::memory::Mapping;

/// Why a channel failed. All but [`ChannelError::NoMemory`] end it.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The kernel or the host refused an operation.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The host gave no memory for a buffer.
    #[error("no memory for a buffer of {0} bytes on the host")]
    NoMemory(usize),
    /// The host's end broke the protocol of the channel.
    #[error("the host's answer makes no sense: {0}")]
    BadAnswer(&'static str),
    /// A descriptor that the host announced is not known or cannot be read.
    #[error("the host's descriptor {0} cannot be used")]
    BadDescriptor(u32),
}

impl ChannelError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Io {
            what,
            source: errno.into(),
        }
    }

    pub(crate) fn os(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// Names a pipe between this side and the host within one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PipeId(pub u32);

/// Memory that host and proxy share; buffers' pixels live in it.
#[derive(Debug)]
pub struct HostMemory {
    pub(crate) mapping: Mapping,
    pub(crate) owner: MemoryOwner,
}

/// What keeps host memory alive and names it to the host.
#[derive(Debug)]
pub(crate) enum MemoryOwner {
    /// A memfd that is passed over the socket.
    File(OwnedFd),
    /// A virtio-gpu blob resource.
    Gem(virtgpu::GemObject),
}

/// A descriptor on its way to the host.
#[derive(Debug)]
pub enum OutFd {
    /// Shared memory.
    Memory(Rc<HostMemory>),
    /// The write end of a pipe that this side reads.
    ReadPipe(PipeId),
}

/// A descriptor that came from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostDescriptor {
    /// Memory of so many bytes, to be had once from [`Channel::read_memory`].
    Memory {
        /// Its name within the channel.
        id: u32,
        /// Its size as the host tells it.
        untrusted_size_bytes: u32,
    },
    /// The write end of a pipe that the host reads.
    WritePipe(PipeId),
    /// Something that no application can be given. It is closed already.
    Unsupported,
}

/// What a channel delivers.
#[derive(Debug)]
pub enum Incoming {
    /// A piece of the Wayland byte stream. Descriptors never come later than their bytes.
    Wayland {
        /// The bytes; a message may begin in one piece and end in the next.
        bytes: Vec<u8>,
        /// The descriptors, in the order of the messages they belong to.
        fds: Vec<HostDescriptor>,
    },
    /// Data from a pipe whose write end the host has.
    PipeData {
        /// Which pipe.
        id: PipeId,
        /// The data, empty at its end.
        bytes: Vec<u8>,
        /// The last writer is gone; no more will come.
        hang_up: bool,
    },
    /// The last [`Channel::write_pipe`] to this pipe is through; the next may follow.
    PipeWritable(PipeId),
    /// The host closed the connection.
    Closed,
}

/// Bytes and descriptors that wait to be sent, to the host or to the application.
#[derive(Debug)]
pub struct Outbox<F = OutFd> {
    bytes: Vec<u8>,
    /// How much of `bytes` is already sent.
    sent: usize,
    /// Descriptors with the place in `bytes` where their message starts.
    fds: VecDeque<(usize, F)>,
}

/// A piece of an [`Outbox`] that may be sent as one: the bytes and how many descriptors from the
/// front go with them.
#[derive(Debug)]
pub struct Piece<'a> {
    /// What to send.
    pub bytes: &'a [u8],
    /// How many descriptors from the front of the box.
    pub fds: usize,
}

impl<F> Default for Outbox<F> {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            sent: 0,
            fds: VecDeque::new(),
        }
    }
}

impl<F> Outbox<F> {
    /// Where messages are appended.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Queues a descriptor of the message that begins at `message_start` of the bytes.
    pub fn push_fd(&mut self, message_start: usize, fd: F) {
        self.fds.push_back((message_start, fd));
    }

    /// Bytes not sent yet.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Whether everything is sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next piece of at most so many bytes and descriptors. It ends before the message whose
    /// descriptor would not fit: a descriptor never comes later than its message.
    pub fn piece(&self, max_bytes: usize, max_fds: usize) -> Piece<'_> {
        let limit = self.bytes.len().min(self.sent.saturating_add(max_bytes));
        let end = match self.fds.get(max_fds) {
            Some((start, _)) if *start > self.sent => limit.min(*start),
            _ => limit,
        };
        let fds = self
            .fds
            .iter()
            .take(max_fds)
            .take_while(|(start, _)| *start < end)
            .count();
        Piece {
            bytes: self.bytes.get(self.sent..end).unwrap_or_default(),
            fds,
        }
    }

    /// The descriptors at the front, for the piece that is about to be sent.
    pub fn front_fds(&self, count: usize) -> impl Iterator<Item = &F> {
        self.fds.iter().take(count).map(|(_, fd)| fd)
    }

    /// Forgets what was sent.
    pub fn advance(&mut self, bytes: usize, fds: usize) {
        self.sent = self.bytes.len().min(self.sent + bytes);
        self.fds.drain(..fds.min(self.fds.len()));
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        }
    }
}

/// Whether a channel took the data of [`Channel::write_pipe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipeWrite {
    /// Taken, and the next piece may follow.
    Done,
    /// Taken. [`Incoming::PipeWritable`] follows when the next piece may be written.
    Pending,
    /// The other end is gone; nothing more can be written.
    Broken,
}

/// The most data of one [`Channel::write_pipe`].
pub const PIPE_WRITE_BYTES: usize = 32 * 1024;

/// One connection to the host compositor.
pub trait Channel {
    /// Readable when [`Channel::receive`] may have something.
    fn event_fd(&self) -> BorrowedFd<'_>;

    /// Makes memory of at least so many bytes that can be passed to the host.
    fn allocate(&mut self, size_bytes: usize) -> Result<HostMemory, ChannelError>;

    /// Names the next pipe from the host to this side. Its [`OutFd::ReadPipe`] has to be queued
    /// before another is opened.
    fn open_read_pipe(&mut self) -> PipeId;

    /// Whether asking for the next message is a command of its own, which is cheaper together
    /// with something to send.
    fn receiving_costs(&self) -> bool;

    /// Sends what waits, as much as goes without blocking. With `receive` the channel may deliver
    /// the next message; without, the host has to wait.
    fn flush(&mut self, out: &mut Outbox, receive: bool) -> Result<(), ChannelError>;

    /// The next thing that arrived, if any.
    fn receive(&mut self) -> Result<Option<Incoming>, ChannelError>;

    /// Copies memory that the host passed, and forgets it.
    fn read_memory(&mut self, id: u32, len: usize) -> Result<Vec<u8>, ChannelError>;

    /// Writes at most [`PIPE_WRITE_BYTES`] to a pipe that the host passed; `hang_up` closes it
    /// after them. One write at a time per pipe.
    fn write_pipe(
        &mut self,
        id: PipeId,
        bytes: &[u8],
        hang_up: bool,
    ) -> Result<PipeWrite, ChannelError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe(n: u32) -> OutFd {
        OutFd::ReadPipe(PipeId(n))
    }

    #[test]
    fn a_piece_ends_before_a_message_whose_descriptor_does_not_fit() {
        let mut out: Outbox = Outbox::default();
        out.bytes().extend_from_slice(&[1; 8]);
        out.push_fd(8, pipe(1));
        out.bytes().extend_from_slice(&[2; 8]);
        out.push_fd(16, pipe(2));
        out.bytes().extend_from_slice(&[3; 8]);
        let piece = out.piece(1000, 1);
        assert_eq!((piece.bytes.len(), piece.fds), (16, 1));
        out.advance(16, 1);
        let piece = out.piece(1000, 1);
        assert_eq!((piece.bytes, piece.fds), (&[3u8; 8][..], 1));
        out.advance(3, 1);
        let piece = out.piece(1000, 1);
        assert_eq!((piece.bytes.len(), piece.fds), (5, 0));
        out.advance(5, 0);
        assert!(out.is_empty());
    }

    #[test]
    fn a_piece_ends_before_descriptors_of_bytes_beyond_it() {
        let mut out: Outbox = Outbox::default();
        out.bytes().extend_from_slice(&[1; 8]);
        out.push_fd(8, pipe(1));
        out.bytes().extend_from_slice(&[2; 8]);
        let piece = out.piece(8, 28);
        assert_eq!((piece.bytes.len(), piece.fds), (8, 0));
    }
}
