//! Which keys type a letter on an American keyboard, by QEMU's names for keys.

/// The keys to hold down, in order.
pub(super) fn keys(letter: char) -> Option<Vec<&'static str>> {
    const LETTERS: [&str; 26] = [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r",
        "s", "t", "u", "v", "w", "x", "y", "z",
    ];
    const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    /// What shift makes of the digits' keys.
    const ABOVE_DIGITS: &str = ")!@#$%^&*(";
    const OTHERS: [(char, char, &str); 11] = [
        ('-', '_', "minus"),
        ('=', '+', "equal"),
        ('[', '{', "bracket_left"),
        (']', '}', "bracket_right"),
        (';', ':', "semicolon"),
        ('\'', '"', "apostrophe"),
        ('`', '~', "grave_accent"),
        ('\\', '|', "backslash"),
        (',', '<', "comma"),
        ('.', '>', "dot"),
        ('/', '?', "slash"),
    ];
    let at = |letter: char, first: char| (letter as usize).checked_sub(first as usize);
    let shifted = |key: &'static str| vec!["shift", key];
    Some(match letter {
        'a'..='z' => vec![*LETTERS.get(at(letter, 'a')?)?],
        'A'..='Z' => shifted(LETTERS.get(at(letter, 'A')?)?),
        '0'..='9' => vec![*DIGITS.get(at(letter, '0')?)?],
        ' ' => vec!["spc"],
        '\n' => vec!["ret"],
        '\t' => vec!["tab"],
        _ => {
            if let Some(digit) = ABOVE_DIGITS.find(letter) {
                return Some(shifted(DIGITS.get(digit)?));
            }
            let (plain, _, key) = OTHERS
                .iter()
                .find(|(plain, above, _)| letter == *plain || letter == *above)?;
            if letter == *plain {
                vec![*key]
            } else {
                shifted(key)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printable_letter_has_keys() {
        for letter in (' '..='~').chain(['\n', '\t']) {
            assert!(keys(letter).is_some(), "{letter:?}");
        }
        assert_eq!(keys('T').unwrap(), ["shift", "t"]);
        assert_eq!(keys('$').unwrap(), ["shift", "4"]);
        assert_eq!(keys('|').unwrap(), ["shift", "backslash"]);
        assert_eq!(keys('/').unwrap(), ["slash"]);
        assert_eq!(keys('ä'), None);
    }
}
