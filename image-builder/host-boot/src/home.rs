//! What lives on the data partition: `/var`, the user's home, and the machine's identity. The
//! root itself, with `/etc`, stays read-only.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use rustix::mount::mount_bind;

use crate::{
    data::{self, DATA, damaged},
    error::{BootError, step},
    parameters::to_hex,
};

/// The desktop user.
const USER: u32 = 1000;
/// What a new home has.
const SKELETON: &str = "/usr/share/bulkhead/skel";
/// The folders of `/var` that programs expect; systemd-tmpfiles makes the rest.
const VAR: &[&str] = &[
    "cache",
    "lib",
    "lib/systemd",
    "log",
    "log/journal",
    "spool",
    "tmp",
];

/// Puts the data partition's folders in their places.
pub fn bind() -> Result<(), BootError> {
    prepare(Path::new(DATA), Path::new(SKELETON), USER)
        .map_err(|error| damaged(&data::device(), error))?;
    for (from, to) in [
        ("var", "/var"),
        ("home", "/home"),
        ("etc/machine-id", "/etc/machine-id"),
    ] {
        mount_bind(format!("{DATA}/{from}"), to).map_err(step(format!("mounting {to}")))?;
    }
    Ok(())
}

/// Makes what is missing. Each thing appears whole: a power cut leaves it missing or complete.
fn prepare(data: &Path, skeleton: &Path, user: u32) -> std::io::Result<()> {
    for folder in VAR {
        fs::create_dir_all(data.join("var").join(folder))?;
    }
    fs::set_permissions(data.join("var/tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::create_dir_all(data.join("etc"))?;
    fs::create_dir_all(data.join("home"))?;
    let identity = data.join("etc/machine-id");
    if !is_identity(&fs::read_to_string(&identity).unwrap_or_default()) {
        whole(&identity, |file| {
            writeln!(file, "{}", to_hex(&random_identity()?))
        })?;
    }
    let home = data.join("home/user");
    if !home.exists() {
        let partial = data.join("home/.user.new");
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        copy(skeleton, &partial, user)?;
        fs::set_permissions(&partial, fs::Permissions::from_mode(0o700))?;
        // Its files must be on the disk before the name says that all is there.
        rustix::fs::syncfs(File::open(data)?)?;
        fs::rename(&partial, &home)?;
        File::open(data.join("home"))?.sync_all()?;
    }
    Ok(())
}

fn is_identity(text: &str) -> bool {
    let text = text.trim_end();
    text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// As machine-id(5) says: a random UUID of version 4, without dashes.
fn random_identity() -> std::io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = bytes.get_mut(filled..).unwrap_or_default();
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
    }
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    Ok(bytes)
}

fn whole(path: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> std::io::Result<()> {
    let partial = path.with_extension("new");
    let mut file = File::create(&partial)?;
    write(&mut file)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

/// Copies files and folders, and gives them to the user. The skeleton is a part of the verified
/// root, so it is as deep and as large as we made it.
fn copy(from: &Path, to: &Path, user: u32) -> std::io::Result<()> {
    let mut waiting: Vec<(PathBuf, PathBuf)> = vec![(from.into(), to.into())];
    while let Some((from, to)) = waiting.pop() {
        if from.is_dir() {
            fs::create_dir(&to)?;
            for entry in fs::read_dir(&from)? {
                let entry = entry?;
                waiting.push((entry.path(), to.join(entry.file_name())));
            }
        } else {
            fs::copy(&from, &to)?;
        }
        chown(&to, Some(user), Some(user))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_made_once_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (data, skeleton) = (folder.path().join("data"), folder.path().join("skel"));
        fs::create_dir_all(skeleton.join(".config/x")).unwrap();
        fs::write(skeleton.join(".config/x/y.toml"), "label = 1").unwrap();
        let own = rustix::process::getuid().as_raw();
        // What an interrupted first boot left.
        fs::create_dir_all(data.join("home/.user.new/half")).unwrap();
        fs::create_dir_all(data.join("etc")).unwrap();
        fs::write(data.join("etc/machine-id"), "ab").unwrap();

        prepare(&data, &skeleton, own).unwrap();
        let file = data.join("home/user/.config/x/y.toml");
        assert_eq!(fs::read_to_string(&file).unwrap(), "label = 1");
        assert!(!data.join("home/user/half").exists());
        let identity = fs::read_to_string(data.join("etc/machine-id")).unwrap();
        assert!(is_identity(&identity), "{identity}");

        // What the user changed stays.
        fs::remove_file(&file).unwrap();
        prepare(&data, &skeleton, own).unwrap();
        assert!(!file.exists());
        let again = fs::read_to_string(data.join("etc/machine-id")).unwrap();
        assert_eq!(again, identity);
    }
}
