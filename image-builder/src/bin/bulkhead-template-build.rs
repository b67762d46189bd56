//! `bulkhead-template-build`: what `bulkhead template build` runs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Build a template from its description, as a plain user: packages are unpacked in a user
/// namespace, and nothing of this machine is changed.
#[derive(Debug, Parser)]
#[command(
    name = "bulkhead-template-build",
    version,
    after_help = "\
`bulkhead template build FILE.toml` does this and takes the template in.

Examples:
  mkdir office && bulkhead-template-build office.toml office"
)]
struct Args {
    /// The description; docs/templates.md explains it.
    file: PathBuf,
    /// An empty folder for the template.
    folder: PathBuf,
    /// A Debian mirror other than the one in this machine's apt configuration
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .init();
    let args = Args::parse();
    eprintln!("Building the template {} …", args.file.display());
    match bulkhead_image::template::build(&args.file, &args.folder, args.mirror) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-template-build: {error}");
            ExitCode::FAILURE
        }
    }
}
