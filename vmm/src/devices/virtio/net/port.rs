//! The device's way to the link.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_vmm_api::NET_SOCKET_BYTES;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;

use super::pieces::Pieces;

/// What the link says of the cable in a packet of one byte, which no frame is: nothing is plugged
/// in.
const UNPLUGGED: u8 = 0;
/// The other end is there.
const PLUGGED: u8 = 1;

/// One end of a `SOCK_SEQPACKET` socket.
#[derive(Debug)]
pub struct Port {
    socket: OwnedFd,
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

/// What came from the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// A packet of so many bytes, which may be more than there was room for. One byte is the link's
    /// word about the [`cable`].
    Packet(usize),
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    End,
}

impl Port {
    /// A port on `socket`.
    pub fn new(socket: OwnedFd) -> Self {
        // With less room it works as well.
        if let Err(error) = set_socket_send_buffer_size(&socket, NET_SOCKET_BYTES) {
            tracing::debug!(%error, "net: the socket's room");
        }
        Self { socket }
    }

    /// A copy that shares the socket: the device keeps one and its worker uses the other.
    pub fn try_clone(&self) -> io::Result<Self> {
        let socket = self.socket.try_clone()?;
        Ok(Self { socket })
    }

    /// Sends one packet without waiting.
    pub fn send(&self, pieces: &mut Pieces<'_>) -> Sent {
        loop {
            return match pieces.send(self.socket.as_fd()) {
                Ok(_) => Sent::Whole,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Sent::Full,
                Err(error) => {
                    tracing::debug!(%error, "net: a frame is lost");
                    Sent::Lost
                }
            };
        }
    }

    /// Takes one packet without waiting.
    pub fn receive(&self, pieces: &mut Pieces<'_>) -> Received {
        loop {
            return match pieces.receive(self.socket.as_fd()) {
                Ok(0) => Received::End,
                Ok(length) => Received::Packet(length),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Received::Nothing,
                Err(error) => {
                    tracing::info!(%error, "net: the link");
                    Received::End
                }
            };
        }
    }
}

/// What a packet of one byte says of the cable: whether something is plugged in, or nothing that we
/// understand.
pub fn cable(byte: u8) -> Option<bool> {
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
