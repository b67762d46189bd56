//! `cargo xtask e2e`.

use std::process::ExitCode;

use bulkhead_image::recipe::Firmware;
use bulkhead_tests::e2e::Place;
use bulkhead_tests::e2e::runner::{self, Images};
use bulkhead_tests::e2e::space;
use bulkhead_tests::scenarios;

use crate::TaskResult;
use crate::image::BuildArguments;

/// Lines of a failure that the end of a run's output says again.
const LINES_OF_A_FAILURE: usize = 20;

/// Run end-to-end scenarios by name; pictures and logs stay under target/e2e/NAME
#[derive(clap::Args)]
pub struct E2e {
    /// Only list the scenarios and what each one proves
    #[arg(long)]
    list: bool,
    /// Names, or patterns with `*`; every scenario if none is given
    patterns: Vec<String>,
    /// Scenarios at their full size, which takes hours
    #[arg(long)]
    long: bool,
    #[command(flatten)]
    build: BuildArguments,
}

impl E2e {
    pub fn run(self) -> TaskResult {
        let mut known = scenarios::all();
        if self.long || self.list || !self.patterns.is_empty() {
            known.extend(scenarios::long_only());
        }
        let chosen = runner::select(known, &self.patterns)?;
        if self.list {
            for scenario in chosen {
                println!("{:24} {}", scenario.name, scenario.about);
            }
            return Ok(ExitCode::SUCCESS);
        }
        let target = bulkhead_image::Layout::of_this_workspace()
            .target()
            .to_owned();
        std::fs::create_dir_all(&target)?;
        space::check(&target)?;
        let builder = self.build.builder()?;
        let any = |place: fn(&Place) -> bool| chosen.iter().any(|s| place(&s.run));
        let images = Images {
            // The scenarios on this machine need the host's programs.
            host: any(|place| matches!(place, Place::Host(_) | Place::OwnHost(_) | Place::Here(_)))
                .then(|| builder.host(true, true))
                .transpose()?,
            disk: any(|place| matches!(place, Place::Disk(_)))
                .then(|| builder.desktop(Firmware::Virtual))
                .transpose()?,
            programs: builder.program_folder(),
            long: self.long,
        };
        drop(builder);
        let tally = runner::run(&chosen, &images, &target)?;
        println!("{} passed, {} failed", tally.passed, tally.failed.len());
        if !tally.repeated.is_empty() {
            println!("only at the second attempt: {}", tally.repeated.join(", "));
        }
        if tally.failed.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        // Once more where it is read first: a run's log is long, and often only its end is kept.
        for (name, failure) in &tally.failed {
            println!("{name}: {}", beginning(failure));
        }
        let names: Vec<&str> = tally.failed.iter().map(|(name, _)| name.as_str()).collect();
        Err(format!(
            "failed: {}; pictures and logs are under {}",
            names.join(", "),
            target.join("e2e").display()
        )
        .into())
    }
}

/// The first lines of what a scenario found; all of it is in its folder.
fn beginning(failure: &str) -> String {
    let mut lines: Vec<&str> = failure.lines().take(LINES_OF_A_FAILURE + 1).collect();
    if lines.len() > LINES_OF_A_FAILURE {
        lines.pop();
        lines.push("… (the rest is in its failure.txt)");
    }
    lines.join("\n  ")
}
