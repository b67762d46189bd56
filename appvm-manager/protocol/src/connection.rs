//! Stream connections, over vsock in a guest and over Unix sockets in tests.

use std::io::{self, Read, Write};
use std::mem::size_of;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// One connection. The standard library has no type for vsock streams, but those of Unix sockets
/// use the same system calls.
#[derive(Debug)]
pub struct Connection(UnixStream);

impl From<UnixStream> for Connection {
    fn from(stream: UnixStream) -> Self {
        Connection(stream)
    }
}

impl Connection {
    /// To the host (or to a daemon's Unix socket).
    pub fn to_unix(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).map(Connection)
    }

    /// To a vsock port.
    pub fn to_vsock(cid: u32, port: u32) -> io::Result<Self> {
        let socket = vsock_socket()?;
        let address = address(cid, port);
        // SAFETY: the address is a sockaddr_vm of the length given.
        let result = unsafe {
            libc::connect(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_vm>() as libc::socklen_t,
            )
        };
        check(result.into())?;
        Ok(Connection(UnixStream::from(socket)))
    }

    /// Another handle on the same connection.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Connection)
    }

    /// How long a read may take.
    pub fn set_read_timeout(&self, most: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(most)
    }

    /// Nothing more is written.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }

    /// Ends both directions, for all handles.
    pub fn shutdown(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Where exec connections come in.
pub enum Listener {
    /// In a guest.
    Vsock(OwnedFd),
    /// In tests.
    Unix(UnixListener),
}

impl Listener {
    /// On a vsock port, open to the host only.
    pub fn vsock(port: u32) -> io::Result<Self> {
        let socket = vsock_socket()?;
        let address = address(libc::VMADDR_CID_ANY, port);
        // SAFETY: the address is a sockaddr_vm of the length given.
        let result = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_vm>() as libc::socklen_t,
            )
        };
        check(result.into())?;
        // SAFETY: the descriptor is a bound socket.
        check(unsafe { libc::listen(socket.as_raw_fd(), 64) }.into())?;
        Ok(Listener::Vsock(socket))
    }

    /// The next connection. Programs of the guest itself are turned away: only the host may
    /// ask the agent for anything.
    pub fn accept(&self) -> io::Result<Connection> {
        let socket = match self {
            Listener::Unix(listener) => return listener.accept().map(|(s, _)| Connection(s)),
            Listener::Vsock(socket) => socket,
        };
        loop {
            let mut peer = address(0, 0);
            let mut length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
            // SAFETY: `peer` and `length` describe room for an address.
            let result = unsafe {
                libc::accept4(
                    socket.as_raw_fd(),
                    (&raw mut peer).cast(),
                    &mut length,
                    libc::SOCK_CLOEXEC,
                )
            };
            let fd = check(result.into())? as i32;
            // SAFETY: the descriptor is new and nobody else owns it.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            if peer.svm_cid == libc::VMADDR_CID_HOST {
                return Ok(Connection(UnixStream::from(fd)));
            }
        }
    }
}

fn vsock_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked.
    let socket = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    let socket = check(socket.into())? as i32;
    // SAFETY: the descriptor is new and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: a sockaddr_vm is plain old data, for which zeroes are valid.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

/// The result of a system call that returns -1 and sets `errno`.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
