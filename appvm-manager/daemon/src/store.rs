//! The domains that exist: their files on disk.
//!
//! A domain exists when its TOML file does. Creating writes the volumes first and the TOML file
//! last, by rename; removing goes the other way round. Whatever is interrupted in between has a
//! name that begins with a dot and is swept away at the next start.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bulkhead_protocol::DomainName;

use crate::config::DomainConfig;
use crate::dirs::{Dirs, private_dir};
use crate::{Error, Result};

/// A configuration longer than this is none.
const MAX_CONFIG_BYTES: u64 = 64 * 1024;
/// A sparse volume takes no space at first, but a filesystem must be made on it.
const NEEDED_MIB: u64 = 64;

/// The files of all domains.
#[derive(Debug, Clone)]
pub struct Store {
    dirs: Dirs,
}

impl Store {
    /// With its folders made, and leftovers of interrupted work gone.
    pub fn open(dirs: Dirs) -> Result<Self> {
        for dir in [&dirs.config, &dirs.data, &dirs.logs, &dirs.runtime] {
            private_dir(dir).map_err(Error::io("make the folder", dir))?;
        }
        let store = Store { dirs };
        store.sweep();
        Ok(store)
    }

    fn sweep(&self) {
        for dir in [&self.dirs.config, &self.dirs.data] {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry
                    .file_name()
                    .as_encoded_bytes()
                    .starts_with(b".bulkhead-")
                {
                    remove_all(&entry.path());
                }
            }
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
        self.data_dir(name).join("home.img")
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

    /// Makes a domain, whole or not at all.
    pub fn create(&self, config: &DomainConfig) -> Result<()> {
        let name = &config.name;
        if self.exists(name) {
            return Err(Error::Exists(name.clone()));
        }
        let data = self.data_dir(name);
        if data.exists() {
            return Err(Error::Leftover {
                name: name.clone(),
                dir: data,
            });
        }
        check_space(&self.dirs.data)?;
        let temporary_data = self.dirs.data.join(format!(".bulkhead-new-{name}"));
        let temporary_config = self.dirs.config.join(format!(".bulkhead-new-{name}"));
        let result = self.create_in(config, &temporary_data, &temporary_config);
        if result.is_err() {
            remove_all(&temporary_data);
            remove_all(&temporary_config);
        }
        result
    }

    fn create_in(&self, config: &DomainConfig, data: &Path, file: &Path) -> Result<()> {
        let name = &config.name;
        private_dir(data).map_err(Error::io("make the folder", data))?;
        let home = data.join("home.img");
        make_volume(&home, config.home_size_mib)?;
        sync_dir(data)?;
        let mut open = new_file(file)?;
        open.write_all(config.to_text().as_bytes())
            .and_then(|()| open.sync_all())
            .map_err(Error::io("write", file))?;
        let final_data = self.data_dir(name);
        fs::rename(data, &final_data).map_err(Error::io("make the folder", &final_data))?;
        let renamed = sync_dir(&self.dirs.data).and_then(|()| {
            let target = self.config_file(name);
            fs::rename(file, &target).map_err(Error::io("write", &target))?;
            sync_dir(&self.dirs.config)
        });
        if renamed.is_err() {
            remove_all(&self.config_file(name));
            remove_all(&final_data);
        }
        renamed
    }

    /// A domain's home volume, open for reading and writing. One that was lost is made again.
    pub fn open_home(&self, config: &DomainConfig) -> Result<File> {
        let file = self.home_file(&config.name);
        if !file.exists() {
            let dir = self.data_dir(&config.name);
            private_dir(&dir).map_err(Error::io("make the folder", &dir))?;
            check_space(&dir)?;
            make_volume(&file, config.home_size_mib)?;
        }
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&file)
            .map_err(Error::io("open", &file))
    }

