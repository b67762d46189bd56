//! What an evaluation says.

use std::fmt;

use crate::name::Name;
use crate::rule::{Place, UserName};

/// Where a call goes in the end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// A domain that exists.
    Domain(Name),
    /// A disposable that is made for this call.
    NewDisposable {
        /// From which domain.
        template: Name,
    },
    /// The host.
    Host,
}

/// As in a policy: `work`, `@dispvm:work`, `dom0`.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Domain(name) => name.fmt(f),
            Destination::NewDisposable { template } => write!(f, "@dispvm:{template}"),
            Destination::Host => f.write_str("dom0"),
        }
    }
}

/// The call goes through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    /// To here, whatever the caller wanted.
    pub target: Destination,
    /// The service runs as this user; `None`: as its usual one.
    pub user: Option<UserName>,
    /// Tell the user.
    pub notify: bool,
    /// The target may be started for it. If not, it was running at the time of the snapshot, and
    /// the call must fail if it no longer is.
    pub autostart: bool,
    /// The rule that decided.
    pub rule: Place,
}

/// The user decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What the user may choose: at least one, domains by name first.
    pub targets: Vec<Destination>,
    /// What is chosen when the question opens: one of `targets`. What the caller wanted is never
    /// suggested (Qubes, `doc/qrexec-policy.rst`, "Evaluating ask action").
    pub default_target: Option<Destination>,
    /// The service runs as this user; `None`: as its usual one.
    pub user: Option<UserName>,
    /// Tell the user when it is done.
    pub notify: bool,
    /// The target may be started for it.
    pub autostart: bool,
    /// The rule that decided.
    pub rule: Place,
}

impl Ask {
    /// The user has chosen. Nothing but what was offered is taken (`parser.py`,
    /// `handle_user_response`).
    pub fn choose(&self, target: &Destination) -> Result<Allow, Deny> {
        if self.targets.contains(target) {
            Ok(Allow {
                target: target.clone(),
                user: self.user.clone(),
                notify: self.notify,
                autostart: self.autostart,
                rule: self.rule.clone(),
            })
        } else {
            Err(Deny {
                reason: Reason::NotOffered(target.clone()),
                notify: true,
                rule: Some(self.rule.clone()),
            })
        }
    }

    /// The user has said no.
    pub fn refuse(&self) -> Deny {
        Deny {
            reason: Reason::RefusedByUser,
            notify: self.notify,
            rule: Some(self.rule.clone()),
        }
    }
}

/// The call is refused. The caller learns nothing but that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deny {
    /// Why, for the log and the user.
    pub reason: Reason,
    /// Tell the user.
    pub notify: bool,
    /// The rule that decided; `None` if no rule matched, or none was asked.
    pub rule: Option<Place>,
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A rule says so.
    #[error("denied by policy")]
    Policy,
    /// No rule speaks of such a call.
    #[error("no rule allows it")]
    NoRule,
    /// The caller is not in the snapshot.
    #[error("the caller `{0}` does not exist")]
    UnknownSource(Name),
    /// `allow`, but to whom?
    #[error("the rule allows it, but neither the call nor the rule names a target that exists")]
    NoTarget,
    /// The rule redirects to nowhere.
    #[error("the rule redirects to `{0}`, which does not exist")]
    RedirectToNowhere(Name),
    /// The target would be the caller.
    #[error("a domain cannot call itself")]
    Loopback,
    /// `@dispvm`, but the caller has no default.
    #[error("the caller has no default for new disposables")]
    NoDefaultDisposable,
    /// `@dispvm:NAME` of a domain that may not be used so.
    #[error("no disposables may be made from `{0}`")]
    NotATemplate(Name),
    /// `autostart=no`
    #[error("`{0}` would have to be started, and the rule forbids that")]
    WouldStart(Destination),
    /// `ask`, but no target is left.
    #[error("the rule asks, but there is no target to choose from")]
    NothingToChoose,
    /// The user said no.
    #[error("refused by the user")]
    RefusedByUser,
    /// An answer that was never offered.
    #[error("`{0}` was not among the targets to choose from")]
    NotOffered(Destination),
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes through.
    Allow(Allow),
    /// The user decides.
    Ask(Ask),
    /// It is refused.
    Deny(Deny),
}

impl Verdict {
    /// The rule that decided, for the log.
    pub fn rule(&self) -> Option<&Place> {
        match self {
            Verdict::Allow(allow) => Some(&allow.rule),
            Verdict::Ask(ask) => Some(&ask.rule),
            Verdict::Deny(deny) => deny.rule.as_ref(),
        }
    }
}

/// One line for the log: `allow work (30-user.policy:3)`.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Allow(allow) => write!(f, "allow {}", allow.target)?,
            Verdict::Ask(ask) => {
                f.write_str("ask")?;
                for target in &ask.targets {
                    write!(f, " {target}")?;
                }
            }
            Verdict::Deny(deny) => write!(f, "deny: {}", deny.reason)?,
        }
        match self.rule() {
            Some(rule) => write!(f, " ({rule})"),
            None => Ok(()),
        }
    }
}
