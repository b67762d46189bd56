//! The manifest: what the sender says it is going to send.
//!
//! The host reads it to ask the person at the desk, and passes it on ([`Manifest::write`] gives the
//! same bytes that [`Manifest::read`] took). The receiver holds the sender to it: a stream that
//! brings anything else than it announced is refused, so what was shown is what arrives.

use std::io::{Read, Write};

use super::{FormatError, MAX_NAME, MAX_SHOWN, STREAM_MAGIC, VERSION};
use crate::names;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder with all that is in it.
    Folder,
    /// A regular file.
    File,
}

/// One entry at the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Size of the file, or of all files in the folder, in bytes.
    pub bytes: u64,
    /// Its name, checked by [`names::check`] when it was read.
    pub name: Vec<u8>,
}

impl Item {
    /// The name to show to a person: nothing in it hides or reorders text.
    pub fn shown_name(&self) -> String {
        names::visible(&self.name)
    }
}

/// What the sender claims; nothing of it has been compared with what comes after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Folders, files and links in all, at least `top_level`.
    pub entries: u64,
    /// The sizes of all files together, in bytes.
    pub bytes: u64,
    /// Entries at the top, at least 1.
    pub top_level: u32,
    /// The first of them: all, at most [`MAX_SHOWN`].
    pub shown: Vec<Item>,
}

impl Manifest {
    /// Reads and checks one. Takes exactly its bytes, so the rest of the stream can be passed on by
    /// other means; at most 68 KiB.
    pub fn read(stream: impl Read) -> Result<Self, FormatError> {
        let mut stream = stream;
        let magic: [u8; 8] = take(&mut stream)?;
        if &magic != STREAM_MAGIC {
            return Err(FormatError::Magic);
        }
        let version = u16::from_le_bytes(take(&mut stream)?);
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        let reserved = u16::from_le_bytes(take(&mut stream)?);
        number("the reserved field", reserved.into(), reserved == 0)?;
        let entries = u64::from_le_bytes(take(&mut stream)?);
        let bytes = u64::from_le_bytes(take(&mut stream)?);
        let top_level = u32::from_le_bytes(take(&mut stream)?);
        number("the number of names", top_level.into(), top_level > 0)?;
        number(
            "the number of entries",
            entries,
            entries >= u64::from(top_level),
        )?;
        let untrusted_shown = usize::from(u16::from_le_bytes(take(&mut stream)?));
        number(
            "the number of described names",
            untrusted_shown as u64,
            untrusted_shown == shown_of(top_level),
        )?;
        let mut shown = Vec::new();
        let mut sum = 0_u64;
        for _ in 0..untrusted_shown {
            let item = read_item(&mut stream)?;
            sum = sum
                .checked_add(item.bytes)
                .filter(|sum| *sum <= bytes)
                .ok_or(FormatError::Number {
                    what: "the size of a described name",
                    value: item.bytes,
                })?;
            shown.push(item);
        }
        let all_shown = u64::from(top_level) == untrusted_shown as u64;
        number("the number of bytes", bytes, !all_shown || sum == bytes)?;
        Ok(Manifest {
            entries,
            bytes,
            top_level,
            shown,
        })
    }

    /// Writes it.
    pub fn write(&self, stream: impl Write) -> Result<(), FormatError> {
        let mut stream = stream;
        let mut out = Vec::new();
        out.extend_from_slice(STREAM_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&0_u16.to_le_bytes());
        out.extend_from_slice(&self.entries.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.top_level.to_le_bytes());
        let shown = fits("a list of names", self.shown.len(), MAX_SHOWN)?;
        out.extend_from_slice(&shown.to_le_bytes());
        for item in &self.shown {
            out.push(match item.kind {
                Kind::Folder => 1,
                Kind::File => 2,
            });
            out.extend_from_slice(&item.bytes.to_le_bytes());
            out.extend_from_slice(&fits("a name", item.name.len(), MAX_NAME)?.to_le_bytes());
            out.extend_from_slice(&item.name);
        }
        stream.write_all(&out).map_err(FormatError::Write)
    }

