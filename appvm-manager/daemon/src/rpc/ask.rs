//! Questions to the user. Whoever draws them sees them here, and answers here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// Open questions of all domains; more are refused.
const MAX_OPEN: usize = 32;
/// After so long without an answer it is no.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the user is asked. Everything in it is safe to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Who wants it.
    pub source: String,
    /// Whom the caller named; `@default` if nobody.
    pub wanted: String,
    /// The service.
    pub service: String,
    /// Its argument, or nothing.
    pub argument: String,
    /// What may be chosen; nothing else is taken as an answer.
    pub targets: Vec<String>,
    /// What the policy suggests.
    pub default: Option<String>,
    /// What would be sent: a line for each thing.
    pub files: Vec<String>,
    /// How much that is, by the caller's word.
    pub bytes: u64,
}

/// How a question ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Yes, to this target.
    Yes(String),
    /// No.
    No,
    /// Nobody answered in time.
    NoAnswer,
}

/// Why an answer is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It was answered, or its caller went away.
    #[error("there is no open question {0}; `bulkhead ask list` shows those that are")]
    NoQuestion(u64),
    /// It was not offered.
    #[error("`{0}` is not among the targets of this question: {1}")]
    NoTarget(String, String),
    /// Several targets, and none was chosen.
    #[error("choose one of the targets: {0}")]
    Choose(String),
}

struct Pending {
    question: Question,
    sender: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct Table {
    next: u64,
    open: BTreeMap<u64, Pending>,
}

/// All open questions.
#[derive(Clone, Default)]
pub struct Asks(Arc<Mutex<Table>>);

impl std::fmt::Debug for Asks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Asks({} open)", self.table().open.len())
    }
}

impl Asks {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks; `None` if too many questions are open.
    pub fn open(&self, question: Question) -> Option<Open> {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.table();
        if table.open.len() >= MAX_OPEN {
            return None;
        }
        table.next += 1;
        let id = table.next;
        table.open.insert(id, Pending { question, sender });
        drop(table);
        Some(Open {
            id,
            asks: self.clone(),
            receiver: tokio::sync::Mutex::new(receiver),
        })
    }

    /// All that wait, oldest first.
    pub fn list(&self) -> Vec<(u64, Question)> {
        let table = self.table();
        let pending = table.open.iter();
        pending
            .map(|(id, pending)| (*id, pending.question.clone()))
            .collect()
    }

    /// The user says yes. No target: the only one, or the suggested one.
    pub fn allow(&self, id: u64, target: Option<&str>) -> Result<(), AnswerError> {
        let mut table = self.table();
        let pending = table.open.get(&id).ok_or(AnswerError::NoQuestion(id))?;
        let question = &pending.question;
        let all = || question.targets.join(", ");
        let target = match target {
            Some(target) if question.targets.iter().any(|one| one == target) => target.to_owned(),
            Some(target) => return Err(AnswerError::NoTarget(target.to_owned(), all())),
            None => match (&question.default, question.targets.as_slice()) {
                (Some(default), _) => default.clone(),
                (None, [only]) => only.clone(),
                _ => return Err(AnswerError::Choose(all())),
            },
        };
        if let Some(pending) = table.open.remove(&id) {
            // The caller may have gone in this moment.
            let _ = pending.sender.send(Answer::Yes(target));
        }
        Ok(())
    }

    /// The user says no.
    pub fn deny(&self, id: u64) -> Result<(), AnswerError> {
        let pending = self.table().open.remove(&id);
        let pending = pending.ok_or(AnswerError::NoQuestion(id))?;
        let _ = pending.sender.send(Answer::No);
        Ok(())
    }
}

/// A question that waits; dropping it withdraws it.
#[derive(Debug)]
pub struct Open {
    id: u64,
    asks: Asks,
    receiver: tokio::sync::Mutex<oneshot::Receiver<Answer>>,
}

impl Open {
    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the user.
    pub async fn answer(&self) -> Answer {
        self.answer_within(PATIENCE).await
    }

    async fn answer_within(&self, patience: Duration) -> Answer {
        let mut receiver = self.receiver.lock().await;
        match tokio::time::timeout(patience, &mut *receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Answer::NoAnswer,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.asks.table().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(targets: &[&str], default: Option<&str>) -> Question {
        Question {
            source: "work".into(),
            wanted: "@default".into(),
            service: "qubes.Filecopy".into(),
            argument: String::new(),
            targets: targets.iter().map(|&target| target.to_owned()).collect(),
            default: default.map(ToOwned::to_owned),
            files: Vec::new(),
            bytes: 0,
        }
    }

    #[tokio::test]
    async fn only_what_was_offered_is_an_answer() {
        let asks = Asks::default();
        let open = asks.open(question(&["a", "b"], None)).unwrap();
        let id = open.id();
        assert!(matches!(
            asks.allow(id, Some("c")),
            Err(AnswerError::NoTarget(..))
        ));
        assert!(matches!(asks.allow(id, None), Err(AnswerError::Choose(_))));
        assert_eq!(asks.allow(id, Some("b")), Ok(()));
        assert_eq!(open.answer().await, Answer::Yes("b".into()));
        assert_eq!(asks.allow(id, Some("b")), Err(AnswerError::NoQuestion(id)));
    }

    #[tokio::test]
    async fn the_suggested_or_the_only_target_needs_no_name() {
        let asks = Asks::default();
        let open = asks.open(question(&["a", "b"], Some("b"))).unwrap();
        asks.allow(open.id(), None).unwrap();
        assert_eq!(open.answer().await, Answer::Yes("b".into()));
        let open = asks.open(question(&["a"], None)).unwrap();
        asks.allow(open.id(), None).unwrap();
        assert_eq!(open.answer().await, Answer::Yes("a".into()));
        let open = asks.open(question(&["a"], None)).unwrap();
        asks.deny(open.id()).unwrap();
        assert_eq!(open.answer().await, Answer::No);
    }

    #[tokio::test]
    async fn a_question_ends_with_its_caller_and_by_time() {
        let asks = Asks::default();
        let open = asks.open(question(&["a"], None)).unwrap();
        assert_eq!(asks.list().len(), 1);
        let answer = open.answer_within(Duration::from_millis(1)).await;
        assert_eq!(answer, Answer::NoAnswer);
        drop(open);
        assert!(asks.list().is_empty());
        let many: Vec<_> = (0..MAX_OPEN)
            .map(|_| asks.open(question(&["a"], None)).unwrap())
            .collect();
        assert!(asks.open(question(&["a"], None)).is_none());
        drop(many);
        assert!(asks.open(question(&["a"], None)).is_some());
    }
}
