//! Names from elsewhere: which are none, and how the others are shown and stored.
//!
//! A stored name is UTF-8 in which nothing hides or reorders text. Bytes that would are written as
//! `\xHH` (two lower-case hexadecimal digits each), as `ls` and systemd do; a backslash that already
//! stands before `xHH` becomes `\x5c`, so that [`original`] can give back every name and no two
//! names become one.

use crate::format::MAX_NAME;

/// How a temporary folder's name begins; sixteen hexadecimal digits follow.
pub const PARTIAL_PREFIX: &str = ".incoming-";

/// Why a name is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// Nothing.
    #[error("it is empty")]
    Empty,
    /// `.` or `..`.
    #[error("it names a folder above or the folder itself")]
    Dots,
    /// It has more than one component.
    #[error("it has a slash")]
    Slash,
    /// It ends for some programs before it ends for others.
    #[error("it has a zero byte")]
    Zero,
    /// No file system takes it.
    #[error("it is longer than 255 bytes")]
    TooLong,
    /// No file system takes it, once everything in it can be seen.
    #[error("it is longer than 255 bytes once its hidden or broken characters are written out")]
    TooLongVisible,
}

/// Whether it is one component of a path: 1 to 255 bytes, not `.` or `..`, no slash and no zero.
pub fn check(untrusted_name: &[u8]) -> Result<(), NameFault> {
    match untrusted_name {
        [] => Err(NameFault::Empty),
        b"." | b".." => Err(NameFault::Dots),
        name if name.contains(&b'/') => Err(NameFault::Slash),
        name if name.contains(&0) => Err(NameFault::Zero),
        name if name.len() > MAX_NAME => Err(NameFault::TooLong),
        _ => Ok(()),
    }
}

/// Checks a name and makes it visible.
pub fn stored(untrusted_name: &[u8]) -> Result<String, NameFault> {
    check(untrusted_name)?;
    fits(visible(untrusted_name))
}

/// The same for an entry at the top, which must not pose as a temporary folder: those are removed
/// by [`crate::clean_up_partial`].
pub fn stored_at_top(untrusted_name: &[u8]) -> Result<String, NameFault> {
    let name = stored(untrusted_name)?;
    match name.strip_prefix(PARTIAL_PREFIX) {
        Some(rest) => fits(format!(
            "\\x2e{}{rest}",
            PARTIAL_PREFIX.trim_start_matches('.')
        )),
        None => Ok(name),
    }
}

fn fits(name: String) -> Result<String, NameFault> {
    if name.len() > MAX_NAME {
        return Err(NameFault::TooLongVisible);
    }
    Ok(name)
}

/// The bytes as text in which everything can be seen; [`original`] takes it back.
pub fn visible(untrusted_name: &[u8]) -> String {
    write_out(untrusted_name, true)
}

/// A text for a person, at most so many bytes: what hides or reorders text is written out. Cannot
/// be taken back; applied twice, it is the same.
pub fn printable(untrusted_text: &[u8], most: usize) -> String {
    let mut taken = untrusted_text;
    if let Some((head, rest)) = untrusted_text.split_at_checked(most) {
        taken = head;
        // Not in the middle of a character.
        if rest.first().is_some_and(|byte| byte & 0xc0 == 0x80) {
            let last = head.iter().rposition(|byte| byte & 0xc0 != 0x80);
            taken = head.get(..last.unwrap_or(0)).unwrap_or_default();
        }
    }
    let mut text = write_out(taken, false);
    text.truncate(text.floor_char_boundary(most));
    text
}

/// The bytes of a name that [`visible`] made.
pub fn original(visible: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(visible.len());
    let mut rest = visible.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match escape(rest) {
            Some((byte, after)) if *first == b'\\' => {
                bytes.push(byte);
                rest = after;
            }
            _ => bytes.push(*first),
        }
    }
    bytes
}

/// A name with a number: `report (2).pdf`, `folder (2)`; never longer than a name may be.
pub fn numbered(name: &str, number: u32, is_folder: bool) -> String {
    let ending = name
        .rfind('.')
        .filter(|dot| !is_folder && *dot > 0 && name.len() - dot <= 16)
        .unwrap_or(name.len());
    let (stem, ending) = name.split_at(ending);
    let number = format!(" ({number})");
    let room = MAX_NAME.saturating_sub(number.len() + ending.len());
    let (stem, _) = stem.split_at(stem.floor_char_boundary(room));
    format!("{stem}{number}{ending}")
}

fn write_out(bytes: &[u8], reversible: bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
            if hides(c) || (reversible && c == '\\' && escape(rest).is_some()) {
                let mut buffer = [0; 4];
                c.encode_utf8(&mut buffer).bytes().for_each(|byte| {
                    push_escape(&mut out, byte);
                });
            } else {
                out.push(c);
            }
        }
        rest = rest.get(chunk.invalid().len()..).unwrap_or_default();
        for byte in chunk.invalid() {
            push_escape(&mut out, *byte);
        }
    }
    out
}

fn push_escape(out: &mut String, byte: u8) {
    out.push_str("\\x");
    for digit in [byte >> 4, byte & 15] {
        out.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
    }
}

