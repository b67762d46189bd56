//! The words for domains in a policy line, and where each of them may stand.
//!
//! The table is Qubes' (`doc/multifile-policy.markdown`, "Qube specification", and the inheritance
//! of the token classes in `parser.py`):
//!
//! | token | source | target | `target=`, `default_target=` | what a guest may ask for |
//! | --- | --- | --- | --- | --- |
//! | a name, `@adminvm`, `@dispvm:NAME` | yes | yes | yes | yes |
//! | `@dispvm` | no | yes | yes | yes |
//! | `@default` | no | yes | no | yes |
//! | `*`, `@anyvm`, `@tag:TAG`, `@type:TYPE`, `@dispvm:@tag:TAG` | yes | yes | no | no |

use std::fmt;

use crate::domain::TypeName;
use crate::name::{Name, Tag, WordError};

/// A word for a domain, or for many.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Token {
    /// `*`: everything, the host too.
    Wildcard,
    /// `@anyvm`: everything but the host.
    AnyVm,
    /// `@adminvm` or `dom0`: the host.
    AdminVm,
    /// `@default`: a call that names no target, or one that does not exist.
    Default,
    /// `@dispvm`: a new disposable from the caller's default.
    DispVm,
    /// `@dispvm:NAME`: a new disposable from NAME.
    DispVmOf(Name),
    /// `@dispvm:@tag:TAG`: a new disposable from any domain with the tag.
    DispVmTag(Tag),
    /// `@tag:TAG`: domains with the tag.
    Tag(Tag),
    /// `@type:TYPE`: domains of the type.
    Type(TypeName),
    /// One domain.
    Name(Name),
}

/// Where a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The third column.
    Source,
    /// The fourth column.
    Target,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Position::Source => "source",
            Position::Target => "target",
        })
    }
}

/// Why a word is no token, or not here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No such token.
    #[error(
        "there is no token `{0}`; use a domain's name, *, @anyvm, @adminvm, @default, @dispvm, \
         @dispvm:NAME, @dispvm:@tag:TAG, @tag:TAG or @type:TYPE"
    )]
    Unknown(String),
    /// A token that may not stand here.
    #[error("`{token}` cannot be a {place}; {instead}")]
    Misplaced {
        /// The token.
        token: String,
        /// Where it stood.
        place: &'static str,
        /// What may stand there.
        instead: &'static str,
    },
    /// A type that does not exist.
    #[error(
        "there is no type `{0}`; use AppVM, DispVM, StandaloneVM, TemplateVM, AdminVM or RemoteVM"
    )]
    NoSuchType(String),
    /// Qubes knows domains by UUID too.
    #[error("`{0}`: domains have no UUIDs here; write the domain's name")]
    Uuid(String),
    /// The name or tag in it is none.
    #[error("`{token}`: {error}")]
    Word {
        /// The token.
        token: String,
        /// What is wrong in it.
        error: WordError,
    },
}

impl Token {
    /// Reads a token, wherever it stands.
    fn read(word: &str) -> Result<Token, TokenError> {
        let name = |text: &str| match text.parse::<Name>() {
            Ok(name) => Ok(name),
            Err(_) if text.starts_with("uuid:") => Err(TokenError::Uuid(shown(word))),
            Err(error) => Err(TokenError::Word {
                token: shown(word),
                error,
            }),
        };
        let tag = |text: &str| {
            text.parse::<Tag>().map_err(|error| TokenError::Word {
                token: shown(word),
                error,
            })
        };
        match word {
            "*" => return Ok(Token::Wildcard),
            "@anyvm" => return Ok(Token::AnyVm),
            "@adminvm" | "dom0" => return Ok(Token::AdminVm),
            "@default" => return Ok(Token::Default),
            "@dispvm" => return Ok(Token::DispVm),
            _ => {}
        }
        if let Some(text) = word.strip_prefix("@dispvm:@tag:") {
            Ok(Token::DispVmTag(tag(text)?))
        } else if let Some(text) = word.strip_prefix("@dispvm:") {
            Ok(Token::DispVmOf(name(text)?))
        } else if let Some(text) = word.strip_prefix("@tag:") {
            Ok(Token::Tag(tag(text)?))
        } else if let Some(text) = word.strip_prefix("@type:") {
            TypeName::find(text)
                .map(Token::Type)
                .ok_or_else(|| TokenError::NoSuchType(shown(text)))
        } else if word.starts_with('@') {
            Err(TokenError::Unknown(shown(word)))
        } else {
            Ok(Token::Name(name(word)?))
        }
    }

