//! The kernel's settings of its network, below `/proc/sys/net`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const FOLDER: &str = "/proc/sys/net";
/// How each of our interfaces behaves: what the link does not carry is not sent, nobody says by a
/// packet where others go, and an interface speaks only for its own address.
const BEHAVIOUR: [(&str, &str); 6] = [
    ("ipv6/conf/IF/disable_ipv6", "1"),
    ("ipv4/conf/IF/accept_redirects", "0"),
    ("ipv4/conf/IF/send_redirects", "0"),
    ("ipv4/conf/IF/accept_source_route", "0"),
    ("ipv4/conf/IF/rp_filter", "1"),
    ("ipv4/conf/IF/arp_ignore", "1"),
];

/// A setting that the kernel does not take.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {source}", file = .file.display())]
pub struct SettingError {
    /// Its file.
    pub file: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// Sets one. A kernel without it does not do such a thing.
pub fn set(setting: &str, value: &str) -> Result<(), SettingError> {
    let file = Path::new(FOLDER).join(setting);
    match fs::write(&file, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| SettingError { file, source }),
    }
}

/// Sets what an interface does by itself.
pub fn behave(interface: &str) -> Result<(), SettingError> {
    for (setting, value) in BEHAVIOUR {
        set(&setting.replace("IF", interface), value)?;
    }
    Ok(())
}
