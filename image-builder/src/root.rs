//! Roots from Debian packages: mmdebstrap fills a folder, and a hook inside its namespace writes
//! the EROFS file. As root it works in place; a plain user needs a subuid range (package `uidmap`).

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use crate::{
    SOURCE_DATE_EPOCH,
    apt::Mirror,
    command::{find_program, program, run},
    error::{Error, io},
    recipe::Pick,
    services::{self, FileRecipe, ServiceRecipe, SystemUser},
    stamp::Inputs,
};

/// The script that finishes a root.
const HOOK: &str = include_str!("root-hook.sh");

/// The script that collects a template's applications and their icons.
const APPS_HOOK: &str = include_str!("apps-hook.sh");

/// mmdebstrap's own hooks for /usr in one place; without them apt installs `usrmerge` and perl.
const MERGED_USR: &str = "/usr/share/mmdebstrap/hooks/merged-usr";

/// What a root is made of.
#[derive(Debug, Clone)]
pub struct RootSpec<'a> {
    /// For messages.
    pub name: &'a str,
    /// The Debian release.
    pub suite: &'a str,
    /// Packages, without those they recommend.
    pub packages: Vec<&'a str>,
    /// Patterns for dpkg's path-exclude.
    pub exclude: &'a [String],
    /// Files of other packages.
    pub pick: &'a [Pick],
    /// Parts of Debian's archive besides `main`.
    pub components: &'a [String],
    /// What becomes of the finished root.
    pub form: Form,
    /// Whether the applications' desktop files and icons are wanted beside it.
    pub applications: bool,
    /// Users that it has besides those of its packages.
    pub users: &'a [SystemUser],
    /// Programs that the agent always runs.
    pub services: &'a [ServiceRecipe],
    /// Files that it has besides those of its packages.
    pub files: &'a [FileRecipe],
}

/// What becomes of a finished root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A file system to boot from.
    Erofs,
    /// An archive that more is added to.
    Tar,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Erofs => "erofs",
            Self::Tar => "tar",
        }
    }
}

impl RootSpec<'_> {
    /// All that decides what the root contains, but for the state of the archive.
    #[must_use]
    pub fn inputs(&self) -> Inputs {
        let mut inputs = Inputs::new("root", 2);
        inputs
            .text("suite", self.suite)
            .text("packages", &self.packages.join(","))
            .text("exclude", &self.exclude.join(","))
            .text("epoch", &SOURCE_DATE_EPOCH.to_string())
            .text("pick", &self.picks())
            .text("components", &self.components.join(","))
            .text("form", self.form.name())
            .text("hook", HOOK);
        if self.applications {
            inputs.text("applications", APPS_HOOK);
        }
        if !(self.users.is_empty() && self.services.is_empty()) {
            inputs.text("services", &format!("{:?} {:?}", self.users, self.services));
        }
        if !self.files.is_empty() {
            inputs.text("files", &format!("{:?}", self.files));
        }
        inputs
    }

    /// A line for each file to pick: package and path.
    fn picks(&self) -> String {
        self.pick
            .iter()
            .flat_map(|pick| {
                pick.files
                    .iter()
                    .map(move |file| format!("{} .{file}\n", pick.package))
            })
            .collect()
    }
}

/// Where a root's applications are put: beside the root.
#[must_use]
pub fn applications(output: &Path) -> std::path::PathBuf {
    output.with_file_name("apps")
}

