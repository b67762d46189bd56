//! One request of the driver (virtio 1.2, 5.2.6), checked before anything is done.

use crate::devices::virtio::buffers::Buffers;
use crate::memory::GuestMemory;

/// Bytes of a sector, the unit of all requests.
pub const SECTOR: u64 = 512;
/// Bytes of a disk's identifier.
pub const ID_BYTES: usize = 20;
const HEADER_BYTES: u64 = 16;

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;

/// What the driver gets as status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// The disk failed, or the request makes no sense.
    IoError = 1,
    /// A type of request that was not offered.
    Unsupported = 2,
}

/// A checked request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read `length` bytes at `offset` into the writable buffers.
    Read {
        /// Byte offset on the disk.
        offset: u64,
        /// Bytes.
        length: usize,
    },
    /// Write `length` bytes at `offset` from the readable buffers after the header.
    Write {
        /// Byte offset on the disk.
        offset: u64,
        /// Bytes.
        length: usize,
    },
    /// Make all writes durable.
    Flush,
    /// Tell the disk's identifier.
    GetId,
}

/// Where the data of a write begins among the readable bytes.
pub const WRITE_DATA: u64 = HEADER_BYTES;

/// The offset of the status byte among the writable bytes: the last one. `None` when there is no
/// room for it, and so no way to answer.
pub fn status_offset(buffers: &Buffers) -> Option<u64> {
    buffers.writable_len().checked_sub(1)
}

/// Reads and checks a request against a disk of `sectors`.
pub fn parse(
    buffers: &Buffers,
    memory: &GuestMemory,
    sectors: u64,
    read_only: bool,
) -> Result<Request, Status> {
    let mut header = [0; HEADER_BYTES as usize];
    buffers
        .read(memory, 0, &mut header)
        .map_err(|_| Status::IoError)?;
    let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
    let untrusted_type = u32::from_le_bytes([t0, t1, t2, t3]);
    let untrusted_sector = u64::from_le_bytes(sector);
    let data_in = status_offset(buffers).ok_or(Status::IoError)?;
    let data_out = buffers.readable_len() - HEADER_BYTES;
    let range = |length: u64| {
        let end = length
            .is_multiple_of(SECTOR)
            .then(|| untrusted_sector.checked_add(length / SECTOR))
            .flatten()
            .filter(|end| *end <= sectors);
        match (end, usize::try_from(length)) {
            (Some(_), Ok(length)) => Ok((untrusted_sector * SECTOR, length)),
            _ => Err(Status::IoError),
        }
    };
    match untrusted_type {
        TYPE_IN => range(data_in).map(|(offset, length)| Request::Read { offset, length }),
        TYPE_OUT if read_only => Err(Status::IoError),
        TYPE_OUT => range(data_out).map(|(offset, length)| Request::Write { offset, length }),
        TYPE_FLUSH => Ok(Request::Flush),
        TYPE_GET_ID if data_in >= ID_BYTES as u64 => Ok(Request::GetId),
        TYPE_GET_ID => Err(Status::IoError),
        _ => Err(Status::Unsupported),
    }
}
