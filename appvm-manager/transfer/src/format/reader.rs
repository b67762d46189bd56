//! Reads a stream that anybody may have written. Every length is checked before it is used, and
//! what is kept is at most one record.

use std::io::{BufReader, Read};

use super::manifest::number;
use super::record::{ABORT, DATA, END, FILE, FOLDER, HOLE, LEAVE, LINK};
use super::{FormatError, MAX_DATA, MAX_MESSAGE, MAX_NAME, MAX_TARGET, Manifest, Meta, Record};

/// The reading end of a stream, with its checksum.
#[derive(Debug)]
pub struct StreamReader<R: Read> {
    stream: Summed<BufReader<R>>,
    data: Vec<u8>,
    /// Bytes of a data record that nobody has asked for yet.
    waiting: usize,
}

#[derive(Debug)]
struct Summed<R> {
    stream: R,
    checksum: crc32fast::Hasher,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.stream.read(buffer)?;
        self.checksum
            .update(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}

impl<R: Read> StreamReader<R> {
    /// Reads the manifest. The stream may be read further than its end mark.
    pub fn new(stream: R) -> Result<(Self, Manifest), FormatError> {
        let mut stream = Summed {
            stream: BufReader::with_capacity(64 * 1024, stream),
            checksum: crc32fast::Hasher::new(),
        };
        let manifest = Manifest::read(&mut stream)?;
        let reader = StreamReader {
            stream,
            data: vec![0; MAX_DATA],
            waiting: 0,
        };
        Ok((reader, manifest))
    }

    /// The next record. After [`Record::Data`] ask for [`StreamReader::data`] first.
    pub fn record(&mut self) -> Result<Record, FormatError> {
        if self.waiting > 0 {
            return Err(FormatError::Order("data was skipped"));
        }
        let [untrusted_kind] = self.take()?;
        match untrusted_kind {
            FOLDER => Ok(Record::Folder {
                meta: self.meta()?,
                untrusted_name: self.text("the length of a name", MAX_NAME)?,
            }),
            FILE => Ok(Record::File {
                meta: self.meta()?,
                untrusted_name: self.text("the length of a name", MAX_NAME)?,
                untrusted_size: u64::from_le_bytes(self.take()?),
            }),
            LINK => Ok(Record::Link {
                meta: self.time(0)?,
                untrusted_name: self.text("the length of a name", MAX_NAME)?,
                untrusted_target: self.text("the length of a link", MAX_TARGET)?,
            }),
            LEAVE => Ok(Record::Leave),
            DATA => {
                let untrusted_length = u32::from_le_bytes(self.take()?);
                let length = usize::try_from(untrusted_length)
                    .ok()
                    .filter(|length| (1..=MAX_DATA).contains(length))
                    .ok_or(FormatError::Number {
                        what: "the length of data",
                        value: untrusted_length.into(),
                    })?;
                self.waiting = length;
                Ok(Record::Data(length))
            }
            HOLE => {
                let untrusted_length = u64::from_le_bytes(self.take()?);
                number(
                    "the length of a hole",
                    untrusted_length,
                    untrusted_length > 0,
                )?;
                Ok(Record::Hole(untrusted_length))
            }
            END => {
                let untrusted_entries = u64::from_le_bytes(self.take()?);
                let untrusted_bytes = u64::from_le_bytes(self.take()?);
                let found = self.stream.checksum.clone().finalize();
                if u32::from_le_bytes(self.take()?) != found {
                    return Err(FormatError::Checksum);
                }
                Ok(Record::End {
                    untrusted_entries,
                    untrusted_bytes,
                })
            }
            ABORT => Ok(Record::Abort {
                untrusted_message: self.text("the length of a message", MAX_MESSAGE)?,
            }),
            other => Err(FormatError::Number {
                what: "the kind of a record",
                value: other.into(),
            }),
        }
    }

    /// The bytes of the data record that was read last.
    pub fn data(&mut self) -> Result<&[u8], FormatError> {
        let length = std::mem::take(&mut self.waiting);
        let bytes = self
            .data
            .get_mut(..length)
            .ok_or(FormatError::Order("data is longer than it may be"))?;
        self.stream.read_exact(bytes).map_err(FormatError::read)?;
        Ok(bytes)
    }

    fn meta(&mut self) -> Result<Meta, FormatError> {
        let mode = u16::from_le_bytes(self.take()?);
        number("a mode", mode.into(), mode <= 0o777)?;
        self.time(mode)
    }

    fn time(&mut self, mode: u16) -> Result<Meta, FormatError> {
        let seconds = i64::from_le_bytes(self.take()?);
        let nanoseconds = u32::from_le_bytes(self.take()?);
        // Larger numbers mean something else to the kernel: "now", "leave it".
        number(
            "the nanoseconds of a time",
            nanoseconds.into(),
            nanoseconds < 1_000_000_000,
        )?;
        Ok(Meta {
            mode,
            seconds,
            nanoseconds,
        })
    }

    fn text(&mut self, what: &'static str, most: usize) -> Result<Vec<u8>, FormatError> {
        let untrusted_length = usize::from(u16::from_le_bytes(self.take()?));
        number(what, untrusted_length as u64, untrusted_length <= most)?;
        let mut bytes = vec![0; untrusted_length];
        self.stream
            .read_exact(&mut bytes)
            .map_err(FormatError::read)?;
        Ok(bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        super::manifest::take(&mut self.stream)
    }
}
