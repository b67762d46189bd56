//! One rule: a line of a policy file, checked.

use std::fmt;
use std::sync::Arc;

use crate::error::Problem;
use crate::limits::MAX_USER;
use crate::service::{Argument, ServiceName};
use crate::token::{Position, Redirect, Token, shown};

/// Where a line stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file, as found from its policy folder: `30-user.policy`, `include/admin`.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The user as whom a service runs in the target, if the rule says so.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserName(String);

impl UserName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(word: &str) -> Result<Self, Problem> {
        let fine = (1..=MAX_USER).contains(&word.len())
            && word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && word
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if fine {
            Ok(UserName(word.to_owned()))
        } else {
            Err(Problem::User(shown(word)))
        }
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a rule does, with its parameters (the arguments of `Allow`, `Ask` and `Deny` in
/// `parser.py`, with their defaults).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Let the call through.
    Allow {
        /// To here instead of where the caller wanted.
        target: Option<Redirect>,
        /// As this user.
        user: Option<UserName>,
        /// Whether to tell the user (default: no).
        notify: bool,
        /// Whether the target may be started for it (default: yes).
        autostart: bool,
    },
    /// Ask the user.
    Ask {
        /// Offer this target and no other.
        target: Option<Redirect>,
        /// The target that is chosen when the question opens.
        default_target: Option<Redirect>,
        /// As this user.
        user: Option<UserName>,
        /// Whether to tell the user afterwards (default: no).
        notify: bool,
        /// Whether the target may be started for it (default: yes).
        autostart: bool,
    },
    /// Refuse the call.
    Deny {
        /// Whether to tell the user (default: yes).
        notify: bool,
    },
}

impl Action {
    /// As written in a policy.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Allow { .. } => "allow",
            Action::Ask { .. } => "ask",
            Action::Deny { .. } => "deny",
        }
    }

    /// `target=`, if the action has it.
    pub fn redirect(&self) -> Option<&Redirect> {
        match self {
            Action::Allow { target, .. } | Action::Ask { target, .. } => target.as_ref(),
            Action::Deny { .. } => None,
        }
    }

    fn parse(word: &str, parameters: &[&str]) -> Result<Self, Problem> {
        let action = match word {
            "allow" | "ask" | "deny" => word,
            _ => return Err(Problem::Action(shown(word))),
        };
        let mut read = Parameters::read(action, parameters)?;
        Ok(match action {
            "allow" => Action::Allow {
                target: read.target.take(),
                user: read.user.take(),
                notify: read.notify.unwrap_or(false),
                autostart: read.autostart.unwrap_or(true),
            },
            "ask" => Action::Ask {
                target: read.target.take(),
                default_target: read.default_target.take(),
                user: read.user.take(),
                notify: read.notify.unwrap_or(false),
                autostart: read.autostart.unwrap_or(true),
            },
            _ => Action::Deny {
                notify: read.notify.unwrap_or(true),
            },
        })
    }
}

/// The parameters that were given.
#[derive(Default)]
struct Parameters {
    target: Option<Redirect>,
    default_target: Option<Redirect>,
    user: Option<UserName>,
    notify: Option<bool>,
    autostart: Option<bool>,
}

impl Parameters {
    fn read(action: &str, parameters: &[&str]) -> Result<Self, Problem> {
        let mut read = Parameters::default();
        for parameter in parameters {
            let Some((key, value)) = parameter.split_once('=') else {
                return Err(if parameter.starts_with('#') {
                    Problem::CommentAtEnd
                } else {
                    Problem::Parameter(shown(parameter))
                });
            };
            let valid: &[&str] = match action {
                "allow" => &["target", "user", "notify", "autostart"],
                "ask" => &["target", "default_target", "user", "notify", "autostart"],
                _ => &["notify"],
            };
            if !valid.contains(&key) {
                return Err(Problem::ParameterOf {
                    key: shown(key),
                    action: action.to_owned(),
                    valid: valid.join(", "),
                });
            }
            let twice = match key {
                "target" => read.target.replace(Redirect::parse(value)?).is_some(),
                "default_target" => read
                    .default_target
                    .replace(Redirect::parse(value)?)
                    .is_some(),
                "user" => read.user.replace(UserName::parse(value)?).is_some(),
                "notify" => read.notify.replace(yes_or_no(key, value)?).is_some(),
                _ => read.autostart.replace(yes_or_no(key, value)?).is_some(),
            };
            if twice {
                return Err(Problem::ParameterTwice(shown(key)));
            }
        }
        Ok(read)
    }
}

