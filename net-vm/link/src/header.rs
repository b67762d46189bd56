//! What one card leaves to the next: `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6), little endian:
//! flags (1), gso_type (1), hdr_len (2), gso_size (2), csum_start (2), csum_offset (2),
//! num_buffers (2).
//!
//! Nothing of it is passed on as it came: it is read, held against the frame, and written anew.

use crate::frame::MIN_BYTES;
use crate::ipv4::{Ipv4, TCP, TCP_CHECKSUM_AT};
use crate::reason::Reason;
use crate::wire::{array, byte};

/// The header's length.
pub const HEADER_BYTES: usize = 12;
const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// The smallest segments that Linux makes: its smallest (48 bytes) without room for options (40).
const MIN_GSO_SIZE: u16 = 8;

/// A checksum that is to be made: from `start` in the frame to its end, written `offset` behind
/// `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Checksum {
    start: u16,
    offset: u16,
}

/// Whose TCP is to be segmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Ipv4,
    Ipv6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segments {
    family: Family,
    size: u16,
}

/// A header that makes sense by itself; its places are those in the frame without a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    checksum: Option<Checksum>,
    segments: Option<Segments>,
}

/// A header that fits its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    checksum: Option<Checksum>,
    /// Size of a segment, and the length of all headers of the frame.
    segments: Option<(u16, u16)>,
    /// Bytes of all frames that become of it.
    pub wire_bytes: usize,
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// A packet.
    Ipv4(Ipv4),
    /// ARP.
    Arp,
}

impl Header {
    /// Reads the header of a frame of `frame_bytes`, of which `tag_bytes` are its tag.
    pub fn parse(
        untrusted_header: &[u8],
        frame_bytes: usize,
        tag_bytes: u16,
    ) -> Result<Self, Reason> {
        let number = |at| {
            array(untrusted_header, at)
                .map(u16::from_le_bytes)
                .ok_or(Reason::Short)
        };
        let flags = byte(untrusted_header, 0).ok_or(Reason::Short)?;
        let kind = byte(untrusted_header, 1).ok_or(Reason::Short)?;
        // DATA_VALID is a card's word to its own guest. Nobody here has such a card.
        if flags & !NEEDS_CSUM != 0 {
            return Err(Reason::HeaderFlags);
        }
        let checksum = if flags & NEEDS_CSUM != 0 {
            let start = number(6)?
                .checked_sub(tag_bytes)
                .ok_or(Reason::ChecksumPlace)?;
            let offset = number(8)?;
            Some(Checksum { start, offset })
        } else {
            None
        };
        let family = match kind {
            GSO_NONE => {
                return Ok(Self {
                    checksum,
                    segments: None,
                });
            }
            GSO_TCPV4 => Family::Ipv4,
            GSO_TCPV6 => Family::Ipv6,
            _ => return Err(Reason::HeaderGso),
        };
        if checksum.is_none() {
            return Err(Reason::GsoWithoutChecksum);
        }
        // A hint that we do not pass on: the frame itself says it. Still, it must be possible.
        if usize::from(number(2)?) > frame_bytes {
            return Err(Reason::HeaderLength);
        }
        let size = number(4)?;
        if size < MIN_GSO_SIZE {
            return Err(Reason::GsoSize);
        }
        let segments = Some(Segments { family, size });
        Ok(Self { checksum, segments })
    }

    /// Holds the header against its frame of `frame_bytes`, without a tag, in a network whose
    /// packets have at most `mtu` bytes.
    pub fn fit(self, frame_bytes: usize, mtu: u16, contents: &Contents) -> Result<Offload, Reason> {
        let checksum = match (self.checksum, contents) {
            (None, _) => None,
            (Some(checksum), Contents::Ipv4(ip)) => Some(checksum.fit(ip)?),
            (Some(_), Contents::Arp) => return Err(Reason::ChecksumPlace),
        };
        let Some(segments) = self.segments else {
            if frame_bytes > usize::from(mtu) + MIN_BYTES {
                return Err(Reason::OverMtu);
            }
            return Ok(Offload {
                checksum,
                segments: None,
                wire_bytes: frame_bytes,
            });
        };
        let (Contents::Ipv4(ip), Family::Ipv4) = (contents, segments.family) else {
            return Err(Reason::GsoFrame);
        };
        // One whole packet that fills its frame.
        let tcp_bytes = ip
            .tcp_header_bytes
            .filter(|_| ip.protocol == TCP && !ip.is_fragment)
            .filter(|_| MIN_BYTES + ip.total_bytes == frame_bytes)
            .ok_or(Reason::GsoFrame)?;
        let ip_ends = MIN_BYTES + ip.header_bytes;
        let headers = ip_ends + tcp_bytes;
        let data = frame_bytes
            .checked_sub(headers)
            .filter(|data| *data > 0)
            .ok_or(Reason::GsoFrame)?;
        let is_tcp_checksum = checksum.is_some_and(|checksum| {
            usize::from(checksum.start) == ip_ends && checksum.offset == TCP_CHECKSUM_AT
        });
        if !is_tcp_checksum {
            return Err(Reason::ChecksumPlace);
        }
        let size = usize::from(segments.size);
        if headers + size > MIN_BYTES + usize::from(mtu) {
            return Err(Reason::GsoSize);
        }
        let header_bytes = u16::try_from(headers).map_err(|_| Reason::HeaderLength)?;
        // `size` is at least `MIN_GSO_SIZE`.
        let more_frames = data.div_ceil(size.max(1)).saturating_sub(1);
        Ok(Offload {
            checksum,
            segments: Some((segments.size, header_bytes)),
            wire_bytes: frame_bytes + more_frames * headers,
        })
    }
}

impl Checksum {
    /// It lies in the packet, behind its IP header, and the packet is whole.
    fn fit(self, ip: &Ipv4) -> Result<Self, Reason> {
        let start = usize::from(self.start);
        let end = start + usize::from(self.offset) + 2;
        if ip.is_fragment || start < MIN_BYTES + ip.header_bytes || end > MIN_BYTES + ip.total_bytes
        {
            return Err(Reason::ChecksumPlace);
        }
        Ok(self)
    }
}

impl Offload {
    /// The header for a frame that has got a tag of `tag_bytes`. The receiving card counts its
    /// buffers itself.
    pub fn header(&self, tag_bytes: u16) -> Result<[u8; HEADER_BYTES], Reason> {
        let shift = |place: u16| place.checked_add(tag_bytes).ok_or(Reason::ChecksumPlace);
        let (mut flags, mut kind) = (0, GSO_NONE);
        let (mut length, mut size, mut start, mut offset) = (0_u16, 0_u16, 0_u16, 0_u16);
        if let Some(checksum) = self.checksum {
            flags = NEEDS_CSUM;
            start = shift(checksum.start)?;
            offset = checksum.offset;
        }
        if let Some((segment, headers)) = self.segments {
            kind = GSO_TCPV4;
            length = shift(headers)?;
            size = segment;
        }
        let [length, size, start, offset] = [length, size, start, offset].map(u16::to_le_bytes);
        Ok([
            flags, kind, length[0], length[1], size[0], size[1], start[0], start[1], offset[0],
            offset[1], 0, 0,
        ])
    }
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
