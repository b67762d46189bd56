//! Connections that the user has asked for at the host (`bulkhead connect`): for as long as that command
//! runs, one domain may reach one port of another.
//!
//! They are rules of the policy, read after all others in a file of their own name: a rule of the user's
//! that speaks of such a call decides before them, and what they allow is logged under their name. Where
//! such a rule asks, the command was the answer. What was connected because of one ends with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_policy::{Call, Folder, IntendedTarget, Name};
use bulkhead_protocol::{CONNECT_SERVICE, TcpPort};
use tokio::sync::watch;

/// The file that these rules seem to be in: after `90-default.policy`.
pub(crate) const FILE: &str = "95-connect.policy";
/// Commands at a time. Each is a line of the policy, which has a limit.
const MAX_GRANTS: usize = 256;

#[derive(Debug)]
struct Grant {
    id: u64,
    source: Name,
    target: Name,
    port: TcpPort,
    /// Nothing is ever sent: its end is what is waited for.
    alive: watch::Sender<()>,
}

impl Grant {
    fn covers(&self, call: &Call) -> bool {
        call.service.as_str() == CONNECT_SERVICE
            && call.argument.as_str().parse() == Ok(self.port)
            && call.source == self.source
            && matches!(&call.target, IntendedTarget::Domain(to) if *to == self.target)
    }
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grants(Arc<Mutex<(u64, Vec<Grant>)>>);

/// One that counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Granted {
    id: u64,
    grants: Grants,
}

impl Grants {
    fn table(&self) -> MutexGuard<'_, (u64, Vec<Grant>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on; `None` where there are too many.
    pub(crate) fn open(&self, source: Name, target: Name, port: TcpPort) -> Option<Granted> {
        let mut table = self.table();
        let (last, open) = &mut *table;
        if open.len() >= MAX_GRANTS {
            return None;
        }
        *last += 1;
        let id = *last;
        open.push(Grant {
            id,
            source,
            target,
            port,
            alive: watch::Sender::new(()),
        });
        drop(table);
        let grants = self.clone();
        Some(Granted { id, grants })
    }

    /// As a part of the policy.
    pub(crate) fn folder(&self) -> Option<Folder> {
        let table = self.table();
        if table.1.is_empty() {
            return None;
        }
        let text: String = table.1.iter().map(rule).collect();
        Some(Folder::in_memory([(FILE, text)]))
    }

    /// Whether the user has asked for exactly this.
    pub(crate) fn cover(&self, call: &Call) -> bool {
        self.table().1.iter().any(|grant| grant.covers(call))
    }

    /// Waits until no command asks for this call any more.
    pub(super) async fn over(&self, call: &Call) {
        loop {
            let alive = {
                let table = self.table();
                let grant = table.1.iter().find(|grant| grant.covers(call));
                grant.map(|grant| grant.alive.subscribe())
            };
            let Some(mut alive) = alive else { return };
            while alive.changed().await.is_ok() {}
        }
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        self.grants.table().1.retain(|grant| grant.id != self.id);
    }
}

fn rule(grant: &Grant) -> String {
    let Grant {
        source,
        target,
        port,
        ..
    } = grant;
    rule_for(source.as_str(), target.as_str(), *port) + "\n"
}

/// The line of a policy that allows it.
pub(super) fn rule_for(source: &str, target: &str, port: TcpPort) -> String {
    format!("{CONNECT_SERVICE} +{port} {source} {target} allow")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bulkhead_policy::{Domain, Kind, Policy, Snapshot};

    use super::*;

    fn call(source: &str, service: &str, target: &str) -> Call {
        let source = source.parse().unwrap();
        Call::parse(source, service.as_bytes(), target.as_bytes()).unwrap()
    }

    fn open(grants: &Grants, port: &str) -> Granted {
        let [source, target] = ["work", "personal"].map(|name| name.parse().unwrap());
        grants.open(source, target, port.parse().unwrap()).unwrap()
    }

    /// What the policy says, with the user's own rules.
    fn verdict(grants: &Grants, user: &str, call: &Call) -> String {
        let user = Folder::in_memory([("30-user.policy", user)]);
        let folders: Vec<Folder> = [user, Folder::built_in()]
            .into_iter()
            .chain(grants.folder())
            .collect();
        let domains =
            ["work", "personal", "vault"].map(|name| Domain::new(name.parse().unwrap(), Kind::App));
        let snapshot = Snapshot::new(domains).unwrap();
        let policy = Policy::load(&folders).unwrap();
        policy.evaluate(call, &snapshot).to_string()
    }

    #[test]
    fn exactly_what_was_asked_for_is_allowed_while_it_is() {
        let grants = Grants::default();
        let wanted = call("work", "bulkhead.ConnectTcp+8080", "personal");
        assert_eq!(verdict(&grants, "", &wanted), "deny: no rule allows it");
        let granted = open(&grants, "8080");
        assert_eq!(
            verdict(&grants, "", &wanted),
            "allow personal (95-connect.policy:1)"
        );
        for (source, service, target) in [
            ("work", "bulkhead.ConnectTcp+80", "personal"),
            ("work", "bulkhead.ConnectTcp+08080", "personal"),
            ("work", "bulkhead.ConnectTcp", "personal"),
            ("work", "bulkhead.ConnectTcp+8080", "vault"),
            ("work", "bulkhead.ConnectTcp+8080", "@default"),
            ("work", "bulkhead.ConnectTcp+8080", "@adminvm"),
            ("personal", "bulkhead.ConnectTcp+8080", "work"),
            ("vault", "bulkhead.ConnectTcp+8080", "personal"),
            ("work", "qubes.VMShell+8080", "personal"),
        ] {
            let other = call(source, service, target);
            assert!(!grants.cover(&other), "{other}");
            assert!(
                verdict(&grants, "", &other).starts_with("deny: no rule"),
                "{other}"
            );
        }
        drop(granted);
        assert_eq!(verdict(&grants, "", &wanted), "deny: no rule allows it");
    }

    #[test]
    fn a_rule_of_the_users_decides_before_it() {
        let grants = Grants::default();
        let _granted = open(&grants, "8080");
        let wanted = call("work", "bulkhead.ConnectTcp+8080", "personal");
        assert_eq!(
            verdict(&grants, "* * work personal deny\n", &wanted),
            "deny: denied by policy (30-user.policy:1)"
        );
    }

    #[tokio::test]
    async fn its_end_is_heard_of_when_no_other_command_asks_for_the_same() {
        let grants = Grants::default();
        let wanted = call("work", "bulkhead.ConnectTcp+8080", "personal");
        let (first, second) = (open(&grants, "8080"), open(&grants, "8080"));
        let over = grants.over(&wanted);
        tokio::pin!(over);
        drop(first);
        let moment = Duration::from_millis(20);
        assert!(tokio::time::timeout(moment, &mut over).await.is_err());
        drop(second);
        tokio::time::timeout(Duration::from_secs(5), over)
            .await
            .unwrap();
    }

    #[test]
    fn there_is_an_end_to_them() {
        let grants = Grants::default();
        let all: Vec<Granted> = (0..MAX_GRANTS).map(|_| open(&grants, "80")).collect();
        let name = || -> Name { "work".parse().unwrap() };
        assert!(grants.open(name(), name(), "80".parse().unwrap()).is_none());
        drop(all);
        assert!(grants.folder().is_none());
    }
}
