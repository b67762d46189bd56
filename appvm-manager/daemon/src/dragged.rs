//! Drags from one domain to another: the compositor asks whether a window may be a target, and what
//! becomes of what was dropped on it.
//!
//! Text and pictures wait in the compositor while the policy and the user decide. Files are sent by
//! the source domain itself, which named them: its own program reads them as its user, and calls the
//! target as any program of it may ([`crate::rpc::drops`]).

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_policy::{Call, IntendedTarget, Name};
use bulkhead_protocol::{DomainName, ExecRequest};
use bulkhead_transfer::landed;

use crate::compositor::WindowEvent;
use crate::manager::Manager;
use crate::paste::{IMAGE, NotPasted, decide_paste};
use crate::pictures::Picture;
use crate::rpc::drops::{self, Ended, Open};
use crate::rpc::log::Record;
use crate::rules;
use crate::session::Stdio;

/// The service that stands for dropped text and pictures in a policy; its argument is which.
pub(crate) const SERVICE: &str = "bulkhead.Drop";
/// The program of every guest that sends files.
const SENDER: &str = "/run/bulkhead/bin/bulkhead-rpc";
/// How long the source may take until it calls.
const CALLS: Duration = Duration::from_secs(30);
/// How long the end of a call that was made may take to be known.
const KNOWN: Duration = Duration::from_secs(40);
/// Nobody is waited for any longer; the compositor has given up then, too.
const MOST: Duration = Duration::from_secs(60 * 60);

/// Why nothing is dropped, in words for the user.
#[derive(Debug, thiserror::Error)]
enum NotDropped {
    #[error("{0}")]
    Policy(#[from] NotPasted),
    #[error("the compositor drags something unknown")]
    Kind,
    #[error("the name of a domain is malformed")]
    Name,
}

/// What the compositor asks about.
#[derive(Debug, Clone)]
struct Asked {
    id: u64,
    kind: String,
    bytes: u64,
    untrusted_files: Vec<String>,
    call: Call,
}

impl Asked {
    fn new(event: &WindowEvent) -> Result<Self, NotDropped> {
        let name = |name: &Option<String>| {
            let name = name.as_deref().unwrap_or_default();
            Name::parse(name.as_bytes()).map_err(|_| NotDropped::Name)
        };
        let (source, target) = (name(&event.source)?, name(&event.target)?);
        let service = match event.kind.as_str() {
            "files" => drops::SERVICE.to_owned(),
            kind @ ("text" | "image") => format!("{SERVICE}+{kind}"),
            _ => return Err(NotDropped::Kind),
        };
        let call = Call::parse(source, service.as_bytes(), target.as_str().as_bytes())
            .map_err(|_| NotDropped::Name)?;
        // A window is a domain's; the host has none that takes anything.
        if !matches!(call.target, IntendedTarget::Domain(_)) {
            return Err(NotDropped::Name);
        }
        Ok(Asked {
            id: event.id.unwrap_or_default(),
            kind: event.kind.clone(),
            bytes: event.bytes,
            untrusted_files: event.files.clone(),
            call,
        })
    }
}

impl Manager {
    /// The compositor asks whether what is dragged may be dropped on a domain, perhaps after a
    /// question to the user.
    pub(crate) fn drag_asked(self: Arc<Self>, event: &WindowEvent) {
        let (id, asked) = (event.id.unwrap_or_default(), Asked::new(event));
        tokio::spawn(async move {
            let decided = match asked {
                Ok(asked) => self.may_drop(asked.call).await,
                Err(why) => Err(why),
            };
            let decided = decided.map_err(|why| why.to_string());
            // The drag may be over.
            if let Err(error) = self.compositor.answer_drag_over(id, decided).await {
                tracing::debug!(id, %error, "a drag");
            }
        });
    }

    async fn may_drop(self: &Arc<Self>, call: Call) -> Result<(), NotDropped> {
        let (manager, asked) = (self.clone(), call.clone());
        let evaluated =
            tokio::task::spawn_blocking(move || rules::evaluate(&manager, &asked)).await;
        let verdict = match evaluated {
            Ok(verdict) => verdict.map_err(NotPasted::from)?,
            Err(_) => return Err(NotPasted::Failed.into()),
        };
        let mut unused = Record::new(&call);
        decide_paste(&call, verdict, &mut unused)?;
        Ok(())
    }

    /// The user pastes files that another domain has copied: they are copied as dropped ones are.
    pub(crate) fn files_pasted(self: Arc<Self>, event: &WindowEvent) {
        let (id, asked) = (event.id.unwrap_or_default(), Asked::new(event));
        tokio::spawn(async move {
            let decided = match asked {
                Err(why) => Err(why.to_string()),
                Ok(asked) => self.drop_files(&asked).await,
            };
            if let Err(error) = self.compositor.answer_pasted_files(id, decided).await {
                // The user may have copied something else meanwhile; the files are there all the same.
                tracing::info!(id, %error, "pasted files");
            }
        });
    }

    /// Something was dropped on another domain's window.
    pub(crate) fn drop_asked(self: Arc<Self>, event: &WindowEvent) {
        let (id, asked) = (event.id.unwrap_or_default(), Asked::new(event));
        tokio::spawn(async move {
            let decided = match asked {
                Err(why) => Err(why.to_string()),
                Ok(asked) if asked.kind == "files" => self.drop_files(&asked).await,
                Ok(asked) if asked.kind == IMAGE => match self.drop_picture(&asked).await {
                    Some(why) => Err(why),
                    // The compositor knows already.
                    None => return,
                },
                Ok(asked) => self.drop_text(&asked).await,
            };
            if let Err(error) = self.compositor.answer_drop(id, decided).await {
                tracing::warn!(id, %error, "the decision about a drop came to nothing");
            }
        });
    }

