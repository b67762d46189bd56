//! Names of domains: safe as file names, D-Bus strings, host names and log fields.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
pub const MAX_NAME: usize = 31;

/// A checked name: `[a-z][a-z0-9-]{0,30}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainName(String);

/// A name that no domain may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is no name for a domain: use 1 to 31 of a-z, 0-9 and -, beginning with a letter"
)]
pub struct InvalidName {
    /// What was given, shortened.
    pub given: String,
}

impl DomainName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DomainName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let fine = text.len() <= MAX_NAME
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fine {
            Ok(DomainName(text.to_owned()))
        } else {
            let given = text
                .chars()
                .take(40)
                .flat_map(char::escape_default)
                .collect();
            Err(InvalidName { given })
        }
    }
}

impl TryFrom<String> for DomainName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<DomainName> for String {
    fn from(name: DomainName) -> String {
        name.0
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses() {
        for good in ["a", "work", "work-2", "a--", &"a".repeat(31)] {
            assert_eq!(good.parse::<DomainName>().unwrap().as_str(), good);
        }
        let long = "a".repeat(32);
        for bad in [
            "", "Work", "2work", "-a", "a_b", "a/b", "..", "a b", "ä", "a\n", &long,
        ] {
            assert!(bad.parse::<DomainName>().is_err(), "{bad:?}");
        }
    }
}
