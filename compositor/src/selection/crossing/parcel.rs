//! What crosses: one thing of one kind, checked, held in memory, overwritten when it goes.

use std::sync::Arc;

use super::{super::dragging::list, png};

/// What one domain may give another. Everything else stays at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// UTF-8.
    Text,
    /// A PNG picture.
    Image,
    /// Addresses of files: the source's own while they are held, the target's own where they are
    /// given. They never go from one to the other.
    Files,
}

/// The types of data that cross, the best first. A source that offers text and a picture gives the
/// text.
const TYPES: [(&str, Kind); 6] = [
    ("text/plain;charset=utf-8", Kind::Text),
    ("text/plain", Kind::Text),
    ("UTF8_STRING", Kind::Text),
    ("image/png", Kind::Image),
    (FILES, Kind::Files),
    (FILES_COPIED, Kind::Files),
];

/// A list of addresses (RFC 2483).
const FILES: &str = "text/uri-list";
/// How file managers say that files were copied, as others would say it of text. Its content is the
/// word `copy` and the addresses, a line each.
const FILES_COPIED: &str = "x-special/gnome-copied-files";

impl Kind {
    /// As the manager is told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Files => "files",
        }
    }

    /// The types under which it is offered to the domain that it came to.
    pub fn types(self) -> impl Iterator<Item = &'static str> {
        TYPES
            .into_iter()
            .filter(move |(_, kind)| *kind == self)
            .map(|(name, _)| name)
    }
}

impl Kind {
    /// The types under which it is dragged, where nobody copies it.
    pub fn dragged_types(self) -> impl Iterator<Item = &'static str> {
        self.types().filter(|name| *name != FILES_COPIED)
    }
}

/// The best type among those that a source has copied: files before text before a picture. A list of
/// addresses may turn out to be a link, which is read as text then.
pub(crate) fn choose_copied(untrusted_types: &[String]) -> Option<(&'static str, Kind)> {
    if untrusted_types.iter().any(|offered| offered == FILES) {
        return Some((FILES, Kind::Files));
    }
    choose(untrusted_types)
}

/// The best type among those that a source offers. Names of files mean nothing elsewhere.
pub(crate) fn choose(untrusted_types: &[String]) -> Option<(&'static str, Kind)> {
    TYPES
        .into_iter()
        .filter(|(_, kind)| *kind != Kind::Files)
        .find(|(name, _)| untrusted_types.iter().any(|offered| offered == name))
}

