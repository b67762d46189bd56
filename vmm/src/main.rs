//! `bulkhead-vmm`: parses arguments and calls the library.

mod arguments;

use std::process::ExitCode;

use bulkhead_vmm_api::ExitStatus;
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    let filter = EnvFilter::try_from_env("BULKHEAD_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    // Sockets and logs are for this user only.
    // SAFETY: changes an attribute of the process; no other thread exists yet.
    unsafe { libc::umask(0o077) };
    let result = arguments
        .into_config()
        .and_then(|config| bulkhead_vmm::vm::run(config).map_err(|error| error.to_string()));
    match result {
        Ok(reason) => {
            if !matches!(reason.status(), ExitStatus::PoweredOff | ExitStatus::Reboot) {
                eprintln!("bulkhead-vmm: {reason}");
            }
            ExitCode::from(reason.status() as u8)
        }
        Err(message) => {
            eprintln!("bulkhead-vmm: {message}");
            ExitCode::from(ExitStatus::HostError as u8)
        }
    }
}
