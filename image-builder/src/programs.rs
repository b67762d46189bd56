//! Builds our own programs with cargo: dynamic ones for the host, static ones for guests and PID 1.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;

use crate::{
    command::{program, run},
    error::{Error, io},
    layout::Layout,
};

/// The target that static programs are built for. Naming it keeps `crt-static` away from build
/// scripts and procedural macros, which cannot be linked that way.
const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// How our programs are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Optimised.
    #[default]
    Release,
    /// Quick to build, slow to run.
    Dev,
}

impl Profile {
    /// Where cargo puts programs of this profile.
    #[must_use]
    pub fn folder_in(self, target: &Path) -> PathBuf {
        target.join(self.folder())
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "debug",
        }
    }
}

/// The workspace's programs.
pub struct Programs<'a> {
    layout: &'a Layout,
    profile: Profile,
    build: bool,
    /// Crate → its programs.
    bins: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
}

#[derive(Deserialize)]
struct MetadataPackage {
    name: String,
    targets: Vec<MetadataTarget>,
}

#[derive(Deserialize)]
struct MetadataTarget {
    name: String,
    kind: Vec<String>,
}

/// The crates with programs for hosts. cargo compiles a library with the features that all packages of
/// a build want together: another set of packages would mean other features, and compiling nearly
/// everything once more. So whatever is asked for, these are built as one.
const TOGETHER: [&str; 8] = [
    "bulkhead-vmm",
    "bulkhead-compositor",
    "bulkheadd",
    "bulkhead-icon",
    "bulkhead-link",
    "bulkhead-cli",
    "bulkhead-ui",
    "bulkhead-tests",
];

impl<'a> Programs<'a> {
    /// Asks cargo which programs exist. With `build` off, those built earlier are used.
    pub fn open(layout: &'a Layout, profile: Profile, build: bool) -> Result<Self, Error> {
        let output = run(
            cargo("CARGO")?.current_dir(layout.workspace()).args([
                "metadata",
                "--no-deps",
                "--offline",
                "--format-version=1",
            ]),
            "reading the workspace",
        )?;
        let metadata: Metadata =
            serde_json::from_slice(&output).map_err(|error| Error::Recipe {
                file: layout.workspace().join("Cargo.toml"),
                message: format!("cargo's description of the workspace is not understood: {error}"),
            })?;
        let bins = metadata
            .packages
            .into_iter()
            .map(|package| {
                let bins = package
                    .targets
                    .into_iter()
                    .filter(|target| target.kind.iter().any(|kind| kind == "bin"))
                    .map(|target| target.name)
                    .collect();
                (package.name, bins)
            })
            .collect();
        Ok(Self {
            layout,
            profile,
            build,
            bins,
        })
    }

    /// Whether a crate has this program.
    #[must_use]
    pub fn has(&self, package: &str, bin: &str) -> bool {
        self.bins
            .get(package)
            .is_some_and(|bins| bins.iter().any(|name| name == bin))
    }

    /// All programs of these crates, for the host. Crates without any are left out with a warning.
    pub fn dynamic(&self, packages: &[String]) -> Result<Vec<PathBuf>, Error> {
        let present: Vec<&String> = packages
            .iter()
            .filter(|package| {
                let any = self.bins.get(*package).is_some_and(|bins| !bins.is_empty());
                if !any {
                    tracing::warn!("crate {package} has NO PROGRAM: the host goes without it");
                }
                any
            })
            .collect();
        let folder = self.layout.target().join(self.profile.folder());
        if self.build && !present.is_empty() {
            let mut all: Vec<&str> = present.iter().map(|name| name.as_str()).collect();
            let known = TOGETHER
                .iter()
                .filter(|name| self.bins.contains_key(**name));
            all.extend(known);
            all.sort_unstable();
            all.dedup();
            self.cargo_build(&all, &[], "")?;
        }
        let names = present
            .iter()
            .flat_map(|package| self.bins.get(*package).into_iter().flatten());
        Ok(existing(names.map(|name| folder.join(name))))
    }

    /// Static programs, in the order asked for.
    pub fn fixed(&self, wanted: &[(&str, &str)]) -> Result<Vec<PathBuf>, Error> {
        if self.build {
            let packages: Vec<&str> = wanted.iter().map(|(package, _)| *package).collect();
            let bins: Vec<&str> = wanted.iter().map(|(_, bin)| *bin).collect();
            self.cargo_build(&packages, &bins, STATIC_TARGET)?;
        }
        let folder = self
            .layout
            .target()
            .join(STATIC_TARGET)
            .join(self.profile.folder());
        Ok(wanted.iter().map(|(_, bin)| folder.join(bin)).collect())
    }

    /// Panic messages name source files. Where those lie on this machine must not get into the
    /// programs: the same sources in another folder give the same bytes.
    fn place_names(&self) -> Vec<String> {
        let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
            PathBuf::from,
        );
        // The last one that fits counts: the target folder may lie in the workspace.
        [
            (cargo_home.as_path(), "/cargo"),
            (self.layout.workspace(), "/bulkhead"),
            (self.layout.target(), "/bulkhead/target"),
        ]
        .iter()
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
        .collect()
    }

    fn cargo_build(&self, packages: &[&str], bins: &[&str], target: &str) -> Result<(), Error> {
        let mut command = cargo("BULKHEAD_CARGO")?;
        command
            .current_dir(self.layout.workspace())
            .arg("build")
            .arg("--quiet");
        if self.profile == Profile::Release {
            command.arg("--release");
        }
        for package in packages {
            command.arg("-p").arg(package);
        }
        if bins.is_empty() {
            command.arg("--bins");
        }
        for bin in bins {
            command.arg("--bin").arg(bin);
        }
        let mut flags = self.place_names();
        if !target.is_empty() {
            command.args(["--target", target]);
            flags.push("-Ctarget-feature=+crt-static".to_owned());
        }
        // The form that allows spaces in paths.
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        // cargo's own messages are the best description of what is wrong: they go through.
        let status = command
            .stdin(Stdio::null())
            .status()
            .map_err(io("running", Path::new("cargo")))?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Command {
            what: "building our programs".to_owned(),
            command: format!("{command:?}"),
            status: status.to_string(),
            output: String::new(),
        })
    }
}

fn existing(paths: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    paths
        .filter(|path| {
            let exists = path.is_file();
            if !exists {
                tracing::warn!("{} is NOT BUILT: the host goes without it", path.display());
            }
            exists
        })
        .collect()
}

/// Copies a program without its symbols and debugging information, which would only fill a guest's
/// memory, and without the linker's identifier, a hash of them that differs from folder to folder.
pub fn strip(from: &Path, to: &Path) -> Result<(), Error> {
    run(
        program("strip", "binutils")?
            .args(["--strip-all", "--remove-section=.note.gnu.build-id"])
            .arg("-o")
            .arg(to)
            .arg(from),
        "stripping a program",
    )?;
    Ok(())
}

/// Cargo: the wrapper named by `variable`, the one that runs us, or the one in PATH. Only builds
/// go through a wrapper: it may make us wait for others.
fn cargo(variable: &str) -> Result<Command, Error> {
    match std::env::var_os(variable).or_else(|| std::env::var_os("CARGO")) {
        Some(cargo) => Ok(Command::new(cargo)),
        None => program("cargo", "cargo"),
    }
}
