//! Packets through memory that the link has as well: each is copied once, between the ring and the
//! guest's own buffers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bulkhead_ring::{Broken, Endpoint, Memory, Side, WAKE};
use rustix::net::{SendFlags, Shutdown, send, shutdown};
use vm_memory::{GuestMemoryBackend, VolatileSlice};

use super::HEADER_BYTES;
use super::port::{Channel, Found, Next, Sent, Wants, cable, receive};
use crate::devices::virtio::buffers::{BadBuffer, Buffers};
use crate::memory::GuestMemory;

/// The rings, and the socket beside them.
pub struct Ring {
    socket: OwnedFd,
    /// None when the link has ended, or has broken them.
    ends: Option<Endpoint>,
    /// The socket may have something to say.
    is_ready: bool,
}

impl Ring {
    /// Goes on where the rings are.
    pub fn new(socket: OwnedFd, memory: Arc<Memory>) -> Self {
        let mut ring = Self {
            socket,
            ends: None,
            is_ready: true,
        };
        match Endpoint::attach(memory, Side::Card) {
            Ok(ends) => ring.ends = Some(ends),
            Err(broken) => ring.give_up(broken),
        }
        ring
    }

    /// Nothing in the rings can be believed any more: it is as if the link had ended, and so it is for the
    /// link.
    fn give_up(&mut self, broken: Broken) {
        tracing::warn!(%broken, "net: the cable is pulled out");
        self.ends = None;
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    fn try_send(&mut self, memory: &GuestMemory, buffers: &Buffers) -> Result<Sent, Broken> {
        let Some(ends) = &mut self.ends else {
            return Ok(Sent::Lost);
        };
        let length = usize::try_from(buffers.readable_len()).unwrap_or(usize::MAX);
        let Some(mut filling) = ends.outgoing.begin(length)? else {
            return Ok(Sent::Full);
        };
        let put = |slice: VolatileSlice<'_>| {
            // SAFETY: the slice is guest memory, mapped for as long as it is borrowed, and no ring's. What
            // the guest changes meanwhile changes what it sends, and nothing here looks at it.
            unsafe { filling.put_raw(slice.ptr_guard().as_ptr(), slice.len()) };
        };
        Ok(match each_slice(memory, buffers, put) {
            Ok(()) => {
                filling.finish();
                Sent::Whole
            }
            Err(BadBuffer) => Sent::Lost,
        })
    }

    fn try_ask(&mut self, wants: Wants) -> Result<Found, Broken> {
        let Some(ends) = &mut self.ends else {
            return Ok(Found::default());
        };
        Ok(Found {
            packets: wants.packets && ends.incoming.wait_for_packets()?,
            room: match wants.room {
                Some(length) => ends.outgoing.wait_for_room(length)?,
                None => false,
            },
        })
    }
}

fn each_slice(
    memory: &GuestMemory,
    buffers: &Buffers,
    mut visit: impl FnMut(VolatileSlice<'_>),
) -> Result<(), BadBuffer> {
    for range in buffers.readable() {
        let length = usize::try_from(range.length).map_err(|_| BadBuffer)?;
        for slice in memory.get_slices(range.address, length) {
            visit(slice.map_err(|_| BadBuffer)?);
        }
    }
    Ok(())
}

impl Channel for Ring {
    fn send(&mut self, memory: &GuestMemory, buffers: &Buffers) -> Sent {
        self.try_send(memory, buffers).unwrap_or_else(|broken| {
            self.give_up(broken);
            Sent::Lost
        })
    }

    fn next(&mut self) -> Next {
        // One at a time: where there are more, the socket stays ready, and a link that sends no end of them
        // does not hold the thread.
        if std::mem::take(&mut self.is_ready) {
            let mut untrusted_byte = [0];
            match receive(&self.socket, &mut untrusted_byte) {
                Ok(Some(0)) => self.ends = None,
                Ok(Some(1)) => {
                    if let Some(plugged) = cable(untrusted_byte[0]) {
                        return Next::Cable(plugged);
                    }
                }
                // Nothing, or what is not for us.
                Ok(_) => {}
                Err(error) => {
                    tracing::info!(%error, "net: the link");
                    self.ends = None;
                }
            }
        }
        let Some(ends) = &mut self.ends else {
            return Next::End;
        };
        match ends.incoming.peek() {
            Ok(Some(length)) => Next::Packet(length),
            Ok(None) => Next::Nothing,
            Err(broken) => {
                self.give_up(broken);
                Next::End
            }
        }
    }

    fn head(&self) -> [u8; HEADER_BYTES] {
        let mut head = [0; HEADER_BYTES];
        if let Some(ends) = &self.ends {
            ends.incoming.copy(0, &mut head);
        }
        head
    }

    fn copy(&self, at: usize, target: &VolatileSlice<'_>) {
        if let Some(ends) = &self.ends {
            let place = target.ptr_guard_mut();
            // SAFETY: the slice is guest memory, mapped for as long as it is borrowed, and no ring's;
            // others reach it by accesses that may race with this one.
            unsafe { ends.incoming.copy_raw(at, place.as_ptr(), target.len()) };
        }
    }

    fn drop_next(&mut self) {
        if let Some(ends) = &mut self.ends {
            ends.incoming.drop_next();
        }
    }

    fn wake(&mut self) {
        if self.ends.as_mut().is_some_and(Endpoint::must_wake) {
            // Where there is no room, wakes enough wait already; where nobody is, `next` will say so.
            let _ = send(
                &self.socket,
                &[WAKE],
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            );
        }
    }

    fn ask(&mut self, wants: Wants) -> Found {
        self.try_ask(wants).unwrap_or_else(|broken| {
            self.give_up(broken);
            // To be told of the end.
            Found {
                packets: true,
                room: true,
            }
        })
    }

    fn awake(&mut self, is_ready: bool) {
        self.is_ready |= is_ready;
        if let Some(ends) = &mut self.ends {
            ends.awake();
        }
    }

    fn events(&self, _wants: Wants) -> (BorrowedFd<'_>, libc::c_short) {
        (self.socket.as_fd(), libc::POLLIN)
    }
}
