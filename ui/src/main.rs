//! `bulkhead-ui`: see the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Bulkhead's own windows. `bulkhead session` starts both; each stays until the session ends.
#[derive(Debug, Parser)]
#[command(
    name = "bulkhead-ui",
    version,
    after_help = "\
It shows itself on the compositor named by WAYLAND_DISPLAY, which must offer zwlr_layer_shell_v1 to
it, and talks to the manager on the session bus.

Examples:
  WAYLAND_DISPLAY=$XDG_RUNTIME_DIR/bulkhead/host-wayland.sock bulkhead-ui panel"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Command {
    /// The bar at the top: the focused domain, windows, running domains, clock, power.
    Panel,
    /// The application menu, shown when Super is tapped.
    Menu {
        /// Show it at once.
        #[arg(long)]
        open: bool,
    },
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BULKHEAD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("bulkhead_ui=info,warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let result = match Args::parse().command {
        Command::Panel => bulkhead_ui::panel::run(),
        Command::Menu { open } => bulkhead_ui::menu::run(open),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-ui: {error}");
            ExitCode::FAILURE
        }
    }
}
