//! Pasting from one domain into another: the compositor asks, the policy decides.
//!
//! The user has pressed the keys for it in the target's window. That is the answer wherever the
//! policy asks, and changes nothing where it denies. The manager never sees text that is pasted; pictures
//! pass through it unread on their way to and from a disposable ([`crate::pictures`]).

use std::sync::Arc;

use bulkhead_policy::{Call, Deny, Destination, IntendedTarget, Name, Place, Reason, Verdict};

use crate::compositor::WindowEvent;
use crate::manager::Manager;
use crate::pictures::Picture;
use crate::rpc::log::Record;
use crate::rules::{self, RulesError};

/// What the compositor calls files: their own call asks the user.
const FILES: &str = "files";
/// What the compositor calls a picture.
pub(crate) const IMAGE: &str = "image";
/// The service that stands for it in a policy, as in Qubes.
const SERVICE: &[u8] = b"qubes.ClipboardPaste";

/// Why something is not pasted, in words for the user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotPasted {
    #[error("{0}")]
    Rules(#[from] RulesError),
    #[error("the name of a domain is malformed")]
    Name,
    #[error("the rule {0} denies it")]
    Rule(Place),
    #[error("the rule {0} does not offer it")]
    NotOffered(Place),
    #[error("{0}")]
    Reason(Reason),
    #[error("the rule {0} sends it elsewhere")]
    Elsewhere(Place),
    #[error("the manager failed to decide")]
    Failed,
}

impl From<Deny> for NotPasted {
    fn from(deny: Deny) -> Self {
        match (deny.reason, deny.rule) {
            (Reason::Policy, Some(rule)) => NotPasted::Rule(rule),
            (Reason::NotOffered(_), Some(rule)) => NotPasted::NotOffered(rule),
            (reason, _) => NotPasted::Reason(reason),
        }
    }
}

impl Manager {
    /// As if the user had pressed Ctrl+Shift+C: for the desktop's own programs.
    pub async fn copy_across(&self) -> crate::Result<()> {
        Ok(self.compositor.crossing("copy_across").await?)
    }

    /// As if the user had pressed Ctrl+Shift+V.
    pub async fn paste_across(&self) -> crate::Result<()> {
        Ok(self.compositor.crossing("paste_across").await?)
    }

    /// The compositor asks whether the user may paste; it waits a few seconds for the answer.
    pub(crate) fn paste_asked(self: Arc<Self>, event: &WindowEvent) {
        if event.kind == FILES {
            return self.files_pasted(event);
        }
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let (source, target) = (name(&event.source), name(&event.target));
        let (Some(id), kind, bytes) = (event.id, event.kind.clone(), event.bytes) else {
            return tracing::warn!("the compositor asks about a paste without a number");
        };
        tokio::spawn(async move {
            let call = match call(&source, &target) {
                Ok(call) => call,
                Err(why) => {
                    tracing::error!(source, target, %why, "the compositor asks about a paste");
                    return self.answer_paste(id, Err(why.to_string())).await;
                }
            };
            let (manager, asked) = (self.clone(), call.clone());
            let decide =
                move || -> Result<Verdict, RulesError> { rules::evaluate(&manager, &asked) };
            let mut record = Record::new(&call);
            let decided = match tokio::task::spawn_blocking(decide).await {
                Ok(Ok(verdict)) => decide_paste(&call, verdict, &mut record),
                Ok(Err(why)) => Err(why.into()),
                Err(_) => Err(NotPasted::Failed),
            };
            let answer = match decided {
                Ok(rule) => {
                    tracing::info!(source, target, kind, bytes, %rule, "pasting is allowed");
                    if kind == IMAGE {
                        return self.paste_picture(id, &call, bytes, record).await;
                    }
                    record.pasted(bytes);
                    Ok(())
                }
                Err(why) => {
                    tracing::warn!(source, target, kind, bytes, %why, "pasting is denied");
                    record.ended(&why.to_string());
                    Err(why.to_string())
                }
            };
            self.calls.log.append(&record);
            self.answer_paste(id, answer).await;
        });
    }

    /// A picture is pasted when it was drawn anew.
    async fn paste_picture(self: &Arc<Self>, id: u64, call: &Call, bytes: u64, mut record: Record) {
        match self.redraw(Picture::Pasted(id), &call.source).await {
            Ok(()) => record.pasted(bytes),
            Err(why) => {
                tracing::warn!(source = %call.source, %why, "a picture is not pasted");
                record.ended(&why.to_string());
            }
        }
        self.calls.log.append(&record);
    }

