//! Removes a folder and all in it: by names in open folders, following nothing, with one buffer a
//! level.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Dir, Mode, openat, unlinkat};
use rustix::io::Errno;

use super::incoming::FOLDER;
use crate::limits::MAX_DEPTH;

/// A receiver makes one level more than it takes.
const LEVELS: usize = MAX_DEPTH + 2;
/// A folder that is not empty after it was emptied is read again, so often.
const ATTEMPTS: u8 = 4;

struct Level {
    name: CString,
    entries: Dir,
    attempt: u8,
}

/// Removes the folder of this name. It is no error if it is gone already.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let mut levels: Vec<Level> = open(parent, name, 0)?.into_iter().collect();
    while let Some(level) = levels.last_mut() {
        let below = match level.entries.read() {
            Some(entry) => empty(level, entry?.file_name())?,
            None => {
                let Some(done) = levels.pop() else { break };
                let above = match levels.last() {
                    Some(level) => level.entries.fd()?,
                    None => parent,
                };
                close(above, &done)?
            }
        };
        if let Some(below) = below {
            if levels.len() >= LEVELS {
                return Err(Errno::MLINK);
            }
            levels.push(below);
        }
    }
    Ok(())
}

/// Removes one entry; a folder must be emptied first.
fn empty(level: &Level, name: &CStr) -> Result<Option<Level>, Errno> {
    if name == c"." || name == c".." {
        return Ok(None);
    }
    let folder = level.entries.fd()?;
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(None),
        Err(Errno::ISDIR | Errno::PERM) => open(folder, name, 0),
        Err(error) => Err(error),
    }
}

/// Removes a folder that was emptied.
fn close(above: BorrowedFd<'_>, level: &Level) -> Result<Option<Level>, Errno> {
    match unlinkat(above, &level.name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTEMPTY) if level.attempt < ATTEMPTS => {
            open(above, &level.name, level.attempt.saturating_add(1))
        }
        Err(error) => Err(error),
    }
}

fn open(above: BorrowedFd<'_>, name: &CStr, attempt: u8) -> Result<Option<Level>, Errno> {
    let folder = match openat(above, name, FOLDER, Mode::empty()) {
        Ok(folder) => folder,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(Level {
        name: name.to_owned(),
        entries: Dir::new(folder)?,
        attempt,
    }))
}
