//! WireGuard: an interface that clients' packets are passed on to, made as a file of the owner's says,
//! kept as it is, and the names' forwarder that asks through it.
//!
//! Where packets go by their routes is decided in three steps: the guest's other interfaces have what
//! is on their own cables, then the tunnel has everything, then nobody. So the way to the outside
//! without the tunnel is none that a packet finds, before the firewall would drop it there.

mod config;
mod watch;

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub use config::{Peer, Tunnel, TunnelError};

use self::watch::Watch;
use super::{FOLDER, make_folder, owners_file};
use crate::cards::CLASS;
use crate::run::Wanted;
use crate::{dns, nft, settings};

/// The tunnel's interface.
pub const INTERFACE: &str = "wg0";
/// What the owner says of the tunnel, in [`FOLDER`].
const FILE: &str = "wg0.conf";
const MAX_FILE: u64 = 64 * 1024;
/// Put on the tunnel's own packets by the kernel, so that the firewall knows them. Nobody but root can.
const MARK: u32 = 0x6275_6c6b;
/// The routes into the tunnel.
const TABLE: u32 = 51820;
/// What Ethernet carries (1500), less headers of IPv6, UDP and WireGuard.
const MTU: u16 = 1420;
const IP: &str = "/usr/sbin/ip";
const WG: &str = "/usr/bin/wg";
/// After a failure that the owner did not make.
const PAUSE: Duration = Duration::from_secs(5);
/// Whoever takes the interface away again and again does not have the processor.
const BREATH: Duration = Duration::from_millis(200);
/// So much of a program's words is shown.
const MAX_WORDS: u64 = 500;

/// The tunnel's packets, which only the kernel can mark so.
pub(super) fn output(card: &str) -> String {
    format!("        oifname \"{card}\" meta l4proto udp meta mark {MARK:#x} counter accept\n")
}

/// The tunnel as it is now.
struct Up {
    /// From this text.
    text: String,
    /// The interface's number: a new one of the same name has another.
    index: u32,
    /// Asks for names.
    forwarder: Child,
}

/// Keeps the tunnel as its file says, for as long as the guest runs.
pub fn serve() -> io::Result<()> {
    // The firewall is there then.
    Wanted::wait_for("wireguard", |wanted| wanted.forwards_dns.then_some(()))?;
    make_folder()?;
    // Before the first look, so that nothing is missed.
    let mut watch = Watch::begin(Path::new(FOLDER))?;
    // Of a run before.
    dns::end_forwarder();
    take_down()?;
    let (mut up, mut said) = (None, String::new());
    loop {
        let (told, patience) = match look(&mut up) {
            Ok(told) => (told, None),
            Err(Trouble::Owner(words)) => (words, None),
            Err(Trouble::Here(error)) => {
                // What was tried are changes as well.
                watch.forget();
                (error.to_string(), Some(PAUSE))
            }
        };
        if told != said {
            eprintln!("bulkhead-net: {told}");
            said = told;
        }
        watch.wait(up.as_ref().map(|up| up.forwarder.id()), patience)?;
    }
}

/// Why there is no tunnel.
enum Trouble {
    /// The owner has to do something.
    Owner(String),
    /// It may go away by itself.
    Here(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Here(error)
    }
}

/// Makes the tunnel anew where it is not as its file says. What there is to say of it.
fn look(up: &mut Option<Up>) -> Result<String, Trouble> {
    let text = owners_file(FILE, MAX_FILE);
    if let (Some(up), Ok(Some(text))) = (up.as_mut(), &text) {
        let is_there = running(INTERFACE) == Some(up.index);
        if up.text == *text && is_there && up.forwarder.try_wait()?.is_none() {
            return Ok("the tunnel is up".to_owned());
        }
    }
    if let Some(mut old) = up.take() {
        let _ = old.forwarder.kill();
        let _ = old.forwarder.wait();
        std::thread::sleep(BREATH);
    }
    take_down()?;
    let text = match text {
        Ok(Some(text)) => text,
        Ok(None) => {
            let words = format!("no tunnel: {FOLDER}/{FILE} is missing, so nothing passes");
            return Err(Trouble::Owner(words));
        }
        Err(error) => return Err(Trouble::Owner(format!("no tunnel: {error}"))),
    };
    let tunnel = Tunnel::parse(&text)
        .map_err(|error| Trouble::Owner(format!("no tunnel: {FOLDER}/{FILE}: {error}")))?;
    *up = Some(bring_up(&tunnel, text)?);
    Ok("the tunnel is up".to_owned())
}

/// The number of an interface that is up.
fn running(interface: &str) -> Option<u32> {
    let read = |file: &str| std::fs::read_to_string(format!("{CLASS}/{interface}/{file}")).ok();
    let flags = read("flags")?;
    let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).ok()?;
    (flags & libc::IFF_UP as u32 != 0).then_some(())?;
    read("ifindex")?.trim().parse().ok()
}

