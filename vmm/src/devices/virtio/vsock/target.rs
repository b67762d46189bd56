//! Where connections go that the guest opens.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

/// Who takes connections of the guest.
#[derive(Debug)]
pub enum GuestTarget {
    /// Nobody.
    Refused,
    /// Whoever listens on the Unix socket `PREFIX_PORT`. The port is a number: nothing in the path
    /// is the guest's to choose.
    PathPrefix(PathBuf),
    /// Whoever reads from this packet socket: it gets the port and one end of a socket pair.
    Socket(OwnedFd),
}

impl GuestTarget {
    /// A stream to who takes connections to `port`. Does not wait.
    pub fn connect(&self, port: u32) -> Result<OwnedFd, Errno> {
        match self {
            Self::Refused => Err(Errno::CONNREFUSED),
            Self::PathPrefix(prefix) => {
                let mut path = prefix.clone().into_os_string();
                path.push(format!("_{port}"));
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let stream =
                    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                rustix::net::connect(&stream, &SocketAddrUnix::new(path)?)?;
                Ok(stream)
            }
            Self::Socket(socket) => {
                let (ours, theirs) = rustix::net::socketpair(
                    AddressFamily::UNIX,
                    SocketType::STREAM,
                    SocketFlags::CLOEXEC,
                    None,
                )?;
                set_nonblocking(&ours)?;
                let fds = [theirs.as_fd()];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
                    return Err(Errno::MSGSIZE);
                }
                rustix::net::sendmsg(
                    socket,
                    &[IoSlice::new(&port.to_le_bytes())],
                    &mut ancillary,
                    SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
                )?;
                Ok(ours)
            }
        }
    }
}

/// Makes a descriptor non-blocking.
pub fn set_nonblocking(fd: impl AsFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)
}
