//! Names: whom this guest asks, and the forwarder that a network domain has for its clients.

use std::io;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::run::{self, Wanted};

const PROGRAM: &str = "/usr/sbin/dnsmasq";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Whom the forwarder asks; it looks again when the file changes.
const UPSTREAM: &str = "upstream.conf";
const CONFIG: &str = "dnsmasq.conf";
/// What a domain's owner adds.
const ADDED: &str = "/etc/dnsmasq.d";

/// Lets this guest, and its forwarder if it has one, ask these servers.
pub fn ask(servers: &[Ipv4Addr]) -> io::Result<()> {
    let mut text = String::from("# Written by bulkhead-net.\n");
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    // The forwarder forgets what it knows when the file changes; each renewal comes by here.
    if std::fs::read_to_string(run::file(UPSTREAM)).is_ok_and(|before| before == text) {
        return Ok(());
    }
    run::replace(Path::new(RESOLV_CONF), &text)?;
    run::write(UPSTREAM, &text)
}

/// The forwarder's configuration: it answers clients, on their interfaces, and [`crate::names`], and
/// asks those that [`ask`] has named.
fn config() -> String {
    let upstream = run::file(UPSTREAM);
    format!(
        "\
# Written by bulkhead-net.
user=dnsmasq
pid-file={}
log-facility=-
interface=vlan*
interface=lo
no-hosts
resolv-file={}
domain-needed
cache-size=1000
dns-forward-max=500
conf-dir={ADDED},*.conf
",
        run::file("dnsmasq.pid").display(),
        upstream.display(),
    )
}

/// Becomes the forwarder, once there are clients to be answered.
pub fn serve() -> io::Result<()> {
    Wanted::wait_for("dns", |wanted| wanted.forwards_dns.then_some(()))?;
    std::fs::create_dir_all(ADDED)?;
    if !run::file(UPSTREAM).exists() {
        run::write(UPSTREAM, "")?;
    }
    run::write(CONFIG, &config())?;
    let file = run::file(CONFIG);
    let error = Command::new(PROGRAM)
        .arg("--keep-in-foreground")
        .arg(format!("--conf-file={}", file.display()))
        .exec();
    Err(io::Error::new(error.kind(), format!("{PROGRAM}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forwarder_listens_to_clients_only() {
        let text = config();
        assert!(text.contains("\ninterface=vlan*\ninterface=lo\nno-hosts\n"));
        assert!(text.contains("\nresolv-file=/run/bulkhead-net/upstream.conf\n"));
        assert!(!text.contains("dhcp"));
    }
}
