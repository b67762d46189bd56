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

/// A word that was typed, in lower case.
#[derive(Debug, Clone)]
pub struct Word {
    text: String,
    /// With a space before it: so it stands where a word begins.
    begins: String,
}

impl Word {
    /// The words of what was typed.
    pub fn all(query: &str) -> Vec<Word> {
        query
            .split_whitespace()
            .map(str::to_lowercase)
            .map(|text| Word {
                begins: format!(" {text}"),
                text,
            })
            .collect()
    }
}

/// An application's texts, ready to be searched: each once as it is, in lower case, and once as
/// words with a space before each.
#[derive(Debug, Clone)]
pub struct Searchable {
    name: String,
    name_words: String,
    domain: String,
    others: String,
    others_words: String,
}

impl Searchable {
    /// Prepared once, so that a key press only compares.
    pub fn new(app: &Application) -> Self {
        let name = app.name.to_lowercase();
        // A line each, so that nothing is found across two of them.
        let others = [std::slice::from_ref(&app.generic_name), &app.keywords]
            .concat()
            .join("\n")
            .to_lowercase();
        Searchable {
            name_words: words(&name),
            others_words: words(&others),
            name,
            domain: app.domain.to_lowercase(),
            others,
        }
    }

    /// How well all of these words are found: the worst counts first, then all together. Nothing
    /// where one is not found.
    pub fn rank(&self, words: &[Word]) -> Option<(Rank, u32)> {
        let mut worst = Rank::NameBegins;
        let mut sum = 0;
        for word in words {
            let rank = self.rank_word(word)?;
            worst = worst.max(rank);
            sum += rank as u32;
        }
        Some((worst, sum))
    }

    fn rank_word(&self, word: &Word) -> Option<Rank> {
        let Word { text, begins } = word;
        if self.name.starts_with(text) {
            return Some(Rank::NameBegins);
        }
        if self.name_words.contains(begins) {
            return Some(Rank::NameWordBegins);
        }
        if self.domain.starts_with(text) {
            return Some(Rank::DomainBegins);
        }
        if self.others_words.contains(begins) {
            return Some(Rank::WordBegins);
        }
        if self.name.contains(text) {
            return Some(Rank::InName);
        }
        if self.others.contains(text) || self.domain.contains(text) {
            return Some(Rank::Within);
        }
        has_letters(&self.name, text).then_some(Rank::Letters)
    }
}

/// The words of a text, a space before each.
fn words(text: &str) -> String {
    let mut words = String::with_capacity(text.len() + 1);
    for word in text.split(|c: char| !c.is_alphanumeric()) {
        if !word.is_empty() {
            words.push(' ');
            words.push_str(word);
        }
    }
    words
}

/// Whether the letters stand in the text in this order, at least three and the first one at its
/// beginning: otherwise everything is found by nearly anything.
fn has_letters(text: &str, letters: &str) -> bool {
    let mut rest = text.chars();
    let mut letters = letters.chars();
    if letters.clone().count() < 3 || rest.next() != letters.next() {
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
        Searchable::new(&app)
            .rank(&Word::all(query))
            .map(|(rank, _)| rank)
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
        assert_eq!(rank("sm"), None);
        assert_eq!(rank("mpl"), Some(Rank::InName));
        assert_eq!(rank("mse"), None);
    }
}
