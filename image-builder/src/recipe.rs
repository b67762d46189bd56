//! Recipes: what goes into an image, as TOML files that people edit.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::error::{Error, io};
use crate::initramfs::{Drivers, Loaded};
use crate::services::{self, FileRecipe, ServiceRecipe, SystemUser};

/// A template: the root that application domains run from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TemplateRecipe {
    /// For people who choose a template.
    pub description: String,
    /// The Debian release.
    pub suite: String,
    /// Debian packages, without those they recommend.
    pub packages: Vec<String>,
    /// Its applications may be launched in a new disposable domain.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disposable: bool,
    /// Paths below `/` that are left out, as patterns for dpkg.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Parts of Debian's archive that packages come from, besides `main`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<String>,
    /// Single files of packages that are not installed themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pick: Vec<Pick>,
    /// Users for its services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user: Vec<SystemUser>,
    /// Programs that always run in its domains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service: Vec<ServiceRecipe>,
    /// Files of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub file: Vec<FileRecipe>,
}

/// Files taken out of a package without what the package depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pick {
    /// The package.
    pub package: String,
    /// Paths in it; `*` stands for any characters.
    pub files: Vec<String>,
}

/// The guests' initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GuestRecipe {
    /// The Debian release that the kernel comes from.
    pub suite: String,
    /// Kernel modules that the agent loads; what they need is added.
    pub modules: Vec<String>,
    /// More of them, for guests with network cards.
    pub network_modules: Vec<String>,
    /// And more, for guests with physical devices.
    pub device_modules: Vec<String>,
    /// Those of them for guests with a wireless card.
    pub wireless_modules: Vec<String>,
    /// Our programs, built static.
    pub programs: Vec<StaticProgram>,
}

impl GuestRecipe {
    /// What guests with these drivers load.
    #[must_use]
    pub fn loaded(&self, drivers: Drivers) -> Loaded {
        let mut loaded = Loaded {
            bare: true,
            ..Loaded::always(&self.modules)
        };
        if drivers >= Drivers::Network {
            loaded.modules.extend_from_slice(&self.network_modules);
        }
        if drivers >= Drivers::Devices {
            loaded.modules.extend_from_slice(&self.device_modules);
            loaded.wireless.clone_from(&self.wireless_modules);
        }
        loaded
    }
}

/// A program of ours with a place in an initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StaticProgram {
    /// The crate.
    pub package: String,
    /// The program.
    pub bin: String,
    /// Where it lies in the image.
    pub path: String,
    /// Only guests with network cards or physical devices have it.
    #[serde(default)]
    pub network: bool,
}

/// A host that boots in QEMU.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HostRecipe {
    /// The Debian release.
    pub suite: String,
    /// Debian packages, without those they recommend.
    pub packages: Vec<String>,
    /// More packages, for the root that benchmarks use.
    pub bench_packages: Vec<String>,
    /// Single files of further packages for it.
    #[serde(default)]
    pub bench_pick: Vec<Pick>,
    /// Paths below `/` that are left out, as patterns for dpkg.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Kernel modules that its PID 1 loads; what they need is added.
    pub modules: Vec<String>,
    /// Templates that it has for its domains.
    pub templates: Vec<String>,
    /// Our crates whose programs it has.
    pub programs: Vec<String>,
}

/// The host of the bootable disk image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DesktopRecipe {
    /// The Debian release.
    pub suite: String,
    /// Debian packages, without those they recommend.
    pub packages: Vec<String>,
    /// Single files of packages that are not installed themselves.
    #[serde(default)]
    pub pick: Vec<Pick>,
    /// Paths below `/` that are left out, as patterns for dpkg.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// What is taken away from the finished root: paths as patterns for a shell.
    pub remove: Vec<String>,
    /// The programs that may keep a set-user-id or set-group-id bit; all others lose it.
    pub setuid: Vec<String>,
    /// Units that are started at boot, each with the target that wants it.
    pub enable: Vec<Enabled>,
    /// Units that nothing may start.
    pub mask: Vec<String>,
    /// Templates that it has for its domains.
    pub templates: Vec<String>,
    /// Our crates whose programs it has.
    pub programs: Vec<String>,
    /// Of the files that the programs' crates build, those that do not belong on a desktop.
    #[serde(default)]
    pub without_programs: Vec<String>,
    /// Words for the kernel, before those that name the root.
    pub command_line: String,
    /// Size of each of the two slots for a root.
    pub slot_mib: u64,
    /// Size of the EFI system partition.
    pub esp_mib: u64,
    /// For virtual machines.
    pub firmware_virtual: FirmwareRecipe,
    /// For real machines.
    pub firmware_full: FirmwareRecipe,
}

