//! The IPv4 header (RFC 791), and as much of the transport as must not be hidden.

use std::net::Ipv4Addr;

use crate::reason::Reason;
use crate::wire::{array, be16, byte};

/// Its ethertype.
pub const ETHER_TYPE: u16 = 0x0800;
/// TCP's number.
pub const TCP: u8 = 6;
/// UDP's number.
pub const UDP: u8 = 17;
/// Where the checksum lies in a TCP header.
pub const TCP_CHECKSUM_AT: u16 = 16;
const MIN_BYTES: usize = 20;
const TCP_MIN_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const DHCP_SERVER_PORT: u16 = 67;
const RESERVED_FLAG: u16 = 0x8000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
const OPTION_END: u8 = 0;
const OPTION_NOTHING: u8 = 1;
const OPTION_LOOSE_ROUTE: u8 = 131;
const OPTION_STRICT_ROUTE: u8 = 137;

/// A checked header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4 {
    /// Whom it says it is from.
    pub source: Ipv4Addr,
    /// Whom it is for.
    pub destination: Ipv4Addr,
    /// The header, 20 to 60 bytes.
    pub header_bytes: usize,
    /// Header and contents: no more than the frame has.
    pub total_bytes: usize,
    /// The transport's number.
    pub protocol: u8,
    /// It is a part of a packet.
    pub is_fragment: bool,
    /// It begins a UDP packet of a DHCP server.
    pub is_dhcp_server: bool,
    /// The TCP header with its options, where it is TCP, whole, and long enough for them.
    pub tcp_header_bytes: Option<usize>,
}

/// Reads the packet behind a frame's type. Its checksum is the receiver's business.
pub fn parse(untrusted_body: &[u8]) -> Result<Ipv4, Reason> {
    let first = byte(untrusted_body, 0).ok_or(Reason::Ipv4Header)?;
    let header_bytes = usize::from(first & 0x0f) * 4;
    let total_bytes = usize::from(be16(untrusted_body, 2).ok_or(Reason::Ipv4Header)?);
    if first >> 4 != 4
        || header_bytes < MIN_BYTES
        || total_bytes < header_bytes
        || total_bytes > untrusted_body.len()
    {
        return Err(Reason::Ipv4Header);
    }
    let packet = untrusted_body
        .get(..total_bytes)
        .ok_or(Reason::Ipv4Header)?;
    let (header, contents) = packet
        .split_at_checked(header_bytes)
        .ok_or(Reason::Ipv4Header)?;
    check_options(header.get(MIN_BYTES..).unwrap_or_default())?;
    let field = be16(header, 6).ok_or(Reason::Ipv4Header)?;
    let protocol = byte(header, 9).ok_or(Reason::Ipv4Header)?;
    let source = array::<4>(header, 12).ok_or(Reason::Ipv4Header)?;
    let destination = array::<4>(header, 16).ok_or(Reason::Ipv4Header)?;
    let is_fragment = field & (MORE_FRAGMENTS | OFFSET) != 0;
    check_fragment(field, protocol, header_bytes, contents)?;
    let begins = field & OFFSET == 0;
    let source_port = be16(contents, 0).filter(|_| begins && protocol == UDP);
    let tcp_header_bytes = byte(contents, 12)
        .filter(|_| protocol == TCP && !is_fragment)
        .map(|byte| usize::from(byte >> 4) * 4)
        .filter(|bytes| (TCP_MIN_BYTES..=contents.len()).contains(bytes));
    Ok(Ipv4 {
        source: source.into(),
        destination: destination.into(),
        header_bytes,
        total_bytes,
        protocol,
        is_fragment,
        is_dhcp_server: source_port == Some(DHCP_SERVER_PORT),
        tcp_header_bytes,
    })
}

/// A packet that begins has its transport's header whole, and no fragment can replace that header
/// where packets are put together: a filter that sees the first one sees everything (RFC 1858, 3128).
fn check_fragment(
    field: u16,
    protocol: u8,
    header_bytes: usize,
    contents: &[u8],
) -> Result<(), Reason> {
    let offset = usize::from(field & OFFSET) * 8;
    let more = field & MORE_FRAGMENTS != 0;
    let is_fragment = more || offset > 0;
    // The last one of a packet may have any length, the others go by eights.
    if field & RESERVED_FLAG != 0
        || (more && !contents.len().is_multiple_of(8))
        || (is_fragment && contents.is_empty())
        || header_bytes + offset + contents.len() > usize::from(u16::MAX)
    {
        return Err(Reason::Fragment);
    }
    let transport = match protocol {
        TCP => TCP_MIN_BYTES,
        UDP => UDP_BYTES,
        _ => return Ok(()),
    };
    if offset == 0 && contents.len() < transport {
        return Err(Reason::TransportHeader);
    }
    if offset > 0 && offset < transport {
        return Err(Reason::Fragment);
    }
    Ok(())
}

fn check_options(mut options: &[u8]) -> Result<(), Reason> {
    // Each round takes at least one of at most 40 bytes.
    while let Some((&kind, rest)) = options.split_first() {
        match kind {
            OPTION_END => return Ok(()),
            OPTION_NOTHING => options = rest,
            OPTION_LOOSE_ROUTE | OPTION_STRICT_ROUTE => return Err(Reason::SourceRoute),
            _ => {
                let length = rest
                    .first()
                    .map(|&length| usize::from(length))
                    .filter(|length| *length >= 2)
                    .ok_or(Reason::Ipv4Options)?;
                options = options.get(length..).ok_or(Reason::Ipv4Options)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "ipv4_tests.rs"]
mod tests;
