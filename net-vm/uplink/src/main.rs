//! `bulkhead-uplink`: see the library.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::process::ExitCode;

use bulkhead_link::control::is_connected_seqpacket;
use bulkhead_link::sandbox;
use bulkhead_uplink::Relay;
use clap::Parser;

/// Carries frames between a network domain's card and passt, which stands in for a physical card. It
/// opens nothing: both sockets are handed to it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The card's VMM is on the other side of this connected SOCK_SEQPACKET socket, open already.
    #[arg(long, value_name = "N")]
    card_fd: RawFd,
    /// passt is on the other side of this connected SOCK_STREAM socket, open already.
    #[arg(long, value_name = "N")]
    passt_fd: RawFd,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-uplink: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let card = inherit("--card-fd", arguments.card_fd)?;
    let passt = inherit("--passt-fd", arguments.passt_fd)?;
    if !is_connected_seqpacket(&card) {
        return Err("--card-fd: it is no connected SOCK_SEQPACKET socket".into());
    }
    let mut relay = Relay::new(card, passt)?;
    sandbox::enter()?;
    Ok(relay.run()?)
}

/// A copy of an inherited descriptor that is ours to close.
fn inherit(option: &str, number: RawFd) -> Result<OwnedFd, String> {
    let bad = || format!("{option} {number}: no socket is open under that number");
    if number < 0 {
        return Err(bad());
    }
    // SAFETY: it is borrowed for one call, in which nothing closes it. If it is not open, the copy
    // fails.
    let inherited = unsafe { BorrowedFd::borrow_raw(number) };
    inherited.try_clone_to_owned().map_err(|_| bad())
}
