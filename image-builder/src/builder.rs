//! What depends on what: makes each image from its inputs, and only when they changed.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::Instant,
};

use sha2::{Digest, Sha256};

use crate::{
    apt::Mirror,
    emulator,
    error::{Error, io},
    initramfs::{
        self, Content, DEVICES_INITRAMFS, Drivers, GUEST_FILES, INITRAMFS, Loaded,
        NETWORK_INITRAMFS,
    },
    kernel::{self, Kernel},
    layout::Layout,
    programs::{Profile, Programs, strip},
    recipe::{self, GuestRecipe, HostRecipe},
    root::{self, Form, RootSpec},
    stamp::{Inputs, Stamp, hex},
    template,
};

/// What a user can choose.
#[derive(Debug, Clone)]
pub struct Options {
    /// A mirror other than the machine's own.
    pub mirror: Option<String>,
    /// Ask the archive for newer packages, even where nothing of ours changed.
    pub refresh: bool,
    /// How our programs are built.
    pub profile: Profile,
    /// Build our programs; otherwise those built earlier are used.
    pub build_programs: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mirror: None,
            refresh: false,
            profile: Profile::Release,
            build_programs: true,
        }
    }
}

/// The files that a test host boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostImages {
    /// The kernel, as an ELF file.
    pub kernel: PathBuf,
    /// The initramfs, with the host's PID 1.
    pub initramfs: PathBuf,
    /// Read-only disks: serial and file, in the order in which they are mounted.
    pub disks: Vec<(&'static str, PathBuf)>,
}

/// Builds images. While it exists no other process builds into the same folder.
pub struct Builder {
    pub(crate) layout: Layout,
    pub(crate) options: Options,
    _lock: fs::File,
}

