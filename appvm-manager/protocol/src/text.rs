//! Text that came from a guest or a template, made safe to stand beside trusted text.

/// At most `most` characters that show themselves as they are; runs of white space and of
/// characters that could hide, reorder or overwrite text become one space.
pub fn clean(untrusted_text: &str, most: usize) -> String {
    let mut clean = String::new();
    let mut length = 0;
    let mut gap = false;
    // What is thrown away counts too, so that no text costs more than its caller expects.
    for c in untrusted_text.chars().take(most.saturating_mul(8)) {
        if c.is_whitespace() || is_deceptive(c) {
            gap = length > 0;
            continue;
        }
        if length + usize::from(gap) >= most {
            break;
        }
        if gap {
            clean.push(' ');
            length += 1;
            gap = false;
        }
        clean.push(c);
        length += 1;
    }
    clean
}

/// Control characters, and those that change the direction of text, have no width, climb out of
/// their line, or mean something only to one font.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0x00ad                      // soft hyphen
            | 0x0300..=0x036f           // combining marks
            | 0x0483..=0x0489 | 0x1ab0..=0x1aff | 0x1dc0..=0x1dff | 0x20d0..=0x20ff | 0xfe20..=0xfe2f
            | 0x061c                    // Arabic letter mark
            | 0x115f | 0x1160 | 0x3164 | 0xffa0 // Hangul fillers
            | 0x17b4 | 0x17b5
            | 0x180b..=0x180f           // Mongolian selectors
            | 0x200b..=0x200f           // zero width, direction marks
            | 0x2028..=0x202e           // separators, embeddings, overrides
            | 0x2060..=0x206f           // joiners, isolates
            | 0x2800                    // a blank that is no white space
            | 0xe000..=0xf8ff           // private use
            | 0xfe00..=0xfe0f           // variation selectors
            | 0xfeff                    // byte order mark
            | 0xfff0..=0xffff           // specials
            | 0xe0000..                 // tags, more selectors, private planes
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_direction_marks_are_gone() {
        assert_eq!(clean("a\x1b[31mb\u{202e}c\n", 100), "a [31mb c");
        assert_eq!(clean("  a \t\n b  ", 100), "a b");
        assert_eq!(clean("x\u{200b}\u{feff}\u{e0041}y\u{301}", 100), "x y");
        assert_eq!(clean("Grüße – 你好", 100), "Grüße – 你好");
        assert_eq!(clean("\u{2066}\u{200b}", 100), "");
    }

    #[test]
    fn the_length_is_capped() {
        assert_eq!(clean("äöü€", 2), "äö");
        assert_eq!(clean("a b c", 2), "a");
        assert!(clean(&"x ".repeat(100_000), 80).chars().count() <= 80);
        assert_eq!(clean(&format!("{}x", "\u{200b}".repeat(1_000_000)), 80), "");
    }
}
