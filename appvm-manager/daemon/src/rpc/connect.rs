//! `bulkhead connect`: the user has a port of one domain lead to one of another, as long as that command
//! runs. The listening program is the caller's domain's own; this only says yes to what it will call for.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use bulkhead_policy::{Call, Destination, Reason, Verdict};
use bulkhead_protocol::{CONNECT_SERVICE, DomainName, ExecRequest, TcpPort};

use super::grants::rule_for;
use crate::manager::Manager;
use crate::session::{Outcome, Stdio};
use crate::{Error, Result, rules};

/// The program of every guest that listens.
const LISTENER: &str = "/run/bulkhead/bin/bulkhead-connect";

/// What is to be connected.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Where programs may connect.
    pub(crate) source: DomainName,
    /// Where something listens.
    pub(crate) target: DomainName,
    /// On this port.
    pub(crate) port: TcpPort,
    /// The source's port; nothing: as its program chooses. 0: a free one.
    pub(crate) listen: Option<u16>,
}

impl Wanted {
    fn command(&self) -> Vec<String> {
        let mut command = vec![
            LISTENER.to_owned(),
            format!("{}:{}", self.target, self.port),
        ];
        if let Some(listen) = self.listen {
            command.extend(["--listen".to_owned(), listen.to_string()]);
        }
        command
    }
}

impl Manager {
    /// Listens until the program in the source ends, which it does when `key`'s caller goes. What it writes
    /// goes to `stdout` and `stderr`, in the guest's words.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        wanted: &Wanted,
        (stdout, stderr): (std::os::fd::OwnedFd, std::os::fd::OwnedFd),
        key: (String, String),
    ) -> Result<Outcome> {
        let Wanted {
            source,
            target,
            port,
            ..
        } = wanted;
        for name in [source, target] {
            self.domain(name)?;
        }
        if source == target {
            return Err(Error::Setting(format!(
                "`{source}` is both ends; a domain reaches its own ports without help"
            )));
        }
        let (from, to) = match (rules::policy_name(source), rules::policy_name(target)) {
            (Some(from), Some(to)) => (from, to),
            _ => return Err(Error::Setting("no policy knows such a name".to_owned())),
        };
        let call = Call::parse(
            from.clone(),
            format!("{CONNECT_SERVICE}+{port}").as_bytes(),
            target.as_str().as_bytes(),
        )
        .map_err(|error| Error::Setting(error.to_string()))?;
        let granted = self.calls.grants.open(from, to.clone(), *port);
        let Some(_granted) = granted else {
            return Err(Error::Setting(
                "too many `bulkhead connect` run; end some".to_owned(),
            ));
        };
        // Each connection is decided about when it is made; but what is denied now should be told now.
        let verdict = {
            let (manager, call) = (self.clone(), call.clone());
            tokio::task::spawn_blocking(move || rules::evaluate(&manager, &call)).await
        };
        let verdict = match verdict {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => return Err(Error::Denied(error.to_string())),
            Err(error) => return Err(Error::Denied(error.to_string())),
        };
        permitted(&verdict, &Destination::Domain(to), wanted)?;
        let null = Path::new("/dev/null");
        let stdio = Stdio {
            stdin: File::open(null).map_err(Error::io("open", null))?.into(),
            stdout,
            stderr,
        };
        let request = ExecRequest {
            argv: wanted.command(),
            ..ExecRequest::default()
        };
        self.exec(source, request, stdio, key, true).await
    }
}

fn permitted(verdict: &Verdict, to: &Destination, wanted: &Wanted) -> Result<()> {
    let deny = match verdict {
        Verdict::Allow(allow) if allow.target == *to => return Ok(()),
        Verdict::Allow(allow) => {
            return Err(Error::Denied(format!(
                "the rule {} sends it to `{}` instead",
                allow.rule, allow.target
            )));
        }
        Verdict::Ask(ask) => match ask.choose(to) {
            Ok(_) => return Ok(()),
            Err(deny) => deny,
        },
        Verdict::Deny(deny) => deny.clone(),
    };
    let place = deny.rule.map(|rule| rule.to_string());
    let at = place.clone().map(|place| format!(" ({place})"));
    let at = at.unwrap_or_default();
    let remedy = match (&deny.reason, place) {
        (Reason::Policy, Some(place)) => format!(
            "; put this line before {place}: {}",
            rule_for(wanted.source.as_str(), wanted.target.as_str(), wanted.port)
        ),
        _ => String::new(),
    };
    Err(Error::Denied(format!("{}{at}{remedy}", deny.reason)))
}

#[cfg(test)]
mod tests {
    use bulkhead_policy::{Domain, Folder, Kind, Policy, Snapshot};

    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            source: "work".parse().unwrap(),
            target: "personal".parse().unwrap(),
            port: "8080".parse().unwrap(),
            listen: Some(0),
        }
    }

    fn asked(rules: &str) -> std::result::Result<(), String> {
        let policy = Policy::load(&[Folder::in_memory([("30-user.policy", rules)])]).unwrap();
        let domains =
            ["work", "personal", "vault"].map(|name| Domain::new(name.parse().unwrap(), Kind::App));
        let call = Call::parse(
            "work".parse().unwrap(),
            b"bulkhead.ConnectTcp+8080",
            b"personal",
        );
        let verdict = policy.evaluate(&call.unwrap(), &Snapshot::new(domains).unwrap());
        let to = Destination::Domain("personal".parse().unwrap());
        permitted(&verdict, &to, &wanted()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_policy_says_against_it_is_told_with_a_remedy() {
        let service = "bulkhead.ConnectTcp *";
        assert_eq!(asked(&format!("{service} work personal allow")), Ok(()));
        assert_eq!(asked(&format!("{service} work @anyvm ask")), Ok(()));
        assert_eq!(
            asked("* * work * deny").unwrap_err(),
            "the policy refuses it: denied by policy (30-user.policy:1); put this line before \
             30-user.policy:1: bulkhead.ConnectTcp +8080 work personal allow"
        );
        let elsewhere = asked(&format!("{service} work personal allow target=vault"));
        assert!(elsewhere.unwrap_err().contains("sends it to `vault`"));
        let halted = asked(&format!("{service} work personal allow autostart=no"));
        assert!(halted.unwrap_err().contains("would have to be started"));
    }

    #[test]
    fn the_guests_program_gets_its_own_words() {
        assert_eq!(
            wanted().command(),
            [LISTENER, "personal:8080", "--listen", "0"]
        );
        let usual = Wanted {
            listen: None,
            ..wanted()
        };
        assert_eq!(usual.command(), [LISTENER, "personal:8080"]);
    }
}
