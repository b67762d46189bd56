//! `bulkhead-net`: see the library.

use std::io::Read;
use std::process::ExitCode;

use bulkhead_net::config::{Config, MAX_BYTES};
use bulkhead_net::state::State;
use bulkhead_net::{connections, dns, gateway, lease, names, wifi};

const HELP: &str = "\
bulkhead-net: sets up the network cards of a Bulkhead guest.

The manager runs it as root in the guest and writes a JSON object to its standard input; see
net-vm/README.md. In network domains it also has a first argument:

  status       what the physical card's state is, as JSON
  dhcp         becomes the physical card's DHCP client (a service of the template)
  dns          becomes the clients' DNS forwarder (a service of the template)
  names        answers clients whose rules are about names (a service of the template)
  connections  writes the log of clients' connections (a service of the template)
  wireguard    keeps a gateway's tunnel up (a service of the template)
  tor          becomes a gateway's Tor (a service of the template)
  bus          becomes the bus on which iwd is asked (a service of the template)
  iwd          becomes iwd, which joins wireless networks (a service of the template)
  wifi         does what the manager asks of iwd; it is told on standard input
  lease        takes an event of the DHCP client, which runs it
";

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        None => run(),
        Some("status") => status(),
        Some("dhcp") => lease::ask().map_err(Into::into),
        Some("dns") => dns::serve().map_err(Into::into),
        Some("connections") => connections::serve().map_err(Into::into),
        Some("names") => names::serve().map_err(Into::into),
        Some("wireguard") => gateway::wireguard::serve().map_err(Into::into),
        Some("tor") => gateway::tor::serve().map_err(Into::into),
        Some("bus") => wifi::bus().map_err(Into::into),
        Some("iwd") => wifi::daemon().map_err(Into::into),
        Some("wifi") => wifi::answer(),
        Some("lease") => lease::event().map_err(Into::into),
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
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-net: {error}");
            ExitCode::FAILURE
        }
    }
}

fn status() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", serde_json::to_string(&State::now())?);
    Ok(())
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = Vec::new();
    // One byte more shows that there is too much.
    let most = MAX_BYTES as u64 + 1;
    std::io::stdin().lock().take(most).read_to_end(&mut text)?;
    let config = Config::parse(&text)?;
    Ok(bulkhead_net::apply(&config)?)
}
