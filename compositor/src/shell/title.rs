//! Titles come from guests and stand next to trusted text.

/// Titles are cut after this many characters.
pub const MAX_TITLE_CHARS: usize = 120;

/// Strips what could hide, reorder or overwrite text: control characters, marks that change the
/// direction of text, characters without width, tags, and private use. Runs of white space become
/// one space.
pub fn clean(untrusted_title: &str) -> String {
    let mut clean = String::new();
    let mut chars = 0;
    let mut space = false;
    for c in untrusted_title.chars() {
        if chars >= MAX_TITLE_CHARS {
            break;
        }
        if c.is_whitespace() {
            space = !clean.is_empty();
            continue;
        }
        if is_deceptive(c) {
            continue;
        }
        if space {
            clean.push(' ');
            chars += 1;
            space = false;
        }
        clean.push(c);
        chars += 1;
    }
    clean
}

fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0x00ad                  // soft hyphen
            | 0x034f                // combining grapheme joiner
            | 0x0300..=0x036f       // combining marks could climb out of the bar
            | 0x061c                // Arabic letter mark
            | 0x115f | 0x1160       // Hangul fillers
            | 0x17b4 | 0x17b5
            | 0x180b..=0x180f       // Mongolian selectors
            | 0x200b..=0x200f       // zero width, direction marks
            | 0x2028..=0x202e       // separators, embeddings, overrides
            | 0x2060..=0x206f       // joiners, isolates, deprecated format characters
            | 0x20d0..=0x20ff       // combining marks for symbols
            | 0x3164 | 0xffa0       // fillers
            | 0xe000..=0xf8ff       // private use
            | 0xfe00..=0xfe0f       // variation selectors
            | 0xfeff                // byte order mark
            | 0xfff0..=0xffff       // specials
            | 0xe0000..             // tags, more selectors, private planes
        )
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn titles_lose_what_deceives() {
        assert_eq!(
            clean("a\u{202e}b\u{200b}c\x07\n\td\u{feff}e\u{2066}"),
            "abc de"
        );
        assert_eq!(clean("  plain   title  "), "plain title");
        assert_eq!(clean("Grüße – 你好"), "Grüße – 你好");
        assert_eq!(clean("\u{e0041}\u{fe0f}\u{0301}x"), "x");
    }

    #[test]
    fn titles_are_capped() {
        assert_eq!(
            clean(&"x".repeat(5000)).chars().count(),
            super::MAX_TITLE_CHARS
        );
        assert!(clean(&"x ".repeat(5000)).chars().count() <= super::MAX_TITLE_CHARS + 1);
    }
}