/// The byte that `xHH` at the beginning stands for, and what is after it.
fn escape(text: &[u8]) -> Option<(u8, &[u8])> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    match text {
        [b'x', high, low, rest @ ..] => Some((digit(*high)? << 4 | digit(*low)?, rest)),
        _ => None,
    }
}

/// Control characters, and those that change the direction of text, have no width or show nothing.
/// Combining marks and private characters stay: letters of many languages are made with the first,
/// and the second show as boxes.
fn hides(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0x00ad                      // soft hyphen
            | 0x034f                    // joiner of graphemes
            | 0x061c                    // Arabic letter mark
            | 0x115f | 0x1160 | 0x3164 | 0xffa0 // Hangul fillers
            | 0x17b4 | 0x17b5           // Khmer vowels that show nothing
            | 0x180b..=0x180f           // Mongolian selectors
            | 0x200b..=0x200f           // zero width, direction marks
            | 0x2028..=0x202e           // separators, embeddings, overrides
            | 0x2060..=0x206f           // joiners, isolates
            | 0x2800                    // a blank that is no white space
            | 0xfdd0..=0xfdef           // no characters
            | 0xfe00..=0xfe0f           // variation selectors
            | 0xfeff                    // byte order mark
            | 0xfff0..=0xfffb           // annotations
            | 0x1d173..=0x1d17a         // musical beams and slurs that show nothing
            | 0xe0000..=0xe0fff         // tags, more selectors
        )
        || u32::from(c) & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_component_is_refused() {
        assert_eq!(check(b""), Err(NameFault::Empty));
        assert_eq!(check(b"."), Err(NameFault::Dots));
        assert_eq!(check(b".."), Err(NameFault::Dots));
        assert_eq!(check(b"../x"), Err(NameFault::Slash));
        assert_eq!(check(b"/"), Err(NameFault::Slash));
        assert_eq!(check(b"a\0b"), Err(NameFault::Zero));
        assert_eq!(check(&[b'a'; 256]), Err(NameFault::TooLong));
        assert_eq!(check(&[b'a'; 255]), Ok(()));
        assert_eq!(check(b"..."), Ok(()));
        assert_eq!(stored(&[7; 63]).map(|name| name.len()), Ok(252));
        assert_eq!(stored(&[7; 64]), Err(NameFault::TooLongVisible));
    }

    #[test]
    fn everything_can_be_seen() {
        assert_eq!(
            visible("Grüße 你好 e\u{301}.txt".as_bytes()),
            "Grüße 你好 e\u{301}.txt"
        );
        assert_eq!(visible(b"a\nb\x1b[0m"), "a\\x0ab\\x1b[0m");
        assert_eq!(
            visible("a\u{202e}fdp.exe".as_bytes()),
            "a\\xe2\\x80\\xaefdp.exe"
        );
        assert_eq!(visible(b"caf\xe9"), "caf\\xe9");
        assert_eq!(visible(b"C:\\x\\xff"), "C:\\x\\x5cxff");
        assert_eq!(visible(b"100%20.txt"), "100%20.txt");
        assert_eq!(
            stored_at_top(b".incoming-0123456789abcdef").unwrap(),
            "\\x2eincoming-0123456789abcdef"
        );
        assert_eq!(original("\\x2eincoming-1"), b".incoming-1");
        assert_eq!(stored(b".incoming-1").unwrap(), ".incoming-1");
    }

    #[test]
    fn numbers_stand_before_the_ending() {
        assert_eq!(numbered("report.pdf", 1, false), "report (1).pdf");
        assert_eq!(numbered("v1.2", 3, true), "v1.2 (3)");
        assert_eq!(numbered(".bashrc", 1, false), ".bashrc (1)");
        assert_eq!(numbered("plain", 12, false), "plain (12)");
        let long = "ä".repeat(127);
        assert!(numbered(&long, 9999, false).len() <= MAX_NAME);
        let long = format!("{}.{}", "a".repeat(20), "b".repeat(230));
        assert_eq!(numbered(&long, 1, false).len(), 255);
        assert!(numbered(&long, 1, false).ends_with(" (1)"));
    }

    #[test]
    fn texts_are_cut_at_a_character() {
        assert_eq!(printable("äöü".as_bytes(), 3), "ä");
        assert_eq!(printable(b"a\tb", 100), "a\\x09b");
        assert_eq!(printable(b"a\\x09b", 100), "a\\x09b");
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name: Vec<u8>) {
            prop_assert_eq!(original(&visible(&name)), name);
        }

        #[test]
        fn every_name_of_backslashes_comes_back(name in "[\\\\x0f\u{7}\u{200b}]{0,12}") {
            let shown = visible(name.as_bytes());
            prop_assert!(!shown.chars().any(hides));
            prop_assert_eq!(original(&shown), name.as_bytes());
        }

        #[test]
        fn texts_are_stable(text: Vec<u8>, most in 0_usize..300) {
            let once = printable(&text, most);
            prop_assert!(once.len() <= most);
            prop_assert_eq!(printable(once.as_bytes(), most), once);
        }
    }
}
