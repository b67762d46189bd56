//! The control protocol of virtio-gpu (virtio 1.2, 5.7.6): numbers, headers, and requests parsed
//! into checked values.

/// Requests and responses start with a header of this many bytes.
pub const HEADER_BYTES: usize = 24;
/// The request carries a fence: the answer comes when its work is done.
pub const FLAG_FENCE: u32 = 1;
/// `ring_idx` of the header says on which timeline of the context the fence lies.
pub const FLAG_INFO_RING_IDX: u32 = 2;
/// Memory of a blob comes from the guest.
pub const BLOB_MEM_GUEST: u32 = 1;
/// Memory of a blob comes from the host.
pub const BLOB_MEM_HOST3D: u32 = 2;
/// The capability set that we offer, and the only one.
pub const CAPSET_CROSS_DOMAIN: u32 = 5;
/// `map_info` of an ordinary cached mapping.
pub const MAP_CACHE_CACHED: u32 = 1;
/// Scanouts in the answer to `GET_DISPLAY_INFO`, whatever the device has.
const MAX_SCANOUTS: usize = 16;
/// Bytes per scanout in that answer.
const SCANOUT_BYTES: usize = 24;

/// A response type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)] // the names are those of the specification
pub enum Status {
    OkNoData = 0x1100,
    OkDisplayInfo = 0x1101,
    OkCapsetInfo = 0x1102,
    OkCapset = 0x1103,
    OkMapInfo = 0x1106,
    ErrUnspecified = 0x1200,
    ErrOutOfMemory = 0x1201,
    ErrInvalidResource = 0x1203,
    ErrInvalidContext = 0x1204,
    ErrInvalidParameter = 0x1205,
}

/// The header of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// What is asked for.
    pub kind: u32,
    /// [`FLAG_FENCE`], [`FLAG_INFO_RING_IDX`].
    pub flags: u32,
    /// The fence's number, echoed in the answer.
    pub fence_id: u64,
    /// The context concerned, 0 for none.
    pub context: u32,
    /// The timeline of the fence.
    pub ring_idx: u8,
}

impl Header {
    /// The timeline of the request's fence, if it has one within a context.
    pub fn fence_ring(&self) -> Option<u8> {
        let both = FLAG_FENCE | FLAG_INFO_RING_IDX;
        (self.flags & both == both).then_some(self.ring_idx)
    }

    /// The header of the answer: a fence is echoed, which is what signals it in the guest.
    pub fn response(&self, status: Status) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let flags = self.flags & (FLAG_FENCE | FLAG_INFO_RING_IDX);
        let fields: [(usize, &[u8]); 2] = [
            (0, &(status as u32).to_le_bytes()),
            (4, &flags.to_le_bytes()),
        ];
        for (at, value) in fields {
            bytes[at..at + 4].copy_from_slice(value);
        }
        if self.flags & FLAG_FENCE != 0 {
            bytes[8..16].copy_from_slice(&self.fence_id.to_le_bytes());
            bytes[16..20].copy_from_slice(&self.context.to_le_bytes());
            bytes[20] = self.ring_idx;
        }
        bytes
    }
}

/// A request that we know, with the fields that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are those of the specification
pub enum Request {
    GetDisplayInfo,
    GetCapsetInfo {
        index: u32,
    },
    GetCapset {
        id: u32,
        version: u32,
    },
    CreateContext {
        capset: u32,
    },
    DestroyContext,
    AttachToContext {
        resource: u32,
    },
    DetachFromContext {
        resource: u32,
    },
    CreateBlob(CreateBlob),
    UnrefResource {
        resource: u32,
    },
    AttachBacking {
        resource: u32,
        entries: u32,
    },
    DetachBacking {
        resource: u32,
    },
    MapBlob {
        resource: u32,
        offset: u64,
    },
    UnmapBlob {
        resource: u32,
    },
    Submit {
        bytes: u32,
    },
    /// A request of the 2D or 3D protocols, or an unknown one: refused.
    Unsupported,
}

/// `RESOURCE_CREATE_BLOB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateBlob {
    /// The resource's number, chosen by the guest.
    pub resource: u32,
    /// [`BLOB_MEM_GUEST`] or [`BLOB_MEM_HOST3D`].
    pub memory: u32,
    /// How many memory entries follow.
    pub entries: u32,
    /// For host memory: which object of the context.
    pub blob_id: u64,
    /// Bytes.
    pub size: u64,
}

