//! Headers of vsock packets (virtio 1.2, 5.10.6).

use super::super::gpu::protocol::{u32_at, u64_at};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 44;
/// The host's address.
pub const HOST_CID: u64 = 2;
/// The only socket type that we offer.
pub const TYPE_STREAM: u16 = 1;
/// The guest will receive no more.
pub const SHUTDOWN_RECEIVE: u32 = 1;
/// The guest will send no more.
pub const SHUTDOWN_SEND: u32 = 2;
/// Data of one packet is no longer than this; Linux's limit, too.
pub const MAX_DATA_BYTES: u32 = 64 << 10;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Open a connection.
    Request,
    /// It is open.
    Response,
    /// It is closed, or was never there.
    Reset,
    /// One side sends or receives no more.
    Shutdown,
    /// Data.
    Data,
    /// Here is my credit.
    CreditUpdate,
    /// Tell me your credit.
    CreditRequest,
}

impl Operation {
    fn number(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Data => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
        }
    }

    fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }
}

/// A connection as both sides name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    /// The guest's port.
    pub guest: u32,
    /// The host's port.
    pub host: u32,
}

/// A packet from the guest, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Who claims to have sent it.
    pub source: u64,
    /// Whom it is for.
    pub destination: u64,
    /// Between which ports.
    pub ports: Ports,
    /// How much data follows.
    pub length: u32,
    /// The socket's type.
    pub kind: u16,
    /// What it is for; `None` if unknown.
    pub operation: Option<Operation>,
    /// For [`Operation::Shutdown`].
    pub flags: u32,
    /// How much the guest's buffer holds altogether.
    pub buffer_bytes: u32,
    /// How much data the guest has taken out of it since the beginning, wrapping.
    pub forwarded: u32,
}

/// Reads a header.
pub fn parse(untrusted: &[u8; HEADER_BYTES]) -> Option<Received> {
    let word = |offset| u32_at(untrusted, offset);
    let both = word(28)?;
    Some(Received {
        source: u64_at(untrusted, 0)?,
        destination: u64_at(untrusted, 8)?,
        ports: Ports {
            guest: word(16)?,
            host: word(20)?,
        },
        length: word(24)?,
        kind: (both & 0xffff) as u16,
        operation: Operation::from_number((both >> 16) as u16),
        flags: word(32)?,
        buffer_bytes: word(36)?,
        forwarded: word(40)?,
    })
}

/// A packet for the guest, without its data.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Between which ports.
    pub ports: Ports,
    /// What it is for.
    pub operation: Operation,
    /// For [`Operation::Shutdown`].
    pub flags: u32,
    /// How much data follows.
    pub length: u32,
    /// How much our buffer holds altogether.
    pub buffer_bytes: u32,
    /// How much data we have taken out of it since the beginning, wrapping.
    pub forwarded: u32,
}

impl Sent {
    /// A reset of a connection that does not exist.
    pub fn reset(ports: Ports) -> Self {
        Self {
            ports,
            operation: Operation::Reset,
            flags: 0,
            length: 0,
            buffer_bytes: 0,
            forwarded: 0,
        }
    }

    /// The header for the guest with address `cid`.
    pub fn header(&self, cid: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&HOST_CID.to_le_bytes());
        bytes[8..16].copy_from_slice(&cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.ports.host.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.ports.guest.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        bytes[28..30].copy_from_slice(&TYPE_STREAM.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.operation.number().to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buffer_bytes.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.forwarded.to_le_bytes());
        bytes
    }
}
