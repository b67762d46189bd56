//! Names of services and their arguments, checked.

use std::fmt;

use crate::limits::{MAX_ARGUMENT, MAX_SERVICE};
use crate::name::{Grammar, WordError};

/// The name of a service, such as `qubes.Filecopy`: up to 64 of `[A-Za-z0-9_.-]`, the first of them
/// a letter, a digit or `_` (the characters are Qubes' `RPCNAME_ALLOWED_CHARSET` without `+`; a
/// leading `.` or `-` would name a hidden file or an option).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(String);

const SERVICE: Grammar = Grammar {
    what: "the service's name",
    allowed: "services are named with letters, digits, `_`, `.` and `-`, not beginning with `.` \
              or `-`",
    limit: MAX_SERVICE,
    may_be_empty: false,
    first: |b| b.is_ascii_alphanumeric() || b == b'_',
    rest: |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'),
};

impl ServiceName {
    /// Checks a service's name that may come from anywhere.
    pub fn parse(untrusted_name: &[u8]) -> Result<Self, WordError> {
        SERVICE.check(untrusted_name).map(ServiceName)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for ServiceName {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        ServiceName::parse(text.as_bytes())
    }
}

/// The argument of a call, without the `+` before it; empty if there is none. Up to 190 of
/// `[A-Za-z0-9_.+-]` (Qubes' `RPCNAME_ALLOWED_CHARSET`: a further `+` belongs to the argument).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Argument(String);

const ARGUMENT: Grammar = Grammar {
    what: "the argument",
    allowed: "arguments are letters, digits, `_`, `.`, `+` and `-`",
    limit: MAX_ARGUMENT,
    may_be_empty: true,
    first: |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'+' | b'-'),
    rest: |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'+' | b'-'),
};

impl Argument {
    /// Checks an argument (without its leading `+`) that may come from anywhere.
    pub fn parse(untrusted_argument: &[u8]) -> Result<Self, WordError> {
        ARGUMENT.check(untrusted_argument).map(Argument)
    }

    /// The argument as text, without `+`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Shows the argument as in a policy file: with its `+`.
impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.0)
    }
}

/// Splits `SERVICE` or `SERVICE+ARGUMENT` as a guest sends it. No `+` is the same as an empty
/// argument (`parser.py`, `parse_service_and_argument`).
pub fn split_service(untrusted_call: &[u8]) -> Result<(ServiceName, Argument), WordError> {
    let mut parts = untrusted_call.splitn(2, |&b| b == b'+');
    let service = ServiceName::parse(parts.next().unwrap_or_default())?;
    let argument = Argument::parse(parts.next().unwrap_or_default())?;
    Ok((service, argument))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_split_at_the_first_plus() {
        let split = |text: &str| {
            split_service(text.as_bytes())
                .map(|(service, argument)| (service.to_string(), argument.to_string()))
        };
        let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        assert_eq!(split("qubes.Filecopy"), pair("qubes.Filecopy", "+"));
        assert_eq!(split("qubes.Filecopy+"), pair("qubes.Filecopy", "+"));
        assert_eq!(split("qubes.StartApp+a+b"), pair("qubes.StartApp", "+a+b"));
        for bad in [
            "", "+", "+a", ".hidden", "-option", "a/b", "a b", "a+b/c", "a\0", "ü",
        ] {
            assert!(split(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_longest_call_is_a_file_name() {
        let service = "s".repeat(MAX_SERVICE);
        let argument = "a".repeat(MAX_ARGUMENT);
        let call = format!("{service}+{argument}");
        assert_eq!(call.len(), 255);
        assert!(split_service(call.as_bytes()).is_ok());
        assert!(split_service(format!("{call}a").as_bytes()).is_err());
        assert!(split_service(format!("{service}s").as_bytes()).is_err());
    }
}
