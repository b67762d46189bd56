//! `bulkhead-link`: see the library.

use std::io::IsTerminal;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::process::ExitCode;

use bulkhead_link::control::is_connected_seqpacket;
use bulkhead_link::link::Link;
use bulkhead_link::sandbox;
use clap::Parser;

/// Carries frames between the network cards of domains. It opens nothing: the manager hands it every
/// socket.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The manager's end is on the other side of this connected SOCK_SEQPACKET socket, open
    /// already. The link ends with it.
    #[arg(long, value_name = "N")]
    control_fd: RawFd,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.control_fd) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-link: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(control: RawFd) -> Result<(), Box<dyn std::error::Error>> {
    let control = inherit(control)?;
    sandbox::close_others(&control)?;
    let filter = tracing_subscriber::EnvFilter::try_from_env("BULKHEAD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let link = Link::new(control)?;
    sandbox::enter()?;
    Ok(link.run()?)
}

/// A copy of an inherited descriptor that is ours to close.
fn inherit(number: RawFd) -> Result<OwnedFd, String> {
    let bad = || {
        format!(
            "--control-fd {number}: no connected SOCK_SEQPACKET socket is open under that number"
        )
    };
    if number < 0 {
        return Err(bad());
    }
    // SAFETY: it is borrowed for one call, in which nothing closes it. If it is not open, the copy
    // fails.
    let inherited = unsafe { BorrowedFd::borrow_raw(number) };
    let socket = inherited.try_clone_to_owned().map_err(|_| bad())?;
    if is_connected_seqpacket(&socket) {
        Ok(socket)
    } else {
        Err(bad())
    }
}
