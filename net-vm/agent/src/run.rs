//! What the runs of this program leave for each other in a network domain: `apply` says what is to
//! run, and the services of the template wait for that.

use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fixed::Fixed;

/// Everything that is written here; it goes with the guest.
pub const FOLDER: &str = "/run/bulkhead-net";
const WANTED: &str = "wanted.json";
/// No file of ours is longer.
const MAX_BYTES: u64 = 64 * 1024;

/// What the services are to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The physical card, which gets its address by DHCP.
    pub physical: Option<String>,
    /// Its address, if no DHCP server is to be asked.
    #[serde(default)]
    pub fixed: Option<Fixed>,
    /// The same, if it is a wireless one.
    #[serde(default)]
    pub wireless: Option<String>,
    /// Who is asked for names, whatever its DHCP server says.
    #[serde(default)]
    pub names: Option<Ipv4Addr>,
    /// There are clients, who ask for names.
    pub forwards_dns: bool,
    /// The rules of some are about names; they ask at this address of ours.
    #[serde(default)]
    pub chosen_names: Option<Ipv4Addr>,
}

/// The path of a file of ours.
pub fn file(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Writes a file of ours whole: who reads it meanwhile sees the one before.
pub fn write(name: &str, text: &str) -> io::Result<()> {
    fs::create_dir_all(FOLDER)?;
    replace(&file(name), text)
}

/// Writes any file whole, in the place of what was there, a link as well.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    let mut open = fs::File::create_new(&draft)?;
    open.write_all(text.as_bytes())?;
    fs::rename(&draft, path)
}

/// Reads a JSON file of ours, if it is there.
pub fn read<T: serde::de::DeserializeOwned>(name: &str) -> Option<T> {
    let path = file(name);
    if fs::metadata(&path).ok()?.len() > MAX_BYTES {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

impl Wanted {
    /// What was said last.
    pub fn now() -> Option<Self> {
        read(WANTED)
    }

    /// Says it, and wakes who waits for it.
    pub fn tell(&self) -> io::Result<()> {
        let text = serde_json::to_string(self).map_err(io::Error::other)?;
        write(WANTED, &text)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        for entry in fs::read_dir(FOLDER)?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|ending| ending == "wake") {
                // Nobody may listen there any more.
                let _ = socket.send_to(&[0], &path);
            }
        }
        Ok(())
    }

    /// Waits until something is wanted that `look` finds in it. `name` is the waiting service's.
    pub fn wait_for<T>(name: &str, look: impl Fn(Wanted) -> Option<T>) -> io::Result<T> {
        fs::create_dir_all(FOLDER)?;
        let path = file(&format!("{name}.wake"));
        let _ = fs::remove_file(&path);
        // First, so that nothing is missed between looking and waiting.
        let socket = UnixDatagram::bind(&path)?;
        loop {
            if let Some(found) = Wanted::now().and_then(&look) {
                let _ = fs::remove_file(&path);
                return Ok(found);
            }
            socket.recv(&mut [0])?;
        }
    }
}

/// Makes a folder that is root's, whatever was there but a link.
pub fn root_folder(folder: &Path, mode: u32) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if fs::symlink_metadata(folder)?.is_symlink() {
        return Err(io::Error::other(format!("{} is a link", folder.display())));
    }
    chown(folder, Some(0), Some(0))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_take_the_place_of_links() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a.conf"), folder.path().join("other"));
        fs::write(&other, "other").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        replace(&path, "new").unwrap();
        replace(&path, "newer").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "newer");
        assert_eq!(fs::read_to_string(&other).unwrap(), "other");
        assert!(path.symlink_metadata().unwrap().is_file());
    }
}
