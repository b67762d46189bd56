//! What must be installed to build and run Bulkhead, and the command that installs it.

use std::process::{Command, Stdio};

use crate::{command::find_program, error::Error};

/// Something that must be present, and the Debian package that brings it.
#[derive(Debug, Clone, Copy)]
enum Need {
    /// A program in PATH.
    Program(&'static str, &'static str),
    /// A library that pkg-config knows.
    Library(&'static str, &'static str),
    /// A file.
    File(&'static str, &'static str),
}

const NEEDS: &[Need] = &[
    Need::Program("gcc", "gcc"),
    Need::File("/usr/lib/x86_64-linux-gnu/libc.a", "libc6-dev"),
    Need::Program("pkg-config", "pkg-config"),
    Need::Library("pixman-1", "libpixman-1-dev"),
    Need::Library("xkbcommon", "libxkbcommon-dev"),
    Need::Library("libseat", "libseat-dev"),
    Need::Library("libudev", "libudev-dev"),
    Need::Library("libinput", "libinput-dev"),
    Need::File("/usr/share/X11/xkb/rules/evdev", "xkb-data"),
    Need::Program("dbus-daemon", "dbus-daemon"),
    Need::Program("dbus-monitor", "dbus-bin"),
    Need::Program("strip", "binutils"),
    Need::Program("dpkg-deb", "dpkg"),
    Need::Program("mkfs.erofs", "erofs-utils"),
    Need::Program("mkfs.ext4", "e2fsprogs"),
    Need::Program("mkfs.vfat", "dosfstools"),
    Need::Program("mcopy", "mtools"),
    Need::Program("mmdebstrap", "mmdebstrap"),
    Need::File("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
    Need::Program("sfdisk", "fdisk"),
    Need::Program("veritysetup", "cryptsetup-bin"),
    Need::Program("qemu-system-x86_64", "qemu-system-x86"),
    Need::Program("xz", "xz-utils"),
    Need::Program("zstd", "zstd"),
    Need::File(crate::apt::KEYRING, "debian-archive-keyring"),
];

/// Packages that are missing on this machine.
#[must_use]
pub fn missing_packages() -> Vec<&'static str> {
    let mut missing: Vec<&str> = Vec::new();
    let uidmap = Need::Program("newuidmap", "uidmap");
    let for_users = (!rustix::process::geteuid().is_root()).then_some(&uidmap);
    for need in NEEDS.iter().chain(for_users) {
        let (present, package) = match need {
            Need::Program(name, package) => (find_program(name).is_some(), package),
            Need::File(path, package) => (std::path::Path::new(path).exists(), package),
            Need::Library(name, package) => (has_library(name), package),
        };
        if !present && !missing.contains(package) {
            missing.push(package);
        }
    }
    missing
}

fn has_library(name: &str) -> bool {
    Command::new("pkg-config")
        .args(["--exists", name])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command that installs these packages, for people to copy.
#[must_use]
pub fn install_command(packages: &[&str]) -> String {
    format!(
        "apt-get install --no-install-recommends {}",
        packages.join(" ")
    )
}

/// What [`ensure`] found and did.
#[derive(Debug, PartialEq, Eq)]
pub enum Setup {
    /// All is there.
    Complete,
    /// These packages were installed just now.
    Installed(Vec<&'static str>),
}

/// Installs what is missing if we are root; otherwise the error says which command does it.
pub fn ensure() -> Result<Setup, Error> {
    let missing = missing_packages();
    if missing.is_empty() {
        return Ok(Setup::Complete);
    }
    let failed = |status: String, output: String| Error::Command {
        what: "installing what is missing".to_owned(),
        command: install_command(&missing),
        status,
        output,
    };
    if !rustix::process::geteuid().is_root() {
        let hint = format!("run: sudo {}", install_command(&missing));
        return Err(failed("not root".to_owned(), hint));
    }
    tracing::info!("installing {}", missing.join(" "));
    let install: Vec<&str> = ["install", "-y", "--no-install-recommends"]
        .into_iter()
        .chain(missing.clone())
        .collect();
    for arguments in [vec!["update", "-qq"], install] {
        let output = Command::new("apt-get")
            .args(&arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| failed(error.to_string(), String::new()))?;
        // A vendor's repository that does not answer must not stop us: what counts is whether
        // the packages get installed.
        if !output.status.success() && arguments.first() == Some(&"install") {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(failed(output.status.to_string(), text));
        }
    }
    Ok(Setup::Installed(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_copied() {
        let command = install_command(&["a", "b"]);
        assert_eq!(command, "apt-get install --no-install-recommends a b");
    }

    #[test]
    fn a_library_that_does_not_exist_is_missing() {
        assert!(!has_library("no-such-library-here"));
    }
}
