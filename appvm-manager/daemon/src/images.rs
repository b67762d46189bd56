//! The guest kernel, its initramfs, and the templates: found and checked before anything starts.
//! Templates come with the system or are the user's own; where both have a name, it is the
//! system's.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bulkhead_protocol::DomainName;

use crate::config::DomainConfig;
use crate::{Error, Result};

/// The folder of images that the image builder wrote, and the user's own templates.
#[derive(Debug, Clone)]
pub struct Images {
    dir: PathBuf,
    own: Option<PathBuf>,
}

/// Everything that a guest is started from, open.
#[derive(Debug)]
pub struct GuestImages {
    /// An ELF `vmlinux`.
    pub kernel: File,
    /// A cpio archive with the agent.
    pub initramfs: File,
    /// An EROFS image.
    pub root: File,
}

/// Which drivers a guest has: each of these has all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drivers {
    /// What all guests need.
    Basic,
    /// And for network cards.
    Network,
    /// And for physical devices.
    Devices,
}

impl Drivers {
    /// What a domain needs.
    pub fn of(config: &DomainConfig) -> Self {
        let has_cards = config.net_domain.is_some() || config.provides_network;
        match (config.pci.is_empty(), has_cards) {
            (false, _) => Drivers::Devices,
            (true, true) => Drivers::Network,
            (true, false) => Drivers::Basic,
        }
    }

    /// The file that the image builder wrote for such guests.
    fn initramfs(self) -> &'static str {
        match self {
            Drivers::Basic => "initramfs.cpio",
            Drivers::Network => "initramfs-net.cpio",
            Drivers::Devices => "initramfs-devices.cpio",
        }
    }
}

const BUILD: &str = "build the images (cargo xtask image) or give --images another folder";

impl Images {
    /// Below `dir`, as `guest/…` and `templates/…`.
    pub fn new(dir: PathBuf) -> Self {
        Images { dir, own: None }
    }

    /// With the user's own templates in this folder.
    pub fn with_own(self, own: PathBuf) -> Self {
        Images {
            own: Some(own),
            ..self
        }
    }

    /// The folder of the user's own templates.
    pub fn own(&self) -> Option<&Path> {
        self.own.as_deref()
    }

    fn system(&self) -> PathBuf {
        self.dir.join("templates")
    }

    /// The names of all templates.
    pub fn templates(&self) -> Vec<DomainName> {
        let folders = [Some(self.system()), self.own.clone()];
        let mut names: Vec<DomainName> = folders
            .into_iter()
            .flatten()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flatten()
            .flatten()
            .filter(|entry| entry.path().join("root.erofs").exists())
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Whether the system has a template of this name.
    pub fn is_system(&self, template: &DomainName) -> bool {
        let folder = self.system().join(template.as_str());
        folder.join("root.erofs").exists()
    }

    /// The folder of a template that exists.
    pub fn template_folder(&self, template: &DomainName) -> Option<PathBuf> {
        [Some(self.system()), self.own.clone()]
            .into_iter()
            .flatten()
            .map(|folder| folder.join(template.as_str()))
            .find(|folder| folder.join("root.erofs").exists())
    }

    /// Fails where a template does not exist.
    pub fn check_template(&self, template: &DomainName) -> Result<()> {
        let file = self.root_file(template);
        if file.exists() {
            return Ok(());
        }
        let known = self.known();
        let reason = format!("there is no template `{template}`");
        let remedy = if known.is_empty() {
            BUILD.into()
        } else {
            format!("choose one of {known}")
        };
        Err(Error::Image {
            file,
            reason,
            remedy,
        })
    }

    /// The names of all templates, for messages.
    pub fn known(&self) -> String {
        let names: Vec<String> = self.templates().iter().map(ToString::to_string).collect();
        names.join(", ")
    }

    fn root_file(&self, template: &DomainName) -> PathBuf {
        let folder = self.template_folder(template);
        folder
            .unwrap_or_else(|| self.system().join(template.as_str()))
            .join("root.erofs")
    }

    /// Opens what a domain of `template` needs that is to have these drivers; names the file that is
    /// missing or broken.
    pub fn open(&self, template: &DomainName, drivers: Drivers) -> Result<GuestImages> {
        self.check_template(template)?;
        self.open_with(&self.root_file(template), drivers)
    }

    /// The same with a root of the domain's own, in a folder like a template's.
    pub fn open_own(&self, folder: &Path, drivers: Drivers) -> Result<GuestImages> {
        self.open_with(&folder.join("root.erofs"), drivers)
    }

    fn open_with(&self, root_file: &Path, drivers: Drivers) -> Result<GuestImages> {
        let kernel_file = self.dir.join("guest/vmlinux");
        let kernel = open(&kernel_file)?;
        let mut magic = [0; 4];
        if (&kernel).read_exact(&mut magic).is_err() || magic != *b"\x7fELF" {
            return Err(broken(kernel_file, "it is no ELF kernel".into()));
        }
        let initramfs_file = self.dir.join("guest").join(drivers.initramfs());
        let initramfs = open(&initramfs_file)?;
        if length(&initramfs, &initramfs_file)? == 0 {
            return Err(broken(initramfs_file, "it is empty".into()));
        }
        let root = open(root_file)?;
        check_root(&root, root_file)?;
        Ok(GuestImages {
            kernel: reopened(kernel_file)?,
            initramfs,
            root,
        })
    }
}

/// Whether the root image is whole: its size as the template's file records it, and as its
/// own superblock says. The image is the host's, so reading it is no trust in a guest.
pub(crate) fn check_root(root: &File, file: &Path) -> Result<()> {
    check_erofs(root, file)?;
    let length = length(root, file)?;
    let recorded = fs::read_to_string(file.with_file_name("template.toml"))
        .ok()
        .and_then(|text| recorded_size(&text));
    match recorded {
        Some(size) if size != length => {
            let reason = format!("it has {length} bytes, but template.toml says {size}");
            Err(broken(file.to_owned(), reason))
        }
        _ => Ok(()),
    }
}

/// Whether it is an EROFS image, as long as its superblock says.
pub(crate) fn check_erofs(root: &File, file: &Path) -> Result<()> {
    let length = length(root, file)?;
    let mut superblock = [0; 128];
    let read = root.read_exact_at(&mut superblock, 1024);
    let field = |at: usize| {
        superblock
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u32::from_le_bytes)
    };
    // struct erofs_super_block: magic at 0, blkszbits at 12, blocks at 36.
    if read.is_err() || field(0) != 0xe0f5_e1e2 {
        return Err(broken(file.to_owned(), "it is no EROFS image".into()));
    }
    let block_bits = u32::from(superblock[12]).min(16);
    let needed = u64::from(field(36)) << block_bits;
    if length < needed {
        let reason = format!("it is truncated: {length} bytes where {needed} belong");
        return Err(broken(file.to_owned(), reason));
    }
    Ok(())
}

