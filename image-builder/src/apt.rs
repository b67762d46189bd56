//! Finds the Debian mirror that this machine already uses, and fetches packages of the images'
//! release from it with lists and a cache of our own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    command::{program, run},
    error::{Error, io},
};

/// Releases by which a source is recognised as Debian's main archive; anything else (a vendor's
/// repository, Debian's security archive) has other names.
const DEBIAN_SUITES: &[&str] = &[
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "sid",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
];

/// The keys that sign Debian's releases.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Why there is no mirror or no package.
#[derive(Debug, thiserror::Error)]
pub enum AptError {
    /// The machine's apt configuration names no Debian mirror.
    #[error(
        "no Debian mirror found in {folder}/sources.list or {folder}/sources.list.d; name one with `--mirror URI`"
    )]
    NoMirror {
        /// Where we looked.
        folder: PathBuf,
    },
    /// The keys of Debian's archive are missing.
    #[error("{KEYRING} is missing; install Debian's package `debian-archive-keyring`")]
    NoKeyring,
    /// A package is not in the archive, or does not say what we need.
    #[error("package `{package}` of {suite}: {message}")]
    Package {
        /// The package.
        package: String,
        /// The release.
        suite: String,
        /// What is wrong.
        message: String,
    },
}

/// The address of a Debian mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror(pub String);

impl Mirror {
    /// The first Debian mirror that the machine's apt configuration names.
    pub fn of_this_machine() -> Result<Self, AptError> {
        Self::in_folder(Path::new("/etc/apt"))
    }

    /// The first Debian mirror in the apt configuration in `folder`.
    pub fn in_folder(folder: &Path) -> Result<Self, AptError> {
        let mut files = vec![folder.join("sources.list")];
        if let Ok(entries) = fs::read_dir(folder.join("sources.list.d")) {
            let mut more: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            more.sort();
            files.extend(more);
        }
        files
            .iter()
            .filter_map(|file| {
                let text = fs::read_to_string(file).ok()?;
                match file.extension()?.to_str()? {
                    "list" => mirror_in_lines(&text),
                    "sources" => mirror_in_stanzas(&text),
                    _ => None,
                }
            })
            .next()
            .map(Self)
            .ok_or_else(|| AptError::NoMirror {
                folder: folder.to_path_buf(),
            })
    }

    /// The line for a sources.list of `suite`: Debian's main archive.
    pub fn source_line(&self, suite: &str) -> Result<String, AptError> {
        self.source_line_of(suite, &["main"])
    }

    /// The line for a sources.list of `suite` with these parts of the archive.
    pub fn source_line_of(&self, suite: &str, components: &[&str]) -> Result<String, AptError> {
        if !Path::new(KEYRING).exists() {
            return Err(AptError::NoKeyring);
        }
        let components = components.join(" ");
        Ok(format!(
            "deb [signed-by={KEYRING}] {} {suite} {components}",
            self.0
        ))
    }
}

/// The one-line format: `deb [options] URI SUITE COMPONENT…`.
fn mirror_in_lines(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let line = line.split('#').next()?.trim();
        let rest = line.strip_prefix("deb")?;
        let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        let is_main = words.any(|component| component == "main");
        (is_main && DEBIAN_SUITES.contains(&suite)).then(|| uri.to_owned())
    })
}

/// The deb822 format: stanzas of `Key: value` lines.
fn mirror_in_stanzas(text: &str) -> Option<String> {
    let without_comments: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    without_comments
        .split(|line| line.trim().is_empty())
        .find_map(|stanza| {
            let words = |key: &str| -> Vec<&str> {
                let mut found = Vec::new();
                let mut inside = false;
                for line in stanza {
                    if line.starts_with([' ', '\t']) {
                        if inside {
                            found.extend(line.split_whitespace());
                        }
                    } else if let Some((name, value)) = line.split_once(':') {
                        inside = name.trim().eq_ignore_ascii_case(key);
                        if inside {
                            found.extend(value.split_whitespace());
                        }
                    }
                }
                found
            };
            let enabled = !words("Enabled")
                .iter()
                .any(|word| word.eq_ignore_ascii_case("no"));
            let suitable = enabled
                && words("Types").contains(&"deb")
                && words("Components").contains(&"main")
                && words("Suites")
                    .iter()
                    .any(|suite| DEBIAN_SUITES.contains(suite));
            if suitable {
                words("URIs").first().map(|uri| (*uri).to_owned())
            } else {
                None
            }
        })
}

/// apt with lists and a cache of its own: it neither reads nor changes what is installed here.
pub struct Apt {
    folder: PathBuf,
    suite: String,
}

