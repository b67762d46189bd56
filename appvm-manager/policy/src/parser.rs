//! Lines of a policy file: bytes in, statements out.
//!
//! Two syntaxes exist (`parser.py`, `load_policy_file` and `load_policy_file_service`): the one of
//! policy files, and the older one of files that `!include-service` names, which has no columns for
//! service and argument, and may write `$` for `@` and `,` between parameters.

use std::borrow::Cow;

use crate::error::Problem;
use crate::limits::{MAX_LINE_BYTES, MAX_LINES, MAX_WORDS};
use crate::rule::{Services, parse_services};
use crate::token::shown;

/// Which syntax a file has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Syntax<'a> {
    /// Five columns.
    Policy,
    /// Three columns: the service and the argument were given where the file was included.
    Service(&'a Services),
}

/// What a line says.
#[derive(Debug)]
pub(crate) enum Statement<'a> {
    /// Nothing: empty, or a comment.
    Nothing,
    /// A rule: its service and argument, and the words after them.
    Rule(Services, Vec<&'a str>),
    /// `!include PATH`
    Include(&'a str),
    /// `!include-dir PATH`
    IncludeDir(&'a str),
    /// `!include-service SERVICE ARGUMENT PATH`
    IncludeService(Services, &'a str),
}

/// The lines of a file with their numbers, from 1. A line that cannot be read is an error, and the
/// last that is returned should be the last that is looked at.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = (usize, Result<&str, Problem>)> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    (1..)
        .zip(text.split(|&b| b == b'\n'))
        .map(|(number, line)| (number, read_line(number, line)))
}

fn read_line(number: usize, line: &[u8]) -> Result<&str, Problem> {
    if number > MAX_LINES {
        return Err(Problem::Lines);
    }
    if line.len() > MAX_LINE_BYTES {
        return Err(Problem::LongLine);
    }
    let line = std::str::from_utf8(line).map_err(|_| Problem::Encoding)?;
    let line = line.strip_suffix('\r').unwrap_or(line);
    // A lone carriage return would let a comment hide a rule from one reader or the other.
    match line.chars().find(|&c| c.is_control() && c != '\t') {
        Some(control) => Err(Problem::Control(control)),
        None => Ok(line.trim_matches([' ', '\t'])),
    }
}

/// The line as it is to be read in this syntax.
pub(crate) fn translate<'a>(line: &'a str, syntax: Syntax) -> Cow<'a, str> {
    match syntax {
        Syntax::Policy => Cow::Borrowed(line),
        Syntax::Service(_) if line.starts_with('#') => Cow::Borrowed(line),
        Syntax::Service(_) => Cow::Owned(
            line.replace("$include:", "!include ")
                .replace('$', "@")
                .replace(',', " "),
        ),
    }
}

/// Reads one translated line.
pub(crate) fn statement<'a>(line: &'a str, syntax: Syntax) -> Result<Statement<'a>, Problem> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(Statement::Nothing);
    }
    let words: Vec<&str> = line
        .split([' ', '\t'])
        .filter(|word| !word.is_empty())
        .take(MAX_WORDS + 1)
        .collect();
    if words.len() > MAX_WORDS {
        return Err(Problem::Words);
    }
    if line.starts_with('!') {
        return directive(&words, syntax);
    }
    match syntax {
        Syntax::Service(services) => Ok(Statement::Rule(services.clone(), words)),
        Syntax::Policy => match words.as_slice() {
            [service, argument, rest @ ..] if rest.len() >= 3 => {
                let services = parse_services(service, argument)?;
                Ok(Statement::Rule(services, rest.to_vec()))
            }
            _ => Err(Problem::Columns),
        },
    }
}

fn directive<'a>(words: &[&'a str], syntax: Syntax) -> Result<Statement<'a>, Problem> {
    let Some((&name, values)) = words.split_first() else {
        return Ok(Statement::Nothing);
    };
    match (name, syntax) {
        ("!include", _) => match values {
            [path] => Ok(Statement::Include(path)),
            _ => Err(Problem::DirectiveWords("!include FILE")),
        },
        ("!include-dir", Syntax::Policy) => match values {
            [path] => Ok(Statement::IncludeDir(path)),
            _ => Err(Problem::DirectiveWords("!include-dir FOLDER")),
        },
        ("!include-service", Syntax::Policy) => match values {
            [service, argument, path] => Ok(Statement::IncludeService(
                parse_services(service, argument)?,
                path,
            )),
            _ => Err(Problem::DirectiveWords(
                "!include-service SERVICE ARGUMENT FILE",
            )),
        },
        ("!compat-4.0", Syntax::Policy) => Err(Problem::Compat),
        _ => Err(Problem::Directive(shown(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_and_trimmed() {
        let all: Vec<_> = lines(b"a\r\n\t b \n\n# c")
            .map(|(number, line)| (number, line.unwrap()))
            .collect();
        assert_eq!(all, [(1, "a"), (2, "b"), (3, ""), (4, "# c")]);
        assert_eq!(lines(b"a\n").count(), 1);
    }

    #[test]
    fn what_editors_show_differently_is_refused() {
        for (text, wrong_line) in [
            (&b"# a\r* * a b allow\n"[..], 1),
            (b"\n\0", 2),
            (b"\n\n\xff\n", 3),
            (b"\x0c", 1),
        ] {
            let wrong = lines(text).find(|(_, line)| line.is_err());
            assert_eq!(
                wrong.map(|(number, _)| number),
                Some(wrong_line),
                "{text:?}"
            );
        }
    }

    #[test]
    fn lines_are_bounded() {
        let long = vec![b'a'; MAX_LINE_BYTES + 1];
        assert!(lines(&long).all(|(_, line)| line.is_err()));
        let many = vec![b'\n'; MAX_LINES + 5];
        let wrong = lines(&many).find(|(_, line)| line.is_err());
        assert_eq!(wrong.map(|(number, _)| number), Some(MAX_LINES + 1));
        let words = "a ".repeat(MAX_WORDS + 1);
        assert!(matches!(
            statement(&words, Syntax::Policy),
            Err(Problem::Words)
        ));
    }

    #[test]
    fn the_old_syntax_is_translated() {
        let syntax = Syntax::Service(&(None, None));
        assert_eq!(
            translate("$anyvm $dispvm ask,default_target=$dispvm", syntax),
            "@anyvm @dispvm ask default_target=@dispvm"
        );
        assert_eq!(translate("$include:other", syntax), "!include other");
        assert_eq!(translate("$anyvm", Syntax::Policy), "$anyvm");
    }
}
