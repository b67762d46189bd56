//! What `docs/policy.md` shows is what the program reads.

use bulkhead_policy::{Policy, TokenError, limits};

const TEXT: &str = include_str!("../../../docs/policy.md");

#[test]
fn every_example_is_a_policy_without_warnings() {
    let mut examples = TEXT.split("```policy\n").skip(1).peekable();
    assert!(examples.peek().is_some());
    for example in examples {
        let (text, _) = example.split_once("```").expect("an end");
        let policy = Policy::parse("example", text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert!(!policy.rules().is_empty());
        assert_eq!(policy.warnings(), []);
    }
}

#[test]
fn the_error_that_is_shown_is_the_programs() {
    let error = Policy::parse("30-user.policy", "\n\n\na * b c permit").unwrap_err();
    assert!(TEXT.contains(&format!("``{error}``")), "{error}");
}

#[test]
fn limits_and_words_are_the_programs() {
    for (number, words) in [
        (limits::MAX_SERVICE, "at most 64 letters"),
        (limits::MAX_ARGUMENT, "at\n   most 190 of these"),
        (limits::MAX_INCLUDE_DEPTH, "nest at most 8 deep"),
        (limits::MAX_FILES, "at most 512 files"),
        (limits::MAX_FILE_BYTES as usize / 1024, "256 KiB"),
    ] {
        assert!(words.contains(&number.to_string()), "{words}");
        assert!(TEXT.contains(words), "{words}");
    }
    assert_eq!((limits::MAX_LINES, limits::MAX_RULES), (8192, 16_384));
    assert!(TEXT.contains("8,192 lines") && TEXT.contains("16,384 rules"));
    let tokens = TokenError::Unknown(String::new()).to_string();
    for word in [
        "*",
        "@anyvm",
        "@adminvm",
        "@default",
        "@dispvm:@tag:TAG",
        "@tag:TAG",
        "@type:TYPE",
    ] {
        assert!(
            tokens.contains(word) && TEXT.contains(&format!("`{word}`")),
            "{word}"
        );
    }
}
