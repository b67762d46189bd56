//! A machine's name in a rule.

use std::fmt;
use std::str::FromStr;

/// The longest name, in bytes: with what is put before it, the kernel must take it as a set's name.
const MAX_NAME: usize = 200;
/// The longest part of one (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;
/// Before a name: everything below it, but not the name itself.
const BELOW: &str = "*.";

/// A name of a machine (RFC 1123, 2.1) in small letters, or `*.` and a name: every one below that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostName {
    name: String,
    below: bool,
}

/// Why a text is no name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Too long, as a whole or in a part.
    #[error("a name has at most {MAX_NAME} characters, and {MAX_LABEL} between its dots")]
    Length,
    /// Letters that no name has.
    #[error(
        "a name consists of letters, digits and `-`, with dots between them; *.NAME is everything \
         below a name. Write other letters as xn--…"
    )]
    Letters,
}

impl HostName {
    /// Whether a name that was asked for is this one, or is below it. Its letters may be large, and
    /// a dot may end it.
    pub fn fits(&self, asked: &str) -> bool {
        let asked = asked.strip_suffix('.').unwrap_or(asked);
        if !self.below {
            return asked.eq_ignore_ascii_case(&self.name);
        }
        let Some(at) = asked.len().checked_sub(self.name.len()) else {
            return false;
        };
        let Some((before, end)) = asked.split_at_checked(at) else {
            return false;
        };
        end.eq_ignore_ascii_case(&self.name) && before.len() > 1 && before.ends_with('.')
    }

    /// The set in the firewall that has the addresses which clients were told for it.
    pub fn set(&self) -> String {
        let kind = if self.below { "below" } else { "name" };
        format!("{kind}.{}", self.name)
    }
}

impl FromStr for HostName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (name, below) = match text.strip_prefix(BELOW) {
            Some(name) => (name, true),
            None => (text, false),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.len() > MAX_NAME {
            return Err(InvalidName::Length);
        }
        for label in name.split('.') {
            if label.len() > MAX_LABEL {
                return Err(InvalidName::Length);
            }
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            let is_odd = label.is_empty() || label.starts_with('-') || label.ends_with('-');
            if is_odd || !label.bytes().all(is_plain) {
                return Err(InvalidName::Letters);
            }
        }
        Ok(HostName {
            name: name.to_ascii_lowercase(),
            below,
        })
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.below { BELOW } else { "" };
        write!(f, "{below}{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    #[test]
    fn names_fit_whole() {
        for asked in ["example.org", "Example.ORG.", "EXAMPLE.org"] {
            assert!(name("example.org").fits(asked), "{asked}");
            assert!(!name("*.example.org").fits(asked), "{asked}");
        }
        for asked in ["www.example.org", "A.b.Example.ORG."] {
            assert!(!name("example.org").fits(asked), "{asked}");
            assert!(name("*.example.org").fits(asked), "{asked}");
        }
        for asked in [
            "badexample.org",
            ".example.org",
            "example.org.evil",
            "",
            ".",
            "ü.org",
        ] {
            assert!(!name("example.org").fits(asked), "{asked}");
            assert!(!name("*.example.org").fits(asked), "{asked}");
        }
    }

    #[test]
    fn what_is_no_name() {
        let long = ["a"; 101].join(".");
        for (text, expected) in [
            ("", InvalidName::Letters),
            ("*.", InvalidName::Letters),
            ("a..b", InvalidName::Letters),
            ("-a.org", InvalidName::Letters),
            ("a-.org", InvalidName::Letters),
            ("a b.org", InvalidName::Letters),
            ("a*.org", InvalidName::Letters),
            ("*.*.org", InvalidName::Letters),
            ("ü.org", InvalidName::Letters),
            ("a\".org", InvalidName::Letters),
            (&"a".repeat(64), InvalidName::Length),
            (&long, InvalidName::Length),
        ] {
            assert_eq!(text.parse::<HostName>(), Err(expected), "{text}");
        }
        assert_eq!(name("A.Org.").to_string(), "a.org");
        assert_eq!(name("*.a.org").set(), "below.a.org");
    }
}
