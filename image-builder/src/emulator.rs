//! The QEMU that test machines run on where the processor is emulated.
//!
//! QEMU 7.2 of Debian 12 now and then ends guests of an emulated host, whatever they do
//! (`docs/testing.md`). Where it is what is installed, a newer one is fetched from the release's
//! backports and unpacked beside the images; nothing on the machine is changed. It runs with the
//! libraries and the firmware that the installed one brought.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::{Apt, Mirror};
use crate::command::{program as tool, run};
use crate::error::{Error, io};

/// The program, as it is installed.
pub const INSTALLED: &str = "qemu-system-x86_64";
/// From this version on the installed one is good enough.
const GOOD: u32 = 8;
/// The parts that are needed here: the program, its modules, its data.
const PACKAGES: [&str; 3] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data"];
/// Firmware that other packages bring. QEMU looks for it beside its own data.
const FIRMWARE: [&str; 2] = ["/usr/share/seabios", "/usr/lib/ipxe/qemu"];
/// Beside `bin`, where Debian's package has its modules.
const MODULES: &str = "lib/x86_64-linux-gnu/qemu";
/// A device that is in a module, and needs one more.
const DEVICE: &str = "virtio-gpu-pci,help";
/// In the cache.
const FOLDER: &str = "emulator";

/// The best emulator here: a fetched one if there is one, otherwise what is installed.
#[must_use]
pub fn program(cache: &Path) -> PathBuf {
    let fetched = fetched(cache);
    if needs_newer() && fetched.is_file() {
        fetched
    } else {
        INSTALLED.into()
    }
}

/// A command that starts this emulator. A fetched one does not find its modules by itself.
#[must_use]
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some(prefix) = program.parent().and_then(Path::parent) {
        let modules = prefix.join(MODULES);
        if modules.is_dir() {
            command.env("QEMU_MODULE_DIR", modules);
        }
    }
    command
}

/// The major version of a QEMU.
#[must_use]
pub fn major_of(program: &Path) -> Option<u32> {
    let output = Command::new(program).arg("--version").output().ok()?;
    major(&String::from_utf8_lossy(&output.stdout))
}

fn major(version: &str) -> Option<u32> {
    let number = version.split("version ").nth(1)?;
    number.split('.').next()?.trim().parse().ok()
}

fn fetched(cache: &Path) -> PathBuf {
    cache.join(FOLDER).join("usr/bin").join(INSTALLED)
}

fn needs_newer() -> bool {
    major_of(Path::new(INSTALLED)).is_some_and(|major| major < GOOD)
}

/// Whether [`fetch`] has something to do: the installed one is old, and its release has backports.
#[must_use]
pub fn is_missing(cache: &Path) -> bool {
    needs_newer() && !fetched(cache).is_file() && backports().is_some()
}

/// Fetches a newer emulator.
pub fn fetch(cache: &Path, mirror: &Mirror) -> Result<(), Error> {
    let Some(suite) = backports() else {
        return Ok(());
    };
    fs::create_dir_all(cache).map_err(io("creating", cache))?;
    let apt = Apt::open(&cache.join(format!("apt-{suite}")), mirror, &suite)?;
    let work = tempfile::tempdir_in(cache).map_err(io("creating a folder in", cache))?;
    let tree = work.path().join("tree");
    for package in PACKAGES {
        let folder = work.path().join(package);
        fs::create_dir(&folder).map_err(io("creating", &folder))?;
        let file = apt.download(package, &folder)?;
        run(
            tool("dpkg-deb", "dpkg")?.arg("-x").arg(&file).arg(&tree),
            "unpacking the emulator",
        )?;
    }
    let data = tree.join("usr/share/qemu");
    for folder in FIRMWARE {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let link = data.join(entry.file_name());
            if !link.exists() {
                std::os::unix::fs::symlink(entry.path(), &link).map_err(io("linking", &link))?;
            }
        }
    }
    // What is missing shows here, and not in the middle of a test.
    run(
        command(&tree.join("usr/bin").join(INSTALLED)).args(["-device", DEVICE]),
        "starting the newer emulator",
    )?;
    let folder = cache.join(FOLDER);
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(io("removing", &folder))?;
    }
    fs::rename(&tree, &folder).map_err(io("moving to", &folder))
}

/// The backports of this machine's Debian, if that is the release whose emulator is too old.
fn backports() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
    };
    let codename = value("VERSION_CODENAME")?;
    (value("ID")? == "debian" && codename == "bookworm").then(|| format!("{codename}-backports"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_understood() {
        assert_eq!(major("QEMU emulator version 7.2.22 (Debian)"), Some(7));
        assert_eq!(major("QEMU emulator version 10.0.2"), Some(10));
        assert_eq!(major("what"), None);
    }

    #[test]
    fn without_a_fetched_one_the_installed_one_runs() {
        let cache = tempfile::tempdir().unwrap();
        assert_eq!(program(cache.path()), Path::new(INSTALLED));
    }
}
