//! What may pass between a network domain and its clients: decisions without a socket.
//!
//! A packet lies behind [`HEADROOM`] bytes of its buffer and is changed in place. Of a long one only the first
//! [`LOOK_BYTES`](frame::LOOK_BYTES) are there, and whatever was there before behind them.

use std::net::Ipv4Addr;
use std::ops::Range;

use bulkhead_mac::{BROADCAST, Mac};

use crate::arp::{self, Operation};
use crate::frame::{self, HEADROOM, MAX_PACKET_BYTES, MIN_BYTES, MIN_PACKET_BYTES, TAG_BYTES};
use crate::header::{Contents, HEADER_BYTES, Header, Offload};
use crate::ipv4;
use crate::reason::Reason;

/// A tag's length in headers.
const TAG: u16 = TAG_BYTES as u16;

/// A network domain's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trunk {
    /// The card that all clients talk to.
    pub mac: Mac,
    /// The longest packet, in bytes.
    pub mtu: u16,
}

/// A client's side, as the manager assigned it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Its card.
    pub mac: Mac,
    /// Its only address.
    pub address: Ipv4Addr,
    /// Its VLAN on the trunk, 1 to 4094.
    pub vlan: u16,
}

/// A packet that may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Where it lies in the buffer now.
    pub place: Range<usize>,
    /// What it costs on a wire: the bytes of all frames that become of it.
    pub wire_bytes: usize,
}

/// A packet of `length` bytes that has come into `buffer`.
fn split(buffer: &[u8], length: usize) -> Result<(&[u8], &[u8]), Reason> {
    if length < MIN_PACKET_BYTES {
        return Err(Reason::Short);
    }
    if length > MAX_PACKET_BYTES {
        return Err(Reason::Long);
    }
    buffer
        .get(HEADROOM..HEADROOM + length)
        .and_then(|packet| packet.split_at_checked(HEADER_BYTES))
        .ok_or(Reason::Long)
}

fn write_header(buffer: &mut [u8], at: usize, header: [u8; HEADER_BYTES]) -> Result<(), Reason> {
    let place: &mut [u8; HEADER_BYTES] = buffer
        .get_mut(at..)
        .and_then(|rest| rest.first_chunk_mut())
        .ok_or(Reason::Short)?;
    *place = header;
    Ok(())
}

/// Decides about a client's packet, and tags it for the trunk.
pub fn to_trunk(
    client: &Client,
    trunk: &Trunk,
    buffer: &mut [u8],
    length: usize,
) -> Result<Passed, Reason> {
    let (untrusted_header, untrusted_frame) = split(buffer, length)?;
    let header = Header::parse(untrusted_header, untrusted_frame.len(), 0)?;
    let offload = check_client(client, trunk, header, untrusted_frame)?;
    let longer = length + TAG_BYTES;
    if longer > MAX_PACKET_BYTES {
        return Err(Reason::Long);
    }
    frame::push_tag(buffer, client.vlan)?;
    let start = HEADROOM - TAG_BYTES;
    write_header(buffer, start, offload.header(TAG)?)?;
    Ok(Passed {
        place: start..start + longer,
        wire_bytes: offload.wire_bytes,
    })
}

