//! The device's way to the link: what a card is given, and the two ways in which packets go.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bulkhead_ring::Memory;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use vm_memory::VolatileSlice;

use super::HEADER_BYTES;
use super::packets::Packets;
use super::ring::Ring;
use crate::devices::virtio::buffers::Buffers;
use crate::memory::GuestMemory;

/// What the link says of the cable in a packet of one byte, which no frame is: nothing is plugged
/// in.
const UNPLUGGED: u8 = 0;
/// The other end is there.
const PLUGGED: u8 = 1;

/// One end of a `SOCK_SEQPACKET` socket, and where packets do not go through it, the rings beside it.
#[derive(Debug)]
pub struct Port {
    socket: OwnedFd,
    memory: Option<Arc<Memory>>,
}

/// What became of a packet for the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Whole,
    /// There is no room now.
    Full,
    /// It is lost, as frames may be.
    Lost,
}

/// What comes next from the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A packet of so many bytes, which stays the next one until it is dropped.
    Packet(usize),
    /// The cable was plugged in, or out.
    Cable(bool),
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    End,
}

/// What the thread would go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wants {
    /// With packets of the link.
    pub packets: bool,
    /// With a packet of this length for it.
    pub room: Option<usize>,
}

/// What of it is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// A packet.
    pub packets: bool,
    /// Room.
    pub room: bool,
}

/// How packets go to the link and come from it. Nothing here waits.
pub trait Channel: Send {
    /// Sends what lies in a guest's buffers.
    fn send(&mut self, memory: &GuestMemory, buffers: &Buffers) -> Sent;

    /// What comes next.
    fn next(&mut self) -> Next;

    /// The first bytes of the next packet, or as many as it has; to be read once, as they may change.
    fn head(&self) -> [u8; HEADER_BYTES];

    /// Copies bytes of the next packet from `at` on, as many as there are.
    fn copy(&self, at: usize, target: &VolatileSlice<'_>);

    /// Goes on behind the next packet.
    fn drop_next(&mut self);

    /// Wakes the link, if it sleeps and there is something for it.
    fn wake(&mut self);

    /// Before the thread sleeps: lets the link wake it, unless something of what it wants is there.
    fn ask(&mut self, wants: Wants) -> Found;

    /// The thread is awake again; the socket may have something to say.
    fn awake(&mut self, is_ready: bool);

    /// The socket, and for what it is polled.
    fn events(&self, wants: Wants) -> (BorrowedFd<'_>, libc::c_short);
}

impl Port {
    /// A port whose packets go through `socket`.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            memory: None,
        }
    }

    /// A port whose packets go through `memory`.
    pub fn with_ring(socket: OwnedFd, memory: Memory) -> Self {
        Self {
            socket,
            memory: Some(Arc::new(memory)),
        }
    }

    /// For the device's thread, and again for its next one after a reset.
    pub fn channel(&self) -> io::Result<Box<dyn Channel>> {
        let socket = self.socket.try_clone()?;
        Ok(match &self.memory {
            Some(memory) => Box::new(Ring::new(socket, memory.clone())),
            None => Box::new(Packets::new(socket)),
        })
    }
}

/// Takes one packet of a socket, without waiting; none where there is none. Its length may be more than
/// there is room for.
pub(super) fn receive(socket: &OwnedFd, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        return match recv(socket, &mut *bytes, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            Ok((_, length)) => Ok(Some(length)),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        };
    }
}

/// What a packet of one byte says of the cable: whether something is plugged in, or nothing that we
/// understand.
pub(super) fn cable(byte: u8) -> Option<bool> {
    match byte {
        PLUGGED => Some(true),
        UNPLUGGED => Some(false),
        _ => None,
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
