//! What an address must be, whoever names it.

use std::net::Ipv4Addr;

/// More servers for names are not asked.
pub const MAX_SERVERS: usize = 3;

/// As the link asks for it: not "this network", not loopback, no group, nothing reserved.
pub fn is_of_a_machine(address: Ipv4Addr) -> bool {
    !matches!(address.octets(), [0 | 127 | 224..=255, ..])
}
