//! Writes a stream. It checks that things fit, and nothing else: that a stream makes sense is the
//! business of whoever calls, and tests write nonsense with it.

use std::io::{BufWriter, Write};

use super::manifest::fits;
use super::record::{ABORT, DATA, END, FILE, FOLDER, HOLE, LEAVE, LINK};
use super::{
    FormatError, MAX_DATA, MAX_MESSAGE, MAX_NAME, MAX_TARGET, Manifest, Meta, Record, STREAM_MAGIC,
};

/// The writing end of a stream, with its checksum.
#[derive(Debug)]
pub struct StreamWriter<W: Write> {
    stream: BufWriter<W>,
    checksum: crc32fast::Hasher,
}

impl<W: Write> StreamWriter<W> {
    /// Begins with the manifest.
    pub fn new(stream: W, manifest: &Manifest) -> Result<Self, FormatError> {
        let mut writer = StreamWriter {
            stream: BufWriter::with_capacity(64 * 1024, stream),
            checksum: crc32fast::Hasher::new(),
        };
        let mut bytes = Vec::with_capacity(STREAM_MAGIC.len());
        manifest.write(&mut bytes)?;
        writer.put(&bytes)?;
        // Whoever asks the person waits for it.
        writer.flush()?;
        Ok(writer)
    }

    /// Writes a record. After [`Record::Data`] call [`StreamWriter::data`] instead of this; after
    /// [`Record::End`] the checksum is added and everything is flushed.
    pub fn record(&mut self, record: &Record) -> Result<(), FormatError> {
        match record {
            Record::Folder {
                meta,
                untrusted_name,
            } => {
                self.put(&[FOLDER])?;
                self.put(&meta.mode.to_le_bytes())?;
                self.time(meta)?;
                self.text("a name", untrusted_name, MAX_NAME)
            }
            Record::File {
                meta,
                untrusted_name,
                untrusted_size,
            } => {
                self.put(&[FILE])?;
                self.put(&meta.mode.to_le_bytes())?;
                self.time(meta)?;
                self.text("a name", untrusted_name, MAX_NAME)?;
                self.put(&untrusted_size.to_le_bytes())
            }
            Record::Link {
                meta,
                untrusted_name,
                untrusted_target,
            } => {
                self.put(&[LINK])?;
                self.time(meta)?;
                self.text("a name", untrusted_name, MAX_NAME)?;
                self.text("a link", untrusted_target, MAX_TARGET)
            }
            Record::Leave => self.put(&[LEAVE]),
            Record::Data(length) => {
                let length = u32::try_from(*length)
                    .ok()
                    .filter(|_| *length <= MAX_DATA)
                    .ok_or(FormatError::DoesNotFit {
                        what: "data",
                        length: *length,
                    })?;
                self.put(&[DATA])?;
                self.put(&length.to_le_bytes())
            }
            Record::Hole(length) => {
                self.put(&[HOLE])?;
                self.put(&length.to_le_bytes())
            }
            Record::End {
                untrusted_entries,
                untrusted_bytes,
            } => {
                self.put(&[END])?;
                self.put(&untrusted_entries.to_le_bytes())?;
                self.put(&untrusted_bytes.to_le_bytes())?;
                let checksum = self.checksum.clone().finalize();
                self.put(&checksum.to_le_bytes())?;
                self.flush()
            }
            Record::Abort { untrusted_message } => {
                self.put(&[ABORT])?;
                let most = untrusted_message.len().min(MAX_MESSAGE);
                let message = untrusted_message.get(..most).unwrap_or_default();
                self.text("a message", message, MAX_MESSAGE)?;
                self.flush()
            }
        }
    }

    /// Writes one data record with its bytes; nothing, if there are none.
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        for piece in bytes.chunks(MAX_DATA) {
            self.record(&Record::Data(piece.len()))?;
            self.put(piece)?;
        }
        Ok(())
    }

    /// Passes on what is buffered.
    pub fn flush(&mut self) -> Result<(), FormatError> {
        self.stream.flush().map_err(FormatError::Write)
    }

    fn time(&mut self, meta: &Meta) -> Result<(), FormatError> {
        self.put(&meta.seconds.to_le_bytes())?;
        self.put(&meta.nanoseconds.to_le_bytes())
    }

    fn text(&mut self, what: &'static str, text: &[u8], most: usize) -> Result<(), FormatError> {
        let length = fits(what, text.len(), most)?;
        self.put(&length.to_le_bytes())?;
        self.put(text)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        self.checksum.update(bytes);
        self.stream.write_all(bytes).map_err(FormatError::Write)
    }
}
