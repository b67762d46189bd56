//! Writes the initramfs of guests and of the test host: one static program as PID 1, the few
//! modules it loads, and the list of them.

use std::{fs, io::BufWriter, path::Path};

use crate::{
    cpio::CpioWriter,
    error::{Error, io},
    kernel::Kernel,
    modules::{ModuleTree, bare, resolve},
};

/// Where PID 1 finds the names of the modules, one path per line, in the order to load them.
const MODULE_LIST: &str = "etc/bulkhead/modules";

/// The file of an initramfs.
pub const INITRAMFS: &str = "initramfs.cpio";
/// That of guests with network cards.
pub const NETWORK_INITRAMFS: &str = "initramfs-net.cpio";
/// That of guests with physical devices.
pub const DEVICES_INITRAMFS: &str = "initramfs-devices.cpio";
/// What guests boot from, without their roots.
pub const GUEST_FILES: [&str; 4] = ["vmlinux", INITRAMFS, NETWORK_INITRAMFS, DEVICES_INITRAMFS];

/// Which drivers an initramfs has for its guests: each has all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drivers {
    /// What all guests need.
    Basic,
    /// And for network cards.
    Network,
    /// And for physical devices.
    Devices,
}

/// The word before a module that only guests with a wireless card load.
const WIRELESS: &str = "wireless ";

/// What an initramfs loads: modules, and those for a wireless card.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Always.
    pub modules: Vec<String>,
    /// Where there is a wireless card.
    pub wireless: Vec<String>,
    /// The modules go without what only takes time: see [`bare`](crate::modules::bare).
    pub bare: bool,
}

impl Loaded {
    /// These modules, and none for a wireless card.
    #[must_use]
    pub fn always(modules: &[String]) -> Self {
        Loaded {
            modules: modules.to_vec(),
            ..Loaded::default()
        }
    }
}

/// A program and its place in the archive.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// The place, as in `init`.
    pub path: &'a str,
    /// The file to put there.
    pub file: &'a Path,
}

/// Writes an initramfs to `output`, whole or not at all.
pub fn write(
    kernel: &Kernel,
    loaded: &Loaded,
    contents: &[Content<'_>],
    output: &Path,
) -> Result<(), Error> {
    let tree = ModuleTree::open(&kernel.modules)?;
    // What is always loaded comes first, and a wireless card may need it as well.
    let always = resolve(&tree, &loaded.modules)?.len();
    let all = [loaded.modules.as_slice(), &loaded.wireless].concat();
    let modules = resolve(&tree, &all)?;
    let mut plain: Vec<(&str, Vec<u8>)> = Vec::with_capacity(always);
    for module in modules.iter().take(always) {
        let content = match loaded.bare {
            true => bare(&module.content)?,
            false => module.content.clone(),
        };
        plain.push((&module.path, content));
    }
    // Drivers of wireless cards are large and many, and each guest loads a few: they stay packed.
    let wireless = modules.iter().skip(always);
    let wireless: Vec<(String, Vec<u8>)> = wireless
        .map(|module| tree.as_it_is(&module.path))
        .collect::<Result<_, _>>()?;
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder).map_err(io("creating", folder))?;
    }
    let partial = output.with_extension("partial");
    let file = fs::File::create(&partial).map_err(io("creating", &partial))?;
    let mut archive = CpioWriter::new(BufWriter::new(file));
    let written = (|| {
        for folder in ["dev", "proc", "sys", "run", "tmp", "newroot"] {
            archive.directory(folder)?;
        }
        archive.character_device("dev/console", 0o600, 5, 1)?;
        for content in contents {
            archive.file(content.path, 0o755, &fs::read(content.file)?)?;
        }
        let mut list = String::new();
        let mut put = |when: &str, path: &str, content: &[u8]| {
            let path = format!("lib/modules/{}/{path}", kernel.version);
            list.push_str(&format!("{when}/{path}\n"));
            archive.file(&path, 0o644, content)
        };
        for (path, content) in &plain {
            put("", path, content)?;
        }
        for (path, content) in &wireless {
            put(WIRELESS, path, content)?;
        }
        archive.file(MODULE_LIST, 0o644, list.as_bytes())?;
        archive.finish()?;
        Ok(())
    })();
    written.map_err(io("writing", &partial))?;
    fs::rename(&partial, output).map_err(io("moving to", output))
}
