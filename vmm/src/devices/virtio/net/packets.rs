//! Packets through the socket itself: what `bulkhead-uplink` carries on a desktop that keeps its own
//! network. They are short, so each is copied once more than it would have to be.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use vm_memory::VolatileSlice;

use super::port::{Channel, Found, Next, Sent, Wants, cable, receive};
use super::{HEADER_BYTES, MAX_PACKET_BYTES};
use crate::devices::virtio::buffers::Buffers;
use crate::memory::GuestMemory;

/// A socket, a packet that came and one that goes.
pub struct Packets {
    socket: OwnedFd,
    incoming: Box<[u8]>,
    /// The length of the packet that came and is not dropped yet.
    length: Option<usize>,
    outgoing: Box<[u8]>,
}

impl Packets {
    /// Through this socket.
    pub fn new(socket: OwnedFd) -> Self {
        let packet = || vec![0; MAX_PACKET_BYTES].into_boxed_slice();
        Self {
            socket,
            incoming: packet(),
            length: None,
            outgoing: packet(),
        }
    }
}

impl Channel for Packets {
    fn send(&mut self, memory: &GuestMemory, buffers: &Buffers) -> Sent {
        let length = usize::try_from(buffers.readable_len()).unwrap_or(usize::MAX);
        let Some(packet) = self.outgoing.get_mut(..length) else {
            return Sent::Lost;
        };
        if buffers.read(memory, 0, packet).is_err() {
            return Sent::Lost;
        }
        loop {
            return match send(
                &self.socket,
                packet,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
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

    fn next(&mut self) -> Next {
        if let Some(length) = self.length {
            return Next::Packet(length);
        }
        let length = match receive(&self.socket, &mut self.incoming) {
            Ok(None) => return Next::Nothing,
            Ok(Some(0)) => return Next::End,
            Ok(Some(length)) => length,
            Err(error) => {
                tracing::info!(%error, "net: the link");
                return Next::End;
            }
        };
        let cable = self.incoming.first().copied().and_then(cable);
        if let (1, Some(plugged)) = (length, cable) {
            return Next::Cable(plugged);
        }
        self.length = Some(length);
        Next::Packet(length)
    }

    fn head(&self) -> [u8; HEADER_BYTES] {
        self.incoming.first_chunk().copied().unwrap_or_default()
    }

    fn copy(&self, at: usize, target: &VolatileSlice<'_>) {
        let packet = self.incoming.get(..self.length.unwrap_or(0));
        target.copy_from(
            packet
                .and_then(|packet| packet.get(at..))
                .unwrap_or_default(),
        );
    }

    fn drop_next(&mut self) {
        self.length = None;
    }

    fn wake(&mut self) {}

    fn ask(&mut self, _wants: Wants) -> Found {
        Found::default()
    }

    fn awake(&mut self, _is_ready: bool) {}

    fn events(&self, wants: Wants) -> (BorrowedFd<'_>, libc::c_short) {
        let mut events = 0;
        if wants.packets {
            events |= libc::POLLIN;
        }
        if wants.room.is_some() {
            events |= libc::POLLOUT;
        }
        (self.socket.as_fd(), events)
    }
}
