//! The `Exec` key: a command line by the rules of the Desktop Entry specification ("The Exec
//! key"), without a shell. The result runs in the guest, never on the host.

/// The most arguments that a command has.
pub const MAX_ARGUMENTS: usize = 64;

/// Why a command line is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// Nothing is left to run.
    #[error("Exec is empty")]
    Empty,
    /// A quote is not closed.
    #[error("Exec has a quote that is not closed")]
    Quote,
    /// A character that must be quoted is not, or a quote stands inside of a word.
    #[error("Exec has `{0}` where the specification wants quotes")]
    Reserved(char),
    /// A field code that does not exist.
    #[error("Exec has an unknown field code")]
    FieldCode,
    /// More arguments than [`MAX_ARGUMENTS`].
    #[error("Exec has more than {MAX_ARGUMENTS} arguments")]
    Long,
    /// The program is neither a plain name nor a normal absolute path.
    #[error("Exec's program is neither a name nor an absolute path without `..`")]
    Program,
    /// An argument has a control character.
    #[error("Exec has a control character")]
    Control,
}

/// One word, and whether a field code was in it.
#[derive(Default)]
struct Word {
    text: String,
    had_code: bool,
    quoted: bool,
}

/// The arguments of a command line, its field codes removed (`%c` becomes `name`): nothing is
/// opened by it, it only starts.
pub fn arguments(untrusted_exec: &str, name: &str) -> Result<Vec<String>, ExecError> {
    let mut arguments = Vec::new();
    let mut characters = untrusted_exec.chars().peekable();
    loop {
        while characters.next_if_eq(&' ').is_some() {}
        if characters.peek().is_none() {
            break;
        }
        let word = word(&mut characters)?;
        let word = expand(word, name)?;
        // A word that was only a field code vanishes with it; an empty quoted word stays.
        if word.text.is_empty() && word.had_code {
            continue;
        }
        if arguments.len() >= MAX_ARGUMENTS {
            return Err(ExecError::Long);
        }
        if word.text.chars().any(char::is_control) {
            return Err(ExecError::Control);
        }
        arguments.push(word.text);
    }
    match arguments.first() {
        None => Err(ExecError::Empty),
        Some(program) if is_program(program) => Ok(arguments),
        Some(_) => Err(ExecError::Program),
    }
}

fn word(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Word, ExecError> {
    let mut word = Word::default();
    if characters.next_if_eq(&'"').is_some() {
        word.quoted = true;
        loop {
            match characters.next() {
                None => return Err(ExecError::Quote),
                Some('"') => break,
                Some('\\') => match characters.next() {
                    Some(c @ ('"' | '`' | '$' | '\\')) => word.text.push(c),
                    Some(c) => {
                        word.text.push('\\');
                        word.text.push(c);
                    }
                    None => return Err(ExecError::Quote),
                },
                // Must be escaped, even in quotes: what it would mean is a shell's business.
                Some(c @ ('`' | '$')) => return Err(ExecError::Reserved(c)),
                Some(c) => word.text.push(c),
            }
        }
        return match characters.peek() {
            None | Some(' ') => Ok(word),
            // An argument is quoted whole or not at all.
            Some(_) => Err(ExecError::Reserved('"')),
        };
    }
    while let Some(c) = characters.next_if(|&c| c != ' ') {
        if matches!(
            c,
            '"' | '\''
                | '\\'
                | '>'
                | '<'
                | '~'
                | '|'
                | '&'
                | ';'
                | '$'
                | '*'
                | '?'
                | '#'
                | '('
                | ')'
                | '`'
                | '\t'
                | '\n'
        ) {
            return Err(ExecError::Reserved(c));
        }
        word.text.push(c);
    }
    Ok(word)
}

fn expand(word: Word, name: &str) -> Result<Word, ExecError> {
    if !word.text.contains('%') {
        return Ok(word);
    }
    let mut expanded = Word {
        quoted: word.quoted,
        ..Word::default()
    };
    let mut characters = word.text.chars();
    while let Some(c) = characters.next() {
        if c != '%' {
            expanded.text.push(c);
            continue;
        }
        match characters.next() {
            Some('%') => expanded.text.push('%'),
            // Must not be used in a quoted argument; what it would do is undefined.
            _ if word.quoted => return Err(ExecError::FieldCode),
            Some('c') => {
                expanded.had_code = true;
                expanded.text.push_str(name);
            }
            Some('f' | 'F' | 'u' | 'U' | 'i' | 'k' | 'd' | 'D' | 'n' | 'N' | 'v' | 'm') => {
                expanded.had_code = true;
            }
            _ => return Err(ExecError::FieldCode),
        }
    }
    Ok(expanded)
}

/// A name that the guest looks up in its PATH, or an absolute path that goes where it seems to.
/// Relative paths would depend on where the guest's agent happens to stand.
pub fn is_program(program: &str) -> bool {
    if program.len() > 1024 || program.contains('=') || program.chars().any(char::is_control) {
        return false;
    }
    match program.strip_prefix('/') {
        Some(path) => path
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != ".."),
        None => {
            program.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && !program.contains('/')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<String>, ExecError> {
        arguments(text, "My App")
    }

    #[test]
    fn words_quotes_and_field_codes() {
        let good: [(&str, &[&str]); 10] = [
            ("foot", &["foot"]),
            ("  foot   -e  top ", &["foot", "-e", "top"]),
            ("/usr/bin/thunar %F", &["/usr/bin/thunar"]),
            ("mousepad %U --x", &["mousepad", "--x"]),
            ("app --file=%f", &["app", "--file="]),
            ("app --name %c", &["app", "--name", "My App"]),
            ("app 100%%", &["app", "100%"]),
            ("app \"a b\" \"\"", &["app", "a b", ""]),
            (
                r#"sh -c "echo \"\$HOME\" \\ \x""#,
                &["sh", "-c", r#"echo "$HOME" \ \x"#],
            ),
            ("\"/opt/My App/run\" %u", &["/opt/My App/run"]),
        ];
        for (text, expected) in good {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_a_shell_would_do_is_refused() {
        use ExecError::*;
        for (text, expected) in [
            ("", Empty),
            ("   ", Empty),
            ("%f", Empty),
            ("app \"open", Quote),
            ("app \"open\\", Quote),
            ("app 'x'", Reserved('\'')),
            ("app $(reboot)", Reserved('$')),
            ("app \"`reboot`\"", Reserved('`')),
            ("app a;b", Reserved(';')),
            ("app a|b", Reserved('|')),
            ("app a\"b\"", Reserved('"')),
            ("app \"a\"b", Reserved('"')),
            ("app ~/x", Reserved('~')),
            ("app\tx", Reserved('\t')),
            ("app %z", FieldCode),
            ("app %", FieldCode),
            ("app \"%f\"", FieldCode),
            ("app \"a\u{1b}[2J\"", Control),
            ("../bin/app", Program),
            ("./app", Program),
            ("bin/app", Program),
            ("/usr/../etc/app", Program),
            ("/usr//app", Program),
            ("/", Program),
            ("-rf", Program),
            ("A=b", Program),
            ("\"\"", Program),
            ("..", Program),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected, "{text:?}");
        }
        assert_eq!(parse(&"a ".repeat(1000)), Err(Long));
    }
}
