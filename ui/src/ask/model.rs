//! A question to the user without its window: what is asked, what is chosen, whether yes counts yet.

use crate::bus::Question;

/// What the user has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Yes, to this target.
    Yes(u64, String),
    /// No.
    No(u64),
}

/// The questions that are open; the oldest is shown.
///
/// A yes counts only once the question has been seen for a moment in which no key was pressed: who is
/// typing into another window when it comes does not answer it by accident.
#[derive(Debug, Default)]
pub struct Model {
    open: Vec<Question>,
    /// An index of the shown question's targets.
    chosen: Option<usize>,
    /// Counts what an alarm may be for; only the last one arms.
    alarm: u64,
    armed: bool,
}

impl Model {
    /// The questions are these now. Tells whether another one is shown, or none.
    pub fn set(&mut self, open: Vec<Question>) -> bool {
        let before = self.shown().map(|question| question.id);
        self.open = open;
        let now = self.shown().map(|question| question.id);
        if before != now {
            self.chosen = self.shown().and_then(|question| {
                let default = &question.default;
                match question.targets.as_slice() {
                    [_only] => Some(0),
                    targets => targets.iter().position(|(name, _)| name == default),
                }
            });
            self.armed = false;
            // Alarms of the question before are not for this one.
            self.alarm += 1;
        }
        before != now
    }

    /// The question that is shown.
    pub fn shown(&self) -> Option<&Question> {
        self.open.first()
    }

    /// How many wait behind it.
    pub fn waiting(&self) -> usize {
        self.open.len().saturating_sub(1)
    }

    /// The chosen target's index.
    pub fn chosen(&self) -> Option<usize> {
        self.chosen
    }

    /// Chooses a target.
    pub fn choose(&mut self, index: usize) {
        if self
            .shown()
            .is_some_and(|question| index < question.targets.len())
        {
            self.chosen = Some(index);
        }
    }

    /// Chooses the next target, or the one before.
    pub fn step(&mut self, down: bool) {
        let count = self.shown().map_or(0, |question| question.targets.len());
        if count == 0 {
            return;
        }
        self.chosen = Some(match (self.chosen, down) {
            (None, true) => 0,
            (None, false) => count - 1,
            (Some(index), true) => (index + 1).min(count - 1),
            (Some(index), false) => index.saturating_sub(1),
        });
    }

    /// The question is seen from now on, or a key was pressed: the number of a new alarm. `None`: yes
    /// counts already.
    pub fn start_alarm(&mut self) -> Option<u64> {
        if self.armed {
            return None;
        }
        self.alarm += 1;
        Some(self.alarm)
    }

    /// The time of an alarm has gone by.
    pub fn rang(&mut self, alarm: u64) {
        self.armed |= alarm == self.alarm && self.shown().is_some();
    }

    /// Whether a yes would count.
    pub fn may_allow(&self) -> bool {
        self.armed && self.chosen.is_some()
    }

    /// The user says yes.
    pub fn allow(&self) -> Option<Decision> {
        if !self.may_allow() {
            return None;
        }
        let question = self.shown()?;
        let (target, _) = question.targets.get(self.chosen?)?;
        Some(Decision::Yes(question.id, target.clone()))
    }

    /// The user says no, which always counts.
    pub fn deny(&self) -> Option<Decision> {
        self.shown().map(|question| Decision::No(question.id))
    }
}

/// What is asked, in words.
pub fn sentence(question: &Question) -> String {
    match question.service.as_str() {
        "qubes.Filecopy" => "wants to send files to another domain".to_owned(),
        "bulkhead.Drop" if question.argument == "image" => "drops a picture".to_owned(),
        "bulkhead.Drop" => "drops text".to_owned(),
        "qubes.OpenInVM" => "wants a file to be opened".to_owned(),
        "qubes.OpenURL" => "wants a web address to be opened".to_owned(),
        "qubes.StartApp" => format!("wants to start {}", question.argument),
        "bulkhead.ConnectTcp" => {
            format!("wants to connect to TCP port {} there", question.argument)
        }
        service if question.argument.is_empty() => format!("calls {service}"),
        service => format!("calls {service}+{}", question.argument),
    }
}

/// A target in words.
pub fn target_name(target: &str) -> String {
    match target.strip_prefix("@dispvm:") {
        Some(template) => format!("a new disposable like {template}"),
        None if target == "dom0" => "the host".to_owned(),
        None => target.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(id: u64, targets: &[&str], default: &str) -> Question {
        let targets = targets
            .iter()
            .map(|&name| (name.to_owned(), Default::default()));
        Question {
            id,
            targets: targets.collect(),
            default: default.to_owned(),
            ..Question::default()
        }
    }

    #[test]
    fn yes_counts_only_after_a_quiet_moment() {
        let mut model = Model::default();
        assert!(model.set(vec![question(1, &["a"], "")]));
        let first = model.start_alarm().unwrap();
        assert_eq!(model.allow(), None);
        // A key is pressed before the time has gone by.
        let second = model.start_alarm().unwrap();
        model.rang(first);
        assert_eq!(model.allow(), None);
        model.rang(second);
        assert_eq!(model.start_alarm(), None);
        assert_eq!(model.allow(), Some(Decision::Yes(1, "a".to_owned())));
    }

    #[test]
    fn the_next_question_begins_unarmed_and_with_its_own_choice() {
        let mut model = Model::default();
        model.set(vec![question(1, &["a"], ""), question(2, &["a", "b"], "b")]);
        let alarm = model.start_alarm().unwrap();
        model.rang(alarm);
        assert_eq!(model.waiting(), 1);
        assert!(!model.set(vec![question(1, &["a"], ""), question(2, &["a", "b"], "b")]));
        assert!(model.may_allow());
        assert!(model.set(vec![question(2, &["a", "b"], "b")]));
        assert!(!model.may_allow());
        assert_eq!(model.chosen(), Some(1));
        model.rang(alarm);
        // An old alarm does not arm a new question once its own is set.
        let own = model.start_alarm().unwrap();
        assert_ne!(own, alarm);
        assert!(model.set(Vec::new()));
        model.rang(own);
        assert_eq!((model.allow(), model.deny()), (None, None));
    }

    #[test]
    fn without_a_suggestion_the_user_has_to_choose() {
        let mut model = Model::default();
        model.set(vec![question(1, &["a", "b"], "")]);
        let alarm = model.start_alarm().unwrap();
        model.rang(alarm);
        assert_eq!(model.allow(), None);
        model.step(true);
        model.step(true);
        model.step(true);
        assert_eq!(model.allow(), Some(Decision::Yes(1, "b".to_owned())));
        model.choose(7);
        assert_eq!(model.chosen(), Some(1));
        assert_eq!(model.deny(), Some(Decision::No(1)));
    }
}
