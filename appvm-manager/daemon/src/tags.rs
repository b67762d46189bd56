//! Tags: words that a domain carries, by which rules speak of many domains at once.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use bulkhead_protocol::DomainName;
use serde::{Deserialize, Serialize};

/// The most tags that one domain has.
pub const MAX_TAGS: usize = 32;

/// A checked tag, with the grammar of names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(DomainName);

/// Why something cannot be a domain's tags.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTag {
    /// A word that is none.
    #[error("`{0}` is no tag: use 1 to 31 of a-z, 0-9 and -, beginning with a letter")]
    Word(String),
    /// More than anyone needs.
    #[error("{0} tags are too many: use at most {MAX_TAGS}")]
    TooMany(usize),
}

impl Tag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for Tag {
    type Err = InvalidTag;

    fn from_str(text: &str) -> Result<Self, InvalidTag> {
        text.parse()
            .map(Tag)
            .map_err(|error: bulkhead_protocol::InvalidName| InvalidTag::Word(error.given))
    }
}

impl TryFrom<String> for Tag {
    type Error = InvalidTag;

    fn try_from(text: String) -> Result<Self, InvalidTag> {
        text.parse()
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> String {
        tag.0.into()
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The tags of one domain, sorted and each once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Tag>", into = "Vec<Tag>")]
pub struct Tags(BTreeSet<Tag>);

impl Tags {
    /// From words.
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidTag> {
        let tags: Vec<Tag> = words
            .into_iter()
            .take(MAX_TAGS + 1)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        tags.try_into()
    }

    /// Each.
    pub fn iter(&self) -> impl Iterator<Item = &Tag> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<Tag>> for Tags {
    type Error = InvalidTag;

    fn try_from(tags: Vec<Tag>) -> Result<Self, InvalidTag> {
        if tags.len() > MAX_TAGS {
            return Err(InvalidTag::TooMany(tags.len()));
        }
        Ok(Tags(tags.into_iter().collect()))
    }
}

impl From<Tags> for Vec<Tag> {
    fn from(tags: Tags) -> Vec<Tag> {
        tags.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_checked_sorted_and_bounded() {
        let tags = Tags::from_words(["work", "bank", "work"]).unwrap();
        let words: Vec<&str> = tags.iter().map(Tag::as_str).collect();
        assert_eq!(words, ["bank", "work"]);
        for bad in ["", "Work", "a b", "@x", "-a"] {
            let error = Tags::from_words([bad]).unwrap_err().to_string();
            assert!(error.contains("is no tag"), "{error}");
        }
        let many = vec!["a"; MAX_TAGS + 5];
        let error = Tags::from_words(many).unwrap_err().to_string();
        assert!(error.contains("use at most 32"), "{error}");
    }
}
