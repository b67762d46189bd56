//! A change of several files at once, whole or not at all.
//!
//! Everything new is first made under a hidden name. What is left to do then is a list of renames.
//! That list is written down ([`Change::apply`]): with the file that holds it the change is
//! decided, and whoever finds such a file at the next start does the rest ([`finish_all`]). A
//! power cut before leaves the old, one after leaves the new.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{new_file, remove_all, steps, sync_dir};
use crate::dirs::Dirs;
use crate::{Error, Result};

/// How everything begins that nobody is to see.
pub const HIDDEN: &str = ".bulkhead-";
/// How the lists of renames begin.
const DECIDED: &str = ".bulkhead-change-";

/// One of the manager's folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Folder {
    /// Of configurations.
    Config,
    /// Of volumes.
    Data,
    /// Of logs.
    Logs,
}

impl Folder {
    /// Where it is.
    pub fn path(self, dirs: &Dirs) -> &Path {
        match self {
            Folder::Config => &dirs.config,
            Folder::Data => &dirs.data,
            Folder::Logs => &dirs.logs,
        }
    }
}

/// One rename within a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    folder: Folder,
    from: String,
    to: String,
}

/// Renames that happen all or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    #[serde(rename = "move", default)]
    moves: Vec<Move>,
}

impl Change {
    /// With one more rename, if there is something of that name. What is hidden under the new name
    /// is replaced, anything else is not.
    pub fn rename(
        mut self,
        folder: Folder,
        from: impl Into<String>,
        to: impl Into<String>,
    ) -> Self {
        self.moves.push(Move {
            folder,
            from: from.into(),
            to: to.into(),
        });
        self
    }

    /// With something put away, to be removed by [`clean`].
    pub fn remove(self, folder: Folder, name: impl Into<String>) -> Self {
        let name = name.into();
        let doomed = format!("{HIDDEN}removed-{name}");
        self.rename(folder, name, doomed)
    }

    /// Does it. An error before anything was decided leaves everything as it was; one after that
    /// is rare (a disk that fails), and the next start of the manager ends the change.
    pub fn apply(&self, dirs: &Dirs, name: &str) -> Result<()> {
        let file = dirs.data.join(format!("{DECIDED}{name}"));
        if file.exists() && !finish_all(dirs) {
            // An earlier one failed in its middle, and cannot be ended now either.
            return Err(Error::Setting(format!(
                "an earlier change of domain `{name}` is not ended; see the manager's log and start \
                 it again"
            )));
        }
        let draft = dirs.data.join(format!("{HIDDEN}draft-{name}"));
        let text = toml::to_string(self).map_err(|error| Error::Setting(error.to_string()))?;
        // What the renames put in place must be there before they are.
        for folder in self.folders() {
            sync_dir(folder.path(dirs))?;
        }
        let decided = write(&draft, &text).and_then(|()| {
            steps::done()?;
            fs::rename(&draft, &file).map_err(Error::io("write", &file))?;
            sync_dir(&dirs.data)
        });
        if decided.is_err() {
            remove_all(&draft);
            remove_all(&file);
        }
        decided?;
        steps::decided();
        // What was decided is to be: a failure that passes is none.
        self.finish(dirs, &file).or_else(|error| {
            tracing::warn!(%error, "once more");
            self.finish(dirs, &file)
        })
    }

    fn folders(&self) -> Vec<Folder> {
        let mut folders = Vec::new();
        for Move { folder, .. } in &self.moves {
            if !folders.contains(folder) {
                folders.push(*folder);
            }
        }
        folders
    }

    /// Does what is left to do.
    fn finish(&self, dirs: &Dirs, file: &Path) -> Result<()> {
        for step in &self.moves {
            steps::done()?;
            let folder = step.folder.path(dirs);
            let (from, to) = (folder.join(&step.from), folder.join(&step.to));
            match fs::symlink_metadata(&from) {
                Ok(_) => {}
                // It is done already, or there is no such thing.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("read", &from)(error)),
            }
            if step.to.starts_with(HIDDEN) {
                remove_all(&to);
            }
            fs::rename(&from, &to).map_err(Error::io("put in place", &to))?;
        }
        steps::done()?;
        for folder in self.folders() {
            sync_dir(folder.path(dirs))?;
        }
        steps::done()?;
        fs::remove_file(file).map_err(Error::io("remove", file))?;
        sync_dir(&dirs.data)
    }

    fn is_sound(&self) -> bool {
        let plain = |name: &String| !name.is_empty() && name != ".." && !name.contains('/');
        self.moves
            .iter()
            .all(|step| plain(&step.from) && plain(&step.to))
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    let mut open = new_file(file)?;
    steps::done()?;
    open.write_all(text.as_bytes())
        .and_then(|()| open.sync_all())
        .map_err(Error::io("write", file))
}

/// Ends every change that was decided. Whether all could be ended.
pub fn finish_all(dirs: &Dirs) -> bool {
    let mut all = true;
    for file in hidden(&dirs.data) {
        let name = file.file_name().map(|name| name.as_encoded_bytes());
        if !name.is_some_and(|name| name.starts_with(DECIDED.as_bytes())) {
            continue;
        }
        let finished = fs::read_to_string(&file)
            .map_err(Error::io("read", &file))
            .and_then(|text| parse(&file, &text))
            .and_then(|change| change.finish(dirs, &file));
        match finished {
            Ok(()) => tracing::info!(file = %file.display(), "an interrupted change was ended"),
            Err(error) => {
                all = false;
                tracing::error!(%error, "an interrupted change cannot be ended");
            }
        }
    }
    all
}

fn parse(file: &Path, text: &str) -> Result<Change> {
    let wrong = |reason: String| Error::Config {
        file: file.to_owned(),
        line: 1,
        reason: format!("{reason}; this file is the manager's own and was changed by another"),
    };
    let change: Change =
        toml::from_str(text).map_err(|error| wrong(error.message().replace('\n', ", ")))?;
    if !change.is_sound() {
        return Err(wrong("a name in it leads elsewhere".to_owned()));
    }
    Ok(change)
}

/// Everything hidden in a folder.
pub fn hidden(dir: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(path = %dir.display(), %error, "not swept");
            return Vec::new();
        }
    };
    entries
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(HIDDEN.as_bytes())
        })
        .map(|entry| entry.path())
        .collect()
}

/// Removes what was put away under these names, and whatever else was hidden for them.
pub fn clean(dirs: &Dirs, names: &[String]) {
    for folder in [Folder::Config, Folder::Data, Folder::Logs] {
        for name in names {
            for kind in ["new", "removed"] {
                remove_all(&folder.path(dirs).join(format!("{HIDDEN}{kind}-{name}")));
            }
        }
    }
}

/// Writes a file under a hidden name, whole and safe.
pub fn prepare(dirs: &Dirs, folder: Folder, name: &str, text: &str) -> Result<String> {
    let hidden = format!("{HIDDEN}new-{name}");
    write(&folder.path(dirs).join(&hidden), text)?;
    steps::done()?;
    Ok(hidden)
}

/// Whether a change of this name waits for its end.
pub fn is_decided(dirs: &Dirs, name: &str) -> bool {
    dirs.data.join(format!("{DECIDED}{name}")).exists()
}
