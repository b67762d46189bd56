//! What a question offers: every target that some rule would allow or ask for (`parser.py`,
//! `collect_targets_for_ask`).
//!
//! For each possible target the first rule that speaks of it decides, as for a call. A rule with
//! `target=` speaks of that place instead of its fourth column. One thing is stricter than in
//! Qubes: a rule that denies `@dispvm:NAME` also takes away `@dispvm` where NAME is what `@dispvm`
//! means for the caller, since a call to `@dispvm` would be denied by it.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{Domain, TypeName};
use crate::matching::Query;
use crate::name::Name;
use crate::rule::{Action, Rule};
use crate::token::{Redirect, Token};
use crate::verdict::Destination;

/// A possible target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Candidate<'a> {
    Domain(&'a Name),
    DispVmOf(&'a Name),
    DispVm,
    Host,
}

/// All targets that the user may choose from.
pub(crate) fn for_ask(query: &Query<'_>, rules: &[Rule]) -> BTreeSet<Destination> {
    let mut decided: BTreeMap<Candidate<'_>, bool> = BTreeMap::new();
    let own_default = query.source.default_disposable.as_ref();
    for rule in rules.iter().filter(|rule| query.matches_but_target(rule)) {
        let denied = matches!(rule.action, Action::Deny { .. });
        let candidates = match rule.action.redirect() {
            Some(redirect) => expand_redirect(query, redirect),
            None => expand(query, &rule.target),
        };
        for candidate in candidates {
            decided.entry(candidate).or_insert(!denied);
            if let Candidate::DispVmOf(name) = candidate
                && denied
                && own_default == Some(name)
            {
                decided.entry(Candidate::DispVm).or_insert(false);
            }
        }
        if rule.target == Token::Wildcard && rule.action.redirect().is_none() {
            break; // Nothing is left undecided.
        }
    }
    decided
        .into_iter()
        .filter(|&(_, offered)| offered)
        .filter_map(|(candidate, _)| destination(query, candidate))
        .collect()
}

/// The candidate as a destination, unless it is the caller, hidden, or impossible.
fn destination(query: &Query<'_>, candidate: Candidate<'_>) -> Option<Destination> {
    let shown = |name: &Name| query.snapshot.get(name).is_some_and(|d| !d.internal);
    let disposable = |name: &Name| {
        let template = query.snapshot.disposable_template(name)?;
        (!template.internal).then(|| Destination::NewDisposable {
            template: name.clone(),
        })
    };
    match candidate {
        Candidate::Domain(name) => {
            (shown(name) && *name != query.source.name).then(|| Destination::Domain(name.clone()))
        }
        Candidate::DispVmOf(name) => disposable(name),
        Candidate::DispVm => disposable(query.source.default_disposable.as_ref()?),
        Candidate::Host => Some(Destination::Host),
    }
}

/// The targets that a fourth column means (the `expand` methods in `parser.py`).
fn expand<'a>(query: &Query<'a>, token: &'a Token) -> Vec<Candidate<'a>> {
    let every = |wanted: &dyn Fn(&Domain) -> bool| -> Vec<Candidate<'a>> {
        let domains = query.snapshot.iter().filter(|domain| wanted(domain));
        domains.map(|d| Candidate::Domain(&d.name)).collect()
    };
    let templates = |wanted: &dyn Fn(&Domain) -> bool| -> Vec<Candidate<'a>> {
        let domains = query.snapshot.iter();
        domains
            .filter(|domain| domain.makes_disposables && wanted(domain))
            .map(|d| Candidate::DispVmOf(&d.name))
            .collect()
    };
    match token {
        Token::Wildcard | Token::AnyVm => {
            let mut all = every(&|_| true);
            all.extend(templates(&|_| true));
            all.push(Candidate::DispVm);
            if *token == Token::Wildcard {
                all.push(Candidate::Host);
            }
            all
        }
        Token::AdminVm | Token::Type(TypeName::Admin) => vec![Candidate::Host],
        Token::Default => Vec::new(),
        Token::DispVm => vec![Candidate::DispVm],
        Token::DispVmOf(name) => disposable_of(query, name),
        Token::DispVmTag(tag) => templates(&|domain| domain.tags.contains(tag)),
        Token::Tag(tag) => every(&|domain| domain.tags.contains(tag)),
        Token::Type(name) => every(&|domain| domain.kind.type_name() == *name),
        Token::Name(name) => existing(query, name),
    }
}

fn expand_redirect<'a>(query: &Query<'a>, redirect: &'a Redirect) -> Vec<Candidate<'a>> {
    match redirect {
        Redirect::AdminVm => vec![Candidate::Host],
        Redirect::DispVm => vec![Candidate::DispVm],
        Redirect::DispVmOf(name) => disposable_of(query, name),
        Redirect::Domain(name) => existing(query, name),
    }
}

fn existing<'a>(query: &Query<'a>, name: &'a Name) -> Vec<Candidate<'a>> {
    let exists = query.snapshot.get(name).is_some();
    exists
        .then_some(Candidate::Domain(name))
        .into_iter()
        .collect()
}

fn disposable_of<'a>(query: &Query<'a>, name: &'a Name) -> Vec<Candidate<'a>> {
    let usable = query.snapshot.disposable_template(name).is_some();
    usable
        .then_some(Candidate::DispVmOf(name))
        .into_iter()
        .collect()
}
