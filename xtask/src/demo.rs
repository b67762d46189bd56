//! `cargo xtask demo`: the README's first command.

use std::process::ExitCode;
use std::time::Instant;

use crate::TaskResult;
use crate::image::BuildArguments;

/// Install what is missing, build, boot, and take a picture of two apps in two guests
#[derive(clap::Args)]
pub struct Demo {
    #[command(flatten)]
    build: BuildArguments,
}

impl Demo {
    pub fn run(self) -> TaskResult {
        let start = Instant::now();
        let images = self.build.builder()?.host(true, false)?;
        eprintln!("images are ready ({:.1} s)", start.elapsed().as_secs_f32());
        let target = bulkhead_image::Layout::of_this_workspace()
            .target()
            .to_owned();
        let picture = bulkhead_tests::demo::run(&images, &target)?;
        println!("the desktop: {}", picture.display());
        Ok(ExitCode::SUCCESS)
    }
}
