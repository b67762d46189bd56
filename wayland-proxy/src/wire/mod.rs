//! The Wayland wire format, driven by the generated protocol tables.
//!
//! Nothing here knows what a message means. A message is taken apart by the signature that the
//! generated tables give for it, so every interface on the allow-list is covered without a line
//! of code of its own. Every length is checked against the message before it is used.

mod decode;
mod encode;

pub use decode::{Arg, Decoder, WireError, decode};
pub use encode::MessageWriter;

/// Bytes of a message's header: object, then size and opcode.
pub const HEADER_BYTES: usize = 8;

/// The largest message: the size field has 16 bits and messages are padded to four bytes.
pub const MAX_MESSAGE_BYTES: usize = 0xfffc;

/// Ids from here on are made by the server; the ids below it by the client.
pub const SERVER_ID_START: u32 = 0xff00_0000;

/// The first eight bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The object that the message is for.
    pub object: u32,
    /// Which request or event of the object's interface.
    pub opcode: u16,
    /// Size of the whole message, header included.
    pub size_bytes: usize,
}

impl Header {
    /// Reads the header at the start of `untrusted_bytes`; `None` while it is not all there.
    pub fn read(untrusted_bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let Some(raw) = untrusted_bytes.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [a, b, c, d, e, f, g, h] = *raw;
        let object = u32::from_ne_bytes([a, b, c, d]);
        let word = u32::from_ne_bytes([e, f, g, h]);
        let size_bytes = (word >> 16) as usize;
        if size_bytes < HEADER_BYTES || !size_bytes.is_multiple_of(4) {
            return Err(WireError::BadSize(size_bytes));
        }
        Ok(Some(Self {
            object,
            opcode: (word & 0xffff) as u16,
            size_bytes,
        }))
    }
}