impl Builder {
    /// Waits for other builders to end and takes their place.
    pub fn open(layout: Layout, options: Options) -> Result<Self, Error> {
        let images = layout.images();
        for folder in [
            layout.cache(),
            layout.stamps(),
            layout.host(),
            layout.guest(),
        ] {
            fs::create_dir_all(&folder).map_err(io("creating", &folder))?;
        }
        let path = images.join(".lock");
        let lock = fs::File::create(&path).map_err(io("creating", &path))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|error| io("locking", &path)(error.into()))?;
        // A build that was interrupted could not clean up; under the lock nobody else uses these.
        for folder in [images, layout.cache()] {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(".tmp") {
                    let _ = fs::remove_dir_all(entry.path());
                }
            }
        }
        Ok(Self {
            layout,
            options,
            _lock: lock,
        })
    }

    /// Where cargo puts our programs for the host.
    #[must_use]
    pub fn program_folder(&self) -> PathBuf {
        self.options.profile.folder_in(self.layout.target())
    }

    /// The names of all templates.
    pub fn template_names(&self) -> Result<Vec<String>, Error> {
        recipe::template_names(&self.layout.recipes().join("templates"))
    }

    /// The kernel of a release.
    pub fn kernel(&self, suite: &str) -> Result<Kernel, Error> {
        timed("kernel", || {
            kernel::fetch(
                &self.layout.cache(),
                &self.mirror()?,
                suite,
                self.options.refresh,
            )
        })
    }

    /// A newer emulator, where the installed one ends guests by itself. Without it tests run all the
    /// same, and now and then have to run twice.
    pub fn emulator(&self) {
        let cache = self.layout.cache();
        if !emulator::is_missing(&cache) {
            return;
        }
        let fetched = timed("newer emulator", || {
            emulator::fetch(&cache, &self.mirror()?)
        });
        if let Err(error) = fetched {
            tracing::warn!("no newer emulator: {error}; the installed one runs");
        }
    }

    /// The guests' kernel and initramfs. `false` if the agent does not exist.
    pub fn guest(&self) -> Result<bool, Error> {
        let file = self.layout.recipes().join("guest.toml");
        let recipe: GuestRecipe = recipe::read(&file)?;
        let programs = self.programs()?;
        let (present, absent): (Vec<_>, Vec<_>) = recipe
            .programs
            .iter()
            .partition(|program| programs.has(&program.package, &program.bin));
        for program in absent {
            tracing::warn!(
                "{} does NOT EXIST: guests go without /{}",
                program.bin,
                program.path
            );
        }
        if !present.iter().any(|program| program.path == "init") {
            return Ok(false);
        }
        let wanted: Vec<(&str, &str)> = present
            .iter()
            .map(|program| (program.package.as_str(), program.bin.as_str()))
            .collect();
        let built = timed("guest programs", || programs.fixed(&wanted))?;
        if let Some(missing) = built.iter().find(|path| !path.is_file()) {
            tracing::warn!("{} is NOT BUILT: no guest image", missing.display());
            return Ok(false);
        }
        let kernel = self.kernel(&recipe.suite)?;
        let folder = self.layout.guest();
        // What a guest does not need would take it time and memory.
        for (name, file, drivers) in [
            ("guest", INITRAMFS, Drivers::Basic),
            ("guest-net", NETWORK_INITRAMFS, Drivers::Network),
            ("guest-devices", DEVICES_INITRAMFS, Drivers::Devices),
        ] {
            let loaded = recipe.loaded(drivers);
            let contents: Vec<Content<'_>> = present
                .iter()
                .zip(&built)
                .filter(|(program, _)| drivers >= Drivers::Network || !program.network)
                .map(|(program, file)| Content {
                    path: &program.path,
                    file,
                })
                .collect();
            self.initramfs(name, &kernel, &loaded, &contents, &folder.join(file))?;
        }
        Ok(true)
    }

    /// A template.
    pub fn template(&self, name: &str) -> Result<(), Error> {
        let (_, recipe) = recipe::template(&self.layout.recipes().join("templates"), name)?;
        let folder = self.layout.templates().join(name);
        let file = folder.join("root.erofs");
        let description = folder.join("template.toml");
        let inputs = template::inputs(name, &recipe);
        let stamp = Stamp::new(&self.layout.stamps(), &format!("template-{name}"), inputs);
        if !self.options.refresh
            && stamp.is_current(&[&file, &description, &root::applications(&file)])
        {
            return Ok(());
        }
        timed(
            &format!("template {name} ({} packages)", recipe.packages.len()),
            || {
                template::make(name, &recipe, &self.mirror()?, &folder)?;
                stamp.record()
            },
        )
    }

    /// All that the test host boots from. With `images` off it has no guests or templates, with
    /// `bench` it has the programs that benchmarks compare us with.
    pub fn host(&self, images: bool, bench: bool) -> Result<HostImages, Error> {
        let recipe_file = self.layout.recipes().join("hosts/test.toml");
        let recipe: HostRecipe = recipe::read(&recipe_file)?;
        recipe::check_packages(&recipe_file, &recipe.packages)?;
        recipe::check_packages(&recipe_file, &recipe.bench_packages)?;
        let folder = self.layout.host();
        let kernel = self.kernel(&recipe.suite)?;
        self.emulator();

        let init = [("bulkhead-host-init", "bulkhead-host-init")];
        let programs = self.programs()?;
        let init = timed("host PID 1", || programs.fixed(&init))?;
        let init: Vec<Content<'_>> = init
            .iter()
            .map(|file| Content { path: "init", file })
            .collect();
        let initramfs = folder.join(INITRAMFS);
        let loaded = Loaded::always(&recipe.modules);
        self.initramfs("host", &kernel, &loaded, &init, &initramfs)?;

        let mut disks = vec![("root", self.host_root(&recipe, bench)?)];
        disks.push(("programs", self.host_programs(&programs, &recipe, &folder)?));
        if images {
            let staged = self.guest()?;
            if staged {
                let files =
                    GUEST_FILES.map(|name| (name.to_owned(), self.layout.guest().join(name)));
                disks.push(("guest", self.packed("guest", &files, &folder)?));
            }
            let mut files = Vec::new();
            for name in &recipe.templates {
                self.template(name)?;
                let folder = self.layout.templates().join(name);
                for part in root::files_below(&folder)? {
                    files.push((format!("{name}/{}", part.display()), folder.join(part)));
                }
            }
            disks.push(("templates", self.packed("templates", &files, &folder)?));
        }
        Ok(HostImages {
            kernel: folder.join("vmlinux"),
            initramfs,
            disks,
        })
    }

    fn host_root(&self, recipe: &HostRecipe, bench: bool) -> Result<PathBuf, Error> {
        let name = if bench { "root-bench" } else { "root" };
        let (more, pick) = if bench {
            (
                recipe.bench_packages.as_slice(),
                recipe.bench_pick.as_slice(),
            )
        } else {
            (&[][..], &[][..])
        };
        let packages: Vec<&str> = recipe
            .packages
            .iter()
            .chain(more)
            .map(String::as_str)
            .collect();
        let file = self.layout.host().join(format!("{name}.erofs"));
        let spec = RootSpec {
            name,
            suite: &recipe.suite,
            packages,
            exclude: &recipe.exclude,
            pick,
            components: &[],
            form: Form::Erofs,
            applications: false,
            users: &[],
            services: &[],
            files: &[],
        };
        let stamp = Stamp::new(
            &self.layout.stamps(),
            &format!("host-{name}"),
            spec.inputs(),
        );
        if self.options.refresh || !stamp.is_current(&[&file]) {
            timed(
                &format!("host {name} ({} packages)", spec.packages.len()),
                || {
                    root::build(&spec, &self.mirror()?, &file)?;
                    stamp.record()
                },
            )?;
        }
        Ok(file)
    }

    fn host_programs(
        &self,
        programs: &Programs<'_>,
        recipe: &HostRecipe,
        folder: &Path,
    ) -> Result<PathBuf, Error> {
        let built = timed("our programs", || programs.dynamic(&recipe.programs))?;
        let files: Vec<(String, PathBuf)> = built
            .into_iter()
            .filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)))
            .collect();
        self.packed("programs", &files, folder)
    }

    /// An EROFS file `NAME.erofs` of these files: place in the image, and source.
    fn packed(
        &self,
        name: &str,
        files: &[(String, PathBuf)],
        folder: &Path,
    ) -> Result<PathBuf, Error> {
        let output = folder.join(format!("{name}.erofs"));
        let mut inputs = Inputs::new("pack", 3);
        for (place, source) in files {
            inputs.text("place", place).file(source)?;
        }
        let stamp = Stamp::new(&self.layout.stamps(), &format!("host-{name}"), inputs);
        if stamp.is_current(&[&output]) {
            return Ok(output);
        }
        timed(&format!("{name}.erofs"), || {
            let images = self.layout.images();
            let staging =
                tempfile::tempdir_in(&images).map_err(io("creating a folder in", &images))?;
            for (place, source) in files {
                let place = staging.path().join(place);
                if let Some(parent) = place.parent() {
                    fs::create_dir_all(parent).map_err(io("creating", parent))?;
                }
                if name == "programs" {
                    strip(source, &place)?;
                } else if fs::hard_link(source, &place).is_err() {
                    fs::copy(source, &place).map_err(io("copying", source))?;
                }
            }
            root::pack(staging.path(), &output)?;
            stamp.record()
        })?;
        Ok(output)
    }

    pub(crate) fn initramfs(
        &self,
        name: &str,
        kernel: &Kernel,
        loaded: &Loaded,
        contents: &[Content<'_>],
        output: &Path,
    ) -> Result<(), Error> {
        let vmlinux = output.with_file_name("vmlinux");
        let mut inputs = Inputs::new("initramfs", 5);
        inputs
            .text("kernel", &kernel.version)
            .text("modules", &loaded.modules.join(","))
            .text("bare", if loaded.bare { "yes" } else { "no" });
        if !loaded.wireless.is_empty() {
            inputs.text("wireless", &loaded.wireless.join(","));
        }
        inputs.file(&kernel.vmlinux)?;
        for content in contents {
            inputs.text("place", content.path).file(content.file)?;
        }
        let stamp = Stamp::new(&self.layout.stamps(), &format!("{name}-initramfs"), inputs);
        if stamp.is_current(&[output, &vmlinux]) {
            return Ok(());
        }
        timed(&format!("{name} initramfs"), || {
            let cache = self.layout.cache();
            let work = tempfile::tempdir_in(&cache).map_err(io("creating a folder in", &cache))?;
            let mut stripped = Vec::new();
            for (index, content) in contents.iter().enumerate() {
                let file = work.path().join(index.to_string());
                strip(content.file, &file)?;
                stripped.push(file);
            }
            let contents: Vec<Content<'_>> = contents
                .iter()
                .zip(&stripped)
                .map(|(content, file)| Content { file, ..*content })
                .collect();
            initramfs::write(kernel, loaded, &contents, output)?;
            let partial = vmlinux.with_extension("partial");
            fs::copy(&kernel.vmlinux, &partial).map_err(io("copying to", &partial))?;
            fs::rename(&partial, &vmlinux).map_err(io("moving to", &vmlinux))?;
            stamp.record()
        })
    }

    pub(crate) fn programs(&self) -> Result<Programs<'_>, Error> {
        Programs::open(
            &self.layout,
            self.options.profile,
            self.options.build_programs,
        )
    }

    pub(crate) fn mirror(&self) -> Result<Mirror, Error> {
        match &self.options.mirror {
            Some(uri) => Ok(Mirror(uri.clone())),
            None => Ok(Mirror::of_this_machine()?),
        }
    }
}

pub(crate) fn measure(file: &Path) -> std::io::Result<(u64, String)> {
    let mut reader = fs::File::open(file)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 20];
    let mut size = 0;
    loop {
        let count = reader.read(&mut buffer)?;
        let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else {
            break;
        };
        hash.update(part);
        size += part.len() as u64;
    }
    Ok((size, hex(&hash.finalize())))
}

/// Says what a step took, if it took long enough to be worth a line.
pub(crate) fn timed<T>(name: &str, step: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let start = Instant::now();
    let result = step()?;
    let seconds = start.elapsed().as_secs_f64();
    if seconds > 0.2 {
        tracing::info!("{name}: {seconds:.1} s");
    }
    Ok(result)
}
