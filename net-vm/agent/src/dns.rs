//! Names: whom this guest asks, and the forwarder that a network domain has for its clients.

use std::io;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::run::{self, Wanted};

const PROGRAM: &str = "/usr/sbin/dnsmasq";
/// Where clients ask, and the forwarder answers.
pub const PORT: u16 = 53;
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Whom the forwarder asks; it looks again when the file changes.
const UPSTREAM: &str = "upstream.conf";
const CONFIG: &str = "dnsmasq.conf";
const PID: &str = "dnsmasq.pid";
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

/// The forwarder's configuration: it answers clients, on their interfaces, and [`crate::names`]. Lines
/// of `upstream` say whom it asks.
fn config(upstream: &str) -> String {
    format!(
        "\
# Written by bulkhead-net.
user=dnsmasq
pid-file={}
log-facility=-
interface=vlan*
interface=lo
no-hosts
{upstream}domain-needed
cache-size=1000
dns-forward-max=500
conf-dir={ADDED},*.conf
",
        run::file(PID).display(),
    )
}

/// Becomes the forwarder, once there are clients to be answered.
pub fn serve() -> io::Result<()> {
    Wanted::wait_for("dns", |wanted| wanted.forwards_dns.then_some(()))?;
    if !run::file(UPSTREAM).exists() {
        run::write(UPSTREAM, "")?;
    }
    // Those that `ask` has named.
    let upstream = format!("resolv-file={}\n", run::file(UPSTREAM).display());
    let error = forwarder(&upstream)?.exec();
    Err(io::Error::new(error.kind(), format!("{PROGRAM}: {error}")))
}

/// The forwarder, ready to be started.
pub(crate) fn forwarder(upstream: &str) -> io::Result<Command> {
    std::fs::create_dir_all(ADDED)?;
    run::write(CONFIG, &config(upstream))?;
    let mut command = Command::new(PROGRAM);
    command
        .arg("--keep-in-foreground")
        .arg(format!("--conf-file={}", run::file(CONFIG).display()));
    Ok(command)
}

/// Ends a forwarder that nobody waits for any more.
pub(crate) fn end_forwarder() {
    let pid = std::fs::read_to_string(run::file(PID)).unwrap_or_default();
    let Ok(pid) = pid.trim().parse::<libc::pid_t>() else {
        return;
    };
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if pid > 1 && name.trim() == "dnsmasq" {
        // SAFETY: no pointers.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forwarder_listens_to_clients_only() {
        let text = config("no-resolv\n");
        assert!(text.contains("\ninterface=vlan*\ninterface=lo\nno-hosts\n"));
        assert!(text.contains("\nno-resolv\ndomain-needed\n"));
        assert!(!text.contains("dhcp"));
    }
}
