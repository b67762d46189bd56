//! Where everything lies, after the XDG base directory specification.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

use bulkhead_protocol::DomainName;

/// The manager's folders.
#[derive(Debug, Clone)]
pub struct Dirs {
    /// `NAME.toml` of each domain.
    pub config: PathBuf,
    /// A folder per domain with its volumes.
    pub data: PathBuf,
    /// A folder per domain with its logs.
    pub logs: PathBuf,
    /// A folder per running domain with its sockets.
    pub runtime: PathBuf,
    /// The user's own templates, a folder each.
    pub templates: PathBuf,
    /// Icons that were decoded.
    pub icons: PathBuf,
}

/// A variable that every session has is missing.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not set; log in to a desktop session or set it")]
pub struct MissingVariable(&'static str);

impl Dirs {
    /// From the environment.
    pub fn from_environment() -> Result<Self, MissingVariable> {
        let absolute = |name: &'static str| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let home = absolute("HOME");
        let below_home = |name: &'static str, default: &str| {
            absolute(name)
                .or_else(|| home.as_ref().map(|home| home.join(default)))
                .ok_or(MissingVariable("HOME"))
        };
        let runtime = absolute("XDG_RUNTIME_DIR").ok_or(MissingVariable("XDG_RUNTIME_DIR"))?;
        Ok(Dirs {
            config: below_home("XDG_CONFIG_HOME", ".config")?.join("bulkhead/domains"),
            data: below_home("XDG_DATA_HOME", ".local/share")?.join("bulkhead/domains"),
            logs: below_home("XDG_STATE_HOME", ".local/state")?.join("bulkhead/domains"),
            runtime: runtime.join("bulkhead/domains"),
            templates: below_home("XDG_DATA_HOME", ".local/share")?.join("bulkhead/templates"),
            // The number changes with the decoder's results.
            icons: below_home("XDG_CACHE_HOME", ".cache")?.join("bulkhead/icons-1"),
        })
    }

    /// The sockets of a running domain.
    pub fn runtime_of(&self, name: &DomainName) -> PathBuf {
        self.runtime.join(name.as_str())
    }

    /// The log of what crossed between domains.
    pub fn transfers(&self) -> PathBuf {
        self.logs.with_file_name("transfers.jsonl")
    }

    /// The logs of a domain.
    pub fn logs_of(&self, name: &DomainName) -> PathBuf {
        self.logs.join(name.as_str())
    }
}

/// A folder for its owner only, with its parents.
pub fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}
