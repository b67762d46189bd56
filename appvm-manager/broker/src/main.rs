//! `bulkhead-broker`: see the library.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use bulkhead_broker::device::Host;
use bulkhead_broker::kept::Kept;
use bulkhead_broker::serve;
use clap::Parser;

/// Keeps physical PCI devices for a user's domains: takes network cards and USB controllers from the
/// host's drivers, also when the machine starts, and gives them back. It runs as root.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The number of the user whose manager may ask, and whose the devices' groups are.
    #[arg(long, value_name = "UID")]
    user: u32,
    /// Where that one asks.
    #[arg(
        long,
        value_name = "SOCKET",
        default_value = "/run/bulkhead/broker.sock"
    )]
    socket: PathBuf,
    /// Where is written down what is kept.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/lib/bulkhead/devices.json"
    )]
    state: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-broker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BULKHEAD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    // Its absence is said where a device is taken.
    let loaded = Command::new("modprobe").args(["-a", "vfio-pci"]).status();
    tracing::debug!(?loaded, "vfio-pci");
    let host = Host::of_kernel(arguments.user);
    let mut kept = Kept::open(host, arguments.state)?;
    for error in kept.again() {
        tracing::error!(%error, "not kept");
    }
    let listener = serve::listen(&arguments.socket, arguments.user)?;
    tracing::info!(socket = %arguments.socket.display(), "devices are kept for user {}", arguments.user);
    Ok(serve::serve(&listener, arguments.user, &mut kept)?)
}
