//! Where files are that were received, so that a window on which they were dropped can be told.
//!
//! The receiver writes each path and a zero behind it. Who reads it is the host, which believes no
//! guest: a path is one of a name in the folder for files of that source, or the whole says nothing.
//! A guest that lies leads only its own windows astray.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bulkhead_protocol::name::DomainName;

/// The variable that asks a receiver to tell it.
pub const WANTED: &str = "BULKHEAD_LANDED";
/// The most that is told: addresses of it must fit into one packet for the compositor.
pub const MAX_BYTES: usize = 16 * 1024;
/// Files in one drop.
const MAX_FILES: usize = 128;

/// Tells it. A list that nobody would read is left out.
pub fn write(mut to: impl Write, folder: &Path, names: &[OsString]) -> io::Result<()> {
    let mut bytes = Vec::new();
    for name in names {
        bytes.extend_from_slice(folder.join(name).as_os_str().as_bytes());
        bytes.push(0);
        if bytes.len() > MAX_BYTES {
            return Err(io::Error::other("the names are too long, or too many"));
        }
    }
    to.write_all(&bytes)
}

/// Why nobody is told where the files are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLanded {
    /// Nothing was said.
    #[error("the receiver does not say where they are")]
    Nothing,
    /// Too many, or too long.
    #[error("their names are too long, or too many")]
    TooMuch,
    /// Not a list of such paths.
    #[error("the receiver names a place where they cannot be")]
    Elsewhere,
}

/// The addresses (`file:///…`) of files that came from `source`.
pub fn read(untrusted_bytes: &[u8], source: &DomainName) -> Result<Vec<String>, NotLanded> {
    if untrusted_bytes.len() > MAX_BYTES {
        return Err(NotLanded::TooMuch);
    }
    let Some((0, untrusted_paths)) = untrusted_bytes.split_last() else {
        return Err(NotLanded::Nothing);
    };
    let mut uris = Vec::new();
    for untrusted_path in untrusted_paths.split(|byte| *byte == 0) {
        if uris.len() >= MAX_FILES {
            return Err(NotLanded::TooMuch);
        }
        if !is_incoming(untrusted_path, source) {
            return Err(NotLanded::Elsewhere);
        }
        uris.push(uri(untrusted_path));
    }
    Ok(uris)
}

/// `/…/Incoming/SOURCE/NAME`, with nothing in it that a receiver does not write.
fn is_incoming(untrusted_path: &[u8], source: &DomainName) -> bool {
    let Ok(text) = std::str::from_utf8(untrusted_path) else {
        return false;
    };
    let Some(parts) = text.strip_prefix('/') else {
        return false;
    };
    let parts: Vec<&str> = parts.split('/').collect();
    let plain = |part: &&str| !matches!(*part, "" | "." | "..") && part.len() <= 255;
    parts.iter().all(plain)
        && !text.chars().any(char::is_control)
        && matches!(parts.as_slice(), [.., "Incoming", from, _] if *from == source.as_str())
}

/// A path as an address (RFC 8089).
fn uri(path: &[u8]) -> String {
    let mut uri = String::from("file://");
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

/// The path of an address of a file of this machine.
pub fn path(uri: &str) -> Option<PathBuf> {
    let mut rest = uri.strip_prefix("file://")?.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((&first, after)) = rest.split_first() {
        (bytes, rest) = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let value = digit(high)? * 16 + digit(low)?;
                bytes.push(u8::try_from(value).ok().filter(|byte| *byte != 0)?);
                (bytes, after)
            }
            (b'%' | 0, _) => return None,
            (byte, after) => {
                bytes.push(byte);
                (bytes, after)
            }
        };
    }
    let path = OsStr::from_bytes(&bytes);
    path.as_bytes()
        .starts_with(b"/")
        .then(|| PathBuf::from(OsString::from_vec(bytes.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> DomainName {
        "work".parse().unwrap()
    }

    #[test]
    fn what_is_told_comes_back_as_addresses() {
        let mut told = Vec::new();
        let names = ["a b.txt", "grün", "100%"].map(OsString::from);
        let folder = Path::new("/home/user/Incoming/work");
        write(&mut told, folder, &names).unwrap();
        let uris = read(&told, &source()).unwrap();
        assert_eq!(uris[0], "file:///home/user/Incoming/work/a%20b.txt");
        for (uri, name) in uris.iter().zip(names) {
            assert_eq!(path(uri).unwrap(), folder.join(name), "{uri}");
        }
    }

    #[test]
    fn no_other_place_is_believed() {
        for bad in [
            &b"/home/user/Incoming/personal/a\0"[..],
            b"/home/user/Incoming/work/../../a\0",
            b"/home/user/Incoming/work/.\0",
            b"/home/user/Incoming/work/\0",
            b"/home/user/Incoming/work/a/b\0",
            b"home/user/Incoming/work/a\0",
            b"/home/user/Incoming/work/a\nb\0",
            b"/home/user/Incoming/work/\xff\0",
            b"/home/user/Incoming/work/a\0\0",
            b"/etc/passwd\0",
            b"\0",
        ] {
            assert_eq!(read(bad, &source()), Err(NotLanded::Elsewhere), "{bad:?}");
        }
        assert_eq!(read(b"", &source()), Err(NotLanded::Nothing));
        assert_eq!(
            read(b"/home/user/Incoming/work/a", &source()),
            Err(NotLanded::Nothing)
        );
        let many = b"/I/Incoming/work/a\0".repeat(MAX_FILES + 1);
        assert_eq!(read(&many, &source()), Err(NotLanded::TooMuch));
        assert_eq!(
            read(&[b'/'; MAX_BYTES + 1], &source()),
            Err(NotLanded::TooMuch)
        );
    }

    #[test]
    fn addresses_that_are_none_of_files_have_no_path() {
        for bad in [
            "https://a",
            "file://a/b",
            "file:///a%0",
            "file:///%00",
            "file:///%zz",
            "/a",
        ] {
            assert_eq!(path(bad), None, "{bad}");
        }
        assert_eq!(path("file:///%C3%BC%2f"), Some(PathBuf::from("/ü/")));
    }
}
