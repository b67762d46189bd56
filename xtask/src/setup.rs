//! `cargo xtask setup`.

use std::process::ExitCode;

use bulkhead_image::tools;

use crate::TaskResult;

/// Install what is needed to build and run Bulkhead (as root), or say which command does it
#[derive(clap::Args)]
pub struct Setup {
    /// Only say what is missing
    #[arg(long)]
    check: bool,
}

impl Setup {
    pub fn run(self) -> TaskResult {
        let missing = tools::missing_packages();
        if missing.is_empty() {
            println!("Everything is installed.");
        } else if self.check {
            println!("Missing; run: {}", tools::install_command(&missing));
            return Ok(ExitCode::FAILURE);
        } else {
            tools::ensure()?;
            println!("Installed: {}", missing.join(" "));
        }
        Ok(ExitCode::SUCCESS)
    }
}