    /// Reads the token of the third or fourth column.
    pub fn parse(word: &str, position: Position) -> Result<Token, TokenError> {
        let token = Token::read(word)?;
        match (position, &token) {
            (Position::Source, Token::Default | Token::DispVm) => Err(TokenError::Misplaced {
                token: shown(word),
                place: "source",
                instead: "a source is a domain that exists: a name, @anyvm, @tag:TAG, @type:TYPE \
                          or *",
            }),
            _ => Ok(token),
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Wildcard => f.write_str("*"),
            Token::AnyVm => f.write_str("@anyvm"),
            Token::AdminVm => f.write_str("@adminvm"),
            Token::Default => f.write_str("@default"),
            Token::DispVm => f.write_str("@dispvm"),
            Token::DispVmOf(name) => write!(f, "@dispvm:{name}"),
            Token::DispVmTag(tag) => write!(f, "@dispvm:@tag:{tag}"),
            Token::Tag(tag) => write!(f, "@tag:{tag}"),
            Token::Type(name) => write!(f, "@type:{name}"),
            Token::Name(name) => name.fmt(f),
        }
    }
}

/// Where `target=` and `default_target=` may point: one place, never many.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Redirect {
    /// The host.
    AdminVm,
    /// A new disposable from the caller's default.
    DispVm,
    /// A new disposable from this domain.
    DispVmOf(Name),
    /// This domain.
    Domain(Name),
}

impl Redirect {
    /// Reads the value of a parameter.
    pub fn parse(word: &str) -> Result<Redirect, TokenError> {
        match Token::read(word)? {
            Token::AdminVm => Ok(Redirect::AdminVm),
            Token::DispVm => Ok(Redirect::DispVm),
            Token::DispVmOf(name) => Ok(Redirect::DispVmOf(name)),
            Token::Name(name) => Ok(Redirect::Domain(name)),
            Token::Wildcard
            | Token::AnyVm
            | Token::Default
            | Token::DispVmTag(_)
            | Token::Tag(_)
            | Token::Type(_) => Err(TokenError::Misplaced {
                token: shown(word),
                place: "redirection",
                instead: "it must mean one place: a domain's name, @adminvm, @dispvm or \
                          @dispvm:NAME",
            }),
        }
    }
}

impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Redirect::AdminVm => f.write_str("@adminvm"),
            Redirect::DispVm => f.write_str("@dispvm"),
            Redirect::DispVmOf(name) => write!(f, "@dispvm:{name}"),
            Redirect::Domain(name) => name.fmt(f),
        }
    }
}

/// A word as it may stand in a message: escaped and short.
pub(crate) fn shown(word: &str) -> String {
    const LONGEST: usize = 80;
    let mut text: String = word
        .chars()
        .take(LONGEST)
        .flat_map(char::escape_debug)
        .collect();
    if word.chars().nth(LONGEST).is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each token, and whether it may be a source, a target, a redirection.
    const PLACES: &[(&str, bool, bool, bool)] = &[
        ("work", true, true, true),
        ("dom0", true, true, true),
        ("@adminvm", true, true, true),
        ("@dispvm:work", true, true, true),
        ("@dispvm", false, true, true),
        ("@default", false, true, false),
        ("*", true, true, false),
        ("@anyvm", true, true, false),
        ("@tag:a", true, true, false),
        ("@type:AppVM", true, true, false),
        ("@dispvm:@tag:a", true, true, false),
        ("", false, false, false),
        ("@", false, false, false),
        ("@invalid", false, false, false),
        ("@dispvm:", false, false, false),
        ("@dispvm:@tag:", false, false, false),
        ("@dispvm:@type:AppVM", false, false, false),
        ("@dispvm:@dispvm", false, false, false),
        ("@tag:", false, false, false),
        ("@tag:@tag:a", false, false, false),
        ("@type:", false, false, false),
        ("@type:NoVM", false, false, false),
        ("@uuid:", false, false, false),
        (
            "uuid:d8a249f1-b02b-4944-a9e5-437def2fbe2c",
            false,
            false,
            false,
        ),
        ("$anyvm", false, false, false),
        ("a/b", false, false, false),
        ("@anyvm ", false, false, false),
    ];

    #[test]
    fn each_token_has_its_places() {
        for &(word, source, target, redirect) in PLACES {
            let got = (
                Token::parse(word, Position::Source).is_ok(),
                Token::parse(word, Position::Target).is_ok(),
                Redirect::parse(word).is_ok(),
            );
            assert_eq!(got, (source, target, redirect), "{word:?}");
        }
    }

    #[test]
    fn a_token_is_shown_as_it_is_written() {
        for &(word, _, target, redirect) in PLACES {
            let written = if word == "dom0" { "@adminvm" } else { word };
            if target {
                let token = Token::parse(word, Position::Target).unwrap();
                assert_eq!(token.to_string(), written);
            }
            if redirect {
                assert_eq!(Redirect::parse(word).unwrap().to_string(), written);
            }
        }
    }

    #[test]
    fn errors_are_short_and_say_what_to_write() {
        let error = Token::parse("@dispvm", Position::Source).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("`@dispvm` cannot be a source")
        );
        let long = format!("@{}", "x".repeat(1000));
        let error = Token::parse(&long, Position::Source).unwrap_err();
        assert!(error.to_string().len() < 300, "{error}");
    }
}
