//! The physical card's address, by DHCP: the client that asks for it, and what it was told.
//!
//! What a DHCP server says comes from whoever is on the cable. It arrives in the environment of
//! `bulkhead-net lease`, which the client runs at each change; only addresses and numbers are taken
//! from it.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::address::{MAX_SERVERS, is_of_a_machine};
use crate::dns;
use crate::fixed::Fixed;
use crate::run::{self, Wanted};

const PROGRAM: &str = "/usr/sbin/dhcpcd";
const CONFIG: &str = "dhcpcd.conf";
const SCRIPT: &str = "dhcp-event";
const LEASE: &str = "lease.json";
/// Of a lease without an end (RFC 2131, 3.3).
const FOR_EVER: u32 = u32::MAX;

/// What a DHCP server has given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The card's address.
    pub address: Ipv4Addr,
    /// How many bits of it are its network's.
    pub prefix: u8,
    /// Through whom everything else is reached.
    pub gateway: Option<Ipv4Addr>,
    /// Who is asked for names.
    pub servers: Vec<Ipv4Addr>,
    /// For how many seconds it was given.
    pub lease_s: u32,
    /// When, in seconds since the guest's boot.
    pub since_s: u64,
}

/// What an event is to the lease.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Given(Lease),
    Lost,
    Nothing,
}

impl Lease {
    /// The lease that counts now.
    pub fn now() -> Option<Self> {
        run::read(LEASE)
    }

    /// How long it still counts.
    pub fn left_s(&self) -> u64 {
        if self.lease_s == FOR_EVER {
            return FOR_EVER.into();
        }
        let end = self.since_s.saturating_add(self.lease_s.into());
        end.saturating_sub(uptime_s())
    }
}

/// What the client's environment says. `untrusted_variable` gives a variable's value.
fn change(untrusted_variable: impl Fn(&str) -> Option<String>, since_s: u64) -> Change {
    let text = |name: &str| untrusted_variable(name).unwrap_or_default();
    match text("reason").as_str() {
        "BOUND" | "RENEW" | "REBIND" | "REBOOT" | "STATIC" => {}
        // Of a wireless card it may say the second: what was joined is left, and what comes next may
        // be another network.
        "EXPIRE" | "NAK" | "NOCARRIER" | "NOCARRIER_ROAMING" | "STOP" | "STOPPED" | "RELEASE"
        | "FAIL" | "DEPARTED" => {
            return Change::Lost;
        }
        _ => return Change::Nothing,
    }
    let addresses = |name: &str| -> Vec<Ipv4Addr> {
        let text = text(name);
        let words = text.split_whitespace().take(16);
        let addresses = words.filter_map(|word| word.parse().ok());
        addresses.filter(|a| is_of_a_machine(*a)).collect()
    };
    let Some(address) = addresses("new_ip_address").first().copied() else {
        return Change::Nothing;
    };
    let prefix = text("new_subnet_cidr").parse().unwrap_or(32);
    let mut servers = addresses("new_domain_name_servers");
    servers.truncate(MAX_SERVERS);
    Change::Given(Lease {
        address,
        prefix: u8::min(prefix, 32),
        gateway: addresses("new_routers").first().copied(),
        servers,
        lease_s: match text("reason").as_str() {
            "STATIC" => FOR_EVER,
            _ => text("new_dhcp_lease_time").parse().unwrap_or(0),
        },
        since_s,
    })
}

/// Takes an event of the DHCP client, which has set up address and route itself.
pub fn event() -> io::Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    match change(variable, uptime_s()) {
        Change::Given(mut lease) => {
            if let Some(names) = Wanted::now().and_then(|wanted| wanted.names) {
                lease.servers = vec![names];
            }
            let text = serde_json::to_string(&lease).map_err(io::Error::other)?;
            run::write(LEASE, &text)?;
            dns::ask(&lease.servers)
        }
        Change::Lost => match fs::remove_file(run::file(LEASE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => dns::ask(&[]),
        },
        Change::Nothing => Ok(()),
    }
}

