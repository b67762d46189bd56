//! The bootable disk image of the desktop: `bulkhead.raw`, its checksums and its list of packages.
//!
//! One way in one order: [`assemble`] makes the host's root out of Debian's packages and our own
//! files, [`verity`] its hash tree, [`uki`] the boot file that carries the root's hash, [`esp`] the
//! partition that firmware reads, [`partitions`] says where each lies, [`disk`] writes them into
//! one file, and [`manifest`] lists the packages. Nothing here needs a loop device or a mount, and
//! the same inputs give the same bytes.

pub mod assemble;
pub mod disk;
pub mod esp;
pub mod manifest;
pub mod partitions;
pub mod uki;
pub mod verity;

use std::{
    fs,
    path::{Path, PathBuf},
};

use bulkhead_host_boot::parameters::VerityParameters;

use crate::{
    Builder,
    apt::Apt,
    builder::{measure, timed},
    command::{program, run},
    error::{Error, io},
    initramfs::{Content, INITRAMFS, Loaded},
    kernel::Kernel,
    recipe::{self, DesktopRecipe, Firmware},
    root::{self, Form, RootSpec},
    stamp::{Inputs, Stamp},
};

use partitions::Partitions;

/// The package with the program that a boot file starts as.
const STUB_PACKAGE: &str = "systemd-boot-efi";
/// Where that package has it.
const STUB: &str = "usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// A finished disk image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesktopImage {
    /// `bulkhead.raw`.
    pub disk: PathBuf,
    /// Where each partition lies in it.
    pub partitions: Partitions,
    /// What the kernel of this image believes.
    pub verity: VerityParameters,
}

/// What the steps share.
struct Desktop<'a> {
    builder: &'a Builder,
    recipe: DesktopRecipe,
    firmware: Firmware,
    kernel: Kernel,
    folder: PathBuf,
}

impl Builder {
    /// The desktop's disk image, and beside it its checksums and the list of its packages.
    pub fn desktop(&self, firmware: Firmware) -> Result<DesktopImage, Error> {
        let file = self.layout.recipes().join("hosts/desktop.toml");
        let recipe: DesktopRecipe = recipe::read(&file)?;
        recipe.check(&file)?;
        let folder = self.layout.desktop().join(firmware.name());
        fs::create_dir_all(&folder).map_err(io("creating", &folder))?;
        self.emulator();
        Desktop {
            builder: self,
            kernel: self.kernel(&recipe.suite)?,
            recipe,
            firmware,
            folder,
        }
        .build()
    }
}

