//! One desktop file, after the Desktop Entry specification 1.5, read strictly: what is not as it
//! should be makes the whole file worthless, because a guess could be what its author hoped for.

use std::collections::BTreeMap;

use bulkhead_protocol::text::clean;

use crate::exec::{self, ExecError};

/// A longer file is not read.
pub const MAX_FILE_BYTES: usize = 64 * 1024;
/// A longer line makes a file worthless.
const MAX_LINE_BYTES: usize = 8 * 1024;
/// More lines than that are no description of one application.
const MAX_LINES: usize = 4096;
const MAX_NAME: usize = 80;
const MAX_COMMENT: usize = 200;
const MAX_KEYWORDS: usize = 32;
const MAX_CATEGORIES: usize = 16;
const MAX_WORD: usize = 40;
/// The name by which desktop files may ask to be shown only here, or not here.
const DESKTOP: &str = "Bulkhead";

/// An application as its desktop file describes it, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// What people call it. Never empty.
    pub name: String,
    /// What it is: "Text Editor".
    pub generic_name: String,
    /// What it does, in a sentence.
    pub comment: String,
    /// Words by which it is found.
    pub keywords: Vec<String>,
    /// Where it belongs in a menu.
    pub categories: Vec<String>,
    /// The name of an icon in `apps/icons`, if it gives one that is no path.
    pub icon: Option<String>,
    /// What runs in the guest.
    pub exec: Vec<String>,
    /// It needs a terminal around it.
    pub terminal: bool,
}

