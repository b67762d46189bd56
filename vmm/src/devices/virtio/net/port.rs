//! The device's way to the link.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

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
    /// A packet of so many bytes.
    Packet(usize),
    /// The cable was plugged in or out.
    Cable(bool),
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    End,
}

impl Port {
    /// A port on `socket`.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// A copy that shares the socket: the device keeps one and its worker uses the other.
    pub fn try_clone(&self) -> io::Result<Self> {
        let socket = self.socket.try_clone()?;
        Ok(Self { socket })
    }

    /// Sends one packet without waiting.
    pub fn send(&self, packet: &[u8]) -> Sent {
        loop {
            let result = send(
                &self.socket,
                packet,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            );
            return match result {
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

    /// Takes one packet without waiting. What does not fit into `buffer` comes as one that is too
    /// long.
    pub fn receive(&self, buffer: &mut [u8]) -> Received {
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        loop {
            return match recv(&self.socket, &mut *buffer, flags) {
                Ok((_, 0)) => Received::End,
                Ok((_, 1)) => match buffer.first() {
                    Some(&PLUGGED) => Received::Cable(true),
                    Some(&UNPLUGGED) => Received::Cable(false),
                    _ => continue,
                },
                Ok((_, length)) => Received::Packet(length),
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

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
