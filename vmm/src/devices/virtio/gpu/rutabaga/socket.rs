//! The private socket over which rutabaga believes to reach the compositor. Rutabaga can only
//! connect by path, so there is a path for a moment, beside the compositor's own.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

/// Listens until rutabaga has connected; the path goes when this is dropped.
#[derive(Debug)]
pub struct PrivateSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl PrivateSocket {
    /// A socket in the same folder as the compositor's, which only we use.
    pub fn beside(wayland: &Path) -> Result<Self, Errno> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let errno = |error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!(".rutabaga-{}-{number}", std::process::id());
        let path = wayland.with_file_name(name);
        // What a process with our number left behind when it was killed.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(errno)?;
        let socket = Self { listener, path };
        socket.listener.set_nonblocking(true).map_err(errno)?;
        Ok(socket)
    }

    /// Where rutabaga shall connect.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Our end of rutabaga's connection, if it has come. Another process's is closed.
    pub fn accept(&self) -> Option<OwnedFd> {
        loop {
            let (stream, _) = self.listener.accept().ok()?;
            let ours = rustix::net::sockopt::socket_peercred(&stream)
                .is_ok_and(|peer| peer.pid == rustix::process::getpid());
            if ours && stream.set_nonblocking(true).is_ok() {
                return Some(stream.into());
            }
        }
    }
}

impl AsFd for PrivateSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
