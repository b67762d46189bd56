//! Which kernel modules must be loaded, and in which order.
//!
//! `modules.dep` does not exist in an unpacked package (depmod makes it on installation), so we
//! read the same facts from where depmod takes them: each module's `.modinfo` section.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader as _, SectionHeader as _};

use crate::{
    command::{program, run},
    error::{Error, io},
    tracing_calls,
};

/// Why the modules cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The kernel has no such module.
    #[error("the kernel in {tree} has no module `{name}`{}", wanted_by(.needed_by))]
    Missing {
        /// The module.
        name: String,
        /// Who needs it.
        needed_by: Option<String>,
        /// Where we looked.
        tree: PathBuf,
    },
    /// A module file is broken.
    #[error("{path} is not a kernel module: {reason}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

fn wanted_by(needed_by: &Option<String>) -> String {
    needed_by
        .as_ref()
        .map(|name| format!(" (needed by `{name}`)"))
        .unwrap_or_default()
}

/// A module, ready to be put into an initramfs.
#[derive(Debug, Clone)]
pub struct Module {
    /// With underscores, as the kernel shows it.
    pub name: String,
    /// Its path below `lib/modules/VERSION`, without compression suffix.
    pub path: String,
    /// The uncompressed ELF file.
    pub content: Vec<u8>,
}

/// Where a set of modules comes from; the tests use one in memory.
pub trait ModuleSource {
    /// The path below `lib/modules/VERSION` of a loadable module, if there is one.
    fn path_of(&self, name: &str) -> Option<&str>;
    /// Whether the kernel itself contains this module.
    fn is_builtin(&self, name: &str) -> bool;
    /// The uncompressed file.
    fn content(&self, path: &str) -> Result<Vec<u8>, ModuleError>;
    /// A name for messages.
    fn location(&self) -> PathBuf;
}

/// The modules of an unpacked kernel.
pub struct ModuleTree {
    folder: PathBuf,
    paths: BTreeMap<String, String>,
    builtin: BTreeSet<String>,
}

impl ModuleTree {
    /// Reads the lists of `lib/modules/VERSION`.
    pub fn open(folder: &Path) -> Result<Self, ModuleError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|error| ModuleError::Broken {
                path,
                reason: error.to_string(),
            })
        };
        let mut paths = BTreeMap::new();
        for line in read("modules.order")?.lines() {
            paths.insert(canonical(line), line.to_owned());
        }
        let builtin = read("modules.builtin")?.lines().map(canonical).collect();
        Ok(Self {
            folder: folder.to_path_buf(),
            paths,
            builtin,
        })
    }
}

/// How packed modules end, and what unpacks them.
const PACKED: [(&str, &str, &str); 2] = [("xz", "xz", "xz-utils"), ("zst", "zstd", "zstd")];

impl ModuleTree {
    /// A module's file as it is, perhaps packed, and its path: the kernel can unpack it.
    pub fn as_it_is(&self, path: &str) -> Result<(String, Vec<u8>), ModuleError> {
        let packed = PACKED.iter().map(|(suffix, ..)| format!("{path}.{suffix}"));
        let path = std::iter::once(path.to_owned())
            .chain(packed)
            .find(|path| self.folder.join(path).exists())
            .unwrap_or_else(|| path.to_owned());
        let file = self.folder.join(&path);
        match fs::read(&file) {
            Ok(content) => Ok((path, content)),
            Err(error) => Err(ModuleError::Broken {
                path: file,
                reason: error.to_string(),
            }),
        }
    }
}

impl ModuleSource for ModuleTree {
    fn path_of(&self, name: &str) -> Option<&str> {
        self.paths.get(name).map(String::as_str)
    }

    fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(name)
    }

    fn content(&self, path: &str) -> Result<Vec<u8>, ModuleError> {
        let plain = self.folder.join(path);
        let broken = |reason: String| ModuleError::Broken {
            path: plain.clone(),
            reason,
        };
        if plain.exists() {
            return fs::read(&plain).map_err(|error| broken(error.to_string()));
        }
        for (suffix, tool, package) in PACKED {
            let packed = self.folder.join(format!("{path}.{suffix}"));
            if packed.exists() {
                return program(tool, package)
                    .and_then(|mut command| {
                        run(
                            command.args(["-d", "-c", "-q"]).arg(&packed),
                            "unpacking a module",
                        )
                    })
                    .map_err(|error| broken(error.to_string()));
            }
        }
        Err(broken("no such file".to_owned()))
    }

    fn location(&self) -> PathBuf {
        self.folder.clone()
    }
}

