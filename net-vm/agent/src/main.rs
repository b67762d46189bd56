//! `bulkhead-net`: see the library.

use std::io::Read;
use std::process::ExitCode;

use bulkhead_net::config::{Config, MAX_BYTES};

const HELP: &str = "\
bulkhead-net: sets up the network cards of a Bulkhead guest.

The manager runs it as root in the guest and writes a JSON object to its standard input; see
net-vm/README.md. It takes no arguments.
";

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => {}
        Some("--help" | "-h") => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some("--version") => {
            println!("bulkhead-net {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprintln!("bulkhead-net: unknown argument `{other}`; see --help");
            return ExitCode::from(2);
        }
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-net: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = Vec::new();
    // One byte more shows that there is too much.
    let most = MAX_BYTES as u64 + 1;
    std::io::stdin().lock().take(most).read_to_end(&mut text)?;
    let config = Config::parse(&text)?;
    Ok(bulkhead_net::apply(&config)?)
}
