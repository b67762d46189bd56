//! `cargo xtask test`: every test there is, the README's second command.

use std::process::{Command, ExitCode};

use crate::TaskResult;
use crate::e2e::E2e;

/// Run every test: unit, compositor, proxy and VMM tests, then every end-to-end scenario
#[derive(clap::Args)]
pub struct Test {
    #[command(flatten)]
    e2e: E2e,
    /// Only the crates' own tests, no machine
    #[arg(long)]
    no_e2e: bool,
}

impl Test {
    pub fn run(self) -> TaskResult {
        bulkhead_image::tools::ensure()?;
        eprintln!("== unit, compositor, proxy and VMM tests");
        let status = Command::new(env!("CARGO"))
            .args(["test", "--workspace", "--quiet"])
            .status()?;
        if !status.success() {
            return Err("a crate's tests failed, see above".into());
        }
        if self.no_e2e {
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!("== end-to-end scenarios");
        self.e2e.run()
    }
}