/// Leaves no tunnel; what would go through it is refused by its routes.
fn take_down() -> io::Result<()> {
    let batch = format!(
        "\
rule add pref 100 table main suppress_prefixlength 0
rule add pref 101 table {TABLE}
route replace unreachable default metric 4294967295 table {TABLE}
link del {INTERFACE}
route flush type throw table {TABLE}
"
    );
    // Most of it is so already, or not there.
    feed(IP, &["-force", "-batch", "-"], &batch)
        .map(drop)
        .or_else(|error| match Path::new(CLASS).join(INTERFACE).exists() {
            true => Err(error),
            false => Ok(()),
        })
}

fn bring_up(tunnel: &Tunnel, text: String) -> io::Result<Up> {
    // Where its packets go must be known before there are any.
    nft::run(&endpoints(tunnel))?;
    feed(
        IP,
        &["-batch", "-"],
        &format!("link add {INTERFACE} type wireguard\n"),
    )?;
    settings::behave(INTERFACE).map_err(io::Error::other)?;
    feed(
        WG,
        &["setconf", INTERFACE, "/proc/self/fd/0"],
        &tunnel.for_wg(MARK),
    )?;
    feed(IP, &["-batch", "-"], &addresses(tunnel))?;
    let index = running(INTERFACE)
        .ok_or_else(|| io::Error::other(format!("{INTERFACE} went away at once")))?;
    let forwarder = dns::forwarder(&servers(&tunnel.servers))?.spawn()?;
    Ok(Up {
        text,
        index,
        forwarder,
    })
}

/// The rules about where the tunnel's packets may go.
fn endpoints(tunnel: &Tunnel) -> String {
    let peers = tunnel.peers.iter();
    let ends: Vec<String> = peers
        .map(|peer| format!("{} . {}", peer.endpoint.ip(), peer.endpoint.port()))
        .collect();
    format!(
        "\
table ip bulkhead_tunnel
delete table ip bulkhead_tunnel
table ip bulkhead_tunnel {{
    chain output {{
        type filter hook output priority filter; policy accept;
        meta mark {MARK:#x} ip daddr . udp dport {{ {} }} accept
        meta mark {MARK:#x} counter drop
    }}
}}
",
        ends.join(", ")
    )
}

/// Addresses and routes, for `ip -batch`.
fn addresses(tunnel: &Tunnel) -> String {
    let mut batch = String::new();
    for address in &tunnel.addresses {
        batch.push_str(&format!("address add {address}/32 dev {INTERFACE}\n"));
    }
    let mtu = tunnel.mtu.unwrap_or(MTU);
    batch.push_str(&format!("link set {INTERFACE} mtu {mtu} up\n"));
    for peer in &tunnel.peers {
        // The tunnel's own packets do not go into it.
        let end = peer.endpoint.ip();
        batch.push_str(&format!("route replace throw {end}/32 table {TABLE}\n"));
        for (network, prefix) in &peer.allowed {
            batch.push_str(&format!(
                "route replace {network}/{prefix} dev {INTERFACE} table {TABLE}\n"
            ));
        }
    }
    batch
}

/// Names are asked through the tunnel, whatever the routes say.
fn servers(servers: &[Ipv4Addr]) -> String {
    let mut text = String::from("no-resolv\n");
    for server in servers {
        text.push_str(&format!("server={server}@{INTERFACE}\n"));
    }
    text
}

/// Runs a program that reads `text`.
fn feed(program: &str, arguments: &[&str], text: &str) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{program}: {error}"));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(named)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read it says why.
        let _ = stdin.write_all(text.as_bytes());
    }
    let mut words = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(MAX_WORDS).read_to_end(&mut words);
    }
    match child.wait()?.success() {
        true => Ok(()),
        false => {
            let words = String::from_utf8_lossy(&words);
            Err(named(io::Error::other(words.trim().to_owned())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel() -> Tunnel {
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        Tunnel::parse(&format!(
            "[Interface]\nPrivateKey={key}\nAddress=10.9.0.2\nDNS=10.9.0.1\n[Peer]\nPublicKey={key}\n\
             Endpoint=192.0.2.1:51820\nAllowedIPs=0.0.0.0/0\n[Peer]\nPublicKey={key}\n\
             Endpoint=192.0.2.2:5\nAllowedIPs=10.8.0.0/16\n"
        ))
        .unwrap()
    }

    #[test]
    fn the_tunnels_packets_go_to_its_peers() {
        let text = endpoints(&tunnel());
        assert!(text.contains(
            "meta mark 0x62756c6b ip daddr . udp dport { 192.0.2.1 . 51820, 192.0.2.2 . 5 } accept\n"
        ));
        assert!(text.contains("\n        meta mark 0x62756c6b counter drop\n"));
    }

    #[test]
    fn everything_goes_into_the_tunnel_but_its_own() {
        assert_eq!(
            addresses(&tunnel()),
            "address add 10.9.0.2/32 dev wg0\n\
             link set wg0 mtu 1420 up\n\
             route replace throw 192.0.2.1/32 table 51820\n\
             route replace 0.0.0.0/0 dev wg0 table 51820\n\
             route replace throw 192.0.2.2/32 table 51820\n\
             route replace 10.8.0.0/16 dev wg0 table 51820\n"
        );
    }

    #[test]
    fn names_are_asked_through_it() {
        assert_eq!(
            servers(&tunnel().servers),
            "no-resolv\nserver=10.9.0.1@wg0\n"
        );
    }
}
