//! How well an application answers to what was typed. Pure text.

use crate::bus::Application;

/// How a word was found; the less, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The name begins so.
    NameBegins,
    /// A word of the name does.
    NameWordBegins,
    /// The domain's name does.
    DomainBegins,
    /// A word of what it is does, or a keyword.
    WordBegins,
    /// It stands within the name.
    InName,
    /// It stands within anything else.
    Within,
    /// The name has its letters in this order.
    Letters,
}

/// An application's texts, ready to be searched.
#[derive(Debug, Clone)]
pub struct Searchable {
    name: String,
    domain: String,
    others: Vec<String>,
}

impl Searchable {
    /// In lower case, once.
    pub fn new(app: &Application) -> Self {
        let mut others: Vec<String> = app
            .keywords
            .iter()
            .map(|word| word.to_lowercase())
            .collect();
        others.push(app.generic_name.to_lowercase());
        Searchable {
            name: app.name.to_lowercase(),
            domain: app.domain.to_lowercase(),
            others,
        }
    }

    /// How well all of these words (in lower case) are found: the worst counts first, then all
    /// together. Nothing where one is not found.
    pub fn rank(&self, words: &[String]) -> Option<(Rank, u32)> {
        let mut worst = Rank::NameBegins;
        let mut sum = 0;
        for word in words {
            let rank = self.rank_word(word)?;
            worst = worst.max(rank);
            sum += rank as u32;
        }
        Some((worst, sum))
    }

    fn rank_word(&self, word: &str) -> Option<Rank> {
        if self.name.starts_with(word) {
            return Some(Rank::NameBegins);
        }
        let in_name = self.name.contains(word);
        if in_name && begins_word(&self.name, word) {
            return Some(Rank::NameWordBegins);
        }
        if self.domain.starts_with(word) {
            return Some(Rank::DomainBegins);
        }
        let in_others = self.others.iter().any(|other| other.contains(word));
        if in_others && self.others.iter().any(|other| begins_word(other, word)) {
            return Some(Rank::WordBegins);
        }
        if in_name {
            return Some(Rank::InName);
        }
        if in_others || self.domain.contains(word) {
            return Some(Rank::Within);
        }
        has_letters(&self.name, word).then_some(Rank::Letters)
    }
}

fn begins_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric())
        .any(|part| part.starts_with(word))
}

/// Whether the letters stand in the text in this order, the first one at its beginning: otherwise
/// everything is found by nearly anything.
fn has_letters(text: &str, letters: &str) -> bool {
    let mut rest = text.chars();
    let mut letters = letters.chars();
    if letters.clone().count() < 2 || rest.next() != letters.next() {
        return false;
    }
    letters.all(|letter| rest.any(|c| c == letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(query: &str) -> Option<Rank> {
        let app = Application {
            name: "Simple Mouse-Pad".into(),
            generic_name: "Text Editor".into(),
            keywords: vec!["notepad".into(), "écrire".into()],
            domain: "work".into(),
            ..Application::default()
        };
        let words: Vec<String> = query.split(' ').map(str::to_lowercase).collect();
        Searchable::new(&app).rank(&words).map(|(rank, _)| rank)
    }

    #[test]
    fn ranks() {
        assert_eq!(rank("SIMP"), Some(Rank::NameBegins));
        assert_eq!(rank("pad"), Some(Rank::NameWordBegins));
        assert_eq!(rank("wor"), Some(Rank::DomainBegins));
        assert_eq!(rank("edit"), Some(Rank::WordBegins));
        assert_eq!(rank("écr"), Some(Rank::WordBegins));
        assert_eq!(rank("ouse"), Some(Rank::InName));
        assert_eq!(rank("epad"), Some(Rank::Within));
        assert_eq!(rank("smp"), Some(Rank::Letters));
        assert_eq!(rank("work pad"), Some(Rank::DomainBegins));
        assert_eq!(rank("zzz"), None);
        assert_eq!(rank("pad zzz"), None);
        assert_eq!(rank("ml"), None);
    }
}