    /// Removes a domain with everything in it.
    pub fn remove(&self, name: &DomainName) -> Result<()> {
        let file = self.config_file(name);
        match fs::remove_file(&file) {
            Ok(()) => sync_dir(&self.dirs.config)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::NoSuchDomain(name.clone()));
            }
            Err(error) => return Err(Error::io("remove", &file)(error)),
        }
        let data = self.data_dir(name);
        let doomed = self.dirs.data.join(format!(".bulkhead-removed-{name}"));
        remove_all(&doomed);
        if data.exists() {
            fs::rename(&data, &doomed).map_err(Error::io("remove", &data))?;
            remove_all(&doomed);
        }
        remove_all(&self.dirs.logs_of(name));
        Ok(())
    }
}

fn new_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("write", path))
}

/// A sparse file of this size. The guest makes the filesystem.
fn make_volume(path: &Path, size_mib: u32) -> Result<()> {
    let file = new_file(path)?;
    let made = file
        .set_len(u64::from(size_mib) << 20)
        .and_then(|()| file.sync_all())
        .map_err(Error::io("make the volume", path));
    if made.is_err() {
        remove_all(path);
    }
    made
}

fn check_space(dir: &Path) -> Result<()> {
    let free = rustix::fs::statvfs(dir).map_err(|error| Error::io("read", dir)(error.into()))?;
    let free_mib = free.f_bavail.saturating_mul(free.f_frsize) >> 20;
    if free_mib < NEEDED_MIB {
        return Err(Error::Space {
            dir: dir.to_owned(),
            free_mib,
            needed_mib: NEEDED_MIB,
        });
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|open| open.sync_all())
        .map_err(Error::io("write", dir))
}

/// Best effort: what cannot be removed now is swept later.
fn remove_all(path: &Path) {
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

#[cfg(test)]
mod tests {
    use bulkhead_protocol::Label;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let sub = |name: &str| dir.path().join(name);
        let dirs = Dirs {
            config: sub("config"),
            data: sub("data"),
            logs: sub("logs"),
            runtime: sub("runtime"),
            templates: sub("templates"),
            icons: sub("icons"),
        };
        let store = Store::open(dirs).unwrap();
        (dir, store)
    }

    fn entries(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn create_list_load_remove() {
        let (_dir, store) = store();
        let config = DomainConfig::new("work".parse().unwrap(), Label::Red);
        store.create(&config).unwrap();
        assert_eq!(store.names().unwrap(), std::slice::from_ref(&config.name));
        assert_eq!(store.load(&config.name).unwrap(), config);
        let home = fs::metadata(store.home_file(&config.name)).unwrap();
        assert_eq!(home.len(), 4096 << 20);
        assert!(matches!(store.create(&config), Err(Error::Exists(_))));
        store.remove(&config.name).unwrap();
        assert!(matches!(
            store.remove(&config.name),
            Err(Error::NoSuchDomain(_))
        ));
        assert_eq!(
            (entries(&store.dirs.config), entries(&store.dirs.data)),
            (0, 0)
        );
    }

    #[test]
    fn a_failed_create_leaves_nothing() {
        let (_dir, store) = store();
        let config = DomainConfig::new("work".parse().unwrap(), Label::Red);
        // The configuration cannot be renamed onto a folder.
        fs::create_dir_all(store.dirs.config.join(".bulkhead-new-work/x")).unwrap();
        assert!(store.create(&config).is_err());
        assert_eq!(
            (entries(&store.dirs.config), entries(&store.dirs.data)),
            (0, 0)
        );
        fs::create_dir(store.data_dir(&config.name)).unwrap();
        assert!(matches!(store.create(&config), Err(Error::Leftover { .. })));
    }

    #[test]
    fn interrupted_work_is_swept() {
        let (_dir, store) = store();
        fs::create_dir(store.dirs.data.join(".bulkhead-new-x")).unwrap();
        fs::write(store.dirs.config.join(".bulkhead-new-x"), "").unwrap();
        let store = Store::open(store.dirs).unwrap();
        assert_eq!(
            (entries(&store.dirs.config), entries(&store.dirs.data)),
            (0, 0)
        );
    }
}
