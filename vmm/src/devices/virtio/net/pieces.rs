//! A packet whose bytes lie in several places: the kernel copies it between the socket and the guest's
//! own buffers, and nothing of it passes through memory of ours.

use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use vm_memory::GuestMemoryBackend;

use crate::devices::virtio::buffers::Range;
use crate::memory::GuestMemory;

/// More places than this are not worth it (and the kernel takes at most 1024).
const MAX_PIECES: usize = 256;

/// Places of a packet, in order, and what they borrow.
pub struct Pieces<'a> {
    list: Vec<libc::iovec>,
    borrowed: PhantomData<&'a mut [u8]>,
}

/// These places cannot be given to the kernel: they do not exist, or are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfit;

impl<'a> Pieces<'a> {
    /// No place yet; there will be about so many.
    pub fn with_capacity(pieces: usize) -> Self {
        Self {
            list: Vec::with_capacity(pieces.min(MAX_PIECES)),
            borrowed: PhantomData,
        }
    }

    /// Adds memory of ours.
    pub fn add_own(&mut self, bytes: &'a mut [u8]) {
        self.list.push(libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        });
    }

    /// Adds guest memory.
    pub fn add_guest(&mut self, memory: &'a GuestMemory, range: Range) -> Result<(), Unfit> {
        let length = usize::try_from(range.length).map_err(|_| Unfit)?;
        for slice in memory.get_slices(range.address, length) {
            let slice = slice.map_err(|_| Unfit)?;
            if self.list.len() >= MAX_PIECES {
                return Err(Unfit);
            }
            self.list.push(libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            });
        }
        Ok(())
    }

    /// Sends all of it as one packet, without waiting.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        let message = self.message();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the message holds places that are ours or the guest's for as long as `self` is
        // there: what they are part of is borrowed. The kernel only reads them. Nobody else relies
        // on what the guest's memory holds, which the guest may change meanwhile.
        answer(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) })
    }

    /// Takes one packet, without waiting, and returns its length, which may be more than there is
    /// room for.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        let mut message = self.message();
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        // SAFETY: as in `send`; our own memory among the places is borrowed for writing, and the
        // guest's is reached only by accesses that others may race with. Descriptors that come along
        // are closed by the kernel: there is no room for them.
        answer(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) })
    }

    fn message(&mut self) -> libc::msghdr {
        // SAFETY: a msghdr is plain old data, for which zeroes are valid: no name, no descriptors.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.list.as_mut_ptr();
        message.msg_iovlen = self.list.len() as _;
        message
    }
}

fn answer(result: libc::ssize_t) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| {
        let error = std::io::Error::last_os_error();
        Errno::from_io_error(&error).unwrap_or(Errno::IO)
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use vm_memory::{Bytes, GuestAddress};

    use super::*;

    fn range(address: u64, length: u32) -> Range {
        Range {
            address: GuestAddress(address),
            length,
        }
    }

    #[test]
    fn a_packet_goes_from_places_to_places() {
        // Two regions side by side: a range may lie in both.
        let regions = [(GuestAddress(0), 0x1000), (GuestAddress(0x1000), 0x1000)];
        let memory = GuestMemory::from_ranges(&regions).unwrap();
        memory.write_slice(b"abcdef", GuestAddress(0xffd)).unwrap();
        let flags = SocketFlags::CLOEXEC;
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let send = || {
            let mut head = *b"12";
            let mut pieces = Pieces::with_capacity(3);
            pieces.add_own(&mut head);
            pieces.add_guest(&memory, range(0xffd, 6)).unwrap();
            pieces.send(one.as_fd())
        };
        assert_eq!(send(), Ok(8));
        let (mut head, mut rest) = ([0; 3], [0; 2]);
        let mut pieces = Pieces::with_capacity(3);
        pieces.add_own(&mut head);
        pieces.add_guest(&memory, range(0x100, 3)).unwrap();
        pieces.add_own(&mut rest);
        assert_eq!(pieces.receive(other.as_fd()), Ok(8));
        assert_eq!(pieces.receive(other.as_fd()), Err(Errno::AGAIN));
        let mut middle = [0; 4];
        memory.read_slice(&mut middle, GuestAddress(0x100)).unwrap();
        assert_eq!((&head, &middle, &rest), (b"12a", b"bcd\0", b"ef"));
        // What is too long says how long.
        assert_eq!(send(), Ok(8));
        let mut head = [0; 3];
        let mut pieces = Pieces::with_capacity(1);
        pieces.add_own(&mut head);
        assert_eq!(pieces.receive(other.as_fd()), Ok(8));
    }

    #[test]
    fn what_is_not_there_or_too_much_is_unfit() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let mut pieces = Pieces::with_capacity(0);
        for bad in [range(0xfff, 2), range(u64::MAX, 2), range(0x1000, u32::MAX)] {
            assert_eq!(pieces.add_guest(&memory, bad), Err(Unfit));
        }
        let mut pieces = Pieces::with_capacity(9);
        for _ in 0..MAX_PIECES {
            pieces.add_guest(&memory, range(0, 1)).unwrap();
        }
        assert_eq!(pieces.add_guest(&memory, range(0, 1)), Err(Unfit));
    }
}
