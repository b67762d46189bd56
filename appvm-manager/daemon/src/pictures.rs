//! Pictures that cross between domains: a disposable decodes each, and the compositor encodes it anew.
//!
//! The user has pasted, the policy allows it, and now the picture must not reach the target as it is.
//! The manager makes two pipes between the compositor and [`SERVICE`] in a new disposable: the picture
//! goes in, pixels come out. It passes bytes on and looks at none. Whatever comes of it, the disposable
//! is removed at once, with all that its service may have become.
//!
//! The entry is [`Manager::redraw`].

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bulkhead_policy::{Call, Deny, Destination, Name, Place as Rule, Reason, Verdict};
use bulkhead_protocol::{DomainName, ExecRequest};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::compositor::{Refused, WindowEvent};
use crate::config::DomainConfig;
use crate::manager::Manager;
use crate::rpc::quota::Place;
use crate::rpc::serve_command;
use crate::rules::{self, RulesError};
use crate::session::{Outcome, Stdio};

/// The service of guests that decodes, and its name in a policy.
pub(crate) const SERVICE: &str = "bulkhead.DecodePicture";
/// From the user's yes to the last pixel; a little less than the compositor waits.
const WHOLE: Duration = Duration::from_secs(80);
/// How long the compositor may take to encode what it has.
const LAST_WORD: Duration = Duration::from_secs(30);
/// How often a disposable that is only starting is looked at when it is no longer wanted.
const RETRY: Duration = Duration::from_millis(200);
/// Who runs the commands; no caller on the bus has such a name.
const CALLER: &str = "pictures";

