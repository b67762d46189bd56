//! Tor: it takes clients' connections and questions for names, and its own connections go out.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::{FOLDER, Led, make_folder, owners_file};
use crate::run::{self, Wanted};

const PROGRAM: &str = "/usr/bin/tor";
/// Who it becomes, by whom the firewall knows its packets.
const USER: &str = "debian-tor";
const CONFIG: &str = "torrc";
/// What the owner adds to its configuration, in [`FOLDER`].
const ADDED: &str = "torrc";
const MAX_ADDED: u64 = 64 * 1024;
/// Which relays it trusts as its first stays over restarts.
const DATA: &str = "tor";
const CONNECTIONS: u16 = 9040;
/// Where it answers questions for names.
pub(super) const NAMES: u16 = 5353;

/// Clients reach it as what they meant to reach.
pub(super) fn input() -> Vec<String> {
    vec![
        format!("iifname \"vlan*\" ct status dnat tcp dport {CONNECTIONS} accept"),
        format!("iifname \"vlan*\" ct status dnat udp dport {NAMES} accept"),
    ]
}

/// Its own connections are all that goes out.
pub(super) fn output(card: &str) -> String {
    format!("        oifname \"{card}\" meta l4proto tcp meta skuid \"{USER}\" counter accept\n")
}

/// Where clients' connections and questions end, as far as their rules allow them, and that of all the
/// rest nothing goes further.
pub(super) fn redirect(led: &Led<'_>) -> String {
    let address = led.address;
    let chosen = led.chains.map_or_else(String::new, |chains| {
        format!(
            "        ip daddr {address} tcp dport 53 return
        meta l4proto tcp iifname vmap {chains}\n"
        )
    });
    let asking = led.asking.map_or_else(String::new, |asking| {
        format!("        iifname {asking} udp dport 53 counter redirect to :{NAMES}\n")
    });
    format!(
        "    chain chosen {{
        type filter hook prerouting priority mangle; policy accept;
{chosen}    }}
    chain others {{
        type filter hook prerouting priority raw; policy accept;
        iifname \"vlan*\" meta l4proto != {{ tcp, udp }} counter drop
        iifname \"vlan*\" udp dport != 53 counter drop
    }}
    chain lead {{
        type nat hook prerouting priority dstnat; policy accept;
{asking}        iifname \"vlan*\" meta l4proto tcp counter redirect to :{CONNECTIONS}
    }}
"
    )
}

/// Its configuration, and what the owner adds.
fn config(added: &str) -> String {
    format!(
        "\
# Written by bulkhead-net.
User {USER}
DataDirectory {FOLDER}/{DATA}
Log notice stdout
SocksPort 0
TransPort 0.0.0.0:{CONNECTIONS} IsolateClientAddr
DNSPort 0.0.0.0:{NAMES} IsolateClientAddr
VirtualAddrNetworkIPv4 10.192.0.0/10
AutomapHostsOnResolve 1
ClientOnly 1
# Added by the owner.
{added}"
    )
}

/// Becomes Tor, once there are clients.
pub fn serve() -> io::Result<()> {
    Wanted::wait_for("tor", |wanted| wanted.forwards_dns.then_some(()))?;
    make_folder()?;
    let data = Path::new(FOLDER).join(DATA);
    make_data_folder(&data)?;
    let added = owners_file(ADDED, MAX_ADDED)?.unwrap_or_default();
    run::write(CONFIG, &config(&added))?;
    let error = Command::new(PROGRAM)
        // No configuration of the package's.
        .args(["--defaults-torrc", "/dev/null", "-f"])
        .arg(run::file(CONFIG))
        .exec();
    Err(io::Error::new(error.kind(), format!("{PROGRAM}: {error}")))
}

fn make_data_folder(folder: &Path) -> io::Result<()> {
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let passwd = std::fs::read_to_string("/etc/passwd")?;
    let Some((uid, gid)) = account(&passwd) else {
        return Err(io::Error::other(format!("there is no user {USER}")));
    };
    std::os::unix::fs::lchown(folder, Some(uid), Some(gid))?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
}

/// The user's numbers: passwd(5).
fn account(passwd: &str) -> Option<(u32, u32)> {
    let line = passwd
        .lines()
        .find(|line| line.split(':').next() == Some(USER))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owners_words_come_last() {
        let text = config("UseBridges 1\n");
        assert!(text.ends_with("\nUseBridges 1\n"));
        assert!(text.contains("\nTransPort 0.0.0.0:9040 "));
        assert!(text.contains("\nDataDirectory /home/gateway/tor\n"));
    }

    #[test]
    fn the_user_is_found() {
        let passwd = "root:x:0:0::/root:/bin/sh\ndebian-tor:x:100:102::/var/lib/tor:/bin/false\n";
        assert_eq!(account(passwd), Some((100, 102)));
        assert_eq!(account("root:x:0:0::/root:/bin/sh\n"), None);
    }
}
