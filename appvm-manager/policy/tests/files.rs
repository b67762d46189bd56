//! Folders and includes: order, hiding, depth, and that nothing leads out.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use bulkhead_policy::{Folder, LoadError, Policy};

/// A policy of one folder in memory.
fn policy_of(files: &[(&str, &str)]) -> Result<Policy, LoadError> {
    Policy::load(&[Folder::in_memory(files.iter().copied())])
}

/// The places of all rules, in order.
fn places(policy: &Policy) -> Vec<String> {
    policy
        .rules()
        .iter()
        .map(|rule| rule.place.to_string())
        .collect()
}

fn message(result: Result<Policy, LoadError>) -> String {
    result.expect_err("an error").to_string()
}

fn write(folder: &Path, file: &str, text: &str) {
    let path = folder.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

const RULE: &str = "* * a b deny\n";

#[test]
fn files_are_read_in_the_order_of_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "90-default.policy",
        "30-user.policy",
        "9.policy",
        "30-user_b.policy",
        "30-user-a.policy",
        // Not policies:
        "README",
        "40-editor.policy~",
        "50-old.policy.bak",
        ".30-hidden.policy",
        "Upper-Case.txt",
    ] {
        write(folder.path(), name, RULE);
    }
    write(folder.path(), "60-folder.policy/inner.policy", RULE);
    let policy = Policy::load(&[Folder::on_disk(folder.path())]).unwrap();
    assert_eq!(
        places(&policy),
        [
            "30-user-a.policy:1",
            "30-user.policy:1",
            "30-user_b.policy:1",
            "9.policy:1",
            "90-default.policy:1",
        ]
    );
}

#[test]
fn a_policy_with_a_wrong_name_is_an_error() {
    for name in [
        "30-User.policy",
        "30 user.policy",
        "30-üser.policy",
        "30+user.policy",
    ] {
        let error = message(policy_of(&[("10-ok.policy", RULE), (name, RULE)]));
        assert!(error.contains("rename it"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), name, RULE);
        let error = message(Policy::load(&[Folder::on_disk(folder.path())]));
        assert!(error.contains("rename it"), "{error}");
    }
}

#[test]
fn earlier_folders_hide_files_of_the_same_name() {
    let user = Folder::in_memory([("50-b.policy", "!include include/x\n"), ("include/x", RULE)]);
    let system = Folder::in_memory([
        ("50-b.policy", "* * a b allow\n"),
        ("40-a.policy", "!include include/y\n"),
        ("include/y", "\n\n* * a b ask\n"),
    ]);
    let policy = Policy::load(&[user, system]).unwrap();
    assert_eq!(places(&policy), ["include/y:3", "include/x:1"]);
}

#[test]
fn includes_stand_where_they_are_included() {
    let policy = policy_of(&[
        (
            "30-user.policy",
            "* * a b deny\n!include include/one\n!include-dir more\n* * c d deny\n",
        ),
        ("include/one", "# one\n* * e f deny\n!include include/two\n"),
        ("include/two", "* * g h deny"),
        ("more/20-b.policy", RULE),
        ("more/10-a.policy", RULE),
        ("more/README", "no policy"),
    ])
    .unwrap();
    assert_eq!(
        places(&policy),
        [
            "30-user.policy:1",
            "include/one:2",
            "include/two:1",
            "more/10-a.policy:1",
            "more/20-b.policy:1",
            "30-user.policy:4",
        ]
    );
}

#[test]
fn an_included_service_file_has_the_old_syntax() {
    let policy = policy_of(&[
        (
            "30-user.policy",
            "!include-service qubes.Gpg +key include/gpg\n!include-service * * include/gpg\n",
        ),
        (
            "include/gpg",
            "# $ and , stay in comments\n\
             work vault allow,user=root notify=yes\n\
             $anyvm $dispvm ask,default_target=$dispvm\n\
             $include:include/rest\n",
        ),
        ("include/rest", "@anyvm @anyvm deny\n"),
    ])
    .unwrap();
    let rules: Vec<String> = policy.rules().iter().map(ToString::to_string).collect();
    assert_eq!(
        rules,
        [
            "qubes.Gpg +key work vault allow user=root notify=yes",
            "qubes.Gpg +key @anyvm @dispvm ask default_target=@dispvm",
            "qubes.Gpg +key @anyvm @anyvm deny",
            "* * work vault allow user=root notify=yes",
            "* * @anyvm @dispvm ask default_target=@dispvm",
            "* * @anyvm @anyvm deny",
        ]
    );
}

