//! Sequenced packets with descriptors.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{Mode, chmod},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, recvmsg,
        socket_with,
    },
};

/// No packet is longer.
pub const MAX_BYTES: usize = 64 * 1024;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Makes a listening socket that only this user can use. A socket that is left over from a
/// compositor that is gone is replaced.
pub(crate) fn listen(path: &Path, kind: SocketType) -> io::Result<OwnedFd> {
    let socket = || socket_with(AddressFamily::UNIX, kind, FLAGS, None);
    let address = SocketAddrUnix::new(path)?;
    let listener = socket()?;
    match bind(&listener, &address) {
        Err(error) if error == rustix::io::Errno::ADDRINUSE => {
            if rustix::net::connect(socket()?, &address).is_ok() {
                return Err(error.into());
            }
            std::fs::remove_file(path)?;
            bind(&listener, &address)?;
        }
        other => other?,
    }
    // Nobody can connect before `listen`.
    chmod(path, Mode::RUSR | Mode::WUSR)?;
    rustix::net::listen(&listener, 16)?;
    Ok(listener)
}

pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(accept_with(listener, FLAGS)?)
}

pub(super) struct Packet {
    pub length: usize,
    pub truncated: bool,
    pub fds: Vec<OwnedFd>,
}

/// One packet; none when the peer is gone.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Packet>> {
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
    let truncated = received.flags.contains(ReturnFlags::TRUNC) || received.bytes > MAX_BYTES;
    Ok(Some(Packet {
        length: received.bytes,
        truncated,
        fds,
    }))
}

pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let sent = rustix::net::send(socket, bytes, flags)?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}
