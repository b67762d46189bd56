//! Connections to processes of ours that take JSON requests: the compositor, the link.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recv, sendmsg, socket_with,
};
use serde_json::Value;
use tokio::io::unix::AsyncFd;

/// The longest packet: more than a socket of this kind carries at once.
const MAX_PACKET: usize = 256 * 1024;
/// They answer at once, or they hang.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A `SOCK_SEQPACKET` connection with JSON packets.
pub struct Packets(AsyncFd<OwnedFd>);

impl Packets {
    /// To whoever listens at `path`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Packets::over(socket)
    }

    /// Over a connected socket that does not block.
    pub fn over(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: an OwnedFd keeps its descriptor open, and the same, for as long as it lives.
        Ok(Packets(unsafe { AsyncFd::register(socket) }?))
    }

    /// Asks for something and gives the answer; none in time is an error.
    pub async fn ask(&mut self, request: &Value, fds: &[BorrowedFd<'_>]) -> io::Result<Value> {
        let exchange = async {
            self.send(request.to_string().as_bytes(), fds).await?;
            let packet = self.receive().await?;
            let packet = packet.ok_or(io::ErrorKind::UnexpectedEof)?;
            serde_json::from_slice(&packet).map_err(io::Error::other)
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let mut ready = self.0.writable().await?;
            let sent = ready.try_io(|socket| {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                let flags = SendFlags::NOSIGNAL;
                Ok(sendmsg(
                    socket.get_ref(),
                    &[IoSlice::new(bytes)],
                    &mut ancillary,
                    flags,
                )?)
            });
            match sent {
                Ok(result) => return result.map(|_| ()),
                Err(_) => continue,
            }
        }
    }

    /// The next packet; none when the other side is gone.
    pub async fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; MAX_PACKET];
        loop {
            let mut ready = self.0.readable().await?;
            let received = ready.try_io(|socket| {
                let (count, _) = recv(socket.get_ref(), &mut buffer[..], RecvFlags::empty())?;
                Ok(count)
            });
            match received {
                Ok(Ok(0)) => return Ok(None),
                Ok(Ok(count)) => {
                    buffer.truncate(count);
                    return Ok(Some(buffer));
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => continue,
            }
        }
    }
}
