//! The domains that exist: their files on disk.
//!
//! A domain exists when its TOML file does. Making one, copying, renaming and removing it are
//! each one [`change`], whole or not at all, whenever the power goes: whatever is interrupted is
//! ended or swept away at the next start. Nothing unfinished has a name that shows.

mod change;
mod copies;
pub(crate) mod steps;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_protocol::DomainName;

use crate::config::DomainConfig;
use crate::dirs::{Dirs, private_dir};
use crate::volumes::{self, HOME};
use crate::{Error, Result};
use change::{Change, Folder, HIDDEN};

/// A configuration longer than this is none.
const MAX_CONFIG_BYTES: u64 = 64 * 1024;
/// A sparse volume takes no space at first, but a filesystem must be made on it.
pub(crate) const NEEDED_MIB: u64 = 64;

/// The files of all domains.
#[derive(Debug, Clone)]
pub struct Store {
    dirs: Dirs,
    /// Names that domains are being made for.
    claimed: Arc<Mutex<BTreeSet<DomainName>>>,
    /// Held while a domain gets its number in the network.
    numbering: Arc<Mutex<()>>,
}

impl Store {
    /// With its folders made, and leftovers of interrupted work gone.
    pub fn open(dirs: Dirs) -> Result<Self> {
        for dir in [&dirs.config, &dirs.data, &dirs.logs, &dirs.runtime] {
            private_dir(dir).map_err(Error::io("make the folder", dir))?;
        }
        let store = Store {
            dirs,
            claimed: Arc::default(),
            numbering: Arc::default(),
        };
        store.sweep();
        Ok(store)
    }

    /// Ends what was decided, and removes what was not.
    fn sweep(&self) {
        if !change::finish_all(&self.dirs) {
            // What is hidden may be needed to end it.
            return;
        }
        for dir in [&self.dirs.config, &self.dirs.data, &self.dirs.logs] {
            change::hidden(dir).iter().for_each(|path| remove_all(path));
        }
        let volumes = fs::read_dir(&self.dirs.data)
            .into_iter()
            .flatten()
            .flatten();
        for dir in volumes
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
        {
            change::hidden(&dir)
                .iter()
                .for_each(|path| remove_all(path));
        }
    }

    /// The file that describes a domain.
    pub fn config_file(&self, name: &DomainName) -> PathBuf {
        self.dirs.config.join(format!("{name}.toml"))
    }

    /// The folder of a domain's volumes.
    pub fn data_dir(&self, name: &DomainName) -> PathBuf {
        self.dirs.data.join(name.as_str())
    }

    /// A domain's home volume.
    pub fn home_file(&self, name: &DomainName) -> PathBuf {
        self.data_dir(name).join(HOME)
    }

    /// The names of all domains.
    pub fn names(&self) -> Result<Vec<DomainName>> {
        let dir = &self.dirs.config;
        let entries = fs::read_dir(dir).map_err(Error::io("read", dir))?;
        let mut names: Vec<DomainName> = entries
            .flatten()
            .filter_map(|entry| {
                let path = entry.path();
                let is_toml = path.extension().is_some_and(|ending| ending == "toml");
                path.file_stem().filter(|_| is_toml)?.to_str()?.parse().ok()
            })
            .collect();
        names.sort();
        Ok(names)
    }

    /// Whether a domain of this name exists.
    pub fn exists(&self, name: &DomainName) -> bool {
        self.config_file(name).exists()
    }

