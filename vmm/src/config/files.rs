//! Opening what a configuration names: paths, inherited descriptors, listening sockets.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use bulkhead_vmm_api::{Socket, Source};

/// What is wrong with a file. Each message names it and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened.
    #[error("{what} {path:?}: {source}: {remedy}")]
    Open {
        /// What the file is for.
        what: String,
        /// Its path.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// A descriptor that is not open, or given twice.
    #[error("{what}: descriptor {fd} is {problem}: pass an open descriptor, each only once")]
    Descriptor {
        /// What it is for.
        what: String,
        /// Its number.
        fd: i32,
        /// What is wrong.
        problem: &'static str,
    },
    /// A socket exists and somebody listens on it.
    #[error("{what} {path:?} is in use: is this guest running already? Choose another path")]
    SocketInUse {
        /// What the socket is for.
        what: String,
        /// Its path.
        path: PathBuf,
    },
    /// Another VMM uses the image.
    #[error("{name} is in use by another guest: stop that one, or use the image read-only")]
    ImageInUse {
        /// The file.
        name: String,
    },
    /// Its contents are not what they should be.
    #[error("{name} {problem}")]
    Content {
        /// The file.
        name: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The host failed.
    #[error("{what}: {source}")]
    Host {
        /// What was attempted.
        what: String,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// An open file with a name for messages.
#[derive(Debug)]
pub struct Named {
    /// The file.
    pub file: File,
    /// What it is and where it came from.
    pub name: String,
}

impl Named {
    /// An error about the file's contents.
    pub fn content(&self, problem: impl Into<String>) -> FileError {
        FileError::Content {
            name: self.name.clone(),
            problem: problem.into(),
        }
    }

    /// An error of the host while using the file.
    pub fn host(&self, source: io::Error) -> FileError {
        FileError::Host {
            what: self.name.clone(),
            source,
        }
    }

    /// Two guests that write one image destroy it: a writer locks everybody out.
    pub fn lock(&self, exclusive: bool) -> Result<(), FileError> {
        let kind = if exclusive {
            libc::LOCK_EX
        } else {
            libc::LOCK_SH
        };
        // SAFETY: the descriptor is open.
        if unsafe { libc::flock(self.file.as_raw_fd(), kind | libc::LOCK_NB) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::WouldBlock {
            return Err(FileError::ImageInUse {
                name: self.name.clone(),
            });
        }
        tracing::debug!("{} cannot be locked: {error}", self.name);
        Ok(())
    }
}

/// The path of a socket that this process made, removed in the end.
#[derive(Debug)]
pub struct SocketPath(PathBuf);

impl Drop for SocketPath {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct ListeningSocket {
    /// The socket, non-blocking.
    pub listener: UnixListener,
    /// Its path, if this process made it; keep it for as long as the socket is used.
    pub path: Option<SocketPath>,
}

/// The descriptors that were handed to this process; each can be taken once.
#[derive(Debug, Default)]
pub struct Inherited {
    taken: BTreeSet<i32>,
}

impl Inherited {
    /// Takes over a descriptor.
    pub fn take(&mut self, what: &str, fd: i32) -> Result<OwnedFd, FileError> {
        let error = |problem| FileError::Descriptor {
            what: what.to_owned(),
            fd,
            problem,
        };
        // Standard streams belong to the process: 0 to 2 stay usable for messages.
        if fd < 3 {
            return Err(error("a standard stream"));
        }
        // SAFETY: reading flags of any number is harmless.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        if flags < 0 {
            return Err(error("not open"));
        }
        if !self.taken.insert(fd) {
            return Err(error("given twice"));
        }
        // SAFETY: changes a flag of an open descriptor.
        unsafe { libc::fcntl(fd, libc::F_SETFD, flags | libc::FD_CLOEXEC) };
        // SAFETY: it is open, the caller of this process handed it over for this purpose, and
        // `taken` proves that nobody else here owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Opens for reading.
    pub fn open(&mut self, what: &str, source: &Source) -> Result<Named, FileError> {
        self.open_with(what, source, OpenOptions::new().read(true))
    }

    /// Opens for reading and writing.
    pub fn open_rw(&mut self, what: &str, source: &Source) -> Result<Named, FileError> {
        self.open_with(what, source, OpenOptions::new().read(true).write(true))
    }

    /// Opens a log: created if missing, written from its end.
    pub fn create(&mut self, what: &str, source: &Source) -> Result<File, FileError> {
        Ok(self
            .open_with(what, source, OpenOptions::new().append(true).create(true))?
            .file)
    }

    fn open_with(
        &mut self,
        what: &str,
        source: &Source,
        options: &OpenOptions,
    ) -> Result<Named, FileError> {
        match source {
            Source::Path(path) => {
                let file = options.open(path).map_err(|source| FileError::Open {
                    what: what.to_owned(),
                    path: path.clone(),
                    remedy: remedy(source.kind()),
                    source,
                })?;
                if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
                    return Err(FileError::Open {
                        what: what.to_owned(),
                        path: path.clone(),
                        source: io::ErrorKind::IsADirectory.into(),
                        remedy: "name a file",
                    });
                }
                Ok(Named {
                    file,
                    name: format!("{what} {path:?}"),
                })
            }
            Source::Fd(fd) => {
                let file = File::from(self.take(what, *fd)?);
                Ok(Named {
                    file,
                    name: format!("{what} (descriptor {fd})"),
                })
            }
        }
    }

    /// Makes or takes a listening socket.
    pub fn listen(&mut self, what: &str, socket: &Socket) -> Result<ListeningSocket, FileError> {
        let host = |source| FileError::Host {
            what: what.to_owned(),
            source,
        };
        let (listener, path) = match socket {
            Socket::Fd(fd) => (UnixListener::from(self.take(what, *fd)?), None),
            Socket::Path(path) => {
                remove_stale(what, path)?;
                let listener = UnixListener::bind(path).map_err(|source| FileError::Open {
                    what: what.to_owned(),
                    path: path.clone(),
                    remedy: remedy(source.kind()),
                    source,
                })?;
                (listener, Some(SocketPath(path.clone())))
            }
        };
        listener.set_nonblocking(true).map_err(host)?;
        Ok(ListeningSocket { listener, path })
    }
}

/// Copies of standard input and output.
pub fn stdio() -> Result<(File, File), FileError> {
    let copy = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned()
            .map(File::from)
            .map_err(|source| FileError::Host {
                what: "standard input and output".into(),
                source,
            })
    };
    Ok((copy(io::stdin().as_fd())?, copy(io::stdout().as_fd())?))
}

/// Removes a socket that a process left behind; refuses one that somebody listens on.
fn remove_stale(what: &str, path: &Path) -> Result<(), FileError> {
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|source| FileError::Open {
                what: what.to_owned(),
                path: path.to_owned(),
                remedy: remedy(source.kind()),
                source,
            })
        }
        _ => Err(FileError::SocketInUse {
            what: what.to_owned(),
            path: path.to_owned(),
        }),
    }
}

