//! Sequenced packets with descriptors, for the manager's socket.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send,
};

/// No packet is longer.
pub const MAX_BYTES: usize = 64 * 1024;

/// One packet.
pub struct Packet {
    /// Its length, which the buffer has.
    pub length: usize,
    /// It was longer than the buffer.
    pub truncated: bool,
    /// What came with it.
    pub fds: Vec<OwnedFd>,
}

/// One packet, without waiting; none when the peer is gone.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Packet>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(
        socket,
        &mut [io::IoSliceMut::new(buffer)],
        &mut ancillary,
        flags,
    )?;
    let fds = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some(Packet {
        length: received.bytes,
        truncated: received.flags.contains(ReturnFlags::TRUNC),
        fds,
    }))
}

/// Sends a packet without waiting. False where there is no room.
pub fn try_send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<bool> {
    match send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