    /// A domain's configuration as it is on disk now.
    pub fn load(&self, name: &DomainName) -> Result<DomainConfig> {
        let file = self.config_file(name);
        let length = match fs::metadata(&file) {
            Ok(data) => data.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::NoSuchDomain(name.clone()));
            }
            Err(error) => return Err(Error::io("read", &file)(error)),
        };
        if length > MAX_CONFIG_BYTES {
            let reason = format!("{length} bytes is too long for a domain's file");
            return Err(Error::Config {
                file,
                line: 1,
                reason,
            });
        }
        let text = fs::read_to_string(&file).map_err(Error::io("read", &file))?;
        DomainConfig::parse(&file, &text)
    }

    /// Makes a domain, whole or not at all. `template` is its template's folder, which a
    /// standalone domain's root is copied from; others need none.
    pub fn create(&self, config: &DomainConfig, template: Option<&Path>) -> Result<()> {
        let root = volumes::root::source(config, template)?;
        let claim = self.claim(&config.name)?;
        check_space(&self.dirs.data, NEEDED_MIB)?;
        self.make(&claim, &config.to_text(), |data| {
            if config.kind.forgets_home() {
                return Ok(());
            }
            if let Some(root) = root {
                volumes::root::copy(root, data, config)?;
                steps::done()?;
            }
            volumes::make(&data.join(HOME), config.home_size_mib)
        })
    }

    /// Removes a domain with everything in it, whole or not at all.
    pub fn remove(&self, name: &DomainName) -> Result<()> {
        if !self.exists(name) {
            return Err(Error::NoSuchDomain(name.clone()));
        }
        let removed = Change::default()
            .remove(Folder::Config, format!("{name}.toml"))
            .remove(Folder::Data, name.as_str())
            .remove(Folder::Logs, name.as_str())
            .apply(&self.dirs, name.as_str());
        self.clean_up(name);
        removed
    }

    /// Writes a domain's settings; lines of its file that say the same as before stay.
    pub fn save(&self, config: &DomainConfig) -> Result<()> {
        let file = self.config_file(&config.name);
        let text = fs::read_to_string(&file).map_err(Error::io("read", &file))?;
        let file_name = format!("{}.toml", config.name);
        let text = config.edit(&file, &text);
        let saved =
            change::prepare(&self.dirs, Folder::Config, &file_name, &text).and_then(|new| {
                let new = self.dirs.config.join(new);
                fs::rename(new, &file).map_err(Error::io("write", &file))?;
                sync_dir(&self.dirs.config)
            });
        if saved.is_err() {
            self.clean_up(&config.name);
        }
        saved
    }

    /// Puts a new domain in place: its file's text, and what `fill` puts into its folder.
    fn make(
        &self,
        claim: &Claim,
        text: &str,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let name = &claim.name;
        self.clean_up(name);
        let hidden = format!("{HIDDEN}new-{name}");
        let data = self.dirs.data.join(&hidden);
        let prepare = || {
            private_dir(&data).map_err(Error::io("make the folder", &data))?;
            steps::done()?;
            fill(&data)?;
            steps::done()?;
            sync_dir(&data)?;
            change::prepare(&self.dirs, Folder::Config, &format!("{name}.toml"), text)
        };
        let made = prepare().and_then(|config| {
            Change::default()
                .rename(Folder::Data, hidden, name.as_str())
                .rename(Folder::Config, config, format!("{name}.toml"))
                .apply(&self.dirs, name.as_str())
        });
        if made.is_err() {
            self.clean_up(name);
        }
        made
    }

    /// Removes what is hidden for a domain, unless a change of it waits for its end.
    fn clean_up(&self, name: &DomainName) {
        if !change::is_decided(&self.dirs, name.as_str()) {
            let names = [name.to_string(), format!("{name}.toml")];
            change::clean(&self.dirs, &names);
        }
    }

    pub(crate) fn numbering(&self) -> MutexGuard<'_, ()> {
        self.numbering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a name that no domain has and that nobody else is making one for.
    fn claim(&self, name: &DomainName) -> Result<Claim> {
        if self.exists(name) {
            return Err(Error::Exists(name.clone()));
        }
        let dir = self.data_dir(name);
        if dir.exists() {
            let name = name.clone();
            return Err(Error::Leftover { name, dir });
        }
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        if !claimed.insert(name.clone()) {
            return Err(Error::Busy(name.clone()));
        }
        Ok(Claim {
            name: name.clone(),
            claimed: self.claimed.clone(),
        })
    }
}

/// A name that a domain is being made for.
struct Claim {
    name: DomainName,
    claimed: Arc<Mutex<BTreeSet<DomainName>>>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.remove(&self.name);
    }
}

pub(crate) fn new_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("write", path))
}

/// Fails where less is free.
pub(crate) fn check_space(dir: &Path, needed_mib: u64) -> Result<()> {
    let free_mib = free_mib(dir)?;
    if free_mib < needed_mib {
        return Err(Error::Space {
            dir: dir.to_owned(),
            free_mib,
            needed_mib,
        });
    }
    Ok(())
}

/// How much is free.
pub(crate) fn free_mib(dir: &Path) -> Result<u64> {
    let free = rustix::fs::statvfs(dir).map_err(|error| Error::io("read", dir)(error.into()))?;
    Ok(free.f_bavail.saturating_mul(free.f_frsize) >> 20)
}

pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|open| open.sync_all())
        .map_err(Error::io("write", dir))
}

/// Best effort: what cannot be removed now is swept later.
pub(crate) fn remove_all(path: &Path) {
    let result = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match result {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "not removed"),
    }
}
