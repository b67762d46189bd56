//! What is being written: folders, files and links in the temporary folder, then their places.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, fsync, futimens, mkdirat, openat, renameat_with, symlinkat,
    syncfs, utimensat,
};
use rustix::io::Errno;

use super::ReceiveError;
use super::file::{OpenFile, Space, times};
use super::incoming::FOLDER;
use super::partial::Partial;
use crate::format::Meta;
use crate::limits::Limits;
use crate::links;
use crate::names::{self, NameFault};

/// A name gets a number up to this one.
const NUMBERS: u32 = 9_999;

/// The tree that is being received.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    partial: Partial<'a>,
    folders: Vec<Folder>,
    top: Vec<Top>,
    space: Space,
}

#[derive(Debug)]
struct Folder {
    folder: OwnedFd,
    name: String,
    meta: Meta,
}

/// An entry at the top: its name in the temporary folder, and once it is in place, there.
#[derive(Debug)]
struct Top {
    name: String,
    is_folder: bool,
    placed: Option<String>,
}

impl<'a> Tree<'a> {
    pub fn new(partial: Partial<'a>, limits: &Limits) -> Result<Self, ReceiveError> {
        Ok(Tree {
            space: Space::new(partial.folder(), limits.keep_free_bytes)?,
            partial,
            folders: Vec::new(),
            top: Vec::new(),
        })
    }

    /// In how many folders the next entry is; 0 at the top.
    pub fn folders(&self) -> usize {
        self.folders.len()
    }

    /// Makes a folder and goes into it; gives its name.
    pub fn enter(&mut self, untrusted_name: &[u8], meta: Meta) -> Result<String, ReceiveError> {
        let name = self.name(untrusted_name)?;
        self.take_space()?;
        mkdirat(self.folder(), &name, Mode::RWXU).map_err(|e| self.failed(&name, e))?;
        let folder = openat(self.folder(), &name, FOLDER, Mode::empty())
            .map_err(|error| self.failed(&name, error))?;
        self.remember(&name, true);
        self.folders.push(Folder {
            folder,
            name: name.clone(),
            meta,
        });
        Ok(name)
    }

    /// The folder is complete.
    pub fn leave(&mut self) -> Result<(), ReceiveError> {
        let Some(Folder { folder, name, meta }) = self.folders.pop() else {
            return Err(ReceiveError::Untrue {
                what: "a folder ended that had not begun",
            });
        };
        futimens(&folder, &times(meta)).map_err(|error| self.failed(&name, error))
    }

    /// Makes a file of this size.
    pub fn file(&mut self, untrusted_name: &[u8], size: u64) -> Result<OpenFile<'_>, ReceiveError> {
        let name = self.name(untrusted_name)?;
        self.take_space()?;
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC
            | OFlags::NOCTTY;
        let file = openat(self.folder(), &name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| self.failed(&name, error))?;
        self.remember(&name, false);
        Ok(OpenFile::new(file, name, size, &mut self.space))
    }

    /// Makes a link; gives its name.
    pub fn link(
        &mut self,
        untrusted_name: &[u8],
        untrusted_target: &[u8],
        meta: Meta,
    ) -> Result<String, ReceiveError> {
        let name = self.name(untrusted_name)?;
        let target = links::stored(untrusted_target, self.folders()).map_err(|fault| {
            ReceiveError::Link {
                name: name.clone(),
                at: self.place(),
                fault,
            }
        })?;
        self.take_space()?;
        symlinkat(&target, self.folder(), &name).map_err(|error| self.failed(&name, error))?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        utimensat(self.folder(), &name, &times(meta), flags)
            .map_err(|error| self.failed(&name, error))?;
        Ok(name)
    }

    /// Tells the disk to keep everything, then moves it to its place; gives the names there. If that
    /// fails, what was moved is moved back.
    pub fn put_into_place(mut self) -> Result<Vec<OsString>, ReceiveError> {
        syncfs(self.partial.folder())
            .map_err(|e| ReceiveError::io("writing to the disk", "what was received", e))?;
        let placed = self.place_all();
        if placed.is_err() {
            self.take_back();
        }
        placed?;
        let names = self.top.into_iter();
        Ok(names.filter_map(|top| top.placed.map(Into::into)).collect())
    }

    fn place_all(&mut self) -> Result<(), ReceiveError> {
        let incoming = self.partial.incoming.folder();
        for top in &mut self.top {
            top.placed = Some(place(self.partial.folder(), incoming, top)?);
        }
        fsync(incoming)
            .map_err(|e| ReceiveError::io("writing to the disk", "the incoming folder", e))
    }

    fn take_back(&self) {
        for top in &self.top {
            if let Some(placed) = &top.placed {
                // It is gone if somebody took it already; then it is theirs.
                let _ = renameat_with(
                    self.partial.incoming.folder(),
                    placed,
                    self.partial.folder(),
                    &top.name,
                    RenameFlags::NOREPLACE,
                );
            }
        }
    }

    /// What an entry costs.
    fn take_space(&mut self) -> Result<(), ReceiveError> {
        self.space.take(self.partial.folder(), 0)
    }

    /// The open folder that the next entry is made in.
    fn folder(&self) -> BorrowedFd<'_> {
        match self.folders.last() {
            Some(folder) => folder.folder.as_fd(),
            None => self.partial.folder(),
        }
    }

    fn name(&self, untrusted_name: &[u8]) -> Result<String, ReceiveError> {
        let name = match self.folders.is_empty() {
            true => names::stored_at_top(untrusted_name),
            false => names::stored(untrusted_name),
        };
        name.map_err(|fault: NameFault| ReceiveError::Name {
            name: names::visible(untrusted_name),
            at: self.place(),
            fault,
        })
    }

    fn remember(&mut self, name: &str, is_folder: bool) {
        if self.folders.is_empty() {
            self.top.push(Top {
                name: name.to_owned(),
                is_folder,
                placed: None,
            });
        }
    }

    fn failed(&self, name: &str, error: Errno) -> ReceiveError {
        match error {
            Errno::EXIST => ReceiveError::Duplicate {
                name: name.to_owned(),
                at: self.place(),
            },
            _ => ReceiveError::io("making", format!("`{name}` in {}", self.place()), error),
        }
    }

    /// Where the next entry is, for errors.
    fn place(&self) -> String {
        let names: Vec<_> = self
            .folders
            .iter()
            .map(|level| level.name.as_str())
            .collect();
        match names.is_empty() {
            true => "what was sent".to_owned(),
            false => format!("`{}`", names.join("/")),
        }
    }
}

/// Moves one entry to its place, under the first name that is free.
fn place(from: BorrowedFd<'_>, to: BorrowedFd<'_>, top: &Top) -> Result<String, ReceiveError> {
    for number in 0..=NUMBERS {
        let name = match number {
            0 => top.name.clone(),
            _ => names::numbered(&top.name, number, top.is_folder),
        };
        match renameat_with(from, &top.name, to, &name, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(name),
            Err(Errno::EXIST) => {}
            Err(error) => {
                let at = format!("`{name}`");
                return Err(ReceiveError::io("moving into place", at, error));
            }
        }
    }
    Err(ReceiveError::Namesakes {
        name: top.name.clone(),
    })
}
