//! Which rule speaks of a call (the `match` methods of the token classes in `parser.py`).

use crate::call::IntendedTarget;
use crate::domain::{Domain, Snapshot, TypeName};
use crate::name::Name;
use crate::rule::Rule;
use crate::service::{Argument, ServiceName};
use crate::token::Token;

/// A call whose caller and target have been looked up.
pub(crate) struct Query<'a> {
    pub(crate) service: &'a ServiceName,
    pub(crate) argument: &'a Argument,
    pub(crate) source: &'a Domain,
    pub(crate) snapshot: &'a Snapshot,
}

impl Query<'_> {
    /// Whether the rule speaks of this service, argument and caller, whatever the target.
    pub(crate) fn matches_but_target(&self, rule: &Rule) -> bool {
        rule.service.as_ref().is_none_or(|s| s == self.service)
            && rule.argument.as_ref().is_none_or(|a| a == self.argument)
            && self.matches_source(&rule.source)
    }

    /// Callers are domains that exist. The host is never among them, so `@adminvm` matches none;
    /// `@dispvm:…` means a disposable that is yet to be made, so it matches none either.
    fn matches_source(&self, token: &Token) -> bool {
        let source = self.source;
        match token {
            Token::Wildcard | Token::AnyVm => true,
            Token::Name(name) => *name == source.name,
            Token::Tag(tag) => source.tags.contains(tag),
            Token::Type(name) => *name == source.kind.type_name(),
            Token::AdminVm
            | Token::Default
            | Token::DispVm
            | Token::DispVmOf(_)
            | Token::DispVmTag(_) => false,
        }
    }

    /// Whether the fourth column speaks of the target.
    pub(crate) fn matches_target(&self, token: &Token, target: &IntendedTarget) -> bool {
        match token {
            Token::Wildcard => true,
            Token::AnyVm => *target != IntendedTarget::AdminVm,
            Token::AdminVm => *target == IntendedTarget::AdminVm,
            Token::Default => *target == IntendedTarget::Default,
            Token::DispVm => *target == IntendedTarget::DispVm,
            Token::DispVmOf(name) => self.template_of(target) == Some(name),
            Token::DispVmTag(tag) => self
                .template_of(target)
                .and_then(|name| self.snapshot.disposable_template(name))
                .is_some_and(|domain| domain.tags.contains(tag)),
            Token::Name(name) => *target == IntendedTarget::Domain(name.clone()),
            Token::Tag(tag) => self
                .domain_of(target)
                .is_some_and(|domain| domain.tags.contains(tag)),
            Token::Type(TypeName::Admin) => *target == IntendedTarget::AdminVm,
            Token::Type(name) => self
                .domain_of(target)
                .is_some_and(|domain| domain.kind.type_name() == *name),
        }
    }

    /// From what a new disposable would be made: `@dispvm` is the caller's default.
    fn template_of<'t>(&'t self, target: &'t IntendedTarget) -> Option<&'t Name> {
        match target {
            IntendedTarget::DispVm => self.source.default_disposable.as_ref(),
            IntendedTarget::DispVmOf(name) => Some(name),
            _ => None,
        }
    }

    fn domain_of(&self, target: &IntendedTarget) -> Option<&Domain> {
        match target {
            IntendedTarget::Domain(name) => self.snapshot.get(name),
            _ => None,
        }
    }
}