/// Why data is not what it should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Unfit {
    #[error("it is empty")]
    Empty,
    #[error("it is not UTF-8 text")]
    Text,
    #[error("{0}")]
    Files(#[from] list::Wrong),
    #[error("it is no PNG picture that may cross: {0}")]
    Image(#[from] png::Wrong),
}

/// Data that was checked.
pub(crate) struct Parcel {
    kind: Kind,
    bytes: Vec<u8>,
    /// Of a picture.
    size: Option<png::Size>,
}

impl Parcel {
    /// Checks what a domain gave.
    pub fn check(kind: Kind, untrusted_bytes: Vec<u8>) -> Result<Self, Unfit> {
        // Made first, so that what is refused is overwritten as well.
        let mut parcel = Self {
            kind,
            bytes: untrusted_bytes,
            size: None,
        };
        if parcel.bytes.is_empty() {
            return Err(Unfit::Empty);
        }
        match kind {
            Kind::Text => {
                std::str::from_utf8(&parcel.bytes).map_err(|_| Unfit::Text)?;
            }
            // Its outer shape only: it is decoded in a disposable when it crosses (`redraw`).
            Kind::Image => parcel.size = Some(png::check(&parcel.bytes)?),
            Kind::Files => return Ok(Self::files(&list::local_files(&parcel.bytes)?)),
        }
        Ok(parcel)
    }

    /// A picture that this desktop has encoded itself.
    pub fn drawn(size: png::Size, bytes: Vec<u8>) -> Self {
        Self {
            kind: Kind::Image,
            bytes,
            size: Some(size),
        }
    }

    /// As it is said under one of its types.
    pub fn under(self: Arc<Self>, mime: &str) -> Arc<Self> {
        if self.kind != Kind::Files || mime != FILES_COPIED {
            return self;
        }
        let mut bytes = b"copy".to_vec();
        for line in self.lines() {
            bytes.push(b'\n');
            bytes.extend_from_slice(line.as_bytes());
        }
        Arc::new(Self {
            kind: Kind::Files,
            bytes,
            size: None,
        })
    }

    /// The addresses, of files; nothing of what else there is.
    pub fn files_named(&self) -> Vec<&str> {
        match self.kind {
            Kind::Files => self.lines(),
            Kind::Text | Kind::Image => Vec::new(),
        }
    }

    fn lines(&self) -> Vec<&str> {
        let text = std::str::from_utf8(&self.bytes).unwrap_or_default();
        text.lines().filter(|line| !line.is_empty()).collect()
    }

    /// Files, by their addresses.
    pub fn files(uris: &[String]) -> Self {
        Self {
            kind: Kind::Files,
            bytes: uris
                .iter()
                .flat_map(|u| [u.as_bytes(), b"\r\n"])
                .flatten()
                .copied()
                .collect(),
            size: None,
        }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// As the header of a picture says.
    pub fn size(&self) -> Option<png::Size> {
        self.size
    }

    /// For people: `1.2 KiB of text`, `an image of 20.0 KiB`.
    pub fn shown(&self) -> String {
        let size = shown_size(self.bytes.len());
        match self.kind {
            Kind::Text => format!("{size} of text"),
            Kind::Image => format!("an image of {size}"),
            Kind::Files => "files".into(),
        }
    }
}

impl std::fmt::Debug for Parcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the content: logs are kept.
        f.debug_struct("Parcel")
            .field("kind", &self.kind)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        self.bytes.fill(0);
        // Nobody reads it again, and it has to be written all the same.
        std::hint::black_box(&self.bytes);
    }
}

/// `17 bytes`, `1.2 KiB`, `16.0 MiB`.
pub(crate) fn shown_size(bytes: usize) -> String {
    const KIB: usize = 1024;
    let tenths = |unit: usize| {
        let whole = bytes / unit;
        format!("{whole}.{}", bytes % unit * 10 / unit)
    };
    match bytes {
        1 => "1 byte".into(),
        0..KIB => format!("{bytes} bytes"),
        KIB..0x10_0000 => format!("{} KiB", tenths(KIB)),
        _ => format!("{} MiB", tenths(KIB * KIB)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_types_cross_and_the_best_is_taken() {
        let types = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let best = |names: &[&str]| choose(&types(names)).map(|(name, _)| name);
        assert_eq!(
            best(&["text/html", "image/png", "UTF8_STRING"]),
            Some("UTF8_STRING")
        );
        assert_eq!(best(&["image/png", "image/jpeg"]), Some("image/png"));
        assert_eq!(
            best(&["UTF8_STRING", "text/plain", "text/plain;charset=utf-8"]),
            Some("text/plain;charset=utf-8")
        );
        assert_eq!(
            best(&["text/html", "text/uri-list", "TEXT/PLAIN", "image/svg+xml"]),
            None
        );
        assert_eq!(best(&[]), None);
        assert_eq!(Kind::Image.types().collect::<Vec<_>>(), ["image/png"]);
    }

    #[test]
    fn text_is_utf_8_and_something() {
        let text =
            |bytes: &[u8]| Parcel::check(Kind::Text, bytes.to_vec()).map(|p| p.bytes.clone());
        assert_eq!(text("grün\n".as_bytes()).unwrap(), "grün\n".as_bytes());
        assert_eq!(text(b"a\xff"), Err(Unfit::Text));
        assert_eq!(text(b"\xc3"), Err(Unfit::Text));
        assert_eq!(text(b""), Err(Unfit::Empty));
    }

    #[test]
    fn sizes_are_readable() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1229, "1.2 KiB"),
            (16 << 20, "16.0 MiB"),
        ] {
            assert_eq!(shown_size(bytes), shown);
        }
    }
}
