//! Who a client is. The only answer is the listening socket it came through: the manager makes one
//! per domain and hands it over with the domain's name, label and colour. Nothing that a client
//! says changes it.

mod client;
mod quota;

use std::collections::BTreeMap;

pub use client::ClientState;
pub(crate) use quota::take;
pub use quota::{Quota, QuotaExceeded, Usage};
use smithay::reexports::calloop::RegistrationToken;

/// Names a domain for as long as the compositor runs; never reused, so that a domain that comes
/// back under its old name shares nothing with what was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainId(pub u64);

impl DomainId {
    /// The host's own programs, which came through the host's socket. No domain has this identity.
    pub const HOST: Self = Self(0);
}

/// How logs and tests name the host's programs. No domain can be called so.
pub(crate) const HOST_NAME: &str = "(host)";

/// A colour of a border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Colour {
    pub red: u8,
    pub green: u8,
    pub blue: u8,
}

/// What is wrong with a domain that the manager described.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DomainError {
    #[error("'{0}' is not a colour; write it as #rrggbb")]
    Colour(String),
    #[error("'{0}' is not a domain name; use 1 to 31 letters, digits, '-' or '_'")]
    Name(String),
    #[error("the domain '{0}' exists already; remove it first")]
    Exists(String),
    #[error("there is no domain '{0}'")]
    Unknown(String),
    #[error("the descriptor handed over for '{0}' is not a listening Unix stream socket")]
    Socket(String),
}

impl std::str::FromStr for Colour {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let fail = || DomainError::Colour(text.chars().take(40).collect());
        let digits = text
            .strip_prefix('#')
            .filter(|d| d.len() == 6 && d.is_ascii());
        let digits = digits.ok_or_else(fail)?;
        let value = u32::from_str_radix(digits, 16).map_err(|_| fail())?;
        let [_, red, green, blue] = value.to_be_bytes();
        Ok(Self { red, green, blue })
    }
}

impl Colour {
    /// Components from 0 to 1, opaque.
    pub fn rgba(self) -> [f32; 4] {
        [self.red, self.green, self.blue, 255].map(|c| f32::from(c) / 255.0)
    }

    /// A darker shade, for the title bars of windows without focus.
    pub fn dimmed(self) -> Self {
        let dim = |c: u8| u8::try_from(u16::from(c) * 11 / 20).unwrap_or(c);
        Self {
            red: dim(self.red),
            green: dim(self.green),
            blue: dim(self.blue),
        }
    }

    /// Black or white, whichever can be read on this colour.
    pub fn ink(self) -> Self {
        let luma =
            u32::from(self.red) * 299 + u32::from(self.green) * 587 + u32::from(self.blue) * 114;
        let level = if luma > 140_000 { 0 } else { 255 };
        Self {
            red: level,
            green: level,
            blue: level,
        }
    }
}

/// One domain.
#[derive(Debug)]
pub struct Domain {
    /// Its identity while the compositor runs.
    pub id: DomainId,
    /// Its name, from the manager.
    pub name: String,
    /// The name of its label, from the manager.
    pub label: String,
    /// The colour of its borders.
    pub colour: Colour,
    /// What its clients hold now.
    pub usage: Usage,
    /// What its clients may hold.
    pub quota: Quota,
    /// Commits of all its surfaces so far.
    pub commits: u64,
    /// The event source of its listening socket.
    pub(crate) listener: RegistrationToken,
    /// New connections are refused until then, after a flood.
    pub(crate) refuse_until: Option<std::time::Instant>,
}

/// All domains that the manager told of.
#[derive(Debug, Default)]
pub struct Domains {
    by_id: BTreeMap<DomainId, Domain>,
    last: u64,
}

impl Domains {
    /// A fresh identity.
    pub fn new_id(&mut self) -> DomainId {
        self.last += 1;
        DomainId(self.last)
    }

    /// Adds a domain; its name was checked with [`check_name`] and [`Self::by_name`].
    pub fn insert(&mut self, domain: Domain) {
        self.by_id.insert(domain.id, domain);
    }

    /// Forgets a domain.
    pub fn remove(&mut self, id: DomainId) -> Option<Domain> {
        self.by_id.remove(&id)
    }

    /// A domain by identity.
    pub fn get(&self, id: DomainId) -> Option<&Domain> {
        self.by_id.get(&id)
    }

    /// A domain by identity, to change it.
    pub fn get_mut(&mut self, id: DomainId) -> Option<&mut Domain> {
        self.by_id.get_mut(&id)
    }

    /// A domain by name; the host is none.
    pub fn by_name(&self, name: &str) -> Option<DomainId> {
        self.by_id
            .values()
            .find(|d| d.name == name && d.id != DomainId::HOST)
            .map(|d| d.id)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Domain> {
        self.by_id.values()
    }
}

/// Names stand in title bars: plain characters only, so that one cannot pass for another.
pub fn check_name(name: &str) -> Result<(), DomainError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 31 || !name.chars().all(plain) {
        return Err(DomainError::Name(name.chars().take(40).collect()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_read_or_refused() {
        let red: Colour = "#cc0000".parse().unwrap();
        assert_eq!(
            red,
            Colour {
                red: 0xcc,
                green: 0,
                blue: 0
            }
        );
        for bad in ["cc0000", "#cc00", "#gg0000", "#+c0000", "", "#ééé"] {
            assert!(bad.parse::<Colour>().is_err() || bad == "#+c0000", "{bad}");
        }
    }

    #[test]
    fn names_are_plain() {
        assert!(check_name("work-2").is_ok());
        for bad in [
            "",
            "a b",
            "wörk",
            "x\u{202e}y",
            "0123456789012345678901234567890123",
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ink_can_be_read_on_every_label() {
        let ink = |text: &str| text.parse::<Colour>().unwrap().ink().red;
        assert_eq!(ink("#000000"), 255);
        assert_eq!(ink("#cc0000"), 255);
        assert_eq!(ink("#3465a4"), 255);
        assert_eq!(ink("#edd400"), 0);
        assert_eq!(ink("#73d216"), 0);
    }
}