/// A unit and who wants it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Enabled {
    /// The unit.
    pub unit: String,
    /// The target.
    pub wanted_by: String,
}

/// What differs between virtual and real machines.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FirmwareRecipe {
    /// More packages.
    pub packages: Vec<String>,
    /// Parts of Debian's archive that they come from, besides `main`.
    pub components: Vec<String>,
    /// Kernel modules that the initramfs loads; what they need is added.
    pub boot_modules: Vec<String>,
    /// Folders of the kernel's modules that the root has.
    pub module_folders: Vec<String>,
}

/// Which firmware a disk image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Firmware {
    /// None: virtual machines need none.
    #[default]
    Virtual,
    /// Processor microcode and what devices of real machines need.
    Full,
}

impl Firmware {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Virtual => "virtual",
            Self::Full => "full",
        }
    }
}

impl DesktopRecipe {
    /// What this firmware needs.
    #[must_use]
    pub fn firmware(&self, firmware: Firmware) -> &FirmwareRecipe {
        match firmware {
            Firmware::Virtual => &self.firmware_virtual,
            Firmware::Full => &self.firmware_full,
        }
    }

    /// Checks what goes onto command lines and into scripts.
    pub fn check(&self, file: &Path) -> Result<(), Error> {
        for firmware in [&self.firmware_virtual, &self.firmware_full] {
            check_packages(file, &firmware.packages)?;
            check_packages(file, &firmware.components)?;
            check_files(file, &absolute(&firmware.module_folders))?;
        }
        check_packages(file, &self.packages)?;
        for pick in &self.pick {
            check_files(file, &pick.files)?;
        }
        check_files(file, &self.remove)?;
        check_files(file, &self.setuid)
    }
}

fn absolute(paths: &[String]) -> Vec<String> {
    paths.iter().map(|path| format!("/{path}")).collect()
}

/// Reads a recipe; errors name the file and the line.
pub fn read<T: for<'de> Deserialize<'de>>(file: &Path) -> Result<T, Error> {
    let text = fs::read_to_string(file).map_err(io("reading", file))?;
    parse(file, &text)
}

fn parse<T: for<'de> Deserialize<'de>>(file: &Path, text: &str) -> Result<T, Error> {
    toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map(|before| format!("line {}: ", before.matches('\n').count() + 1))
            .unwrap_or_default();
        Error::Recipe {
            file: file.to_path_buf(),
            message: format!("{line}{}", error.message()),
        }
    })
}