    /// How many entries at the top are not in [`Manifest::shown`].
    pub fn not_shown(&self) -> u64 {
        u64::from(self.top_level).saturating_sub(self.shown.len() as u64)
    }
}

/// How many of so many entries at the top are described.
pub(crate) fn shown_of(top_level: u32) -> usize {
    usize::try_from(top_level).map_or(MAX_SHOWN, |all| all.min(MAX_SHOWN))
}

fn read_item(stream: &mut impl Read) -> Result<Item, FormatError> {
    let [untrusted_kind] = take(stream)?;
    let kind = match untrusted_kind {
        1 => Kind::Folder,
        2 => Kind::File,
        other => {
            return Err(FormatError::Number {
                what: "the kind of a described name",
                value: other.into(),
            });
        }
    };
    let bytes = u64::from_le_bytes(take(stream)?);
    let untrusted_length = usize::from(u16::from_le_bytes(take(stream)?));
    number(
        "the length of a name",
        untrusted_length as u64,
        untrusted_length <= MAX_NAME,
    )?;
    let mut name = vec![0; untrusted_length];
    stream.read_exact(&mut name).map_err(FormatError::read)?;
    names::check(&name).map_err(|_| FormatError::Order("a described name is none for a file"))?;
    Ok(Item { kind, bytes, name })
}

pub(super) fn take<const N: usize>(stream: &mut impl Read) -> Result<[u8; N], FormatError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map_err(FormatError::read)?;
    Ok(bytes)
}

pub(super) fn number(what: &'static str, value: u64, good: bool) -> Result<(), FormatError> {
    if good {
        Ok(())
    } else {
        Err(FormatError::Number { what, value })
    }
}

pub(super) fn fits(what: &'static str, length: usize, most: usize) -> Result<u16, FormatError> {
    u16::try_from(length)
        .ok()
        .filter(|_| length <= most)
        .ok_or(FormatError::DoesNotFit { what, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            entries: 9,
            bytes: 30,
            top_level: 2,
            shown: vec![
                Item {
                    kind: Kind::Folder,
                    bytes: 20,
                    name: b"photos".to_vec(),
                },
                Item {
                    kind: Kind::File,
                    bytes: 10,
                    name: "a\u{202e}gpj.exe".as_bytes().to_vec(),
                },
            ],
        }
    }

    #[test]
    fn the_host_passes_on_what_it_read() {
        let mut bytes = Vec::new();
        manifest().write(&mut bytes).unwrap();
        bytes.extend_from_slice(b"the rest");
        let mut rest = bytes.as_slice();
        let read = Manifest::read(&mut rest).unwrap();
        assert_eq!(rest, b"the rest");
        assert_eq!(read, manifest());
        assert_eq!(read.shown[1].shown_name(), "a\\xe2\\x80\\xaegpj.exe");
        let mut again = Vec::new();
        read.write(&mut again).unwrap();
        assert_eq!(again, bytes[..bytes.len() - 8]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |change: &dyn Fn(&mut Manifest)| {
            let mut wrong = manifest();
            change(&mut wrong);
            let mut bytes = Vec::new();
            wrong.write(&mut bytes).unwrap();
            Manifest::read(bytes.as_slice()).unwrap_err()
        };
        refused(&|m| m.top_level = 0);
        refused(&|m| m.top_level = 3);
        refused(&|m| m.entries = 1);
        refused(&|m| m.bytes = 31);
        refused(&|m| m.shown[0].bytes = u64::MAX);
        refused(&|m| m.shown[0].name = b"../x".to_vec());
        refused(&|m| m.shown[0].name = Vec::new());
        refused(&|m| m.shown.clear());
        let mut bytes = Vec::new();
        manifest().write(&mut bytes).unwrap();
        for length in 0..bytes.len() {
            assert!(matches!(
                Manifest::read(&bytes[..length]),
                Err(FormatError::Ended)
            ));
        }
        bytes[8] = 2;
        assert!(matches!(
            Manifest::read(bytes.as_slice()),
            Err(FormatError::Version(2))
        ));
        bytes[0] = b'X';
        assert!(matches!(
            Manifest::read(bytes.as_slice()),
            Err(FormatError::Magic)
        ));
    }
}
