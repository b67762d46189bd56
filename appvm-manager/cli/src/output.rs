//! What is printed: text for people, JSON for programs.

use std::io::{self, IsTerminal, Write};

use serde_json::{Map, Value};
use zbus::Variant;

use crate::bus::Dict;
use crate::error::Error;

/// A reader that closed its end wants no more: that is no error.
fn written(result: io::Result<()>) -> Result<(), Error> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Io("write", error)),
        _ => Ok(()),
    }
}

/// Bytes as they are.
pub fn bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    written(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Text that may hold a guest's words: on a terminal without control characters.
pub fn untrusted_text(text: &[u8]) -> Result<(), Error> {
    if !io::stdout().is_terminal() {
        return bytes(text);
    }
    let text = String::from_utf8_lossy(text);
    let safe = |c: char| c == '\n' || c == '\t' || !c.is_control();
    let clean: String = text
        .chars()
        .filter(|&c| c != '\r')
        .map(|c| if safe(c) { c } else { '\u{fffd}' })
        .collect();
    bytes(clean.as_bytes())
}

/// One line.
pub fn line(text: &str) -> Result<(), Error> {
    bytes(format!("{text}\n").as_bytes())
}

/// JSON, readable.
pub fn json(value: &Value) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::Io("write", io::Error::other(error)))?;
    line(&text)
}

/// A D-Bus dictionary as JSON.
pub fn to_json(dict: &Dict) -> Value {
    fn convert(variant: &Variant<'_>) -> Value {
        match variant {
            Variant::Bool(value) => Value::from(*value),
            Variant::U8(value) => Value::from(*value),
            Variant::U16(value) => Value::from(*value),
            Variant::U32(value) => Value::from(*value),
            Variant::U64(value) => Value::from(*value),
            Variant::I16(value) => Value::from(*value),
            Variant::I32(value) => Value::from(*value),
            Variant::I64(value) => Value::from(*value),
            Variant::F64(value) => Value::from(*value),
            Variant::Str(value) => Value::from(value.as_str()),
            Variant::Array(array) => array.iter().map(convert).collect(),
            other => Value::from(format!("{other:?}")),
        }
    }
    let mut entries: Vec<_> = dict.iter().collect();
    entries.sort_by_key(|(key, _)| key.as_str());
    Value::Object(
        entries
            .into_iter()
            .map(|(k, v)| (k.clone(), convert(v)))
            .collect::<Map<_, _>>(),
    )
}

/// Words in a line; `-` where there is none.
pub fn words(value: &Value) -> String {
    let words: Vec<&str> = strings(value).collect();
    match words.is_empty() {
        true => "-".to_owned(),
        false => words.join(", "),
    }
}

/// The words of a list.
pub fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// A coloured dot before a label's name, where the terminal shows colours.
pub fn label(name: &str, colour: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some() || !io::stdout().is_terminal();
    let part = |at: usize| u8::from_str_radix(colour.get(at..at + 2)?, 16).ok();
    match (plain, part(1), part(3), part(5)) {
        (false, Some(red), Some(green), Some(blue)) => {
            format!("\x1b[38;2;{red};{green};{blue}m●\x1b[0m {name}")
        }
        _ => name.to_owned(),
    }
}

/// Columns as wide as their longest entry. `width` counts what a terminal shows.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| width(cell))
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, most) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', most - width(cell) + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn width(cell: &str) -> usize {
    let mut count = 0;
    let mut in_escape = false;
    for c in cell.chars() {
        match c {
            '\x1b' => in_escape = true,
            'm' if in_escape => in_escape = false,
            _ if in_escape => {}
            _ => count += 1,
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_their_colour() {
        let rows = [
            vec![
                "a".to_owned(),
                "\x1b[31mred\x1b[0m".to_owned(),
                "x".to_owned(),
            ],
            vec!["long".to_owned(), "b".to_owned(), "y".to_owned()],
        ];
        assert_eq!(table(&rows), "a     \x1b[31mred\x1b[0m  x\nlong  b    y\n");
    }
}