fn remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "give this user access to it",
        io::ErrorKind::AddrInUse => "remove that file or choose another path",
        io::ErrorKind::StorageFull => "free some space",
        _ => "check the path and the file system",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_taken_once() {
        let file = tempfile::tempfile().unwrap();
        let fd = std::os::fd::IntoRawFd::into_raw_fd(file);
        let mut inherited = Inherited::default();
        let first = inherited.take("disk", fd).unwrap();
        assert!(
            inherited
                .take("disk", fd)
                .unwrap_err()
                .to_string()
                .contains("given twice")
        );
        assert!(inherited.take("disk", 1).is_err());
        assert!(
            inherited
                .take("disk", 100_000)
                .unwrap_err()
                .to_string()
                .contains("not open")
        );
        assert!(inherited.take("disk", -1).is_err());
        drop(first);
    }

    #[test]
    fn sockets_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let socket = Socket::Path(path.clone());
        let listening = Inherited::default().listen("control", &socket).unwrap();
        let error = Inherited::default().listen("control", &socket).unwrap_err();
        assert!(matches!(error, FileError::SocketInUse { .. }));
        drop(listening);
        assert!(!path.exists());
        drop(UnixListener::bind(&path).unwrap()); // left behind by a crash
        Inherited::default().listen("control", &socket).unwrap();
    }

    #[test]
    fn a_written_image_is_used_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        std::fs::write(&path, [0; 512]).unwrap();
        let open = || {
            Inherited::default()
                .open_rw("disk", &Source::Path(path.clone()))
                .unwrap()
        };
        let first = open();
        first.lock(false).unwrap();
        open().lock(false).unwrap();
        assert!(
            open()
                .lock(true)
                .unwrap_err()
                .to_string()
                .contains("in use")
        );
        drop(first);
        let writer = open();
        writer.lock(true).unwrap();
        assert!(open().lock(false).is_err());
    }

    #[test]
    fn messages_name_the_file_and_what_to_do() {
        let source = Source::Path("/nonexistent/vmlinux".into());
        let message = Inherited::default()
            .open("kernel", &source)
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("kernel \"/nonexistent/vmlinux\": "),
            "{message}"
        );
        assert!(message.ends_with(": check the path"), "{message}");
        let folder = Source::Path("/".into());
        assert!(Inherited::default().open("kernel", &folder).is_err());
    }
}