/// Why a file describes no application.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The messages say it.
pub enum EntryError {
    #[error("it is longer than {MAX_FILE_BYTES} bytes")]
    TooLong,
    #[error("it is not UTF-8 text")]
    NotText,
    #[error("line {0} is longer than {MAX_LINE_BYTES} bytes")]
    LongLine(usize),
    #[error("it has more than {MAX_LINES} lines")]
    ManyLines,
    #[error("line {0} is neither a comment, a group nor KEY=VALUE")]
    Line(usize),
    #[error("it does not begin with [Desktop Entry]")]
    NoGroup,
    #[error("line {0} repeats what was said before")]
    Repeated(usize),
    #[error("{0} is missing or empty")]
    Missing(&'static str),
    #[error("{0} is neither true nor false")]
    NotBool(&'static str),
    #[error("TryExec is no program")]
    TryExec,
    #[error(transparent)]
    Exec(#[from] ExecError),
}

/// The value of each key of the group `[Desktop Entry]` that matters here, by its plain key.
struct Keys<'a>(BTreeMap<&'a str, &'a str>);

/// Locales that count as the language of this desktop. Everything else is skipped.
const LOCALES: [&str; 2] = ["C", "en"];

/// What a desktop file says; nothing if it says that it is not to be shown.
pub fn parse(untrusted_bytes: &[u8]) -> Result<Option<Entry>, EntryError> {
    if untrusted_bytes.len() > MAX_FILE_BYTES {
        return Err(EntryError::TooLong);
    }
    let text = std::str::from_utf8(untrusted_bytes).map_err(|_| EntryError::NotText)?;
    if text.contains('\0') {
        return Err(EntryError::NotText);
    }
    let keys = keys(text)?;
    let shown_here = |key| {
        keys.list(key)
            .iter()
            .any(|desktop| desktop.as_str() == DESKTOP)
    };
    let hidden = keys.get("Type") != Some("Application")
        || keys.flag("NoDisplay")?
        || keys.flag("Hidden")?
        || (keys.get("OnlyShowIn").is_some() && !shown_here("OnlyShowIn"))
        || shown_here("NotShowIn");
    if hidden {
        return Ok(None);
    }
    let name = keys.text("Name", MAX_NAME);
    if name.is_empty() {
        return Err(EntryError::Missing("Name"));
    }
    // Whether the program exists cannot be seen from here. A template's packages come together,
    // and where one is missing, the launch says so; but what is no program is refused.
    if let Some(program) = keys.get("TryExec")
        && !exec::is_program(&unescape(program))
    {
        return Err(EntryError::TryExec);
    }
    let command = keys.get("Exec").ok_or(EntryError::Missing("Exec"))?;
    let exec = exec::arguments(&unescape(command), &name)?;
    Ok(Some(Entry {
        generic_name: keys.text("GenericName", MAX_NAME),
        comment: keys.text("Comment", MAX_COMMENT),
        keywords: keys.words("Keywords", MAX_KEYWORDS),
        categories: keys.words("Categories", MAX_CATEGORIES),
        icon: keys.get("Icon").and_then(icon_name),
        exec,
        terminal: keys.flag("Terminal")?,
        name,
    }))
}

/// The keys of the first group, which must be `[Desktop Entry]`. Other groups (actions) are
/// skipped.
fn keys(text: &str) -> Result<Keys<'_>, EntryError> {
    let mut found = BTreeMap::new();
    // Key with the rank of the locale that gave its value.
    let mut ranks: BTreeMap<&str, usize> = BTreeMap::new();
    let mut in_group = false;
    let mut groups = 0_u32;
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        if index >= MAX_LINES {
            return Err(EntryError::ManyLines);
        }
        if line.len() > MAX_LINE_BYTES {
            return Err(EntryError::LongLine(number));
        }
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(group) = line.strip_prefix('[') {
            let group = group
                .trim_end()
                .strip_suffix(']')
                .ok_or(EntryError::Line(number))?;
            in_group = group == "Desktop Entry";
            match (groups, in_group) {
                (0, false) => return Err(EntryError::NoGroup),
                (1.., true) => return Err(EntryError::Repeated(number)),
                _ => {}
            }
            groups += 1;
            continue;
        }
        if groups == 0 {
            return Err(EntryError::NoGroup);
        }
        if !in_group {
            continue;
        }
        let (key, value) = line.split_once('=').ok_or(EntryError::Line(number))?;
        let (key, locale) = locale(key.trim_end()).ok_or(EntryError::Line(number))?;
        let rank = match locale {
            None => 1,
            Some(locale) => match LOCALES.iter().position(|known| *known == locale) {
                Some(at) => at + 2,
                None => continue,
            },
        };
        let before = ranks.get(key).copied().unwrap_or(0);
        if before == rank {
            return Err(EntryError::Repeated(number));
        }
        if rank > before {
            ranks.insert(key, rank);
            found.insert(key, value.trim());
        }
    }
    if groups == 0 {
        return Err(EntryError::NoGroup);
    }
    Ok(Keys(found))
}

/// A key and its locale: `Name[de]` is `Name` and `de`.
fn locale(key: &str) -> Option<(&str, Option<&str>)> {
    let (key, locale) = match key.split_once('[') {
        None => (key, None),
        Some((key, rest)) => (key, Some(rest.strip_suffix(']')?)),
    };
    let valid = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    valid.then_some((key, locale))
}

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).copied()
    }

    fn flag(&self, key: &'static str) -> Result<bool, EntryError> {
        match self.get(key) {
            // 0 and 1 are of older versions of the specification.
            None | Some("false" | "0" | "") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(EntryError::NotBool(key)),
        }
    }

    fn text(&self, key: &str, most: usize) -> String {
        let value = self.get(key).unwrap_or_default();
        clean(&unescape(value), most)
    }

    /// A list: `a;b;`, in which `\;` is a semicolon.
    fn list(&self, key: &str) -> Vec<String> {
        let mut items = vec![String::new()];
        let mut escaped = false;
        for c in self.get(key).unwrap_or_default().chars() {
            match (c, escaped) {
                (';', false) => items.push(String::new()),
                ('\\', false) => escaped = true,
                _ => {
                    escaped = false;
                    if let Some(item) = items.last_mut() {
                        item.push(c);
                    }
                }
            }
        }
        items
    }

    fn words(&self, key: &str, most: usize) -> Vec<String> {
        self.list(key)
            .iter()
            .map(|word| clean(word, MAX_WORD))
            .filter(|word| !word.is_empty())
            .take(most)
            .collect()
    }
}

/// Values' escapes: `\s`, `\n`, `\t`, `\r`, `\\`. Any other stays as it is, for `Exec`'s quotes.
fn unescape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match characters.next() {
            Some('s') => text.push(' '),
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some('r') => text.push('\r'),
            Some('\\') => text.push('\\'),
            Some(other) => {
                text.push('\\');
                text.push(other);
            }
            None => text.push('\\'),
        }
    }
    text
}

/// The name of an icon, which names one file of the template and nothing else. Of an absolute path
/// the last part is the name under which the image builder keeps it; other paths have none.
pub fn icon_name(untrusted_name: &str) -> Option<String> {
    let untrusted_name = match untrusted_name.strip_prefix('/') {
        Some(path) if path.split('/').all(|part| part != "..") => path.rsplit('/').next()?,
        Some(_) => return None,
        None => untrusted_name,
    };
    let name = [".png", ".svg", ".xpm"]
        .iter()
        .find_map(|ending| untrusted_name.strip_suffix(ending))
        .unwrap_or(untrusted_name);
    is_file_name(name).then(|| name.to_owned())
}

/// A name that is safe as a file's name in a folder: no separators, no dots at its beginning.
pub fn is_file_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._+-@".contains(&b))
}

#[cfg(test)]
mod tests;
