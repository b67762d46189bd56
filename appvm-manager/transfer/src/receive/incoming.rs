//! The incoming folder: `~/Incoming/SOURCE`.

use std::fs::DirBuilder;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use bulkhead_protocol::name::DomainName;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use super::ReceiveError;

pub(super) const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// An open folder that files are received into.
#[derive(Debug)]
pub struct Incoming {
    folder: OwnedFd,
    path: PathBuf,
}

impl Incoming {
    /// The folder for files from `source` in `base` (`~/Incoming`). Both are made if they do not
    /// exist, for this user alone. `base` is the user's word and may be a link; the folder in it may
    /// not.
    pub fn open(base: &Path, source: &DomainName) -> Result<Self, ReceiveError> {
        let failed = |source: std::io::Error| ReceiveError::Folder {
            path: base.to_owned(),
            source,
        };
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(base)
            .map_err(failed)?;
        let flags = FOLDER.difference(OFlags::NOFOLLOW);
        let above = openat(CWD, base, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
        let path = base.join(source.as_str());
        let failed = |error: Errno| ReceiveError::Folder {
            path: path.clone(),
            source: error.into(),
        };
        match mkdirat(&above, source.as_str(), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error)),
        }
        let folder = openat(&above, source.as_str(), FOLDER, Mode::empty()).map_err(failed)?;
        Ok(Incoming { folder, path })
    }

    /// A folder that exists.
    pub fn at(path: &Path) -> Result<Self, ReceiveError> {
        let folder = openat(CWD, path, FOLDER, Mode::empty());
        let folder = folder.map_err(|error| ReceiveError::Folder {
            path: path.to_owned(),
            source: error.into(),
        })?;
        Ok(Incoming {
            folder,
            path: path.to_owned(),
        })
    }

    /// Its path, as it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}