/// The named modules and all they need, in an order in which each can be loaded.
pub fn resolve(source: &dyn ModuleSource, names: &[String]) -> Result<Vec<Module>, ModuleError> {
    let mut resolver = Resolver {
        source,
        visited: BTreeSet::new(),
        in_order: Vec::new(),
    };
    for name in names {
        resolver.visit(&canonical(name), None)?;
    }
    Ok(resolver.in_order)
}

/// A module's file without what the kernel would only spend time on as it loads it in a guest: its
/// signature, which is checked each time although nothing depends on the outcome (the archive that it
/// comes from is checked as a whole, or not), its types for BPF programs, and what is there to trace its
/// functions. In the emulated host a fifth of a guest's start, and 0.08 s more. The kernel marks itself as tainted (`E`).
pub fn bare(module: &[u8]) -> Result<Vec<u8>, Error> {
    let mut module = module.to_vec();
    let untraced = tracing_calls::take_out(&mut module).is_ok_and(|all| all);
    let folder = tempfile::tempdir().map_err(io("creating a folder in", &std::env::temp_dir()))?;
    let (from, to) = (folder.path().join("module"), folder.path().join("bare"));
    fs::write(&from, &module).map_err(io("writing", &from))?;
    // What lies behind the file's sections, as the signature does, is not copied.
    let mut command = program("objcopy", "binutils")?;
    command.args(["--remove-section=.BTF", "--remove-section=.BTF.base"]);
    if untraced {
        command.arg(format!("--remove-section={}", tracing_calls::LIST));
    }
    run(
        command.args([&from, &to]),
        "taking a module's signature away",
    )?;
    fs::read(&to).map_err(io("reading", &to))
}

struct Resolver<'a> {
    source: &'a dyn ModuleSource,
    visited: BTreeSet<String>,
    in_order: Vec<Module>,
}

impl Resolver<'_> {
    fn visit(&mut self, name: &str, needed_by: Option<&str>) -> Result<(), ModuleError> {
        // Marked before its dependencies: a circle in soft dependencies must end.
        if self.source.is_builtin(name) || !self.visited.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(path) = self.source.path_of(name).map(str::to_owned) else {
            return Err(ModuleError::Missing {
                name: name.to_owned(),
                needed_by: needed_by.map(str::to_owned),
                tree: self.source.location(),
            });
        };
        let content = self.source.content(&path)?;
        let information =
            ModuleInformation::read(&content).map_err(|reason| ModuleError::Broken {
                path: self.source.location().join(&path),
                reason,
            })?;
        for wish in &information.soft_dependencies {
            // A wish may name an algorithm instead of a module: libcrc32c asks for "crc32c",
            // which crc32c_generic provides. What the kernel does not have is no error.
            for candidate in [wish.clone(), format!("{wish}_generic")] {
                if self.source.path_of(&candidate).is_some() {
                    self.visit(&candidate, Some(name))?;
                    break;
                }
            }
        }
        for dependency in &information.dependencies {
            self.visit(dependency, Some(name))?;
        }
        self.in_order.push(Module {
            name: name.to_owned(),
            path,
            content,
        });
        Ok(())
    }
}

