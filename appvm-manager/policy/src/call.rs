//! A call: who asks for which service of whom. The one door through which a guest's words come.

use std::fmt;

use crate::limits::MAX_TARGET;
use crate::name::{Name, WordError};
use crate::service::{Argument, ServiceName, split_service};

/// Whom a guest wants to call; the last column of the table in [`crate::token`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum IntendedTarget {
    /// It leaves the choice to the policy and the user.
    Default,
    /// The host.
    AdminVm,
    /// A new disposable from the caller's default.
    DispVm,
    /// A new disposable from this domain.
    DispVmOf(Name),
    /// This domain.
    Domain(Name),
}

/// Why a guest's call cannot be read. Nothing of it reaches the policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The service or its argument.
    #[error("the call is malformed: {0}")]
    Service(WordError),
    /// The target is a domain's name, but no name is like that.
    #[error("the call's target is malformed: {0}")]
    Target(WordError),
    /// A token that a caller may not use, or that does not exist.
    #[error(
        "the call's target is malformed: `{}` is no target; use a domain's name, @default, \
         @adminvm, @dispvm or @dispvm:NAME", .0.escape_ascii()
    )]
    Token(Vec<u8>),
    /// Longer than any target.
    #[error("the call's target has {0} bytes; at most {MAX_TARGET} are allowed")]
    LongTarget(usize),
}

impl IntendedTarget {
    /// Reads what a guest named as its target. Nothing means `@default`.
    pub fn parse(untrusted_target: &[u8]) -> Result<Self, CallError> {
        if untrusted_target.len() > MAX_TARGET {
            return Err(CallError::LongTarget(untrusted_target.len()));
        }
        match untrusted_target {
            b"" | b"@default" => return Ok(IntendedTarget::Default),
            b"@adminvm" | b"dom0" => return Ok(IntendedTarget::AdminVm),
            b"@dispvm" => return Ok(IntendedTarget::DispVm),
            _ => {}
        }
        if let Some(untrusted_name) = untrusted_target.strip_prefix(b"@dispvm:") {
            return match Name::parse(untrusted_name) {
                Ok(name) => Ok(IntendedTarget::DispVmOf(name)),
                Err(_) if untrusted_name.first() == Some(&b'@') => {
                    Err(CallError::Token(untrusted_target.to_vec()))
                }
                Err(error) => Err(CallError::Target(error)),
            };
        }
        match Name::parse(untrusted_target) {
            Ok(name) => Ok(IntendedTarget::Domain(name)),
            Err(_) if matches!(untrusted_target.first(), Some(b'@' | b'*')) => {
                Err(CallError::Token(untrusted_target.to_vec()))
            }
            Err(error) => Err(CallError::Target(error)),
        }
    }
}

impl fmt::Display for IntendedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IntendedTarget::Default => f.write_str("@default"),
            IntendedTarget::AdminVm => f.write_str("@adminvm"),
            IntendedTarget::DispVm => f.write_str("@dispvm"),
            IntendedTarget::DispVmOf(name) => write!(f, "@dispvm:{name}"),
            IntendedTarget::Domain(name) => name.fmt(f),
        }
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The service.
    pub service: ServiceName,
    /// Its argument.
    pub argument: Argument,
    /// Who calls. The manager knows this by the connection; a guest never says it.
    pub source: Name,
    /// Whom it wants.
    pub target: IntendedTarget,
}

impl Call {
    /// A call by `source`, whose identity is its connection, of `SERVICE[+ARGUMENT]` in a target:
    /// both in the guest's words.
    pub fn parse(
        source: Name,
        untrusted_service: &[u8],
        untrusted_target: &[u8],
    ) -> Result<Self, CallError> {
        let (service, argument) = split_service(untrusted_service).map_err(CallError::Service)?;
        let target = IntendedTarget::parse(untrusted_target)?;
        Ok(Call {
            service,
            argument,
            source,
            target,
        })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Call {
            service,
            argument,
            source,
            target,
        } = self;
        write!(f, "{service}{argument} from {source} to {target}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_may_name_one_place_or_none() {
        for (untrusted, shown) in [
            ("", "@default"),
            ("@default", "@default"),
            ("dom0", "@adminvm"),
            ("@adminvm", "@adminvm"),
            ("@dispvm", "@dispvm"),
            ("@dispvm:work", "@dispvm:work"),
            ("work", "work"),
        ] {
            let target = IntendedTarget::parse(untrusted.as_bytes()).unwrap();
            assert_eq!(target.to_string(), shown);
        }
        for untrusted in [
            "*",
            "@anyvm",
            "@tag:a",
            "@type:AppVM",
            "@dispvm:@tag:a",
            "@dispvm:",
            "@dispvm:@dispvm",
            "@invalid",
            "$dispvm",
            "work ",
            "work\n",
            "work\0",
            "../work",
            "uuid:00000000-0000-0000-0000-000000000000",
        ] {
            assert!(
                IntendedTarget::parse(untrusted.as_bytes()).is_err(),
                "{untrusted:?}"
            );
        }
        assert!(IntendedTarget::parse(b"\xff\xfe").is_err());
        assert_eq!(
            IntendedTarget::parse(&[b'a'; 4096]),
            Err(CallError::LongTarget(4096))
        );
    }

    #[test]
    fn a_call_reads_as_a_log_line() {
        let call = Call::parse("work".parse().unwrap(), b"qubes.StartApp+foot", b"@dispvm");
        assert_eq!(
            call.unwrap().to_string(),
            "qubes.StartApp+foot from work to @dispvm"
        );
    }
}
