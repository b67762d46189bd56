//! Text that came from a guest, made safe for logs and terminals.

/// Printable characters only, at most `most` of them.
pub fn clean(untrusted_text: &str, most: usize) -> String {
    untrusted_text
        .chars()
        .map(|c| if is_plain(c) { c } else { ' ' })
        .take(most)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// Neither a control character, nor one that changes the direction of text or is invisible.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}'
            | '\u{feff}' | '\u{61c}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_direction_marks_are_gone() {
        assert_eq!(clean("a\x1b[31mb\u{202e}c\n", 100), "a [31mb c");
        assert_eq!(clean("äöü€", 2), "äö");
    }
}
