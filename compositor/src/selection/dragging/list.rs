//! A list of files as a source gives it (`text/uri-list`, RFC 2483).
//!
//! The names in it are the source's own and are opened by nobody else: they go back to a program in
//! the source domain, as its user, which sends what it can read itself.

/// Files in one drop.
const MAX_FILES: usize = 128;
/// Bytes of the list: it must fit into one packet for the manager, and one frame for the guest.
pub(in crate::selection) const MAX_BYTES: usize = 24 * 1024;

/// Why a list is no list of files.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(in crate::selection) enum Wrong {
    #[error("it names no file")]
    NoFile,
    #[error("not everything in it is a file of its own")]
    Foreign,
    #[error("it names more than {MAX_FILES} files")]
    TooMany,
    #[error("its list of files cannot be read")]
    Text,
}

/// The addresses, each of a file of the source's own: `file:///…`.
pub(in crate::selection) fn local_files(untrusted_bytes: &[u8]) -> Result<Vec<String>, Wrong> {
    let untrusted = std::str::from_utf8(untrusted_bytes).map_err(|_| Wrong::Text)?;
    let mut files = Vec::new();
    let mut others = false;
    for line in untrusted.lines() {
        // Some clients end the whole as C does.
        let line = line.trim_end_matches(['\r', '\0']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Wrong::Text);
        }
        let path = line
            .strip_prefix("file://localhost")
            .or_else(|| line.strip_prefix("file://"))
            .or_else(|| line.strip_prefix("file:"));
        match path.filter(|path| path.starts_with('/') && !path.starts_with("//")) {
            Some(_) if files.len() >= MAX_FILES => return Err(Wrong::TooMany),
            Some(path) => files.push(format!("file://{path}")),
            None => others = true,
        }
    }
    match (files.is_empty(), others) {
        (true, _) => Err(Wrong::NoFile),
        (false, true) => Err(Wrong::Foreign),
        (false, false) => Ok(files),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_its_own_and_nothing_else() {
        let list = b"# a comment\r\nfile:///home/user/a%20b\r\nfile://localhost/c\r\nfile:/d\r\n\0";
        let files = ["file:///home/user/a%20b", "file:///c", "file:///d"];
        assert_eq!(local_files(list).unwrap(), files);
        for (list, wrong) in [
            (&b""[..], Wrong::NoFile),
            (b"\r\n#file:///a\r\n", Wrong::NoFile),
            (b"https://a.example/", Wrong::NoFile),
            (b"file://other/a", Wrong::NoFile),
            (b"file:relative", Wrong::NoFile),
            (b"file:////a", Wrong::NoFile),
            (b"file:///a\nsftp://b/c", Wrong::Foreign),
            (b"file:///a b", Wrong::Text),
            (b"file:///a\x1bb", Wrong::Text),
            (b"file:///\xff", Wrong::Text),
        ] {
            assert_eq!(local_files(list), Err(wrong), "{list:?}");
        }
        let many = "file:///a\n".repeat(MAX_FILES);
        assert_eq!(local_files(many.as_bytes()).unwrap().len(), MAX_FILES);
        let more = many + "file:///b";
        assert_eq!(local_files(more.as_bytes()), Err(Wrong::TooMany));
    }
}
