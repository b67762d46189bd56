//! Ethernet frames and their tags (IEEE 802.3, 802.1Q), and where they lie in the link's buffer.

use bulkhead_mac::Mac;

use crate::header::HEADER_BYTES;
use crate::reason::Reason;
use crate::wire::{array, be16};

/// Two addresses and a type.
pub const MIN_BYTES: usize = 14;
/// The longest frame: one that is to be segmented, of 65,535 bytes behind its addresses.
pub const MAX_BYTES: usize = MIN_BYTES + 65535;
/// A tag.
pub const TAG_BYTES: usize = 4;
/// The type of a tag.
pub const TAG_TYPE: u16 = 0x8100;
/// The shortest packet of a socket.
pub const MIN_PACKET_BYTES: usize = HEADER_BYTES + MIN_BYTES;
/// The longest one.
pub const MAX_PACKET_BYTES: usize = HEADER_BYTES + MAX_BYTES;
const _: () = assert!(MAX_PACKET_BYTES == bulkhead_ring::MAX_PACKET_BYTES);
/// Room before a packet in its buffer, in which a tag finds place without the contents moving.
pub const HEADROOM: usize = TAG_BYTES;
/// A buffer for one packet.
pub const BUFFER_BYTES: usize = HEADROOM + MAX_PACKET_BYTES;

/// What is looked at of a packet: all its headers, as long as they can be (a tag, IPv4 and TCP with options).
/// What lies behind is never read.
pub const LOOK_BYTES: usize = HEADER_BYTES + MIN_BYTES + TAG_BYTES + 60 + 60;

const OTHER_TAGS: [u16; 3] = [0x88a8, 0x9100, 0x9200];
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x0fff;
/// Before the tag in a buffer.
const HEAD_BYTES: usize = HEADROOM + HEADER_BYTES + 12;

/// Addresses and type of a frame without a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ethernet {
    /// For whom.
    pub destination: Mac,
    /// From whom.
    pub source: Mac,
    /// What it carries.
    pub ether_type: u16,
}

/// Reads a frame's addresses and type.
pub fn parse(untrusted_frame: &[u8]) -> Result<Ethernet, Reason> {
    Ok(Ethernet {
        destination: Mac(array(untrusted_frame, 0).ok_or(Reason::Short)?),
        source: Mac(array(untrusted_frame, 6).ok_or(Reason::Short)?),
        ether_type: be16(untrusted_frame, 12).ok_or(Reason::Short)?,
    })
}

/// Why a type other than IPv4 and ARP is refused.
pub fn refuse_type(ether_type: u16) -> Reason {
    match ether_type {
        TAG_TYPE => Reason::Tag,
        IPV6 => Reason::Ipv6,
        other if OTHER_TAGS.contains(&other) => Reason::Tag,
        _ => Reason::EtherType,
    }
}

/// The VLAN in a frame's tag; its priority means nothing here.
pub fn vlan(untrusted_frame: &[u8]) -> Result<u16, Reason> {
    match be16(untrusted_frame, 12) {
        Some(TAG_TYPE) => be16(untrusted_frame, 14)
            .map(|tag| tag & VLAN)
            .ok_or(Reason::Short),
        Some(other) if OTHER_TAGS.contains(&other) => Err(Reason::Tag),
        Some(_) => Err(Reason::Untagged),
        None => Err(Reason::Short),
    }
}

/// Puts a tag into the packet that begins behind the headroom; now it begins where the buffer does.
pub fn push_tag(buffer: &mut [u8], vlan: u16) -> Result<(), Reason> {
    let head: &mut [u8; HEAD_BYTES] = buffer.first_chunk_mut().ok_or(Reason::Short)?;
    head.copy_within(HEADROOM.., 0);
    let [type_high, type_low] = TAG_TYPE.to_be_bytes();
    let [vlan_high, vlan_low] = (vlan & VLAN).to_be_bytes();
    let tag: &mut [u8; TAG_BYTES] = head.last_chunk_mut().ok_or(Reason::Short)?;
    *tag = [type_high, type_low, vlan_high, vlan_low];
    Ok(())
}

/// Takes the tag out of the packet that begins behind the headroom; now it begins [`TAG_BYTES`]
/// later.
pub fn pop_tag(buffer: &mut [u8]) -> Result<(), Reason> {
    let head: &mut [u8; HEAD_BYTES + TAG_BYTES] = buffer.first_chunk_mut().ok_or(Reason::Short)?;
    head.copy_within(HEADROOM..HEAD_BYTES, HEADROOM + TAG_BYTES);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_goes_in_and_out() {
        let packet: Vec<u8> = (1..=60).collect();
        let mut buffer = vec![0; HEADROOM];
        buffer.extend(&packet);
        push_tag(&mut buffer, 0xf123).unwrap();
        assert_eq!(buffer[..24], packet[..24]);
        assert_eq!(buffer[24..28], [0x81, 0, 1, 0x23]);
        assert_eq!(buffer[28..], packet[24..]);
        assert_eq!(vlan(&buffer[HEADER_BYTES..]), Ok(0x123));
        let mut back = vec![0; HEADROOM];
        back.extend(&buffer);
        pop_tag(&mut back).unwrap();
        assert_eq!(back[HEADROOM + TAG_BYTES..], packet);
    }

    #[test]
    fn buffers_that_are_too_short_are_refused() {
        for length in 0..HEAD_BYTES {
            assert!(push_tag(&mut vec![0; length], 1).is_err());
        }
        for length in 0..HEAD_BYTES + TAG_BYTES {
            assert!(pop_tag(&mut vec![0; length]).is_err());
        }
    }

    #[test]
    fn a_tag_is_one_of_802_1q() {
        let mut frame = [0; 18];
        for (kind, result) in [
            (0x8100, Ok(7)),
            (0x88a8, Err(Reason::Tag)),
            (0x9100, Err(Reason::Tag)),
            (0x0800, Err(Reason::Untagged)),
            (0x0020, Err(Reason::Untagged)),
        ] {
            frame[12..14].copy_from_slice(&u16::to_be_bytes(kind));
            // Priority 7, and a frame that may be dropped.
            frame[14..16].copy_from_slice(&[0xf0, 7]);
            assert_eq!(vlan(&frame), result, "{kind:#x}");
        }
        assert_eq!(vlan(&[0; 13]), Err(Reason::Short));
        frame[12..14].copy_from_slice(&[0x81, 0]);
        assert_eq!(vlan(&frame[..15]), Err(Reason::Short));
    }
}