    async fn answer_paste(&self, id: u64, answer: Result<(), String>) {
        let answer = match answer {
            Ok(()) => Ok(&[][..]),
            Err(why) => Err(why),
        };
        if let Err(error) = self.compositor.answer_paste(id, answer).await {
            tracing::warn!(id, %error, "the decision about a paste came to nothing");
        }
    }
}

fn call(source: &str, target: &str) -> Result<Call, NotPasted> {
    let name = |name: &str| Name::parse(name.as_bytes()).map_err(|_| NotPasted::Name);
    name(target)?;
    Call::parse(name(source)?, SERVICE, target.as_bytes()).map_err(|_| NotPasted::Name)
}

/// The rule that allows it.
pub(crate) fn decide_paste(
    call: &Call,
    verdict: Verdict,
    record: &mut Record,
) -> Result<Place, NotPasted> {
    // A window is a domain's; the host has none that pastes.
    let IntendedTarget::Domain(target) = &call.target else {
        return Err(NotPasted::Name);
    };
    let wanted = Destination::Domain(target.clone());
    let denied = |deny: Deny, record: &mut Record| {
        record.denied(&deny);
        NotPasted::from(deny)
    };
    let allow = match verdict {
        Verdict::Allow(allow) => allow,
        Verdict::Ask(ask) => ask.choose(&wanted).map_err(|deny| denied(deny, record))?,
        Verdict::Deny(deny) => return Err(denied(deny, record)),
    };
    if allow.target != wanted {
        // The user pasted into this window and no other.
        return Err(NotPasted::Elsewhere(allow.rule));
    }
    record.allowed(&allow);
    Ok(allow.rule)
}

#[cfg(test)]
mod tests {
    use bulkhead_policy::{Domain, Folder, Kind, Policy, Snapshot};

    use super::*;

    fn decided(rules: &str, source: &str, target: &str) -> String {
        let domains = ["work", "personal", "vault"].map(|name| Domain {
            running: name != "vault",
            ..Domain::new(name.parse().unwrap(), Kind::App)
        });
        let snapshot = Snapshot::new(domains).unwrap();
        let user = Folder::in_memory([("30-user.policy", rules)]);
        let policy = Policy::load(&[user, Folder::built_in()]).unwrap();
        let decided = call(source, target).and_then(|call| {
            let mut record = Record::new(&call);
            decide_paste(&call, policy.evaluate(&call, &snapshot), &mut record)
        });
        match decided {
            Ok(rule) => format!("by {rule}"),
            Err(why) => why.to_string(),
        }
    }

    #[test]
    fn the_keys_answer_the_question_of_the_default_policy() {
        let rule = decided("", "work", "personal");
        assert!(rule.starts_with("by 90-default.policy:"), "{rule}");
    }

    #[test]
    fn a_rule_of_the_user_decides() {
        let deny = "qubes.ClipboardPaste * @anyvm personal deny";
        assert_eq!(
            decided(deny, "work", "personal"),
            "the rule 30-user.policy:1 denies it"
        );
        assert!(decided(deny, "personal", "work").starts_with("by 90-default"));
        let allow = "qubes.ClipboardPaste * work personal allow";
        assert_eq!(decided(allow, "work", "personal"), "by 30-user.policy:1");
        // Asked for one target only: the keys choose no other.
        let other = "qubes.ClipboardPaste * work @anyvm ask target=vault";
        assert_eq!(
            decided(other, "work", "personal"),
            "the rule 30-user.policy:1 does not offer it"
        );
        let other = "qubes.ClipboardPaste * work @anyvm allow target=vault";
        let said = decided(other, "work", "personal");
        assert_eq!(said, "the rule 30-user.policy:1 sends it elsewhere");
        let running = "qubes.ClipboardPaste * work vault allow autostart=no";
        assert!(decided(running, "work", "vault").contains("would have to be started"));
    }

    #[test]
    fn who_does_not_exist_neither_gives_nor_takes() {
        assert!(decided("", "disp0001", "work").contains("does not exist"));
        assert!(decided("", "work", "disp0001").ends_with("does not offer it"));
        assert_eq!(
            decided("", "work", "dom0"),
            "the name of a domain is malformed"
        );
        assert_eq!(
            decided("", "work", "@dispvm"),
            "the name of a domain is malformed"
        );
        assert_eq!(decided("", "", "work"), "the name of a domain is malformed");
        assert_ne!(decided("", "work", "work"), "by 90-default.policy:24");
    }
}
