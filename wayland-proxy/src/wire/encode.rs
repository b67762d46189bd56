//! Putting a message together.

use super::{HEADER_BYTES, MAX_MESSAGE_BYTES, WireError};

/// Appends one message to a buffer. Until [`MessageWriter::finish`] the buffer holds a part of it;
/// a message that is dropped unfinished, or is too large, is taken back out.
#[derive(Debug)]
pub struct MessageWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    opcode: u16,
    finished: bool,
}

impl<'a> MessageWriter<'a> {
    /// Begins a message for `object`.
    pub fn new(out: &'a mut Vec<u8>, object: u32, opcode: u16) -> Self {
        let start = out.len();
        out.extend_from_slice(&object.to_ne_bytes());
        out.extend_from_slice(&[0; 4]);
        Self {
            out,
            start,
            opcode,
            finished: false,
        }
    }

    /// An unsigned number, an object's id or a fixed-point number as it is on the wire.
    pub fn uint(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_ne_bytes());
    }

    /// A signed number.
    pub fn int(&mut self, value: i32) {
        self.uint(value.cast_unsigned());
    }

    /// A string without NUL, or null.
    pub fn string(&mut self, text: Option<&[u8]>) {
        let Some(text) = text else {
            return self.uint(0);
        };
        self.uint(u32::try_from(text.len() + 1).unwrap_or(u32::MAX));
        self.out.extend_from_slice(text);
        self.out.push(0);
        self.pad();
    }

    /// Bytes.
    pub fn array(&mut self, bytes: &[u8]) {
        self.uint(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.out.extend_from_slice(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        let len = self.out.len() - self.start;
        self.out.resize(self.start + len.next_multiple_of(4), 0);
    }

    /// Writes the size into the header: the message is complete.
    pub fn finish(mut self) -> Result<(), WireError> {
        let size = self.out.len() - self.start;
        if size > MAX_MESSAGE_BYTES {
            return Err(WireError::TooLarge);
        }
        let word = (size as u32) << 16 | u32::from(self.opcode);
        let header = self.start + 4..self.start + HEADER_BYTES;
        if let Some(place) = self.out.get_mut(header) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        self.finished = true;
        Ok(())
    }
}

impl Drop for MessageWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.out.truncate(self.start);
        }
    }
}
