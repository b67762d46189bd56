//! Policy, then the user where the policy says so, then the policy once more.

use std::sync::Arc;

use bulkhead_policy::{Allow, Ask, Call, Deny, Destination, IntendedTarget, Verdict};

use super::ask::{Answer, Question};
use super::caller::{Caller, CallerError};
use super::log::Record;
use crate::manager::Manager;
use crate::rules;

/// The service whose input begins with a list of files, for the question.
const WITH_MANIFEST: [&str; 2] = ["qubes.Filecopy", "qubes.OpenInVM"];
/// The user pastes by keys and drops by hand; no program may ask for it, nor for what comes of it.
const NEVER_CALLED: [&str; 3] = [
    "qubes.ClipboardPaste",
    crate::pictures::SERVICE,
    crate::dragged::SERVICE,
];

/// No.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("denied")]
    Denied,
    #[error(transparent)]
    Caller(#[from] CallerError),
}

impl Manager {
    /// Decides about a call, and writes into `record` what it found out. What was `dropped` on a window
    /// goes to that window's domain or nowhere.
    pub(super) async fn decide(
        self: &Arc<Self>,
        call: &Call,
        caller: &mut Caller,
        dropped: bool,
        record: &mut Record,
    ) -> Result<Allow, Refused> {
        if NEVER_CALLED.contains(&call.service.as_str()) {
            record.ended("only the user's keys or pointer can do that");
            return Err(Refused::Denied);
        }
        let verdict = self.verdict(call, record).await?;
        let with_manifest = WITH_MANIFEST.contains(&call.service.as_str());
        if with_manifest && !matches!(verdict, Verdict::Deny(_)) {
            let manifest = caller.manifest().await?;
            record.files(&manifest);
        }
        let gone = caller.gone();
        self.settle(call, verdict, gone, dropped, record).await
    }

    /// Decides about what was dropped on a window and waits on the host.
    pub(crate) async fn decide_drop(self: &Arc<Self>, call: &Call, record: &mut Record) -> bool {
        let decided = async {
            let verdict = self.verdict(call, record).await?;
            let never = std::future::pending();
            self.settle(call, verdict, never, true, record).await
        };
        match decided.await {
            Ok(allow) => {
                record.allowed(&allow);
                true
            }
            Err(_) => false,
        }
    }

    async fn settle(
        self: &Arc<Self>,
        call: &Call,
        verdict: Verdict,
        gone: impl Future<Output = CallerError>,
        dropped: bool,
        record: &mut Record,
    ) -> Result<Allow, Refused> {
        let wanted = match &call.target {
            IntendedTarget::Domain(name) if dropped => Some(Destination::Domain(name.clone())),
            _ if dropped => {
                record.ended("no window is there");
                return Err(Refused::Denied);
            }
            _ => None,
        };
        match verdict {
            Verdict::Allow(allow) if wanted.as_ref().is_some_and(|w| *w != allow.target) => {
                record.ended(&format!("the rule {} sends it elsewhere", allow.rule));
                Err(Refused::Denied)
            }
            Verdict::Allow(allow) => Ok(allow),
            Verdict::Deny(deny) => Err(denied(&deny, record)),
            Verdict::Ask(ask) if self.calls.grants.cover(call) => {
                // `bulkhead connect` was the answer.
                let target = match &call.target {
                    IntendedTarget::Domain(name) => Destination::Domain(name.clone()),
                    _ => return Err(Refused::Denied),
                };
                record.by_command = true;
                ask.choose(&target).map_err(|deny| denied(&deny, record))
            }
            Verdict::Ask(mut ask) => {
                if let Some(wanted) = wanted {
                    // Says no by itself where the rule does not offer it.
                    ask.choose(&wanted).map_err(|deny| denied(&deny, record))?;
                    ask.targets.retain(|target| *target == wanted);
                    ask.default_target = Some(wanted);
                }
                let target = self.ask_user(call, &ask, gone, record).await?;
                // Minutes may have passed: what was right then may be wrong now.
                match self.verdict(call, record).await? {
                    Verdict::Allow(allow) if allow.target == target => Ok(allow),
                    Verdict::Ask(ask) => ask.choose(&target).map_err(|deny| denied(&deny, record)),
                    Verdict::Deny(deny) => Err(denied(&deny, record)),
                    Verdict::Allow(_) => {
                        record.ended("the policy changed while the question was open");
                        Err(Refused::Denied)
                    }
                }
            }
        }
    }

    async fn verdict(
        self: &Arc<Self>,
        call: &Call,
        record: &mut Record,
    ) -> Result<Verdict, Refused> {
        // It reads the policy and every domain's file: a flood of calls must not keep the manager from
        // everything else.
        let evaluated = {
            let (manager, call) = (self.clone(), call.clone());
            tokio::task::spawn_blocking(move || rules::evaluate(&manager, &call)).await
        };
        match evaluated {
            Ok(Ok(verdict)) => Ok(verdict),
            Err(error) => {
                tracing::error!(%error, "a decision failed; the call is refused");
                record.ended("the manager failed to decide");
                Err(Refused::Denied)
            }
            Ok(Err(error)) => {
                // Nothing is allowed by a policy that cannot be read.
                tracing::error!(%error, "the policy; every call is refused");
                record.ended(&error.to_string());
                Err(Refused::Denied)
            }
        }
    }

    async fn ask_user(
        self: &Arc<Self>,
        call: &Call,
        ask: &Ask,
        gone: impl Future<Output = CallerError>,
        record: &mut Record,
    ) -> Result<Destination, Refused> {
        let question = Question {
            source: call.source.to_string(),
            wanted: call.target.to_string(),
            service: call.service.to_string(),
            argument: call.argument.as_str().to_owned(),
            targets: ask.targets.iter().map(ToString::to_string).collect(),
            default: ask.default_target.as_ref().map(ToString::to_string),
            files: record.file_lines().to_vec(),
            bytes: record.announced_bytes(),
        };
        let Some(open) = self.calls.asks.open(question) else {
            record.ended("too many questions are open");
            return Err(Refused::Denied);
        };
        self.tell(crate::manager::Event::AskOpened(open.id()));
        let answer = tokio::select! {
            answer = open.answer() => answer,
            error = gone => {
                self.tell(crate::manager::Event::AskClosed(open.id()));
                return Err(error.into());
            }
        };
        self.tell(crate::manager::Event::AskClosed(open.id()));
        match answer {
            Answer::Yes(name) => {
                let chosen = ask.targets.iter().find(|target| target.to_string() == name);
                // The list was checked when the answer came in.
                chosen.cloned().ok_or(Refused::Denied)
            }
            Answer::No => Err(denied(&ask.refuse(), record)),
            Answer::NoAnswer => {
                record.ended("nobody answered");
                Err(Refused::Denied)
            }
        }
    }
}

fn denied(deny: &Deny, record: &mut Record) -> Refused {
    record.denied(deny);
    Refused::Denied
}