/// The longest fixed part of a request that we know, header included.
pub const MAX_FIXED_BYTES: usize = 56;

impl Request {
    /// Bytes of the fixed part (header included) after which `Submit`'s commands and the memory
    /// entries start.
    pub const fn payload_offset(&self) -> u64 {
        match self {
            Self::CreateBlob(_) => 56,
            _ => 32,
        }
    }
}

/// Parses the header and fixed part of a request from its first bytes. `None` when a request that
/// we know is cut short.
pub fn parse(untrusted: &[u8]) -> Option<(Header, Request)> {
    let header = Header {
        kind: u32_at(untrusted, 0)?,
        flags: u32_at(untrusted, 4)?,
        fence_id: u64_at(untrusted, 8)?,
        context: u32_at(untrusted, 16)?,
        ring_idx: *untrusted.get(20)?,
    };
    let body = untrusted.get(HEADER_BYTES..)?;
    let word = |index: usize| u32_at(body, index * 4);
    let long = |offset: usize| u64_at(body, offset);
    let request = match header.kind {
        0x0100 => Request::GetDisplayInfo,
        0x0102 => Request::UnrefResource { resource: word(0)? },
        0x0106 => Request::AttachBacking {
            resource: word(0)?,
            entries: word(1)?,
        },
        0x0107 => Request::DetachBacking { resource: word(0)? },
        0x0108 => Request::GetCapsetInfo { index: word(0)? },
        0x0109 => Request::GetCapset {
            id: word(0)?,
            version: word(1)?,
        },
        0x010c => Request::CreateBlob(CreateBlob {
            resource: word(0)?,
            memory: word(1)?,
            entries: word(3)?,
            blob_id: long(16)?,
            size: long(24)?,
        }),
        0x0200 => Request::CreateContext {
            capset: word(1)? & 0xff,
        },
        0x0201 => Request::DestroyContext,
        0x0202 => Request::AttachToContext { resource: word(0)? },
        0x0203 => Request::DetachFromContext { resource: word(0)? },
        0x0207 => Request::Submit { bytes: word(0)? },
        0x0208 => Request::MapBlob {
            resource: word(0)?,
            offset: long(8)?,
        },
        0x0209 => Request::UnmapBlob { resource: word(0)? },
        _ => Request::Unsupported,
    };
    Some((header, request))
}

/// The answer to `GET_DISPLAY_INFO` after its header: every scanout disabled, so that no console
/// and no frame buffer appear in the guest.
pub const fn display_info() -> [u8; MAX_SCANOUTS * SCANOUT_BYTES] {
    [0; MAX_SCANOUTS * SCANOUT_BYTES]
}

/// A little-endian `u32` at a byte offset.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let part = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(part.try_into().ok()?))
}

/// A little-endian `u64` at a byte offset.
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let part = bytes.get(offset..offset.checked_add(8)?)?;
    Some(u64::from_le_bytes(part.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_requests_are_not_requests() {
        let mut bytes = vec![0; 24];
        bytes[0..2].copy_from_slice(&[0x0c, 0x01]);
        assert_eq!(parse(&bytes), None);
        bytes.resize(55, 0);
        assert_eq!(parse(&bytes), None);
        bytes.resize(56, 0);
        assert!(matches!(
            parse(&bytes),
            Some((_, Request::CreateBlob(CreateBlob { resource: 0, .. })))
        ));
        assert_eq!(parse(&bytes[..23]), None);
    }

    #[test]
    fn fences_are_echoed_also_in_errors() {
        let header = Header {
            kind: 0x207,
            flags: FLAG_FENCE | FLAG_INFO_RING_IDX | 0xf0,
            fence_id: 7,
            context: 2,
            ring_idx: 1,
        };
        let bytes = header.response(Status::ErrUnspecified);
        assert_eq!(u32_at(&bytes, 0), Some(0x1200));
        assert_eq!(u32_at(&bytes, 4), Some(3));
        assert_eq!(u64_at(&bytes, 8), Some(7));
        assert_eq!(u32_at(&bytes, 16), Some(2));
        assert_eq!(bytes[20], 1);
    }
}