/// `kernel/fs/erofs/erofs.ko` and `virtio-gpu` are called `erofs` and `virtio_gpu`.
fn canonical(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

#[derive(Debug, Default, PartialEq, Eq)]
struct ModuleInformation {
    dependencies: Vec<String>,
    soft_dependencies: Vec<String>,
}

impl ModuleInformation {
    fn read(elf: &[u8]) -> Result<Self, String> {
        let section = elf_section(elf, ".modinfo").ok_or("no .modinfo section")?;
        let mut information = Self::default();
        for entry in section.split(|byte| *byte == 0) {
            let Ok(entry) = std::str::from_utf8(entry) else {
                continue;
            };
            let Some((key, value)) = entry.split_once('=') else {
                continue;
            };
            match key {
                "depends" => information.dependencies.extend(
                    value
                        .split(',')
                        .filter(|name| !name.is_empty())
                        .map(canonical),
                ),
                "softdep" => {
                    // "pre: a b post: c"
                    let mut before = false;
                    for word in value.split_whitespace() {
                        match word {
                            "pre:" => before = true,
                            "post:" => before = false,
                            name if before => information.soft_dependencies.push(canonical(name)),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(information)
    }
}

/// The content of a section of a 64-bit little-endian ELF file.
fn elf_section<'a>(elf: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    let header = FileHeader64::<LittleEndian>::parse(elf).ok()?;
    let sections = header.sections(LittleEndian, elf).ok()?;
    let (_, section) = sections.section_by_name(LittleEndian, wanted.as_bytes())?;
    section.data(LittleEndian, elf).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with a string table and a `.modinfo` section, and nothing else.
    fn module_file(information: &str) -> Vec<u8> {
        let names = b"\0.shstrtab\0.modinfo\0";
        let information = information.replace('|', "\0");
        let mut elf = vec![0_u8; 0x40];
        elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        let names_at = elf.len();
        elf.extend_from_slice(names);
        let information_at = elf.len();
        elf.extend_from_slice(information.as_bytes());
        let table = elf.len();
        for (name, at, size) in [
            (0_u32, 0, 0),
            (1, names_at, names.len()),
            (11, information_at, information.len()),
        ] {
            let mut header = [0_u8; 0x40];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
            elf.extend_from_slice(&header);
        }
        elf[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        elf[0x3a..0x3c].copy_from_slice(&0x40_u16.to_le_bytes());
        elf[0x3c..0x3e].copy_from_slice(&3_u16.to_le_bytes());
        elf[0x3e..0x40].copy_from_slice(&1_u16.to_le_bytes());
        elf
    }

    struct Fake(BTreeMap<&'static str, &'static str>);

    impl ModuleSource for Fake {
        fn path_of(&self, name: &str) -> Option<&str> {
            self.0.get_key_value(name).map(|(name, _)| *name)
        }
        fn is_builtin(&self, name: &str) -> bool {
            name == "virtio"
        }
        fn content(&self, path: &str) -> Result<Vec<u8>, ModuleError> {
            Ok(module_file(self.0[path]))
        }
        fn location(&self) -> PathBuf {
            "fake".into()
        }
    }

    fn order(modules: &[(&'static str, &'static str)], wanted: &[&str]) -> Vec<String> {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        resolve(&Fake(modules.iter().copied().collect()), &wanted)
            .unwrap()
            .into_iter()
            .map(|module| module.name)
            .collect()
    }

    #[test]
    fn soft_dependencies_come_before_who_wishes_for_them() {
        let modules = [
            ("erofs", "license=GPL|depends=libcrc32c,netfs|"),
            ("libcrc32c", "softdep=pre: crc32c|depends="),
            ("crc32c_generic", "alias=crypto-crc32c|depends="),
            ("netfs", "depends=virtio"),
        ];
        assert_eq!(
            order(&modules, &["erofs"]),
            ["crc32c_generic", "libcrc32c", "netfs", "erofs"]
        );
    }

    #[test]
    fn names_with_dashes_and_circles_are_fine() {
        let modules = [
            ("virtio_gpu", "softdep=pre: drm post: x|depends=drm"),
            ("drm", "softdep=pre: virtio-gpu"),
        ];
        assert_eq!(
            order(&modules, &["virtio-gpu", "drm"]),
            ["drm", "virtio_gpu"]
        );
    }

    #[test]
    fn a_missing_module_is_named_with_who_needs_it() {
        let source = Fake([("a", "depends=b")].into());
        let text = resolve(&source, &["a".to_owned()]).unwrap_err().to_string();
        assert!(
            text.contains("`b`") && text.contains("needed by `a`"),
            "{text}"
        );
    }

    #[test]
    fn a_bare_module_has_no_signature_and_no_types() {
        const MARK: &[u8] = b"~Module signature appended~\n";
        let folder = tempfile::tempdir().unwrap();
        let (types, file) = (folder.path().join("types"), folder.path().join("module"));
        fs::write(&types, b"types").unwrap();
        run(
            program("objcopy", "binutils")
                .unwrap()
                .arg(format!("--add-section=.BTF={}", types.display()))
                .arg("/bin/true")
                .arg(&file),
            "adding a section",
        )
        .unwrap();
        let mut module = fs::read(&file).unwrap();
        module.extend_from_slice(MARK);
        assert_eq!(elf_section(&module, ".BTF"), Some(b"types".as_slice()));
        let made = bare(&module).unwrap();
        assert_eq!(elf_section(&made, ".BTF"), None);
        assert_eq!(
            elf_section(&made, ".rodata"),
            elf_section(&module, ".rodata")
        );
        assert!(!made.ends_with(MARK));
        assert!(bare(b"text").is_err());
    }

    #[test]
    fn broken_files_are_errors() {
        let whole = module_file("depends=");
        for length in 0..whole.len() {
            let _ = ModuleInformation::read(&whole[..length]);
        }
        assert!(ModuleInformation::read(b"text").is_err());
    }
}