impl Desktop<'_> {
    fn build(&self) -> Result<DesktopImage, Error> {
        let base = self.base()?;
        let root = self.assembled(&base)?;
        let (tree, verity) = self.verity(&root)?;
        let uki = self.uki(&root, &verity)?;
        let esp = self.esp(&uki)?;
        let partitions = Partitions::new(
            self.recipe.esp_mib,
            self.recipe.slot_mib,
            &verity,
            disk::length(&root)?,
        )
        .map_err(|problem| self.problem(problem.to_string()))?;
        let image = DesktopImage {
            disk: self.builder.layout.disk_image().join("bulkhead.raw"),
            partitions,
            verity,
        };
        self.finish(&image, &esp, &root, &tree, &uki)?;
        Ok(image)
    }

    /// Debian's part of the root, which changes rarely.
    fn base(&self) -> Result<PathBuf, Error> {
        let firmware = self.recipe.firmware(self.firmware);
        let output = self.folder.join("base.tar");
        let spec = RootSpec {
            name: "desktop",
            suite: &self.recipe.suite,
            packages: self
                .recipe
                .packages
                .iter()
                .chain(&firmware.packages)
                .map(String::as_str)
                .collect(),
            exclude: &self.recipe.exclude,
            pick: &self.recipe.pick,
            components: &firmware.components,
            form: Form::Tar,
            applications: false,
            users: &[],
            services: &[],
            files: &[],
        };
        let stamp = self.stamp("base", spec.inputs());
        if self.builder.options.refresh || !stamp.is_current(&[&output]) {
            let name = format!("desktop packages ({} named)", spec.packages.len());
            timed(&name, || {
                root::build(&spec, &self.builder.mirror()?, &output)?;
                stamp.record()
            })?;
        }
        Ok(output)
    }

    fn verity(&self, root: &Path) -> Result<(PathBuf, VerityParameters), Error> {
        let tree = self.folder.join("root.verity");
        let record = self.folder.join("root.verity.txt");
        let mut inputs = Inputs::new("verity", 1);
        inputs.file(root)?;
        let stamp = self.stamp("verity", inputs);
        if !stamp.is_current(&[&tree, &record]) {
            timed("hash tree", || {
                let parameters = verity::format(root, &tree)?;
                fs::write(&record, parameters.to_string()).map_err(io("writing", &record))?;
                stamp.record()
            })?;
        }
        let text = fs::read_to_string(&record).map_err(io("reading", &record))?;
        let parameters = VerityParameters::from_command_line(&text)
            .map_err(|error| self.problem(format!("{}: {error}; delete it", record.display())))?;
        Ok((tree, parameters))
    }

    fn uki(&self, root: &Path, verity: &VerityParameters) -> Result<PathBuf, Error> {
        let firmware = self.recipe.firmware(self.firmware);
        let programs = self.builder.programs()?;
        let init = [("bulkhead-host-boot", "bulkhead-host-boot")];
        let init = timed("desktop PID 1", || programs.fixed(&init))?;
        let init: Vec<Content<'_>> = init
            .iter()
            .map(|file| Content { path: "init", file })
            .collect();
        let initramfs = self.folder.join(INITRAMFS);
        let name = format!("desktop-{}", self.firmware.name());
        let modules = &firmware.boot_modules;
        self.builder.initramfs(
            &name,
            &self.kernel,
            &Loaded::always(modules),
            &init,
            &initramfs,
        )?;
        let stub = self.stub()?;
        let microcode = self.folder.join("microcode.cpio");
        let output = self.folder.join("bulkhead.efi");
        let mut inputs = Inputs::new("uki", 1);
        let command_line = format!("{} {verity}", self.recipe.command_line);
        inputs.text("command line", &command_line);
        inputs.text("kernel", &self.kernel.version);
        inputs.file(&initramfs)?.file(&stub)?;
        inputs.file(&self.kernel.boot_image)?.file(root)?;
        let stamp = self.stamp("uki", inputs);
        if !stamp.is_current(&[&output]) {
            timed("boot file", || {
                let read = |path: &Path| fs::read(path).map_err(io("reading", path));
                let mut sections = vec![
                    (".osrel", read(&self.folder.join("os-release"))?),
                    (".cmdline", command_line.clone().into_bytes()),
                    (".uname", self.kernel.version.clone().into_bytes()),
                ];
                if microcode.exists() {
                    sections.push((".ucode", read(&microcode)?));
                }
                sections.push((".initrd", read(&initramfs)?));
                sections.push((".linux", read(&self.kernel.boot_image)?));
                let made = uki::add_sections(&read(&stub)?, &sections)
                    .map_err(|error| self.problem(format!("{}: {error}", stub.display())))?;
                disk::write_whole(&output, &made)?;
                stamp.record()
            })?;
        }
        Ok(output)
    }

    fn stub(&self) -> Result<PathBuf, Error> {
        let cache = self.builder.layout.cache();
        let suite = &self.recipe.suite;
        let folder = cache.join(format!("{STUB_PACKAGE}-{suite}"));
        let stub = folder.join(STUB);
        if self.builder.options.refresh || !stub.exists() {
            timed("boot stub", || {
                let lists = cache.join(format!("apt-{suite}"));
                Apt::open(&lists, &self.builder.mirror()?, suite)?.unpack(STUB_PACKAGE, &folder)
            })?;
        }
        Ok(stub)
    }

    fn esp(&self, uki: &Path) -> Result<PathBuf, Error> {
        let output = self.folder.join("esp.fat");
        let mut inputs = Inputs::new("esp", 1);
        inputs.text("size", &self.recipe.esp_mib.to_string());
        inputs.file(uki)?;
        let stamp = self.stamp("esp", inputs);
        if !stamp.is_current(&[&output]) {
            timed("EFI system partition", || {
                esp::build(uki, self.recipe.esp_mib, &output)?;
                stamp.record()
            })?;
        }
        Ok(output)
    }

    /// The disk, its checksums and its manifest.
    fn finish(
        &self,
        image: &DesktopImage,
        esp: &Path,
        root: &Path,
        tree: &Path,
        uki: &Path,
    ) -> Result<(), Error> {
        let target = self.builder.layout.disk_image();
        fs::create_dir_all(&target).map_err(io("creating", &target))?;
        let sums = target.join("SHA256SUMS");
        let list = target.join("bulkhead.spdx.json");
        let status = self.folder.join("dpkg-status");
        let mut inputs = Inputs::new("disk", 1);
        inputs.text("partitions", &image.partitions.script());
        for file in [esp, root, tree, status.as_path()] {
            inputs.file(file)?;
        }
        // One stamp for both firmwares: there is one `bulkhead.raw`.
        let stamp = Stamp::new(&self.builder.layout.stamps(), "desktop-disk", inputs);
        if stamp.is_current(&[&image.disk, &sums, &list]) {
            return Ok(());
        }
        timed("disk image", || {
            disk::write(
                &image.partitions,
                &[
                    (&image.partitions.esp, esp),
                    (&image.partitions.root_a, root),
                    (&image.partitions.verity_a, tree),
                ],
                &image.disk,
            )?;
            let text = fs::read_to_string(&status).map_err(io("reading", &status))?;
            let manifest = manifest::spdx(&text, &image.verity, self.firmware);
            disk::write_whole(&list, manifest.as_bytes())
        })?;
        timed("checksums", || {
            let mut text = String::new();
            for (name, file) in [
                ("bulkhead.raw", image.disk.as_path()),
                ("bulkhead.spdx.json", &list),
                ("root.erofs", root),
                ("root.verity", tree),
                ("bulkhead.efi", uki),
            ] {
                let (_, hash) = checksum(file)?;
                text.push_str(&format!("{hash}  {name}\n"));
            }
            disk::write_whole(&sums, text.as_bytes())?;
            stamp.record()
        })
    }

    fn stamp(&self, step: &str, inputs: Inputs) -> Stamp {
        Stamp::new(
            &self.builder.layout.stamps(),
            &format!("desktop-{}-{step}", self.firmware.name()),
            inputs,
        )
    }

    fn problem(&self, message: String) -> Error {
        Error::Recipe {
            file: self.builder.layout.recipes().join("hosts/desktop.toml"),
            message,
        }
    }
}

/// A file's SHA-256, by the system's tool where there is one: an unoptimised build of this crate
/// would need a minute for a disk.
fn checksum(file: &Path) -> Result<(u64, String), Error> {
    let output = program("sha256sum", "coreutils")
        .and_then(|mut command| run(command.arg("--binary").arg(file), "hashing a file"));
    let length = disk::length(file)?;
    match output {
        Ok(output) => Ok((
            length,
            String::from_utf8_lossy(output.get(..64).unwrap_or_default()).into_owned(),
        )),
        Err(_) => measure(file).map_err(io("reading", file)),
    }
}