/// Why a picture does not cross, in words for the user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRedrawn {
    #[error("{0}")]
    Rules(#[from] RulesError),
    #[error("the rule {0} denies it the disposable that pictures are redrawn in")]
    Rule(Rule),
    #[error("there is no disposable to redraw it in: {0}")]
    Reason(Reason),
    #[error("the rule {0} sends pictures to no disposable")]
    Elsewhere(Rule),
    #[error("too many disposables live that calls have made; close some")]
    TooManyDisposables,
    #[error("no disposable could redraw it: {0}")]
    Disposable(#[from] crate::Error),
    #[error("no disposable could redraw it: {0}")]
    Io(#[from] io::Error),
    #[error("it cannot be decoded; it may be damaged")]
    Damaged,
    #[error("the disposable's decoder ended with status {0}")]
    Decoder(i32),
    #[error("the disposable took longer than {} s", WHOLE.as_secs())]
    Late,
    #[error("the manager failed to redraw it")]
    Failed,
    /// The compositor has said so itself, or no longer waits.
    #[error("{0}")]
    GivenUp(String),
    #[error("{0}")]
    Compositor(#[from] Refused),
}

impl From<Deny> for NotRedrawn {
    fn from(deny: Deny) -> Self {
        match (deny.reason, deny.rule) {
            (Reason::Policy, Some(rule)) => NotRedrawn::Rule(rule),
            (reason, _) => NotRedrawn::Reason(reason),
        }
    }
}

/// The compositor's last word about a picture: nothing, or why there is none.
type LastWord = Result<(), String>;

/// Pictures that the compositor waits for, by the number of their paste.
#[derive(Debug, Default)]
pub(crate) struct Redraws(Mutex<HashMap<u64, oneshot::Sender<LastWord>>>);

impl Redraws {
    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<LastWord>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(&self, id: u64) -> oneshot::Receiver<LastWord> {
        let (sender, receiver) = oneshot::channel();
        self.locked().insert(id, sender);
        receiver
    }

    /// The compositor needs the disposable no longer.
    pub(crate) fn ended(&self, event: &WindowEvent) {
        let waiting = event.id.and_then(|id| self.locked().remove(&id));
        let why = crate::text::clean(event.text.as_deref().unwrap_or_default(), 200);
        let word = if event.pasted { Ok(()) } else { Err(why) };
        if let Some(waiting) = waiting {
            let _ = waiting.send(word);
        }
    }

    /// The compositor has gone.
    pub(crate) fn all_ended(&self) {
        self.locked().clear();
    }
}

/// The manager's ends of the pipes.
struct Pipes {
    /// What the compositor gets: where the picture goes in, where its pixels come out.
    theirs: [OwnedFd; 2],
    stdio: Stdio,
    /// Held until the compositor has been told of a failure: it sees the pixels' end only then.
    held: OwnedFd,
}

impl Pipes {
    fn new() -> io::Result<Self> {
        let (picture_out, picture_in) = io::pipe()?;
        let (pixels_out, pixels_in) = io::pipe()?;
        let held = pixels_in.try_clone()?;
        Ok(Pipes {
            theirs: [picture_in.into(), pixels_out.into()],
            stdio: Stdio {
                stdin: picture_out.into(),
                stdout: pixels_in.into(),
                stderr: File::options().write(true).open("/dev/null")?.into(),
            },
            held: held.into(),
        })
    }
}

/// What is to become of a picture: the compositor's number for the paste or the drop. No two of them
/// have the same.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Picture {
    Pasted(u64),
    Dropped(u64),
}

type Running = JoinHandle<crate::Result<Outcome>>;

impl Manager {
    /// Has a picture of the compositor's, which comes from `source`, decoded for it. Says yes to the
    /// compositor when the work can begin, and no whenever it fails.
    pub(crate) async fn redraw(
        self: &Arc<Self>,
        picture: Picture,
        source: &Name,
    ) -> Result<(), NotRedrawn> {
        let (Picture::Pasted(id) | Picture::Dropped(id)) = picture;
        let prepared = async {
            let (model, place) = self.model_for_picture(source).await?;
            Ok((model, place, Pipes::new()?))
        };
        let (model, place, pipes) = match prepared.await {
            Ok(prepared) => prepared,
            Err(why) => return Err(self.refuse_picture(picture, why).await),
        };
        let mut word = self.redraws.expect(id);
        let Pipes {
            theirs,
            stdio,
            held,
        } = pipes;
        let fds = theirs.each_ref().map(AsFd::as_fd);
        if let Err(error) = self.answer_picture(picture, Ok(&fds)).await {
            self.redraws.locked().remove(&id);
            return Err(error.into());
        }
        drop(theirs);
        let decoded = self.decode(&model, source, place, stdio, &mut word).await;
        if let Err(why) = decoded {
            let why = self.refuse_picture(picture, why).await;
            self.redraws.locked().remove(&id);
            return Err(why);
        }
        drop(held);
        let word = tokio::time::timeout(LAST_WORD, word).await;
        self.redraws.locked().remove(&id);
        match word {
            Ok(word) => given_up(word),
            Err(_) => Err(NotRedrawn::GivenUp(
                "the compositor does not say".to_owned(),
            )),
        }
    }

    async fn answer_picture(
        &self,
        picture: Picture,
        decision: Result<&[BorrowedFd<'_>], String>,
    ) -> Result<(), Refused> {
        match picture {
            Picture::Pasted(id) => self.compositor.answer_paste(id, decision).await,
            Picture::Dropped(id) => self.compositor.answer_dropped_picture(id, decision).await,
        }
    }

    async fn refuse_picture(&self, picture: Picture, why: NotRedrawn) -> NotRedrawn {
        if !matches!(why, NotRedrawn::GivenUp(_)) {
            let answered = self.answer_picture(picture, Err(why.to_string())).await;
            if let Err(error) = answered {
                tracing::warn!(?picture, %error, "the end of a picture came to nothing");
            }
        }
        why
    }

    /// A disposable of which domain may decode it, by the policy.
    async fn model_for_picture(
        self: &Arc<Self>,
        source: &Name,
    ) -> Result<(DomainName, Place), NotRedrawn> {
        let call = Call::parse(source.clone(), SERVICE.as_bytes(), b"@dispvm")
            .map_err(|_| NotRedrawn::Failed)?;
        let manager = self.clone();
        let verdict = tokio::task::spawn_blocking(move || rules::evaluate(&manager, &call)).await;
        let model = choose(verdict.map_err(|_| NotRedrawn::Failed)??)?;
        let model = model.as_str().parse().map_err(crate::Error::from)?;
        let place = self.calls.quota.take(source);
        Ok((model, place.ok_or(NotRedrawn::TooManyDisposables)?))
    }

    /// Runs the decoder to its end in a disposable of its own.
    async fn decode(
        self: &Arc<Self>,
        model: &DomainName,
        source: &Name,
        place: Place,
        stdio: Stdio,
        word: &mut oneshot::Receiver<LastWord>,
    ) -> Result<(), NotRedrawn> {
        let model = self.store.load(model)?;
        let config = DomainConfig {
            // It decodes what somebody else made, and has nobody to tell of it.
            net_domain: None,
            ..model.disposable(self.disposable_name()?)
        };
        let request = ExecRequest {
            argv: serve_command(SERVICE, "", source.as_str()),
            ..ExecRequest::default()
        };
        self.create(&config).await?;
        let name = config.name;
        tracing::info!(domain = %name, %source, "decodes a picture");
        let mut running: Running = {
            let (manager, name) = (self.clone(), name.clone());
            let key = (CALLER.to_owned(), name.to_string());
            tokio::spawn(async move { manager.exec(&name, request, stdio, key, true).await })
        };
        let decoded = tokio::select! {
            outcome = &mut running => match outcome {
                Ok(outcome) => how_it_ended(outcome),
                Err(_) => Err(NotRedrawn::Failed),
            },
            word = word => Err(match given_up(word) {
                Err(why) => why,
                // It cannot have all pixels yet.
                Ok(()) => NotRedrawn::Failed,
            }),
            () = tokio::time::sleep(WHOLE) => Err(NotRedrawn::Late),
        };
        tokio::spawn(self.clone().clear_away(name, running, place));
        decoded
    }

    /// Removes the disposable, in whatever state it is.
    async fn clear_away(self: Arc<Self>, name: DomainName, mut running: Running, place: Place) {
        // It may be just starting, and would leave behind what it makes after this.
        while !running.is_finished() {
            let _ = self.kill(&name).await;
            let _ = tokio::time::timeout(RETRY, &mut running).await;
        }
        self.dispose(&name).await;
        drop(place);
    }
}

/// Of which domain the rules allow a disposable.
fn choose(verdict: Verdict) -> Result<Name, NotRedrawn> {
    let is_new = |target: &&Destination| matches!(target, Destination::NewDisposable { .. });
    let allow = match verdict {
        Verdict::Allow(allow) => allow,
        // The user has pressed the keys for it, which is the answer here as it is for the paste.
        Verdict::Ask(ask) => {
            let all = ask.default_target.iter().chain(&ask.targets);
            match all.clone().find(is_new) {
                Some(target) => ask.choose(target)?,
                None => return Err(NotRedrawn::Elsewhere(ask.rule)),
            }
        }
        Verdict::Deny(deny) => return Err(deny.into()),
    };
    match allow.target {
        Destination::NewDisposable { template } => Ok(template),
        _ => Err(NotRedrawn::Elsewhere(allow.rule)),
    }
}

fn how_it_ended(outcome: crate::Result<Outcome>) -> Result<(), NotRedrawn> {
    match outcome?.status {
        0 => Ok(()),
        1 => Err(NotRedrawn::Damaged),
        status => Err(NotRedrawn::Decoder(status)),
    }
}

fn given_up(word: Result<LastWord, oneshot::error::RecvError>) -> Result<(), NotRedrawn> {
    match word {
        Ok(word) => word.map_err(NotRedrawn::GivenUp),
        Err(_) => Err(NotRedrawn::GivenUp("the compositor has gone".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_policy::{Domain, Folder, Kind, Policy, Snapshot};

    use super::*;

    fn chosen(rules: &str, source: &str) -> String {
        let domain = |name: &str, model: Option<&str>| Domain {
            makes_disposables: name == "web",
            default_disposable: model.map(|model| model.parse().unwrap()),
            ..Domain::new(name.parse().unwrap(), Kind::App)
        };
        let domains = [
            domain("work", Some("web")),
            domain("web", Some("web")),
            domain("vault", None),
        ];
        let snapshot = Snapshot::new(domains).unwrap();
        let user = Folder::in_memory([("30-user.policy", rules)]);
        let policy = Policy::load(&[user, Folder::built_in()]).unwrap();
        let call = Call::parse(source.parse().unwrap(), SERVICE.as_bytes(), b"@dispvm").unwrap();
        match choose(policy.evaluate(&call, &snapshot)) {
            Ok(model) => model.to_string(),
            Err(why) => why.to_string(),
        }
    }

    #[test]
    fn the_disposable_is_the_sources_default_or_what_a_rule_says() {
        assert_eq!(chosen("", "work"), "web");
        let other = "bulkhead.DecodePicture * vault @dispvm allow target=@dispvm:web";
        assert_eq!(chosen(other, "vault"), "web");
        let ask = "bulkhead.DecodePicture * work @anyvm ask";
        assert_eq!(chosen(ask, "work"), "web");
    }

    #[test]
    fn without_one_it_is_said_why() {
        let none = "there is no disposable to redraw it in: the caller has no default for new \
                    disposables";
        assert_eq!(chosen("", "vault"), none);
        let denied =
            "the rule 30-user.policy:1 denies it the disposable that pictures are redrawn in";
        assert_eq!(
            chosen("bulkhead.DecodePicture * work * deny", "work"),
            denied
        );
        assert_eq!(chosen("* * work @anyvm deny", "work"), denied);
        let elsewhere = "the rule 30-user.policy:1 sends pictures to no disposable";
        for rule in ["allow target=vault", "ask target=vault"] {
            let rule = format!("bulkhead.DecodePicture * work @dispvm {rule}");
            assert_eq!(chosen(&rule, "work"), elsewhere);
        }
    }

    #[tokio::test]
    async fn the_last_word_is_heard_once_and_by_the_right_one() {
        let redraws = Redraws::default();
        let (mut one, two) = (redraws.expect(1), redraws.expect(2));
        let event = |id, pasted, text: &str| WindowEvent {
            id: Some(id),
            pasted,
            text: Some(text.to_owned()),
            ..WindowEvent::default()
        };
        redraws.ended(&event(3, true, ""));
        redraws.ended(&event(2, false, "too late"));
        redraws.ended(&event(2, true, ""));
        assert_eq!(two.await.unwrap(), Err("too late".to_owned()));
        assert!(one.try_recv().is_err());
        redraws.all_ended();
        let why = given_up(one.await).unwrap_err();
        assert_eq!(why.to_string(), "the compositor has gone");
    }
}
