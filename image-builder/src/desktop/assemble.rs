//! The desktop's root: Debian's packages, our programs, guests, templates, units and the kernel's
//! modules in one read-only file system.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use crate::{
    SOURCE_DATE_EPOCH,
    builder::timed,
    command::{program, run},
    cpio::CpioWriter,
    error::{Error, io},
    initramfs::GUEST_FILES,
    programs::strip,
    root::{self, publish},
    stamp::Inputs,
};

use super::{Desktop, disk::write_whole};

const SCRIPT: &str = include_str!("assemble.sh");
const PROGRAMS: &str = "usr/lib/bulkhead";
const IMAGES: &str = "usr/share/bulkhead/images";
const UNITS: &str = "etc/systemd/system";
/// Microcode as the kernel finds it (`Documentation/arch/x86/microcode.rst`).
const MICROCODE: [&str; 2] = ["GenuineIntel.bin", "AuthenticAMD.bin"];

/// A file of ours: its place in the root, and where it comes from.
struct Added {
    place: PathBuf,
    source: PathBuf,
    is_program: bool,
}

impl Desktop<'_> {
    /// The root, and beside it `dpkg-status`, `os-release` and, with firmware, `microcode.cpio`.
    pub(super) fn assembled(&self, base: &Path) -> Result<PathBuf, Error> {
        let output = self.folder.join("root.erofs");
        let status = self.folder.join("dpkg-status");
        let added = self.added()?;
        let mut inputs = Inputs::new("assemble", 2);
        inputs.text("script", SCRIPT).file(base)?;
        for file in &added {
            inputs
                .text("place", &file.place.to_string_lossy())
                .file(&file.source)?;
        }
        inputs.text("kernel", &self.kernel.version);
        inputs.file(&self.kernel.boot_image)?;
        for (name, lines) in self.lists() {
            inputs.text(name, &lines);
        }
        for (link, target) in self.links(&added) {
            inputs.text(&link.to_string_lossy(), &target);
        }
        let stamp = self.stamp("root", inputs);
        let os_release = self.folder.join("os-release");
        if !stamp.is_current(&[&output, &status, &os_release]) {
            timed("desktop root", || {
                self.assemble(base, &added, &output)?;
                stamp.record()
            })?;
        }
        Ok(output)
    }

    /// Lists that the script reads, a line each.
    fn lists(&self) -> [(&'static str, String); 3] {
        let lines = |list: &[String]| list.iter().map(|line| format!("{line}\n")).collect();
        [
            ("remove", lines(&self.recipe.remove)),
            ("setuid", lines(&self.recipe.setuid)),
            (
                "module-folders",
                lines(&self.recipe.firmware(self.firmware).module_folders),
            ),
        ]
    }

    fn added(&self) -> Result<Vec<Added>, Error> {
        let mut added = Vec::new();
        let plain = |place: PathBuf, source: PathBuf| Added {
            place,
            source,
            is_program: false,
        };
        let layout = &self.builder.layout;
        let files = layout.recipes().join("hosts/desktop");
        for file in root::files_below(&files)? {
            added.push(plain(file.clone(), files.join(file)));
        }
        if self.builder.guest()? {
            for name in GUEST_FILES {
                let place = Path::new(IMAGES).join("guest").join(name);
                added.push(plain(place, layout.guest().join(name)));
            }
        }
        for name in &self.recipe.templates {
            self.builder.template(name)?;
            let folder = layout.templates().join(name);
            for file in root::files_below(&folder)? {
                let place = Path::new(IMAGES).join("templates").join(name).join(&file);
                added.push(plain(place, folder.join(file)));
            }
        }
        let programs = self.builder.programs()?;
        for source in timed("our programs", || programs.dynamic(&self.recipe.programs))? {
            let Some(name) = source.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            let unwanted = |without: &String| without == name;
            if !self.recipe.without_programs.iter().any(unwanted) {
                added.push(Added {
                    place: Path::new(PROGRAMS).join(name),
                    source: source.clone(),
                    is_program: true,
                });
            }
        }
        Ok(added)
    }

    /// Links: what systemd starts, what it never starts, and our programs in PATH.
    fn links(&self, added: &[Added]) -> Vec<(PathBuf, String)> {
        let units = Path::new(UNITS);
        let mut links: Vec<(PathBuf, String)> = Vec::new();
        for enabled in &self.recipe.enable {
            links.push((
                units
                    .join(format!("{}.wants", enabled.wanted_by))
                    .join(&enabled.unit),
                format!("/usr/lib/systemd/system/{}", enabled.unit),
            ));
        }
        for unit in &self.recipe.mask {
            links.push((units.join(unit), "/dev/null".to_owned()));
        }
        links.push((
            units.join("default.target"),
            "/usr/lib/systemd/system/multi-user.target".to_owned(),
        ));
        for program in added.iter().filter(|added| added.is_program) {
            if let Some(name) = program.place.file_name() {
                let target = format!("../lib/bulkhead/{}", name.to_string_lossy());
                links.push((Path::new("usr/bin").join(name), target));
            }
        }
        links
    }

    fn assemble(&self, base: &Path, added: &[Added], output: &Path) -> Result<(), Error> {
        let images = self.builder.layout.images();
        let work = tempfile::Builder::new()
            .prefix(".tmp-desktop-")
            .tempdir_in(&images)
            .map_err(io("creating a folder in", &images))?;
        // In a user namespace the script runs as a subordinate user, who must be able to write.
        fs::set_permissions(work.path(), fs::Permissions::from_mode(0o777))
            .map_err(io("opening", work.path()))?;
        let add = work.path().join("add");
        for file in added {
            let place = add.join(&file.place);
            make_parent(&place)?;
            if file.is_program {
                strip(&file.source, &place)?;
            } else {
                fs::copy(&file.source, &place).map_err(io("copying", &file.source))?;
            }
            settle_mode(&place)?;
        }
        for (link, target) in self.links(added) {
            let place = add.join(link);
            make_parent(&place)?;
            symlink(target, &place).map_err(io("linking", &place))?;
        }
        for (name, lines) in self.lists() {
            let list = work.path().join(name);
            fs::write(&list, lines).map_err(io("writing", &list))?;
        }
        let script = work.path().join("assemble.sh");
        fs::write(&script, SCRIPT).map_err(io("writing", &script))?;
        let modules = work.path().join("modules");
        fs::create_dir(&modules).map_err(io("creating", &modules))?;
        for (link, target) in [
            (work.path().join("base.tar"), base),
            (modules.join(&self.kernel.version), &self.kernel.modules),
        ] {
            symlink(target, &link).map_err(io("linking", &link))?;
        }

        let mut command = if rustix::process::geteuid().is_root() {
            program("sh", "dash")?
        } else {
            let mut command = program("mmdebstrap", "mmdebstrap")?;
            command.args(["--unshare-helper", "sh"]);
            command
        };
        command
            .env("SOURCE_DATE_EPOCH", SOURCE_DATE_EPOCH.to_string())
            .env("LC_ALL", "C.UTF-8")
            .arg(&script)
            .arg(work.path());
        run(&mut command, "putting the desktop's root together")?;

        self.microcode(work.path())?;
        for name in ["dpkg-status", "os-release"] {
            publish(&work.path().join(name), &self.folder.join(name))?;
        }
        publish(&work.path().join("root.erofs"), output)
    }

    /// The archive that the kernel reads microcode from, if the root brought any.
    fn microcode(&self, work: &Path) -> Result<(), Error> {
        let output = self.folder.join("microcode.cpio");
        let mut archive = CpioWriter::new(Vec::new());
        let mut any = false;
        for name in MICROCODE {
            let file = work.join(name);
            if file.exists() {
                let content = fs::read(&file).map_err(io("reading", &file))?;
                archive
                    .file(&format!("kernel/x86/microcode/{name}"), 0o644, &content)
                    .map_err(io("packing", &file))?;
                any = true;
            }
        }
        if any {
            return write_whole(&output, &archive.finish().map_err(io("packing", &output))?);
        }
        match fs::remove_file(&output) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io("removing", &output)(error))
            }
            _ => Ok(()),
        }
    }
}

/// Modes that do not depend on who checked the sources out.
fn settle_mode(file: &Path) -> Result<(), Error> {
    let metadata = fs::metadata(file).map_err(io("looking at", file))?;
    let mode = if metadata.permissions().mode() & 0o111 == 0 {
        0o644
    } else {
        0o755
    };
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).map_err(io("opening", file))
}

fn make_parent(path: &Path) -> Result<(), Error> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(io("creating", parent)),
        None => Ok(()),
    }
}
