//! What an evaluation knows of the system: a snapshot of all domains.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::limits::MAX_DOMAINS;
use crate::name::{Name, Tag};

/// What sort of domain it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Applications on a template's root, with a home of its own.
    App,
    /// Network, USB, firewall and other services. Qubes has no type of its own for these: they are
    /// matched by `@type:AppVM`, as `sys-net` is there.
    Service,
    /// Removed with what it was started for.
    Disposable,
    /// Owns its whole root.
    Standalone,
    /// A template that runs, to be changed.
    Template,
}

impl Kind {
    /// The type that matches this kind in a policy.
    pub fn type_name(self) -> TypeName {
        match self {
            Kind::App | Kind::Service => TypeName::App,
            Kind::Disposable => TypeName::Disposable,
            Kind::Standalone => TypeName::Standalone,
            Kind::Template => TypeName::Template,
        }
    }
}

/// A type as written after `@type:`, with the class names of Qubes OS 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TypeName {
    /// `AppVM`
    App,
    /// `DispVM`
    Disposable,
    /// `StandaloneVM`
    Standalone,
    /// `TemplateVM`
    Template,
    /// `AdminVM`: the host.
    Admin,
    /// `RemoteVM`: a domain on another machine. None exists here, so it never matches.
    Remote,
}

impl TypeName {
    /// Every type.
    pub const ALL: [TypeName; 6] = [
        TypeName::App,
        TypeName::Disposable,
        TypeName::Standalone,
        TypeName::Template,
        TypeName::Admin,
        TypeName::Remote,
    ];

    /// As written in a policy.
    pub fn as_str(self) -> &'static str {
        match self {
            TypeName::App => "AppVM",
            TypeName::Disposable => "DispVM",
            TypeName::Standalone => "StandaloneVM",
            TypeName::Template => "TemplateVM",
            TypeName::Admin => "AdminVM",
            TypeName::Remote => "RemoteVM",
        }
    }

    /// The type of that name.
    pub fn find(text: &str) -> Option<TypeName> {
        TypeName::ALL.into_iter().find(|t| t.as_str() == text)
    }
}

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One domain, as far as a policy can ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its name.
    pub name: Name,
    /// What sort of domain it is.
    pub kind: Kind,
    /// Its tags.
    pub tags: BTreeSet<Tag>,
    /// Whether disposables may be made from it (Qubes: `template_for_dispvms`).
    pub makes_disposables: bool,
    /// From what `@dispvm` is made when this domain asks (Qubes: `default_dispvm`, which falls back
    /// to the system's; whoever makes the snapshot has done so).
    pub default_disposable: Option<Name>,
    /// Whether it runs now: `autostart=no` allows nothing else.
    pub running: bool,
    /// Never offered to the user as a target (Qubes: feature `internal`).
    pub internal: bool,
}

impl Domain {
    /// A halted domain without tags.
    pub fn new(name: Name, kind: Kind) -> Self {
        Domain {
            name,
            kind,
            tags: BTreeSet::new(),
            makes_disposables: false,
            default_disposable: None,
            running: false,
            internal: false,
        }
    }
}

/// All domains at one moment. The host is not among them: it is always there.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    domains: BTreeMap<Name, Domain>,
}

/// Why there can be no snapshot of these domains.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The name is the host's.
    #[error("a domain is called `dom0`, which in a policy is the host; rename the domain")]
    HostName,
    /// The same name twice.
    #[error("two domains are called `{0}`")]
    Twice(Name),
    /// Too many.
    #[error("there are more than {MAX_DOMAINS} domains; remove some")]
    TooMany,
}

impl Snapshot {
    /// A snapshot of these domains.
    pub fn new(domains: impl IntoIterator<Item = Domain>) -> Result<Self, SnapshotError> {
        let mut all = BTreeMap::new();
        for domain in domains {
            if domain.name.is_host() {
                return Err(SnapshotError::HostName);
            }
            if all.len() >= MAX_DOMAINS {
                return Err(SnapshotError::TooMany);
            }
            let name = domain.name.clone();
            if all.insert(name.clone(), domain).is_some() {
                return Err(SnapshotError::Twice(name));
            }
        }
        Ok(Snapshot { domains: all })
    }

    /// The domain of that name.
    pub fn get(&self, name: &Name) -> Option<&Domain> {
        self.domains.get(name)
    }

    /// Every domain, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Domain> {
        self.domains.values()
    }

    /// The domain of that name, if disposables may be made from it.
    pub fn disposable_template(&self, name: &Name) -> Option<&Domain> {
        self.get(name).filter(|domain| domain.makes_disposables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(name: &str) -> Domain {
        Domain::new(name.parse().unwrap(), Kind::App)
    }

    #[test]
    fn a_snapshot_has_each_name_once_and_never_the_hosts() {
        assert!(Snapshot::new([domain("a"), domain("b")]).is_ok());
        assert_eq!(
            Snapshot::new([domain("a"), domain("a")]).unwrap_err(),
            SnapshotError::Twice("a".parse().unwrap())
        );
        assert_eq!(
            Snapshot::new([domain("dom0")]).unwrap_err(),
            SnapshotError::HostName
        );
        let many = (0..=MAX_DOMAINS).map(|i| domain(&format!("d{i}")));
        assert_eq!(Snapshot::new(many).unwrap_err(), SnapshotError::TooMany);
    }
}
