//! The receiver's answer.

use std::io::{Read, Write};

use super::manifest::{number, take};
use super::{FormatError, MAX_MESSAGE, STATUS_MAGIC, VERSION};
use crate::names;

/// How it ended, for the sender to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// Everything is there, complete and written to the disk.
    Received = 0,
    /// The stream was damaged, or ended too early.
    Damaged = 1,
    /// Something in it is never accepted: a name, a link.
    Refused = 2,
    /// It is more than the receiver takes.
    TooMuch = 3,
    /// It is not what the manifest announced.
    NotAsAnnounced = 4,
    /// The target's disk is full.
    NoSpace = 5,
    /// The target could not write it, for a reason of its own.
    Failed = 6,
    /// Somebody at the target stopped it.
    Cancelled = 7,
    /// The sender itself gave up.
    Aborted = 8,
    /// Nothing came for too long.
    Stalled = 9,
}

const VERDICTS: [Verdict; 10] = [
    Verdict::Received,
    Verdict::Damaged,
    Verdict::Refused,
    Verdict::TooMuch,
    Verdict::NotAsAnnounced,
    Verdict::NoSpace,
    Verdict::Failed,
    Verdict::Cancelled,
    Verdict::Aborted,
    Verdict::Stalled,
];

/// The answer to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// How it ended.
    pub verdict: Verdict,
    /// Entries that were read.
    pub entries: u64,
    /// Bytes that were read, holes included.
    pub bytes: u64,
    /// Why, for a person; empty if all went well. At most [`MAX_MESSAGE`] bytes, and nothing in it
    /// hides or reorders text.
    pub message: String,
}

impl Status {
    /// Reads and checks one; the message is cleaned.
    pub fn read(stream: impl Read) -> Result<Self, FormatError> {
        let mut stream = stream;
        let magic: [u8; 4] = take(&mut stream)?;
        if &magic != STATUS_MAGIC {
            return Err(FormatError::Magic);
        }
        let version = u16::from_le_bytes(take(&mut stream)?);
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        let [untrusted_verdict] = take(&mut stream)?;
        let verdict = VERDICTS
            .into_iter()
            .find(|known| *known as u8 == untrusted_verdict)
            .ok_or(FormatError::Number {
                what: "the verdict",
                value: untrusted_verdict.into(),
            })?;
        let entries = u64::from_le_bytes(take(&mut stream)?);
        let bytes = u64::from_le_bytes(take(&mut stream)?);
        let untrusted_length = usize::from(u16::from_le_bytes(take(&mut stream)?));
        number(
            "the length of a message",
            untrusted_length as u64,
            untrusted_length <= MAX_MESSAGE,
        )?;
        let mut untrusted_message = vec![0; untrusted_length];
        stream
            .read_exact(&mut untrusted_message)
            .map_err(FormatError::read)?;
        Ok(Status {
            verdict,
            entries,
            bytes,
            message: names::printable(&untrusted_message, MAX_MESSAGE),
        })
    }

    /// Writes it and flushes; a message that is too long is cut.
    pub fn write(&self, stream: impl Write) -> Result<(), FormatError> {
        let mut stream = stream;
        let message = names::printable(self.message.as_bytes(), MAX_MESSAGE);
        let length = u16::try_from(message.len()).unwrap_or(0);
        let mut out = Vec::new();
        out.extend_from_slice(STATUS_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.push(self.verdict as u8);
        out.extend_from_slice(&self.entries.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(message.as_bytes());
        stream.write_all(&out).map_err(FormatError::Write)?;
        stream.flush().map_err(FormatError::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_comes_back() {
        for (number, verdict) in VERDICTS.into_iter().enumerate() {
            assert_eq!(verdict as usize, number);
            let status = Status {
                verdict,
                entries: 3,
                bytes: 4,
                message: "the disk is full".into(),
            };
            let mut bytes = Vec::new();
            status.write(&mut bytes).unwrap();
            assert_eq!(Status::read(bytes.as_slice()).unwrap(), status);
            for length in 0..bytes.len() {
                assert!(Status::read(&bytes[..length]).is_err());
            }
            bytes[6] = 10;
            assert!(Status::read(bytes.as_slice()).is_err());
        }
    }

    #[test]
    fn a_message_is_bounded_and_shows_what_it_is() {
        let status = Status {
            verdict: Verdict::Failed,
            entries: 0,
            bytes: 0,
            message: format!("\u{202e}{}", "ä".repeat(5000)),
        };
        let mut bytes = Vec::new();
        status.write(&mut bytes).unwrap();
        let message = Status::read(bytes.as_slice()).unwrap().message;
        assert!(message.len() <= MAX_MESSAGE);
        assert!(message.starts_with("\\xe2\\x80\\xaeä"));
    }
}
