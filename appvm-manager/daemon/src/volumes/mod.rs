//! What a domain keeps: its home volume and the snapshots of it, and its root where it owns one.
//! The host never looks into them; the guest makes the file system, and lets it grow.

pub mod copy;
pub mod root;
pub mod snapshots;

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::config::DomainConfig;
use crate::dirs::private_dir;
use crate::store::{NEEDED_MIB, Store, check_space, new_file, remove_all, sync_dir};
use crate::{Error, Result};

/// The home volume, in the domain's folder.
pub const HOME: &str = "home.img";

/// Makes a sparse file of this size.
pub fn make(path: &Path, size_mib: u32) -> Result<()> {
    let file = new_file(path)?;
    let made = file
        .set_len(bytes(size_mib))
        .and_then(|()| file.sync_all())
        .map_err(Error::io("make the volume", path));
    if made.is_err() {
        remove_all(path);
    }
    made
}

fn bytes(size_mib: u32) -> u64 {
    u64::from(size_mib) << 20
}

impl Store {
    /// A domain's home volume for one start, open for reading and writing. One that was lost is
    /// made again, one that is smaller than configured grows. A home that is to be forgotten has
    /// no name: it is gone with its last descriptor, whatever happens.
    pub fn open_home(&self, config: &DomainConfig) -> Result<File> {
        let dir = self.data_dir(&config.name);
        private_dir(&dir).map_err(Error::io("make the folder", &dir))?;
        if config.kind.forgets_home() {
            check_space(&dir, NEEDED_MIB)?;
            return unnamed(&dir, config.home_size_mib);
        }
        let file = self.home_file(&config.name);
        if !file.exists() {
            check_space(&dir, NEEDED_MIB)?;
            make(&file, config.home_size_mib)?;
            sync_dir(&dir)?;
        }
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&file)
            .map_err(Error::io("open", &file))?;
        let length = open.metadata().map_err(Error::io("read", &file))?.len();
        let wanted = bytes(config.home_size_mib);
        if length < wanted {
            tracing::info!(domain = %config.name, length, wanted, "the home volume grows");
            open.set_len(wanted)
                .and_then(|()| open.sync_all())
                .map_err(Error::io("let grow", &file))?;
        }
        Ok(open)
    }

    /// Fails where a domain's home would have to shrink, which would cut off what is in it.
    pub fn check_home_size(&self, config: &DomainConfig) -> Result<()> {
        let length = match fs::metadata(self.home_file(&config.name)) {
            Ok(data) => data.len(),
            Err(_) => return Ok(()),
        };
        if length <= bytes(config.home_size_mib) {
            return Ok(());
        }
        let reason = format!(
            "its home has {} MiB and cannot shrink to {}; make a new domain of that size and copy \
             what you need into it",
            length >> 20,
            config.home_size_mib
        );
        Err(Error::Volume {
            name: config.name.clone(),
            reason,
        })
    }
}

/// A sparse file without a name.
fn unnamed(dir: &Path, size_mib: u32) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let without_name = options.clone().custom_flags(libc::O_TMPFILE).open(dir);
    let file = match without_name {
        Ok(file) => file,
        Err(error)
            if error.kind() == ErrorKind::Unsupported
                || matches!(error.raw_os_error(), Some(libc::EISDIR | libc::ENOENT)) =>
        {
            // Some file systems cannot; then it has one for a moment, and one that is swept.
            let path = dir.join(".bulkhead-new-home");
            remove_all(&path);
            let file = options.create_new(true).open(&path);
            let file = file.map_err(Error::io("make the volume", &path))?;
            fs::remove_file(&path).map_err(Error::io("make the volume", &path))?;
            file
        }
        Err(error) => return Err(Error::io("make a volume in", dir)(error)),
    };
    file.set_len(bytes(size_mib))
        .map_err(Error::io("make a volume in", dir))?;
    Ok(file)
}
