//! A whole policy, and what it says of a call.

use std::collections::BTreeSet;

use crate::call::{Call, IntendedTarget};
use crate::domain::{Domain, Snapshot};
use crate::error::{LoadError, Warning};
use crate::folder::Folder;
use crate::include::Loader;
use crate::matching::Query;
use crate::name::Name;
use crate::rule::{Action, Rule};
use crate::targets;
use crate::token::Redirect;
use crate::verdict::{Allow, Ask, Deny, Destination, Reason, Verdict};

/// Rules in the order in which they are asked. Without rules everything is denied, so the default
/// is what to use while the files cannot be read.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    warnings: Vec<Warning>,
}

impl Policy {
    /// Reads all `*.policy` files of the folders in the order of their names, wherever they lie; a
    /// file hides those of the same name in later folders. One wrong line makes the whole an error.
    pub fn load(folders: &[Folder]) -> Result<Self, LoadError> {
        let mut loader = Loader::default();
        loader.folders(folders)?;
        Ok(Policy::of(loader))
    }

    /// Reads one text; includes find no file but itself.
    pub fn parse(file: &str, text: &str) -> Result<Self, LoadError> {
        let folder = Folder::in_memory([(file, text)]);
        let mut loader = Loader::default();
        loader.named_file(&folder, file)?;
        Ok(Policy::of(loader))
    }

    fn of(loader: Loader) -> Self {
        Policy {
            rules: loader.rules,
            warnings: loader.warnings,
        }
    }

    /// Every rule, in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What is allowed in the files, but does nothing.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// What becomes of a call while the domains are as in the snapshot. Asks no one and changes
    /// nothing; a verdict is good for this call and this moment.
    pub fn evaluate(&self, call: &Call, snapshot: &Snapshot) -> Verdict {
        let refused = |reason| Deny {
            reason,
            notify: true,
            rule: None,
        };
        let Some(source) = snapshot.get(&call.source) else {
            return Verdict::Deny(refused(Reason::UnknownSource(call.source.clone())));
        };
        let target = match verify(&call.target, snapshot) {
            Ok(target) => target,
            Err(reason) => return Verdict::Deny(refused(reason)),
        };
        let query = Query {
            service: &call.service,
            argument: &call.argument,
            source,
            snapshot,
        };
        let first = self.rules.iter().find(|rule| {
            query.matches_but_target(rule) && query.matches_target(&rule.target, &target)
        });
        match first {
            Some(rule) => self
                .apply(rule, &query, &target)
                .unwrap_or_else(Verdict::Deny),
            None => Verdict::Deny(refused(Reason::NoRule)),
        }
    }

    fn apply(
        &self,
        rule: &Rule,
        query: &Query<'_>,
        intended: &IntendedTarget,
    ) -> Result<Verdict, Deny> {
        let denied = |reason, notify| Deny {
            reason,
            notify,
            rule: Some(rule.place.clone()),
        };
        match &rule.action {
            Action::Deny { notify } => Err(denied(Reason::Policy, *notify)),
            Action::Allow {
                target,
                user,
                notify,
                autostart,
            } => {
                let target = match target {
                    Some(redirect) => follow(redirect, query),
                    None => go(intended, query),
                }
                .map_err(|reason| denied(reason, true))?;
                if !autostart && would_start(&target, query.snapshot) {
                    return Err(denied(Reason::WouldStart(target), *notify));
                }
                Ok(Verdict::Allow(Allow {
                    target,
                    user: user.clone(),
                    notify: *notify,
                    autostart: *autostart,
                    rule: rule.place.clone(),
                }))
            }
            Action::Ask {
                target,
                default_target,
                user,
                notify,
                autostart,
            } => {
                let mut targets = match target {
                    Some(redirect) => {
                        let only = follow(redirect, query).map_err(|r| denied(r, true))?;
                        BTreeSet::from([only])
                    }
                    None => targets::for_ask(query, &self.rules),
                };
                if !autostart {
                    targets.retain(|target| !would_start(target, query.snapshot));
                }
                if targets.is_empty() {
                    return Err(denied(Reason::NothingToChoose, true));
                }
                let default_target = default_target
                    .as_ref()
                    .and_then(|redirect| follow(redirect, query).ok())
                    .filter(|target| targets.contains(target));
                Ok(Verdict::Ask(Ask {
                    targets: targets.into_iter().collect(),
                    default_target,
                    user: user.clone(),
                    notify: *notify,
                    autostart: *autostart,
                    rule: rule.place.clone(),
                }))
            }
        }
    }
}

/// What the caller wanted, looked up (`parser.py`, the `verify` methods): a domain that does not
/// exist becomes `@default`, so that a caller does not learn which domains exist.
fn verify(intended: &IntendedTarget, snapshot: &Snapshot) -> Result<IntendedTarget, Reason> {
    match intended {
        IntendedTarget::Domain(name) if snapshot.get(name).is_none() => Ok(IntendedTarget::Default),
        IntendedTarget::DispVmOf(name) => {
            disposable(name, snapshot)?;
            Ok(intended.clone())
        }
        _ => Ok(intended.clone()),
    }
}

/// Where an `allow` without `target=` leads.
fn go(intended: &IntendedTarget, query: &Query<'_>) -> Result<Destination, Reason> {
    match intended {
        IntendedTarget::Default => Err(Reason::NoTarget),
        IntendedTarget::AdminVm => Ok(Destination::Host),
        IntendedTarget::DispVm => default_disposable(query),
        IntendedTarget::DispVmOf(name) => disposable(name, query.snapshot),
        IntendedTarget::Domain(name) => domain(name, query.source),
    }
}

/// Where `target=` leads.
fn follow(redirect: &Redirect, query: &Query<'_>) -> Result<Destination, Reason> {
    match redirect {
        Redirect::AdminVm => Ok(Destination::Host),
        Redirect::DispVm => default_disposable(query),
        Redirect::DispVmOf(name) => disposable(name, query.snapshot),
        Redirect::Domain(name) if query.snapshot.get(name).is_none() => {
            Err(Reason::RedirectToNowhere(name.clone()))
        }
        Redirect::Domain(name) => domain(name, query.source),
    }
}

fn domain(name: &Name, source: &Domain) -> Result<Destination, Reason> {
    if *name == source.name {
        return Err(Reason::Loopback);
    }
    Ok(Destination::Domain(name.clone()))
}

fn default_disposable(query: &Query<'_>) -> Result<Destination, Reason> {
    match &query.source.default_disposable {
        Some(name) => disposable(name, query.snapshot),
        None => Err(Reason::NoDefaultDisposable),
    }
}

fn disposable(name: &Name, snapshot: &Snapshot) -> Result<Destination, Reason> {
    match snapshot.disposable_template(name) {
        Some(_) => Ok(Destination::NewDisposable {
            template: name.clone(),
        }),
        None => Err(Reason::NotATemplate(name.clone())),
    }
}

/// Whether something would have to be started (`parser.py`, `allow_no_autostart`).
fn would_start(target: &Destination, snapshot: &Snapshot) -> bool {
    match target {
        Destination::Host => false,
        Destination::NewDisposable { .. } => true,
        Destination::Domain(name) => snapshot.get(name).is_none_or(|domain| !domain.running),
    }
}
