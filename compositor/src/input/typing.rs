//! Which keys type a character on the US layout, for the test interface.

/// evdev code of the left shift key.
pub const KEY_LEFTSHIFT: u32 = 42;

const PLAIN: &[(u32, &str)] = &[
    (2, "1234567890-="),
    (16, "qwertyuiop[]"),
    (30, "asdfghjkl;'`"),
    (43, "\\zxcvbnm,./"),
    (57, " "),
    (28, "\n"),
    (15, "\t"),
    (14, "\u{8}"),
    (1, "\u{1b}"),
];
const SHIFTED: &[(u32, &str)] = &[
    (2, "!@#$%^&*()_+"),
    (16, "QWERTYUIOP{}"),
    (30, "ASDFGHJKL:\"~"),
    (43, "|ZXCVBNM<>?"),
];

/// The key for a character, and whether shift is held.
pub fn key_for(c: char) -> Option<(u32, bool)> {
    let find = |rows: &[(u32, &str)], shift: bool| {
        rows.iter().find_map(|(first, row)| {
            let index = row.chars().position(|known| known == c)?;
            Some((first + u32::try_from(index).ok()?, shift))
        })
    };
    find(PLAIN, false).or_else(|| find(SHIFTED, true))
}

#[cfg(test)]
mod tests {
    use super::key_for;

    #[test]
    fn keys_of_the_us_layout() {
        assert_eq!(key_for('a'), Some((30, false)));
        assert_eq!(key_for('U'), Some((22, true)));
        assert_eq!(key_for('-'), Some((12, false)));
        assert_eq!(key_for('`'), Some((41, false)));
        assert_eq!(key_for('/'), Some((53, false)));
        assert_eq!(key_for('\\'), Some((43, false)));
        assert_eq!(key_for('\n'), Some((28, false)));
        assert_eq!(key_for('é'), None);
    }
}
