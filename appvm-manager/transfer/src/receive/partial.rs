//! The temporary folder: what is not complete lies in it, and goes with it.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, flock, fstat, mkdirat, openat, statat};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::incoming::FOLDER;
use super::remove::remove;
use super::{Incoming, ReceiveError};
use crate::names::PARTIAL_PREFIX;

/// Hexadecimal digits after [`PARTIAL_PREFIX`].
const DIGITS: usize = 16;
const ATTEMPTS: u32 = 16;

/// A temporary folder of this process, locked so that nobody cleans it up, and removed with all that
/// is in it when this is dropped.
#[derive(Debug)]
pub(super) struct Partial<'a> {
    pub incoming: &'a Incoming,
    name: CString,
    folder: OwnedFd,
}

impl<'a> Partial<'a> {
    pub fn new(incoming: &'a Incoming) -> Result<Self, ReceiveError> {
        let failed = |error| ReceiveError::io("making", "the temporary folder", error);
        for _ in 0..ATTEMPTS {
            let mut random = [0; 8];
            getrandom(&mut random, GetRandomFlags::empty()).map_err(failed)?;
            let mut name = PARTIAL_PREFIX.to_owned();
            for byte in random {
                name.push_str(&format!("{byte:02x}"));
            }
            let name = CString::new(name).map_err(|_| failed(Errno::INVAL))?;
            match mkdirat(incoming.folder(), &name, Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(failed(error)),
            }
            match lock(incoming.folder(), &name) {
                Ok(Some(folder)) => {
                    return Ok(Partial {
                        incoming,
                        name,
                        folder,
                    });
                }
                // Another receiver took it for a left one, before it was locked.
                Ok(None) => {}
                Err(error) => {
                    let _ = remove(incoming.folder(), &name);
                    return Err(failed(error));
                }
            }
        }
        Err(failed(Errno::EXIST))
    }

    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        // What cannot be removed now, `clean_up_partial` tries again.
        let _ = remove(self.incoming.folder(), &self.name);
    }
}

/// Opens and locks a folder, if it is there and nobody else has locked it.
fn lock(parent: BorrowedFd<'_>, name: &CString) -> Result<Option<OwnedFd>, Errno> {
    let folder = match openat(parent, name, FOLDER, Mode::empty()) {
        Ok(folder) => folder,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error),
    };
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error),
    }
    // It may have been removed between the two.
    let locked = fstat(&folder)?;
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) if (there.st_dev, there.st_ino) == (locked.st_dev, locked.st_ino) => {
            Ok(Some(folder))
        }
        Ok(_) | Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes what receivers that were killed have left in an incoming folder, and says how many there
/// were. Those that are still at work are not touched, so it can be called at any time.
pub fn clean_up_partial(incoming: &Incoming) -> Result<u64, ReceiveError> {
    let failed = |error| ReceiveError::io("cleaning up", "what an earlier transfer left", error);
    let folder = openat(incoming.folder(), ".", FOLDER, Mode::empty()).map_err(failed)?;
    let mut entries = Dir::new(folder).map_err(failed)?;
    let mut removed = 0_u64;
    while let Some(entry) = entries.read() {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_owned();
        if !is_partial(name.to_bytes()) {
            continue;
        }
        if let Some(_locked) = lock(incoming.folder(), &name).map_err(failed)? {
            remove(incoming.folder(), &name).map_err(failed)?;
            removed = removed.saturating_add(1);
        }
    }
    Ok(removed)
}

fn is_partial(name: &[u8]) -> bool {
    name.strip_prefix(PARTIAL_PREFIX.as_bytes())
        .is_some_and(|digits| {
            digits.len() == DIGITS
                && digits
                    .iter()
                    .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        })
}