/// The client's configuration: this card only, its fixed address if it has one, an address and the way to the rest, and no word more
/// about this machine than it takes.
fn client_config(card: &str, fixed: Option<&Fixed>) -> String {
    let fixed = fixed.map(|fixed| fixed.for_client(card));
    let fixed = fixed.unwrap_or_default();
    format!(
        "\
# Written by bulkhead-net.
allowinterfaces {card}
ipv4only
noipv4ll
clientid
vendorclassid
option subnet_mask, routers, domain_name_servers
nooption classless_static_routes, static_routes, ms_classless_static_routes
script {}
{fixed}",
        run::file(SCRIPT).display()
    )
}

/// Becomes the DHCP client of the physical card, once there is one.
pub fn ask() -> io::Result<()> {
    let (card, fixed) = Wanted::wait_for("dhcp", |wanted| Some((wanted.physical?, wanted.fixed)))?;
    run::write(CONFIG, &client_config(&card, fixed.as_ref()))?;
    let this = std::env::current_exe()?;
    let script = format!("#!/bin/sh\nexec {} lease\n", this.display());
    run::write(SCRIPT, &script)?;
    fs::set_permissions(run::file(SCRIPT), fs::Permissions::from_mode(0o755))?;
    // The address of a run before is not this one's.
    let _ = fs::remove_file(run::file(LEASE));
    let error = Command::new(PROGRAM)
        .args(["--nobackground", "--ipv4only", "--config"])
        .arg(run::file(CONFIG))
        .arg(&card)
        .exec();
    Err(io::Error::new(error.kind(), format!("{PROGRAM}: {error}")))
}

fn uptime_s() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split('.').next().unwrap_or_default();
    seconds.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(variables: &[(&str, &str)]) -> Change {
        let get = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        change(get, 7)
    }

    #[test]
    fn only_addresses_and_numbers_are_taken() {
        let Change::Given(lease) = after(&[
            ("reason", "BOUND"),
            ("new_ip_address", "192.0.2.15"),
            ("new_subnet_cidr", "24"),
            ("new_routers", "x 127.0.0.1 192.0.2.2 192.0.2.3"),
            (
                "new_domain_name_servers",
                "0.0.0.0 192.0.2.3 $(reboot) 192.0.2.4\n192.0.2.5 192.0.2.6",
            ),
            ("new_dhcp_lease_time", "86400"),
        ]) else {
            panic!("no lease");
        };
        let at = |last| Ipv4Addr::new(192, 0, 2, last);
        assert_eq!((lease.address, lease.prefix), (at(15), 24));
        assert_eq!(lease.gateway, Some(at(2)));
        assert_eq!(lease.servers, [at(3), at(4), at(5)]);
        assert_eq!((lease.lease_s, lease.since_s), (86400, 7));
    }

    #[test]
    fn servers_learn_the_cards_address_only() {
        let text = client_config("eth1", None);
        assert!(text.starts_with("# Written by bulkhead-net.\nallowinterfaces eth1\n"));
        // Without a value: none is sent.
        assert!(text.contains("\nvendorclassid\n") && !text.contains("hostname"));
    }

    #[test]
    fn nonsense_is_no_lease() {
        assert_eq!(after(&[]), Change::Nothing);
        assert_eq!(after(&[("reason", "BOUND")]), Change::Nothing);
        let odd = [("reason", "RENEW"), ("new_ip_address", "224.0.0.1")];
        assert_eq!(after(&odd), Change::Nothing);
        assert_eq!(after(&[("reason", "PREINIT")]), Change::Nothing);
        let fixed = [("reason", "STATIC"), ("new_ip_address", "192.0.2.15")];
        let Change::Given(lease) = after(&fixed) else {
            panic!("no lease");
        };
        assert_eq!(lease.left_s(), u64::from(FOR_EVER));
        for reason in ["EXPIRE", "NOCARRIER_ROAMING"] {
            assert_eq!(after(&[("reason", reason)]), Change::Lost);
        }
    }
}