    /// A picture: the compositor holds it, and gives it when it was drawn anew. Why it is not dropped,
    /// if nobody has said so yet.
    async fn drop_picture(self: &Arc<Self>, asked: &Asked) -> Option<String> {
        let mut record = Record::new(&asked.call);
        record.dropped(&asked.kind, asked.bytes);
        let allowed = self.decide_drop(&asked.call, &mut record).await;
        if allowed {
            let picture = Picture::Dropped(asked.id);
            match self.redraw(picture, &asked.call.source).await {
                Ok(()) => record.pasted(asked.bytes),
                Err(why) => record.ended(&why.to_string()),
            }
        }
        tracing::info!(id = asked.id, "{record}");
        self.calls.log.append(&record);
        record.why_not().filter(|_| !allowed)
    }

    /// Text: the compositor holds it.
    async fn drop_text(self: &Arc<Self>, asked: &Asked) -> Result<Vec<String>, String> {
        let mut record = Record::new(&asked.call);
        record.dropped(&asked.kind, asked.bytes);
        if self.decide_drop(&asked.call, &mut record).await {
            record.pasted(asked.bytes);
        }
        tracing::info!(id = asked.id, "{record}");
        self.calls.log.append(&record);
        match record.why_not() {
            None => Ok(Vec::new()),
            Some(why) => Err(why),
        }
    }

    /// Files: the source sends them. Gives the addresses that they have in the target.
    async fn drop_files(self: &Arc<Self>, asked: &Asked) -> Result<Vec<String>, String> {
        let target = asked.call.target.to_string();
        let source = asked.call.source.as_str().parse::<DomainName>();
        let (source, to) = match (source, Name::parse(target.as_bytes())) {
            (Ok(source), Ok(to)) => (source, to),
            _ => return Err(NotDropped::Name.to_string()),
        };
        let open = self.calls.drops.expect(asked.call.source.clone(), to);
        let mut argv = vec![SENDER.to_owned(), "--drop".to_owned(), open.id.to_string()];
        argv.push(target);
        // They go back to the domain that said them, and nobody else looks at them.
        argv.extend(asked.untrusted_files.iter().cloned());
        let request = ExecRequest {
            argv,
            ..ExecRequest::default()
        };
        let caller = format!("drop {}", open.id);
        let ended = self.send_dropped(&source, request, &caller, open).await;
        // Whatever still runs of it there.
        self.caller_left(&caller);
        match ended {
            Ended::Not(why) => Err(why),
            Ended::Landed(untrusted) => {
                Ok(landed::read(&untrusted, &source).unwrap_or_else(|why| {
                    tracing::warn!(%source, %why, "dropped files are not handed on");
                    Vec::new()
                }))
            }
        }
    }

    async fn send_dropped(
        self: &Arc<Self>,
        source: &DomainName,
        request: ExecRequest,
        caller: &str,
        mut open: Open,
    ) -> Ended {
        let stdio = match nowhere() {
            Ok(stdio) => stdio,
            Err(error) => return Ended::Not(error.to_string()),
        };
        let key = (caller.to_owned(), String::new());
        // A task of its own: it puts its session away whenever it ends.
        let mut sending = {
            let (manager, source) = (self.clone(), source.clone());
            tokio::spawn(async move { manager.exec(&source, request, stdio, key, false).await })
        };
        let gave_up = || Ended::Not(format!("{source} does not send it"));
        let calls = tokio::time::sleep(CALLS);
        tokio::pin!(calls);
        let most = tokio::time::sleep(MOST);
        tokio::pin!(most);
        let status = loop {
            tokio::select! {
                ended = &mut open.ended => return ended.unwrap_or_else(|_| gave_up()),
                sent = &mut sending => break sent,
                () = &mut most => return gave_up(),
                () = &mut calls => {
                    if open.is_waiting() {
                        return gave_up();
                    }
                    calls.as_mut().reset(tokio::time::Instant::now() + MOST);
                }
            }
        };
        if open.is_waiting() {
            return Ended::Not(match status {
                Ok(Ok(outcome)) => format!("{source} cannot send it (status {})", outcome.status),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            });
        }
        match tokio::time::timeout(KNOWN, &mut open.ended).await {
            Ok(Ok(ended)) => ended,
            _ => gave_up(),
        }
    }
}

fn nowhere() -> std::io::Result<Stdio> {
    let null = || File::options().read(true).write(true).open("/dev/null");
    Ok(Stdio {
        stdin: null()?.into(),
        stdout: null()?.into(),
        stderr: null()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, source: &str, target: &str) -> WindowEvent {
        WindowEvent {
            id: Some(1),
            kind: kind.into(),
            source: Some(source.into()),
            target: Some(target.into()),
            ..WindowEvent::default()
        }
    }

    #[test]
    fn each_kind_has_its_service() {
        let service = |kind| {
            let asked = Asked::new(&event(kind, "work", "personal")).unwrap();
            let call = asked.call;
            format!("{}+{}", call.service.as_str(), call.argument.as_str())
        };
        assert_eq!(service("files"), "qubes.Filecopy+");
        assert_eq!(service("text"), "bulkhead.Drop+text");
        assert_eq!(service("image"), "bulkhead.Drop+image");
        assert!(Asked::new(&event("other", "work", "personal")).is_err());
        assert!(Asked::new(&event("text", "work", "dom0")).is_err());
        assert!(Asked::new(&event("text", "", "work")).is_err());
    }
}
