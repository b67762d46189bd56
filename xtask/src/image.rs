//! `cargo xtask image`.

use std::process::ExitCode;

use bulkhead_image::{
    Builder, Layout, Options, desktop::DesktopImage, programs::Profile, recipe::Firmware, tools,
};

use crate::TaskResult;

/// Build images under target/images; only what changed is made again
#[derive(clap::Args)]
pub struct Image {
    /// What to build: `desktop` (the bootable disk), `guest`, `host`, `bench` (the host that
    /// benchmarks need), or templates by name; everything if nothing is named
    names: Vec<String>,
    /// Firmware of the disk: `virtual` has none, `full` starts on real machines
    #[arg(long, value_name = "KIND", default_value = "virtual", value_parser = firmware)]
    firmware: Firmware,
    /// List what can be built
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    build: BuildArguments,
}

/// Options of every task that builds images.
#[derive(clap::Args, Clone)]
pub struct BuildArguments {
    /// A Debian mirror other than the one in this machine's apt configuration
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,
    /// Fetch newer packages from the archive even where nothing of ours changed
    #[arg(long)]
    refresh: bool,
    /// Use programs of ours that were built earlier, as they are
    #[arg(long)]
    no_build: bool,
    /// Unoptimised programs: quick to build, slow to run
    #[arg(long)]
    dev: bool,
}

impl BuildArguments {
    /// A builder with these options; installs missing tools where it may.
    pub fn builder(&self) -> Result<Builder, bulkhead_image::Error> {
        tools::ensure()?;
        Builder::open(
            Layout::of_this_workspace(),
            Options {
                mirror: self.mirror.clone(),
                refresh: self.refresh,
                profile: if self.dev {
                    Profile::Dev
                } else {
                    Profile::Release
                },
                build_programs: !self.no_build,
            },
        )
    }
}

/// The firmware of this name.
pub fn firmware(text: &str) -> Result<Firmware, String> {
    [Firmware::Virtual, Firmware::Full]
        .into_iter()
        .find(|firmware| firmware.name() == text)
        .ok_or_else(|| format!("there is no firmware `{text}`; choose `virtual` or `full`"))
}

fn report(image: &DesktopImage) {
    println!("the disk image: {}", image.disk.display());
}

impl Image {
    pub fn run(self) -> TaskResult {
        let builder = self.build.builder()?;
        let templates = builder.template_names()?;
        if self.list {
            println!("desktop\nguest\nhost\nbench");
            templates.iter().for_each(|name| println!("{name}"));
            return Ok(ExitCode::SUCCESS);
        }
        if self.names.is_empty() {
            for name in &templates {
                builder.template(name)?;
            }
            builder.host(true, false)?;
            report(&builder.desktop(self.firmware)?);
        }
        for name in &self.names {
            match name.as_str() {
                "desktop" => report(&builder.desktop(self.firmware)?),
                "guest" => {
                    builder.guest()?;
                }
                "host" => {
                    builder.host(true, false)?;
                }
                "bench" => {
                    builder.host(true, true)?;
                }
                template => builder.template(template)?,
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
