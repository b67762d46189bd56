//! Goes over a folder without following a link, with one open descriptor and one buffer a level.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::SendError;
use crate::format::Kind;
use crate::limits::MAX_DEPTH;
use crate::links;
use crate::names;
use crate::watch::Watch;

pub(super) const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What is done with each entry.
pub(super) trait Visitor {
    /// A folder begins.
    fn enter(&mut self, data: &Stat, at: &Place<'_>, w: &mut Watch<'_>) -> Result<(), SendError>;
    /// It ends.
    fn leave(&mut self) -> Result<(), SendError>;
    /// A regular file in this folder; it was one a moment ago.
    fn file(
        &mut self,
        folder: BorrowedFd<'_>,
        data: &Stat,
        place: &Place<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<(), SendError>;
    /// A link whose target stays inside.
    fn link(
        &mut self,
        data: &Stat,
        target: &OsStr,
        place: &Place<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<(), SendError>;
}

/// Where an entry is, for errors and progress.
pub(super) struct Place<'a> {
    parent: &'a Path,
    levels: &'a [Level],
    /// Its own name.
    pub name: &'a OsStr,
}

impl Place<'_> {
    /// Its path, from what the user named.
    pub fn path(&self) -> PathBuf {
        let mut path = self.parent.to_owned();
        path.extend(self.levels.iter().map(|level| level.name.as_os_str()));
        path.join(self.name)
    }

    pub fn shown_name(&self) -> String {
        names::visible(self.name.as_bytes())
    }

    pub fn failed(&self, doing: &'static str, error: Errno) -> SendError {
        let path = self.path();
        match error {
            // It was there when its folder was read.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => SendError::Changed { path },
            _ => SendError::Io {
                doing,
                path,
                source: error.into(),
            },
        }
    }
}

/// A folder that is being read.
struct Level {
    name: std::ffi::OsString,
    entries: Dir,
}

/// The name at the end of a path, checked.
pub(super) fn last_name(path: &Path) -> Result<&OsStr, SendError> {
    let name = path.file_name().ok_or_else(|| SendError::NoName {
        path: path.to_owned(),
    })?;
    check_name(name, || path.to_owned())?;
    Ok(name)
}

/// Visits what is at a path, and all that is in it. The path itself is the user's word; links above
/// its last name are followed.
pub(super) fn walk(
    path: &Path,
    visitor: &mut dyn Visitor,
    watch: &mut Watch<'_>,
) -> Result<Kind, SendError> {
    let name = last_name(path)?;
    let parent = path.parent().unwrap_or(Path::new(""));
    let above = match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = openat(CWD, above, flags, Mode::empty())
        .map_err(|error| io("opening the folder that it is in", path, error))?;
    // At the top a missing file is a mistake of whoever named it, not a change.
    statat(&above, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| io("looking at it", path, error))?;
    let mut levels: Vec<Level> = Vec::new();
    let place = Place {
        parent,
        levels: &levels,
        name,
    };
    let Some(entries) = visit(above.as_fd(), &place, visitor, watch)? else {
        return Ok(Kind::File);
    };
    let name = name.to_owned();
    levels.push(Level { name, entries });
    while let Some(level) = levels.last_mut() {
        let entry = match level.entries.read() {
            Some(Ok(entry)) => entry,
            Some(Err(error)) => return Err(io("reading the folder", path, error)),
            None => {
                levels.pop();
                visitor.leave()?;
                continue;
            }
        };
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let Some(level) = levels.last() else { break };
        let place = Place {
            parent,
            levels: &levels,
            name,
        };
        check_name(name, || place.path())?;
        let folder = level.entries.fd();
        let folder = folder.map_err(|error| place.failed("reading its folder", error))?;
        if let Some(entries) = visit(folder, &place, visitor, watch)? {
            let name = name.to_owned();
            levels.push(Level { name, entries });
        }
    }
    Ok(Kind::Folder)
}

/// One entry; gives the folder's entries if it is one, to go on with.
fn visit(
    folder: BorrowedFd<'_>,
    place: &Place<'_>,
    visitor: &mut dyn Visitor,
    watch: &mut Watch<'_>,
) -> Result<Option<Dir>, SendError> {
    if watch.is_cancelled() {
        return Err(SendError::Cancelled);
    }
    let data = statat(folder, place.name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| place.failed("looking at it", error))?;
    match FileType::from_raw_mode(data.st_mode) {
        FileType::Directory => {
            if place.levels.len() >= MAX_DEPTH {
                return Err(SendError::Depth { path: place.path() });
            }
            let opened = openat(folder, place.name, FOLDER, Mode::empty())
                .map_err(|error| place.failed("opening the folder", error))?;
            let entries =
                Dir::new(opened).map_err(|error| place.failed("reading the folder", error))?;
            visitor.enter(&data, place, watch)?;
            Ok(Some(entries))
        }
        FileType::RegularFile => {
            visitor.file(folder, &data, place, watch)?;
            Ok(None)
        }
        FileType::Symlink => {
            let target = readlinkat(folder, place.name, Vec::new())
                .map_err(|error| place.failed("reading the link", error))?;
            links::stored(target.to_bytes(), place.levels.len()).map_err(|fault| {
                SendError::Link {
                    path: place.path(),
                    fault,
                }
            })?;
            visitor.link(&data, OsStr::from_bytes(target.to_bytes()), place, watch)?;
            Ok(None)
        }
        other => Err(SendError::Special {
            path: place.path(),
            what: special(other),
        }),
    }
}

/// What it is, if it is nothing that is sent.
pub(super) fn special(kind: FileType) -> &'static str {
    match kind {
        FileType::BlockDevice | FileType::CharacterDevice => "a device",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        _ => "no regular file",
    }
}

fn check_name(name: &OsStr, path: impl Fn() -> PathBuf) -> Result<(), SendError> {
    names::stored(name.as_bytes()).map_err(|fault| SendError::Name {
        path: path(),
        fault,
    })?;
    Ok(())
}

fn io(doing: &'static str, path: &Path, error: Errno) -> SendError {
    SendError::Io {
        doing,
        path: path.to_owned(),
        source: error.into(),
    }
}