/// Builds a root and puts it at `output`, whole or not at all.
pub fn build(spec: &RootSpec<'_>, mirror: &Mirror, output: &Path) -> Result<(), Error> {
    for (tool, package) in [("mkfs.erofs", "erofs-utils"), ("mmdebstrap", "mmdebstrap")] {
        program(tool, package)?;
    }
    let is_root = rustix::process::geteuid().is_root();
    if !is_root && find_program("newuidmap").is_none() {
        program("newuidmap", "uidmap")?;
    }
    let components: Vec<&str> = std::iter::once("main")
        .chain(spec.components.iter().map(String::as_str))
        .collect();
    let source = mirror.source_line_of(spec.suite, &components)?;

    // In a user namespace the hook runs as a subordinate user, who must be able to write here.
    let temporary = std::env::temp_dir();
    let work = tempfile::Builder::new()
        .prefix("bulkhead-root-")
        .tempdir_in(&temporary)
        .map_err(io("creating a folder in", &temporary))?;
    let writable = fs::Permissions::from_mode(0o777);
    fs::set_permissions(work.path(), writable.clone()).map_err(io("opening", work.path()))?;
    let script = |name: &str, text: &str| -> Result<_, Error> {
        let file = work.path().join(name);
        fs::write(&file, text).map_err(io("writing", &file))?;
        fs::set_permissions(&file, writable.clone()).map_err(io("opening", &file))?;
        Ok(file)
    };
    let hook = script("hook.sh", HOOK)?;
    let apps_hook = script("apps-hook.sh", APPS_HOOK)?;
    let picks = work.path().join("picks");
    fs::write(&picks, spec.picks()).map_err(io("writing", &picks))?;
    let added = work.path().join("added");
    services::write(&added, spec.users, spec.services, spec.files)?;
    let made = work.path().join("root");
    let made_apps = work.path().join("apps");

    let mut command = debootstrap(is_root)?;
    command
        .env("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH.to_string())
        .env("BULKHEAD_ROOT_OUTPUT", &made)
        .env("BULKHEAD_ROOT_FORM", spec.form.name())
        .env("BULKHEAD_APPS_OUTPUT", &made_apps)
        .env("BULKHEAD_PICKS", &picks)
        .env("BULKHEAD_ADDED", &added)
        .env("LC_ALL", "C.UTF-8")
        .arg(if is_root {
            "--mode=root"
        } else {
            "--mode=unshare"
        })
        .args(["--variant=essential", "--format=null"])
        // The root is gone in a moment; the image has been made without apt's files.
        .arg("--skip=cleanup/apt")
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        .arg("--aptopt=Acquire::Languages \"none\"")
        .arg("--aptopt=Acquire::Retries \"3\"")
        .arg("--aptopt=Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\"");
    if Path::new(MERGED_USR).is_dir() {
        command.arg(format!("--hook-dir={MERGED_USR}"));
    }
    for pattern in spec.exclude {
        command.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    if spec.applications {
        command.arg(format!("--customize-hook={}", apps_hook.display()));
    }
    command
        .arg("--dpkgopt=path-include=/usr/share/doc/*/copyright")
        .arg(format!("--include={}", spec.packages.join(",")))
        .arg(format!("--customize-hook={}", hook.display()))
        .args([spec.suite, "-", &source]);
    run(&mut command, &format!("building the root `{}`", spec.name))?;
    if spec.applications {
        publish_folder(&made_apps, &applications(output))?;
    }
    publish(&made, output)
}

/// mmdebstrap. As root it mounts `/proc`, `/sys` and `/dev` in the folder that it fills, and where it is
/// killed it leaves them there, for whoever then deletes the folder; in a namespace of its own they go
/// with it.
fn debootstrap(is_root: bool) -> Result<Command, Error> {
    const OWN_MOUNTS: [&str; 3] = ["--mount", "--propagation", "private"];
    let debootstrap = program("mmdebstrap", "mmdebstrap")?;
    if !is_root {
        // It makes a namespace itself.
        return Ok(debootstrap);
    }
    let mut own = program("unshare", "util-linux")?;
    own.args(OWN_MOUNTS);
    let mut probe = program("unshare", "util-linux")?;
    // In a container root may not; mmdebstrap then mounts nothing either.
    match run(probe.args(OWN_MOUNTS).arg("true"), "trying a namespace") {
        Ok(_) => {
            own.arg("--").arg(debootstrap.get_program());
            Ok(own)
        }
        Err(_) => Ok(debootstrap),
    }
}

/// Copies a finished folder to its place: a subordinate user may own the one we have.
fn publish_folder(made: &Path, output: &Path) -> Result<(), Error> {
    let partial = output.with_extension("partial");
    for old in [&partial, output] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(io("removing", old))?;
        }
    }
    for file in files_below(made)? {
        let (from, to) = (made.join(&file), partial.join(&file));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(io("creating", parent))?;
        }
        fs::copy(&from, &to).map_err(io("copying", &from))?;
    }
    fs::create_dir_all(&partial).map_err(io("creating", &partial))?;
    fs::rename(&partial, output).map_err(io("moving to", output))
}

/// All files below a folder, relative to it and in order. A link is a file.
pub fn files_below(folder: &Path) -> Result<Vec<std::path::PathBuf>, Error> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(&next).map_err(io("reading", &next))? {
            let path = entry.map_err(io("reading", &next))?.path();
            let is_folder = fs::symlink_metadata(&path)
                .map_err(io("looking at", &path))?
                .is_dir();
            if is_folder {
                waiting.push(path);
            } else if let Ok(relative) = path.strip_prefix(folder) {
                found.push(relative.to_path_buf());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Moves a finished file to its place, by way of a temporary name where a copy is needed.
pub(crate) fn publish(made: &Path, output: &Path) -> Result<(), Error> {
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder).map_err(io("creating", folder))?;
    }
    if fs::rename(made, output).is_ok() {
        return Ok(());
    }
    let partial = output.with_extension("partial");
    fs::copy(made, &partial).map_err(io("copying to", &partial))?;
    fs::rename(&partial, output).map_err(io("moving to", output))
}

/// Makes an EROFS file out of a folder of files that we made ourselves.
pub fn pack(folder: &Path, output: &Path) -> Result<(), Error> {
    let partial = output.with_extension("partial");
    run(
        program("mkfs.erofs", "erofs-utils")?
            .args(["-T", &SOURCE_DATE_EPOCH.to_string()])
            .args(["-U", "00000000-0000-4000-8000-000000000000", "--all-root"])
            .arg(&partial)
            .arg(folder),
        "packing an image",
    )?;
    fs::rename(&partial, output).map_err(io("moving to", output))
}