fn check_client(
    client: &Client,
    trunk: &Trunk,
    header: Header,
    untrusted_frame: &[u8],
) -> Result<Offload, Reason> {
    let ethernet = frame::parse(untrusted_frame)?;
    if ethernet.source != client.mac {
        return Err(Reason::SourceMac);
    }
    check_destination(ethernet.destination, trunk.mac, ethernet.ether_type)?;
    let body = untrusted_frame.get(MIN_BYTES..).ok_or(Reason::Short)?;
    let contents = match ethernet.ether_type {
        ipv4::ETHER_TYPE => {
            let ip = ipv4::parse(body)?;
            if ip.source != client.address {
                return Err(Reason::SourceAddress);
            }
            if ip.is_dhcp_server {
                return Err(Reason::DhcpServer);
            }
            Contents::Ipv4(ip)
        }
        arp::ETHER_TYPE => {
            let arp = arp::parse(body)?;
            // A probe asks whether an address is free (RFC 5227); nobody learns anything by it.
            let is_probe = arp.operation == Operation::Request && arp.sender.is_unspecified();
            let is_own = arp.sender == client.address;
            if arp.sender_mac != client.mac || !(is_own || is_probe) {
                return Err(Reason::ArpSender);
            }
            Contents::Arp
        }
        other => return Err(frame::refuse_type(other)),
    };
    header.fit(untrusted_frame.len(), trunk.mtu, &contents)
}

/// Only what is carried, for one card; ARP may be for all.
fn check_destination(destination: Mac, only: Mac, ether_type: u16) -> Result<(), Reason> {
    if !matches!(ether_type, ipv4::ETHER_TYPE | arp::ETHER_TYPE) {
        return Err(frame::refuse_type(ether_type));
    }
    match destination {
        BROADCAST if ether_type == arp::ETHER_TYPE => Ok(()),
        BROADCAST => Err(Reason::Broadcast),
        mac if mac == only => Ok(()),
        _ => Err(Reason::DestinationMac),
    }
}

/// Which client a packet of the trunk is for.
pub fn vlan(buffer: &[u8], length: usize) -> Result<u16, Reason> {
    let (_, untrusted_frame) = split(buffer, length)?;
    frame::vlan(untrusted_frame)
}

/// Decides about a packet of the trunk for `client`, and takes its tag away.
pub fn to_client(
    client: &Client,
    trunk: &Trunk,
    buffer: &mut [u8],
    length: usize,
) -> Result<Passed, Reason> {
    let (untrusted_header, untrusted_frame) = split(buffer, length)?;
    if frame::vlan(untrusted_frame)? != client.vlan {
        return Err(Reason::UnknownVlan);
    }
    let header = Header::parse(untrusted_header, untrusted_frame.len(), TAG)?;
    let offload = check_trunk(client, trunk, header, untrusted_frame)?;
    frame::pop_tag(buffer)?;
    let start = HEADROOM + TAG_BYTES;
    write_header(buffer, start, offload.header(0)?)?;
    Ok(Passed {
        place: start..HEADROOM + length,
        wire_bytes: offload.wire_bytes,
    })
}

fn check_trunk(
    client: &Client,
    trunk: &Trunk,
    header: Header,
    untrusted_frame: &[u8],
) -> Result<Offload, Reason> {
    let ethernet = frame::parse(untrusted_frame)?;
    // The type of what the tag is before.
    let behind_tag = untrusted_frame.get(TAG_BYTES..).ok_or(Reason::Short)?;
    let ether_type = frame::parse(behind_tag)?.ether_type;
    if ethernet.source != trunk.mac {
        return Err(Reason::SourceMac);
    }
    check_destination(ethernet.destination, client.mac, ether_type)?;
    let body = behind_tag.get(MIN_BYTES..).ok_or(Reason::Short)?;
    let contents = match ether_type {
        ipv4::ETHER_TYPE => {
            let ip = ipv4::parse(body)?;
            // From whom is the world's matter, and the network domain's.
            if ip.destination != client.address {
                return Err(Reason::DestinationAddress);
            }
            Contents::Ipv4(ip)
        }
        arp::ETHER_TYPE => {
            let arp = arp::parse(body)?;
            // The network domain may answer for any address but the client's own.
            if arp.sender_mac != trunk.mac || arp.sender == client.address {
                return Err(Reason::ArpSender);
            }
            Contents::Arp
        }
        other => return Err(frame::refuse_type(other)),
    };
    header.fit(behind_tag.len(), trunk.mtu, &contents)
}

#[cfg(test)]
#[path = "switch_tests.rs"]
mod tests;
