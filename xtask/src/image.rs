//! `cargo xtask image`.

use std::process::ExitCode;

use bulkhead_image::{Builder, Layout, Options, programs::Profile, tools};

use crate::TaskResult;

/// Build images under target/images; only what changed is made again
#[derive(clap::Args)]
pub struct Image {
    /// What to build: `guest`, `host`, `bench` (the host that benchmarks need), or templates by
    /// name; everything if nothing is named
    names: Vec<String>,
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

impl Image {
    pub fn run(self) -> TaskResult {
        let builder = self.build.builder()?;
        let templates = builder.template_names()?;
        if self.list {
            println!("guest\nhost\nbench");
            templates.iter().for_each(|name| println!("{name}"));
            return Ok(ExitCode::SUCCESS);
        }
        if self.names.is_empty() {
            for name in &templates {
                builder.template(name)?;
            }
            builder.host(true, false)?;
        }
        for name in &self.names {
            match name.as_str() {
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
