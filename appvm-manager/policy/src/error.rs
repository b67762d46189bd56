//! Why a policy cannot be used. A policy with one wrong line is not used at all (as in Qubes): half
//! a policy could allow what a missing line denies.

use std::path::PathBuf;

use crate::limits::{
    MAX_FILE_BYTES, MAX_FILES, MAX_FOLDER_ENTRIES, MAX_INCLUDE_DEPTH, MAX_LINE_BYTES, MAX_LINES,
    MAX_PATH, MAX_RULES, MAX_USER, MAX_WORDS,
};
use crate::name::WordError;
use crate::rule::Place;
use crate::token::TokenError;

/// Why no policy could be loaded. Until it is mended, every call is denied.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A line is wrong.
    #[error("{place}: {problem}")]
    Line {
        /// Where.
        place: Place,
        /// What is wrong, and what to do.
        problem: Problem,
    },
    /// A file is wrong as a whole.
    #[error("{file}: {problem}")]
    File {
        /// The file.
        file: String,
        /// What is wrong, and what to do.
        problem: FileProblem,
    },
    /// The policy folder itself.
    #[error("cannot read the policy folder {}: {error}", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The system's answer.
        error: std::io::Error,
    },
    /// Too many names in a folder.
    #[error("the policy folder {} has more than {MAX_FOLDER_ENTRIES} entries; remove what is no \
             policy", .folder.display())]
    FullFolder {
        /// The folder.
        folder: PathBuf,
    },
}

/// What is wrong with a file as a whole.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// Its name.
    #[error(
        "the name of a policy file may have only a-z, 0-9, `_`, `.` and `-`; rename it, or take \
         `.policy` from its name"
    )]
    Name,
    /// Not there, or not readable.
    #[error("cannot be read: {0}")]
    Read(std::io::Error),
    /// A device, a pipe, a folder.
    #[error("is not a regular file")]
    NotAFile,
    /// A link to elsewhere.
    #[error("is a link that leads out of the policy folder; put the file itself into the folder")]
    Outside,
    /// Too large.
    #[error("is larger than {MAX_FILE_BYTES} bytes; split it")]
    TooLarge,
    /// Too many files.
    #[error("more than {MAX_FILES} files were read for one policy; include fewer")]
    TooMany,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Fewer than five columns.
    #[error(
        "too few columns; a rule is: service argument source target action (`+` for no argument, \
         `*` for any)"
    )]
    Columns,
    /// More words than any rule has.
    #[error(
        "more than {MAX_WORDS} words; a rule is: service argument source target action \
             parameters"
    )]
    Words,
    /// The line is too long.
    #[error("the line has more than {MAX_LINE_BYTES} bytes; no rule needs that many")]
    LongLine,
    /// The file has too many lines.
    #[error("the file has more than {MAX_LINES} lines; split it")]
    Lines,
    /// All files together have too many rules.
    #[error("the policy has more than {MAX_RULES} rules; use tags to say it in fewer")]
    Rules,
    /// Not UTF-8.
    #[error("the line is not UTF-8 text; save the file as UTF-8")]
    Encoding,
    /// A control character: some editors would show another line than the one that is read.
    #[error("the line has the control character `{}`; remove it (lines end with a line feed)",
            .0.escape_default())]
    Control(char),
    /// The service or the argument.
    #[error("`{word}`: {error}")]
    Service {
        /// The word.
        word: String,
        /// What is wrong in it.
        error: WordError,
    },
    /// An argument without `+`.
    #[error(
        "the argument `{0}` does not begin with `+`; write `+{0}`, `+` for none or `*` for any"
    )]
    ArgumentWithoutPlus(String),
    /// An argument, but no service.
    #[error("the service `*` takes no argument but `*`; name the service of `{0}`")]
    ArgumentOfAny(String),
    /// A source, a target or a redirection.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// An unknown action.
    #[error("there is no action `{0}`; use allow, ask or deny")]
    Action(String),
    /// A word after the action that is no parameter.
    #[error(
        "`{0}` is no parameter; parameters are KEY=VALUE, without spaces and with no comma between \
         them"
    )]
    Parameter(String),
    /// A comment after a rule.
    #[error("a comment must stand on a line of its own")]
    CommentAtEnd,
    /// A parameter of another action.
    #[error("`{action}` has no parameter `{key}`; it has: {valid}")]
    ParameterOf {
        /// The parameter.
        key: String,
        /// The action.
        action: String,
        /// What the action has.
        valid: String,
    },
    /// The same parameter twice.
    #[error("`{0}=` is given twice; remove one")]
    ParameterTwice(String),
    /// Neither yes nor no.
    #[error("`{key}={value}`: write {key}=yes or {key}=no")]
    YesOrNo {
        /// The parameter.
        key: String,
        /// What was given.
        value: String,
    },
    /// Not a user's name.
    #[error(
        "`user={0}`: a user's name is 1 to {MAX_USER} letters, digits, `_`, `.` and `-`, beginning \
         with a letter, a digit or `_`"
    )]
    User(String),
    /// `@default allow` leads nowhere.
    #[error("`allow` for the target @default needs target=: say where the call goes")]
    DefaultWithoutTarget,
    /// An unknown `!` line.
    #[error("there is no `{0}`; use !include, !include-dir or !include-service")]
    Directive(String),
    /// A `!` line with too few or too many words.
    #[error("write: {0}")]
    DirectiveWords(&'static str),
    /// The old policy.
    #[error(
        "!compat-4.0 reads /etc/qubes-rpc/policy, which does not exist here; remove the line, and \
         name files in the old format one by one with !include-service SERVICE ARGUMENT FILE"
    )]
    Compat,
    /// An include that leaves the folder.
    #[error(
        "`{0}` leaves the policy folder; put the file into the folder (usually into include/) and \
         write its path from there"
    )]
    PathOutside(String),
    /// A path that is too long or empty.
    #[error("the path has more than {MAX_PATH} bytes")]
    LongPath,
    /// Includes without end.
    #[error("`{0}` includes itself; remove the line")]
    Cycle(String),
    /// Includes too deep.
    #[error("includes are nested more than {MAX_INCLUDE_DEPTH} deep; include the file directly")]
    Depth,
    /// An include that cannot be read.
    #[error("`{path}` {problem}")]
    Include {
        /// What is included.
        path: String,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// `!include-dir` of something else.
    #[error("`{0}` is not a folder inside the policy folder; make it, or remove the line")]
    NoFolder(String),
}

/// Something that is allowed but does nothing: shown to the user, and no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where.
    pub place: Place,
    /// What, in one sentence.
    pub text: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}