impl Apt {
    /// Prepares the folder and fetches the package lists.
    pub fn open(folder: &Path, mirror: &Mirror, suite: &str) -> Result<Self, Error> {
        let apt = Self {
            folder: folder.to_path_buf(),
            suite: suite.to_owned(),
        };
        for path in ["lists/partial", "cache/archives/partial"] {
            let path = folder.join(path);
            fs::create_dir_all(&path).map_err(io("creating", &path))?;
        }
        let sources = folder.join("sources.list");
        fs::write(&sources, mirror.source_line(suite)? + "\n").map_err(io("writing", &sources))?;
        let status = folder.join("status");
        fs::write(&status, "").map_err(io("writing", &status))?;
        run(
            apt.command("apt-get")?.arg("update"),
            "fetching Debian's package lists",
        )?;
        Ok(apt)
    }

    /// The first dependency of `package` whose name starts with `prefix`.
    pub fn dependency(&self, package: &str, prefix: &str) -> Result<String, Error> {
        let output = run(
            self.command("apt-cache")?
                .args(["show", "--no-all-versions", package]),
            "looking up a package",
        )?;
        let text = String::from_utf8_lossy(&output).into_owned();
        text.lines()
            .find_map(|line| line.strip_prefix("Depends:"))
            .and_then(|depends| {
                depends.split([',', '|']).find_map(|entry| {
                    let name = entry.split_whitespace().next()?;
                    name.starts_with(prefix).then(|| name.to_owned())
                })
            })
            .ok_or_else(|| {
                Error::from(AptError::Package {
                    package: package.to_owned(),
                    suite: self.suite.clone(),
                    message: format!("it depends on nothing called {prefix}…"),
                })
            })
    }

    /// Downloads a package's file into `folder` and returns its path.
    pub fn download(&self, package: &str, folder: &Path) -> Result<PathBuf, Error> {
        run(
            self.command("apt-get")?
                .current_dir(folder)
                .args(["download", package]),
            "downloading a package",
        )?;
        let entries = fs::read_dir(folder).map_err(io("reading", folder))?;
        entries
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .ok_or_else(|| {
                Error::from(AptError::Package {
                    package: package.to_owned(),
                    suite: self.suite.clone(),
                    message: "apt downloaded no file".to_owned(),
                })
            })
    }

    /// Unpacks a package's files into `folder`, which is made anew, whole or not at all.
    pub fn unpack(&self, package: &str, folder: &Path) -> Result<(), Error> {
        let parent = folder.parent().unwrap_or(&self.folder);
        let work = tempfile::tempdir_in(parent).map_err(io("creating a folder in", parent))?;
        let file = self.download(package, work.path())?;
        let tree = work.path().join("tree");
        run(
            program("dpkg-deb", "dpkg")?.arg("-x").arg(&file).arg(&tree),
            "unpacking a package",
        )?;
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(io("removing", folder))?;
        }
        fs::rename(&tree, folder).map_err(io("moving to", folder))
    }

    fn command(&self, name: &str) -> Result<Command, Error> {
        let mut command = program(name, "apt")?;
        let folder = self.folder.display();
        for option in [
            format!("Dir::Etc::sourcelist={folder}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State={folder}"),
            format!("Dir::State::lists={folder}/lists"),
            format!("Dir::State::status={folder}/status"),
            format!("Dir::Cache={folder}/cache"),
            "APT::Architecture=amd64".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Retries=3".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::CNF::DefaultEnabled=false".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.env("LC_ALL", "C.UTF-8");
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mirror_in_one_line_files() {
        let text = "# deb http://old.example/debian bookworm main\n\
            deb https://vendor.example/apt cloud-sdk-bookworm main\n\
            deb-src http://source.example/debian bookworm main\n\
            deb http://security.example/debian-security bookworm-security main\n\
            deb [arch=amd64 signed-by=/x.gpg] http://mirror.example/debian bookworm main contrib\n";
        assert_eq!(
            mirror_in_lines(text).as_deref(),
            Some("http://mirror.example/debian")
        );
    }

    #[test]
    fn finds_the_mirror_in_stanzas() {
        let text = "Types: deb\nURIs: https://vendor.example/x\nSuites: nodistro\nComponents: main\n\
            \n\
            Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n\
            \n\
            Types: deb deb-src\n# http://snapshot.example\nURIs: http://mirror.example/debian\n\
            Suites: bookworm-updates\n bookworm\nComponents: main\nSigned-By: /x.gpg\n";
        assert_eq!(
            mirror_in_stanzas(text).as_deref(),
            Some("http://mirror.example/debian")
        );
    }

    #[test]
    fn both_formats_are_read_and_none_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = Mirror::in_folder(folder.path()).unwrap_err();
        assert!(error.to_string().contains("--mirror"), "{error}");
        fs::create_dir(folder.path().join("sources.list.d")).unwrap();
        fs::write(
            folder.path().join("sources.list.d/debian.sources"),
            "Types: deb\nURIs: http://m.example/debian\nSuites: trixie\nComponents: main\n",
        )
        .unwrap();
        let mirror = Mirror::in_folder(folder.path()).unwrap();
        assert_eq!(mirror, Mirror("http://m.example/debian".to_owned()));
    }
}