/// The root image's size, if the template's file records it.
fn recorded_size(text: &str) -> Option<u64> {
    let table: toml::Table = text.parse().ok()?;
    let find = |table: &toml::Table| {
        ["size-bytes", "root-size-bytes"]
            .iter()
            .find_map(|key| table.get(*key)?.as_integer())
    };
    let size = find(&table).or_else(|| find(table.get("root")?.as_table()?))?;
    u64::try_from(size).ok()
}

fn open(file: &Path) -> Result<File> {
    File::open(file).map_err(|error| Error::Image {
        file: file.to_owned(),
        reason: match error.kind() {
            std::io::ErrorKind::NotFound => "it is missing".to_owned(),
            _ => error.to_string(),
        },
        remedy: BUILD.to_owned(),
    })
}

/// A fresh descriptor, whose position is the beginning.
fn reopened(file: PathBuf) -> Result<File> {
    open(&file)
}

fn length(open: &File, file: &Path) -> Result<u64> {
    open.metadata()
        .map(|data| data.len())
        .map_err(Error::io("read", file))
}

fn broken(file: PathBuf, reason: String) -> Error {
    Error::Image {
        file,
        reason,
        remedy: "build it again (cargo xtask image)".to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Images) {
        let dir = tempfile::tempdir().unwrap();
        for path in ["guest", "templates/apps"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        fs::write(dir.path().join("guest/vmlinux"), b"\x7fELF....").unwrap();
        for file in [Drivers::Basic, Drivers::Network].map(Drivers::initramfs) {
            fs::write(dir.path().join("guest").join(file), b"070701").unwrap();
        }
        fs::write(dir.path().join("templates/apps/root.erofs"), erofs(3)).unwrap();
        let images = Images::new(dir.path().to_owned());
        (dir, images)
    }

    /// What passes for an EROFS image.
    pub(crate) fn erofs(blocks: u32) -> Vec<u8> {
        let mut image = vec![0; blocks as usize * 4096];
        image[1024..1028].copy_from_slice(&0xe0f5_e1e2u32.to_le_bytes());
        image[1036] = 12;
        image[1060..1064].copy_from_slice(&blocks.to_le_bytes());
        image
    }

    #[test]
    fn whole_images_open_and_broken_ones_are_named() {
        let (dir, images) = folder();
        let apps: DomainName = "apps".parse().unwrap();
        images.open(&apps, Drivers::Basic).unwrap();
        let root = dir.path().join("templates/apps/root.erofs");
        let fails = |expected: &str| {
            let error = images.open(&apps, Drivers::Basic).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        fs::write(&root, &erofs(3)[..8192]).unwrap();
        fails("root.erofs: it is truncated: 8192 bytes where 12288 belong");
        fs::write(&root, vec![0; 9000]).unwrap();
        fails("it is no EROFS image");
        fs::write(&root, erofs(3)).unwrap();
        let description = dir.path().join("templates/apps/template.toml");
        fs::write(&description, "size-bytes = 16384\n").unwrap();
        fails("template.toml says 16384");
        fs::write(&description, "name = \"apps\"\n").unwrap();
        images.open(&apps, Drivers::Basic).unwrap();
        fs::write(dir.path().join("guest/vmlinux"), b"MZ").unwrap();
        fails("vmlinux: it is no ELF kernel");
        fs::remove_file(dir.path().join("guest/vmlinux")).unwrap();
        fails("vmlinux: it is missing; build the images");
        let other: DomainName = "other".parse().unwrap();
        let error = images.check_template(&other).unwrap_err().to_string();
        assert!(
            error.contains("no template `other`; choose one of apps"),
            "{error}"
        );
    }
}
