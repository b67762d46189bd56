//! All rules of one client, and what counts where none fits.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::host::HostName;
use super::rule::{Action, Destination, Rule};

/// More rules has no client.
pub const MAX_RULES: usize = 128;

/// What a client may reach: the first rule that fits counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its rules, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// What becomes of that which fits none.
    #[serde(default, skip_serializing_if = "is_accept")]
    pub default: Action,
    /// Which of its connections are written to the network domain's log.
    #[serde(default, skip_serializing_if = "is_default_log")]
    pub log: Log,
}

/// Which connections are written down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// None.
    Off,
    /// Those that do not come to be.
    #[default]
    Dropped,
    /// All.
    All,
}

/// Who answers a client's questions for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dns {
    /// The forwarder, whatever is asked.
    Forwarder,
    /// It depends on the name or the time, or a rule has to know the answer.
    Chosen,
    /// Nobody.
    Nobody,
}

impl Log {
    /// As in settings.
    pub fn name(self) -> &'static str {
        match self {
            Log::Off => "off",
            Log::Dropped => "dropped",
            Log::All => "all",
        }
    }
}

impl Policy {
    /// Whether it lets everything pass.
    pub fn is_open(&self) -> bool {
        self.rules.is_empty() && self.default == Action::Accept
    }

    /// The names in its rules.
    pub fn names(&self) -> BTreeSet<&HostName> {
        let names = self
            .rules
            .iter()
            .filter_map(|rule| match &rule.destination {
                Some(Destination::Name(name)) => Some(name),
                _ => None,
            });
        names.collect()
    }

    /// What becomes of a question for this name, at `now` (seconds since 1970). A name that is to be
    /// dropped is answered: its addresses must be known for that.
    pub fn question(&self, asked: &str, now: u64) -> Action {
        let decides = |rule: &&Rule| match &rule.destination {
            Some(Destination::Name(name)) => rule.action == Action::Accept && name.fits(asked),
            _ => rule.covers_dns(),
        };
        let rules = self.rules.iter().filter(|rule| !rule.has_ended(now));
        let decided = rules.clone().find(decides).map(|rule| rule.action);
        decided.unwrap_or(self.default)
    }

    /// Who answers its questions.
    pub fn dns(&self) -> Dns {
        let depends = |rule: &Rule| rule.covers_dns() && rule.expire.is_some();
        if !self.names().is_empty() || self.rules.iter().any(depends) {
            return Dns::Chosen;
        }
        match self.question("", 0) {
            Action::Accept => Dns::Forwarder,
            Action::Drop => Dns::Nobody,
        }
    }
}

fn is_accept(action: &Action) -> bool {
    *action == Action::Accept
}

fn is_default_log(log: &Log) -> bool {
    *log == Log::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(default: Action, rules: &[&str]) -> Policy {
        Policy {
            rules: rules
                .iter()
                .map(|rule| Rule::parse(rule, 0).unwrap())
                .collect(),
            default,
            log: Log::default(),
        }
    }

    #[test]
    fn questions_are_for_names_that_may_be_reached() {
        use Action::{Accept, Drop};
        let web = ["accept dsthost=a.org proto=tcp dstports=443"];
        for (default, rules, asked, action) in [
            (Accept, &[][..], "a.org", Accept),
            (Drop, &[], "a.org", Drop),
            (Drop, &web, "A.org.", Accept),
            (Drop, &web, "b.org", Drop),
            (Drop, &web, "x.a.org", Drop),
            (Drop, &["accept specialtarget=dns"], "b.org", Accept),
            (Drop, &["accept proto=tcp"], "b.org", Drop),
            (Drop, &["accept"], "b.org", Accept),
            (Accept, &["drop specialtarget=dns"], "b.org", Drop),
            // The first that fits counts.
            (Drop, &["drop specialtarget=dns", "accept"], "b.org", Drop),
            (Drop, &["drop specialtarget=dns", web[0]], "a.org", Drop),
            (Drop, &[web[0], "drop specialtarget=dns"], "a.org", Accept),
            // Its answer is needed.
            (Accept, &["drop dsthost=a.org"], "a.org", Accept),
            (
                Drop,
                &["accept specialtarget=dns expire=50"],
                "a.org",
                Accept,
            ),
            (Drop, &["accept specialtarget=dns expire=40"], "a.org", Drop),
            (Drop, &["accept dsthost=a.org expire=40"], "a.org", Drop),
        ] {
            let found = policy(default, rules).question(asked, 45);
            assert_eq!(found, action, "{default:?} {rules:?} {asked}");
        }
    }

    #[test]
    fn only_what_depends_on_the_question_is_looked_at() {
        use Action::{Accept, Drop};
        for (default, rules, dns) in [
            (Accept, &[][..], Dns::Forwarder),
            (Accept, &["drop dsthost=192.0.2.1"], Dns::Forwarder),
            (Accept, &["drop dsthost=a.org"], Dns::Chosen),
            (Accept, &["drop specialtarget=dns"], Dns::Nobody),
            (Drop, &[], Dns::Nobody),
            (Drop, &["accept dsthost=a.org"], Dns::Chosen),
            (Drop, &["accept specialtarget=dns"], Dns::Forwarder),
            (Drop, &["accept expire=9"], Dns::Chosen),
        ] {
            assert_eq!(policy(default, rules).dns(), dns, "{default:?} {rules:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let policy = policy(Action::Drop, &["accept dsthost=a.org", "drop expire=9"]);
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(
            text,
            r#"{"rules":["accept dsthost=a.org","drop expire=9"],"default":"drop"}"#
        );
        assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
        assert_eq!(serde_json::to_string(&Policy::default()).unwrap(), "{}");
        assert!(serde_json::from_str::<Policy>(r#"{"rules":["pass"]}"#).is_err());
    }
}