/// The names of all templates that have a recipe in `folder`.
pub fn template_names(folder: &Path) -> Result<Vec<String>, Error> {
    let entries = fs::read_dir(folder).map_err(io("reading", folder))?;
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// The recipe of template `name`.
pub fn template(folder: &Path, name: &str) -> Result<(PathBuf, TemplateRecipe), Error> {
    let known = template_names(folder)?;
    if !known.iter().any(|candidate| candidate == name) {
        return Err(Error::UnknownTemplate {
            name: name.to_owned(),
            known: known.join(", "),
            folder: folder.to_path_buf(),
        });
    }
    let file = folder.join(format!("{name}.toml"));
    let recipe = template_file(&file)?;
    Ok((file, recipe))
}

/// No recipe is longer.
const MAX_RECIPE_BYTES: u64 = 1024 * 1024;

/// The recipe of a template in a file of anyone's.
pub fn template_file(file: &Path) -> Result<TemplateRecipe, Error> {
    let wrong = |message: String| Error::Recipe {
        file: file.to_path_buf(),
        message,
    };
    let length = fs::metadata(file).map_err(io("reading", file))?.len();
    if length > MAX_RECIPE_BYTES {
        return Err(wrong("it is too long for a recipe".to_owned()));
    }
    let recipe: TemplateRecipe = read(file)?;
    check_suite(&recipe.suite).map_err(wrong)?;
    if recipe.packages.is_empty() {
        return Err(wrong(
            "packages is empty; name at least one, like \"foot\"".to_owned(),
        ));
    }
    check_packages(file, &recipe.packages)?;
    check_packages(file, &recipe.components)?;
    for pick in &recipe.pick {
        check_packages(file, std::slice::from_ref(&pick.package))?;
        check_files(file, &pick.files)?;
    }
    services::check(&recipe.user, &recipe.service).map_err(wrong)?;
    services::check_files(&recipe.file).map_err(wrong)?;
    Ok(recipe)
}

/// A release's name goes onto a command line.
fn check_suite(suite: &str) -> Result<(), String> {
    let valid = suite.starts_with(|c: char| c.is_ascii_lowercase())
        && suite
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if valid {
        Ok(())
    } else {
        let shown: String = suite.chars().take(40).collect();
        Err(format!(
            "`{shown}` is not the name of a Debian release; use one like trixie"
        ))
    }
}

/// Package names go onto a command line as one comma-separated word: nothing else may be in them.
pub fn check_packages(file: &Path, packages: &[String]) -> Result<(), Error> {
    let valid = |name: &String| {
        name.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && name.chars().all(|letter| {
                letter.is_ascii_lowercase() || letter.is_ascii_digit() || "+-.".contains(letter)
            })
    };
    match packages.iter().find(|name| !valid(name)) {
        None => Ok(()),
        Some(name) => Err(Error::Recipe {
            file: file.to_path_buf(),
            message: format!("`{name}` is not the name of a Debian package"),
        }),
    }
}

/// Picked files go through a shell's loop, a line each.
fn check_files(file: &Path, files: &[String]) -> Result<(), Error> {
    let valid = |path: &String| {
        path.starts_with('/')
            && !path.contains("..")
            && path
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || "/+-._*".contains(letter))
    };
    match files.iter().find(|path| !valid(path)) {
        None => Ok(()),
        Some(path) => Err(Error::Recipe {
            file: file.to_path_buf(),
            message: format!("`{path}` is not an absolute path that can be picked"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_file_and_line() {
        let text = "description = \"x\"\nsuite = \"trixie\"\npackages = []\npackagez = []\n";
        let error = parse::<TemplateRecipe>(Path::new("t/x.toml"), text)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("t/x.toml: line 4: "), "{error}");
        assert!(error.contains("packagez"), "{error}");
    }

    #[test]
    fn odd_package_names_are_refused() {
        let names = |name: &str| check_packages(Path::new("x"), &[name.to_owned()]);
        assert!(names("libstdc++6").is_ok());
        for bad in ["", "-x", "a b", "a,b", "a;rm", "A", "/etc/x"] {
            assert!(names(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn odd_files_are_refused() {
        let files = |path: &str| check_files(Path::new("x"), &[path.to_owned()]);
        assert!(files("/usr/share/weston/*.png").is_ok());
        for bad in ["", "usr/bin/x", "/../x", "/a b", "/$(x)", "/a\n/b"] {
            assert!(files(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_template_lists_the_known_ones() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("apps.toml"), "").unwrap();
        let error = template(folder.path(), "nope").unwrap_err().to_string();
        assert!(error.contains("nope") && error.contains("apps"), "{error}");
    }

    #[test]
    fn our_own_recipes_are_valid() {
        let recipes = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in template_names(&recipes.join("templates")).unwrap() {
            template(&recipes.join("templates"), &name).unwrap();
        }
        read::<GuestRecipe>(&recipes.join("guest.toml")).unwrap();
        let host: HostRecipe = read(&recipes.join("hosts/test.toml")).unwrap();
        check_packages(Path::new("hosts/test.toml"), &host.packages).unwrap();
        let desktop_file = recipes.join("hosts/desktop.toml");
        let desktop: DesktopRecipe = read(&desktop_file).unwrap();
        desktop.check(&desktop_file).unwrap();
        for name in host.templates.iter().chain(&desktop.templates) {
            template(&recipes.join("templates"), name).unwrap();
        }
    }
}
