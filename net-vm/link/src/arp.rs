//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use bulkhead_mac::Mac;

use crate::reason::Reason;
use crate::wire::{array, be16};

/// Its ethertype.
pub const ETHER_TYPE: u16 = 0x0806;
const BYTES: usize = 28;
const ETHERNET: u16 = 1;
const IPV4: u16 = 0x0800;
/// Lengths of a hardware address and of an IPv4 address, as they stand together.
const LENGTHS: u16 = 0x0604;

/// What an ARP packet does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It asks who has an address.
    Request,
    /// It says who.
    Reply,
}

/// An ARP packet, as far as anyone is told something by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// What it does.
    pub operation: Operation,
    /// Whose card it says it is from.
    pub sender_mac: Mac,
    /// Whose address it says it is from; 0.0.0.0 in a probe.
    pub sender: Ipv4Addr,
}

/// Reads an ARP packet behind a frame's type.
pub fn parse(untrusted_body: &[u8]) -> Result<Arp, Reason> {
    if untrusted_body.len() < BYTES {
        return Err(Reason::ArpFormat);
    }
    let kind = [0, 2, 4].map(|at| be16(untrusted_body, at));
    if kind != [Some(ETHERNET), Some(IPV4), Some(LENGTHS)] {
        return Err(Reason::ArpFormat);
    }
    let operation = match be16(untrusted_body, 6) {
        Some(1) => Operation::Request,
        Some(2) => Operation::Reply,
        _ => return Err(Reason::ArpFormat),
    };
    let sender_mac = array(untrusted_body, 8).ok_or(Reason::ArpFormat)?;
    let sender = array::<4>(untrusted_body, 14).ok_or(Reason::ArpFormat)?;
    Ok(Arp {
        operation,
        sender_mac: Mac(sender_mac),
        sender: sender.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: [u8; 28] = [
        0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 0, 0, 9, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1,
    ];

    #[test]
    fn a_request_is_read() {
        let arp = Arp {
            operation: Operation::Request,
            sender_mac: Mac([2, 0, 0, 0, 0, 9]),
            sender: Ipv4Addr::new(10, 0, 0, 9),
        };
        assert_eq!(parse(&REQUEST), Ok(arp));
        // Frames may be padded.
        let mut padded = REQUEST.to_vec();
        padded.resize(46, 0);
        assert_eq!(parse(&padded), Ok(arp));
    }

    #[test]
    fn anything_else_is_refused() {
        for length in 0..REQUEST.len() {
            assert_eq!(parse(&REQUEST[..length]), Err(Reason::ArpFormat));
        }
        // Each byte of kind, lengths and operation counts (2 would be a reply).
        for at in 0..8 {
            let mut wrong = REQUEST;
            wrong[at] ^= 0x10;
            assert_eq!(parse(&wrong), Err(Reason::ArpFormat), "{at}");
        }
    }
}