fn yes_or_no(key: &str, value: &str) -> Result<bool, Problem> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(Problem::YesOrNo {
            key: key.to_owned(),
            value: shown(value),
        }),
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The service; `None` is `*`.
    pub service: Option<ServiceName>,
    /// The argument; `None` is `*`.
    pub argument: Option<Argument>,
    /// Who calls.
    pub source: Token,
    /// Whom.
    pub target: Token,
    /// What happens.
    pub action: Action,
    /// Where the rule stands.
    pub place: Place,
}

/// The first two columns: a service and an argument, each perhaps `*`.
pub(crate) type Services = (Option<ServiceName>, Option<Argument>);

/// Reads the first two columns (`parser.py`, `validate_service_and_argument`).
pub(crate) fn parse_services(service: &str, argument: &str) -> Result<Services, Problem> {
    let service = match service {
        "*" => None,
        _ => Some(
            service
                .parse::<ServiceName>()
                .map_err(|error| Problem::Service {
                    word: shown(service),
                    error,
                })?,
        ),
    };
    let argument = match argument {
        "*" => None,
        _ => {
            let Some(text) = argument.strip_prefix('+') else {
                return Err(Problem::ArgumentWithoutPlus(shown(argument)));
            };
            let parsed = Argument::parse(text.as_bytes()).map_err(|error| Problem::Service {
                word: shown(argument),
                error,
            })?;
            if service.is_none() {
                return Err(Problem::ArgumentOfAny(shown(argument)));
            }
            Some(parsed)
        }
    };
    Ok((service, argument))
}

impl Rule {
    /// The rule of these words: source, target, action, parameters.
    pub(crate) fn parse(
        (service, argument): Services,
        words: &[&str],
        place: Place,
    ) -> Result<Self, Problem> {
        let &[source, target, action, ref parameters @ ..] = words else {
            return Err(Problem::Columns);
        };
        let source = Token::parse(source, Position::Source)?;
        let target = Token::parse(target, Position::Target)?;
        let action = Action::parse(action, parameters)?;
        if target == Token::Default && matches!(action, Action::Allow { target: None, .. }) {
            return Err(Problem::DefaultWithoutTarget);
        }
        Ok(Rule {
            service,
            argument,
            source,
            target,
            action,
            place,
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            Some(service) => service.fmt(f)?,
            None => f.write_str("*")?,
        }
        match &self.argument {
            Some(argument) => write!(f, " {argument}")?,
            None => f.write_str(" *")?,
        }
        let Rule {
            source,
            target,
            action,
            ..
        } = self;
        write!(f, " {source} {target} {}", action.name())?;
        let (user, notify, autostart) = match action {
            Action::Allow {
                user,
                notify,
                autostart,
                ..
            }
            | Action::Ask {
                user,
                notify,
                autostart,
                ..
            } => (user.as_ref(), *notify, *autostart),
            Action::Deny { notify } => (None, !*notify, true),
        };
        if let Some(target) = action.redirect() {
            write!(f, " target={target}")?;
        }
        if let Action::Ask {
            default_target: Some(target),
            ..
        } = action
        {
            write!(f, " default_target={target}")?;
        }
        if let Some(user) = user {
            write!(f, " user={user}")?;
        }
        match (action, notify) {
            (_, false) => {}
            (Action::Deny { .. }, true) => f.write_str(" notify=no")?,
            (_, true) => f.write_str(" notify=yes")?,
        }
        if !autostart {
            f.write_str(" autostart=no")?;
        }
        Ok(())
    }
}