#[test]
fn errors_in_includes_name_the_included_file() {
    for (text, expected) in [
        (
            "\nwork vault permit\n",
            "include/gpg:2: there is no action `permit`",
        ),
        ("work vault\n", "include/gpg:1: too few columns"),
        (
            "!include-dir x\n",
            "include/gpg:1: there is no `!include-dir`",
        ),
        (
            "!include-service a * x\n",
            "include/gpg:1: there is no `!include-service`",
        ),
        ("!compat-4.0\n", "include/gpg:1: there is no `!compat-4.0`"),
        (
            "$include:/etc/x\n",
            "include/gpg:1: `/etc/x` leaves the policy folder",
        ),
    ] {
        let error = message(policy_of(&[
            ("30-user.policy", "!include-service a * include/gpg\n"),
            ("include/gpg", text),
        ]));
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn an_empty_included_folder_is_a_warning() {
    let policy = policy_of(&[
        ("30-user.policy", "\n!include-dir more"),
        ("more/README", ""),
    ]);
    let policy = policy.unwrap();
    let warnings: Vec<String> = policy.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["30-user.policy:2: the folder `more` has no policy files (names end in .policy)"]
    );
}

#[test]
fn includes_end() {
    let error = message(policy_of(&[
        ("a.policy", "!include b\n"),
        ("b", "\n!include a.policy\n"),
    ]));
    assert!(
        error.starts_with("b:2: `a.policy` includes itself"),
        "{error}"
    );

    let error = message(policy_of(&[("a.policy", "!include-dir .\n")]));
    assert!(
        error.starts_with("a.policy:1: `a.policy` includes itself"),
        "{error}"
    );

    let chain: Vec<(String, String)> = (0..20)
        .map(|i| {
            (
                format!("{i}.policy"),
                format!("!include {}.policy\n", i + 1),
            )
        })
        .collect();
    let error = message(Policy::load(&[Folder::in_memory(chain)]));
    assert!(error.contains("nested more than 8 deep"), "{error}");

    // Each file includes the next one twice: 2^8 readings of the last, with 16 of each.
    let twice: Vec<(String, String)> = (0..8)
        .map(|i| (format!("{i}"), format!("!include {}\n", i + 1).repeat(16)))
        .chain([("8".to_owned(), RULE.to_owned())])
        .chain([("a.policy".to_owned(), "!include 1\n".to_owned())])
        .collect();
    let error = message(Policy::load(&[Folder::in_memory(twice)]));
    assert!(error.contains("more than 512 files"), "{error}");

    let rules = RULE.repeat(8192);
    let error = message(policy_of(&[
        ("1.policy", &rules),
        ("2.policy", &rules),
        ("3.policy", &rules),
    ]));
    assert!(
        error.starts_with("3.policy:1: the policy has more than 16384 rules"),
        "{error}"
    );
}

#[test]
fn nothing_leads_out_of_the_folder() {
    let outside = tempfile::tempdir().unwrap();
    write(outside.path(), "secret", RULE);
    write(outside.path(), "10.policy", RULE);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "include/real", RULE);
    symlink(
        folder.path().join("include/real"),
        folder.path().join("include/link"),
    )
    .unwrap();
    symlink(
        outside.path().join("secret"),
        folder.path().join("include/out"),
    )
    .unwrap();
    symlink(outside.path(), folder.path().join("elsewhere")).unwrap();
    let load = |text: &str| {
        write(folder.path(), "30-user.policy", text);
        Policy::load(&[Folder::on_disk(folder.path())])
    };
    assert_eq!(
        places(&load("!include include/link\n").unwrap()),
        ["include/link:1"]
    );
    for (text, expected) in [
        (
            "!include include/out\n",
            "`include/out` is a link that leads out",
        ),
        (
            "!include elsewhere/secret\n",
            "`elsewhere/secret` is a link that leads out",
        ),
        (
            "!include-dir elsewhere\n",
            "`elsewhere` is not a folder inside",
        ),
        ("!include include\n", "`include` is not a regular file"),
        ("!include missing\n", "`missing` cannot be read"),
    ] {
        let error = message(load(text));
        assert!(error.starts_with("30-user.policy:1: "), "{error}");
        assert!(error.contains(expected), "{error}");
    }

    fs::remove_file(folder.path().join("30-user.policy")).unwrap();
    symlink(
        outside.path().join("10.policy"),
        folder.path().join("10.policy"),
    )
    .unwrap();
    let error = message(Policy::load(&[Folder::on_disk(folder.path())]));
    assert!(
        error.starts_with("10.policy: is a link that leads out"),
        "{error}"
    );

    // A link to nowhere is no policy that may be left out silently.
    fs::remove_file(folder.path().join("10.policy")).unwrap();
    symlink(
        folder.path().join("nowhere"),
        folder.path().join("20.policy"),
    )
    .unwrap();
    let error = message(Policy::load(&[Folder::on_disk(folder.path())]));
    assert!(error.starts_with("20.policy: cannot be read"), "{error}");
}

#[test]
fn a_pipe_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("30-user.policy");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("SKIPPED: a_pipe_is_not_waited_for: no mkfifo");
        return;
    }
    let error = message(Policy::load(&[Folder::on_disk(folder.path())]));
    assert_eq!(error, "30-user.policy: is not a regular file");
}

#[test]
fn a_large_file_and_a_missing_folder_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "30-user.policy", &"#\n".repeat(200_000));
    let error = message(Policy::load(&[Folder::on_disk(folder.path())]));
    assert_eq!(
        error,
        "30-user.policy: is larger than 262144 bytes; split it"
    );
    let error = message(Policy::load(&[Folder::on_disk(folder.path().join("none"))]));
    assert!(
        error.starts_with("cannot read the policy folder"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_not_utf8_is_an_error_at_its_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("30-user.policy"), b"# ok\n# \xff\n").unwrap();
    let error = message(Policy::load(&[Folder::on_disk(folder.path())]));
    assert!(
        error.starts_with("30-user.policy:2: the line is not UTF-8"),
        "{error}"
    );
}
