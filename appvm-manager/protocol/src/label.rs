//! The eight labels that users of Qubes know, and their colours.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How much a user trusts a domain, shown as the colour of its windows' borders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// Untrusted.
    Red,
    /// Nearly untrusted.
    Orange,
    /// Between.
    Yellow,
    /// Trusted with ordinary work.
    Green,
    /// Neutral.
    Gray,
    /// Trusted with more.
    Blue,
    /// Trusted with much.
    Purple,
    /// Most trusted.
    Black,
}

/// A label that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown label `{given}`; use one of red, orange, yellow, green, gray, blue, purple, black"
)]
pub struct UnknownLabel {
    /// What was given.
    pub given: String,
}

impl Label {
    /// Every label, from least to most trusted.
    pub const ALL: [Label; 8] = [
        Label::Red,
        Label::Orange,
        Label::Yellow,
        Label::Green,
        Label::Gray,
        Label::Blue,
        Label::Purple,
        Label::Black,
    ];

    /// The name as written in files and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Label::Red => "red",
            Label::Orange => "orange",
            Label::Yellow => "yellow",
            Label::Green => "green",
            Label::Gray => "gray",
            Label::Blue => "blue",
            Label::Purple => "purple",
            Label::Black => "black",
        }
    }

    /// The border's colour, `#rrggbb`.
    pub fn colour(self) -> &'static str {
        match self {
            Label::Red => "#cc0000",
            Label::Orange => "#f57900",
            Label::Yellow => "#edd400",
            Label::Green => "#73d216",
            Label::Gray => "#555753",
            Label::Blue => "#3465a4",
            Label::Purple => "#75507b",
            Label::Black => "#000000",
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Label {
    type Err = UnknownLabel;

    fn from_str(text: &str) -> Result<Self, UnknownLabel> {
        Label::ALL
            .into_iter()
            .find(|label| label.name() == text)
            .ok_or_else(|| UnknownLabel {
                given: text.chars().take(40).collect(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_colours_are_hex() {
        for label in Label::ALL {
            assert_eq!(label.name().parse(), Ok(label));
            assert_eq!(label.colour().len(), 7);
            assert!(label.colour().starts_with('#'));
        }
        assert!("Red".parse::<Label>().is_err());
        assert!(
            "pink"
                .parse::<Label>()
                .unwrap_err()
                .to_string()
                .contains("`pink`")
        );
    }
}
