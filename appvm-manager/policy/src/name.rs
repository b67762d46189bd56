//! Names of domains and tags, checked.

use std::borrow::Borrow;
use std::fmt;

use crate::limits::{MAX_NAME, MAX_TAG};

/// A domain's name, with Qubes' grammar: `[A-Za-z][A-Za-z0-9_.-]{0,30}`
/// (`qubes/vm/__init__.py`, `validate_name`). Bulkhead's own names are a subset.
///
/// `dom0` is not a name: it is the host, and every place that takes a name treats it so.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

/// What is wrong with a word that should be a name, a tag, a service or an argument. The message
/// ends with what may be written instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Nothing where something is needed.
    #[error("{what} is empty; {allowed}")]
    Empty {
        /// What was read: "the domain's name", "the argument".
        what: &'static str,
        /// What may be written.
        allowed: &'static str,
    },
    /// More bytes than allowed.
    #[error("{what} has {got} bytes; at most {limit} are allowed")]
    TooLong {
        /// What was read.
        what: &'static str,
        /// How long it is, in bytes.
        got: usize,
        /// How long it may be, in bytes.
        limit: usize,
    },
    /// A byte that is not allowed (at this place).
    #[error("{what} has `{}` as byte {}; {allowed}", .byte.escape_ascii(), .at + 1)]
    Byte {
        /// What was read.
        what: &'static str,
        /// The first byte that is wrong.
        byte: u8,
        /// Where it stands, from 0.
        at: usize,
        /// What may be written.
        allowed: &'static str,
    },
}

/// One grammar for all words: a first byte, the bytes that follow, a length.
pub(crate) struct Grammar {
    pub(crate) what: &'static str,
    pub(crate) allowed: &'static str,
    pub(crate) limit: usize,
    pub(crate) may_be_empty: bool,
    pub(crate) first: fn(u8) -> bool,
    pub(crate) rest: fn(u8) -> bool,
}

impl Grammar {
    /// The word as text, if it follows the grammar. Looks at no more than `limit` bytes.
    pub(crate) fn check(&self, untrusted_word: &[u8]) -> Result<String, WordError> {
        let what = self.what;
        if untrusted_word.is_empty() && !self.may_be_empty {
            return Err(WordError::Empty {
                what,
                allowed: self.allowed,
            });
        }
        if untrusted_word.len() > self.limit {
            return Err(WordError::TooLong {
                what,
                got: untrusted_word.len(),
                limit: self.limit,
            });
        }
        let mut word = String::with_capacity(untrusted_word.len());
        for (at, &byte) in untrusted_word.iter().enumerate() {
            let fine = if at == 0 { self.first } else { self.rest };
            if !byte.is_ascii() || !fine(byte) {
                return Err(WordError::Byte {
                    what,
                    byte,
                    at,
                    allowed: self.allowed,
                });
            }
            word.push(char::from(byte));
        }
        Ok(word)
    }
}

const NAME: Grammar = Grammar {
    what: "the domain's name",
    allowed: "names are a letter, then letters, digits, `_`, `.` and `-`",
    limit: MAX_NAME,
    may_be_empty: false,
    first: |b| b.is_ascii_alphabetic(),
    rest: |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'),
};

impl Name {
    /// Checks a name that may come from anywhere.
    pub fn parse(untrusted_name: &[u8]) -> Result<Self, WordError> {
        NAME.check(untrusted_name).map(Name)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the host's old name, which no domain may have.
    pub fn is_host(&self) -> bool {
        self.0 == "dom0"
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Name {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        Name::parse(text.as_bytes())
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A tag of a domain: `[A-Za-z0-9_-]+` (`qubes/vm/__init__.py`, `Tags.validate_tag`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

const TAG: Grammar = Grammar {
    what: "the tag",
    allowed: "tags are letters, digits, `_` and `-`",
    limit: MAX_TAG,
    may_be_empty: false,
    first: |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'),
    rest: |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'),
};

impl Tag {
    /// Checks a tag that may come from anywhere.
    pub fn parse(untrusted_tag: &[u8]) -> Result<Self, WordError> {
        TAG.check(untrusted_tag).map(Tag)
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Tag {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        Tag::parse(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_grammar() {
        for good in ["a", "work", "sys-net", "Work_2.b", &"a".repeat(31)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in [
            "", "2a", "-a", ".a", "_a", "a b", "a/b", "ä", "a\n", "@default",
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        assert_eq!(
            "a".repeat(32).parse::<Name>(),
            Err(WordError::TooLong {
                what: "the domain's name",
                got: 32,
                limit: 31
            })
        );
    }

    #[test]
    fn tags_follow_the_grammar() {
        for good in ["work", "created-by-sys_usb", "2", "-"] {
            assert_eq!(good.parse::<Tag>().unwrap().as_str(), good);
        }
        for bad in ["", "a.b", "a:b", "@a", "é"] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn errors_show_the_byte_escaped_and_say_what_is_allowed() {
        let error = Name::parse(b"a\x1b[31m").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the domain's name has `\\x1b` as byte 2; \
             names are a letter, then letters, digits, `_`, `.` and `-`"
        );
    }
}
