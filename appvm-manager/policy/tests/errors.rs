//! What is wrong in a policy file, with the line where it stands.

use bulkhead_policy::Policy;

/// A line, and what its error must say. Every line is read as the fourth of a file `p`.
const LINES: &[(&str, &str)] = &[
    // Columns and words.
    ("qubes.Filecopy", "too few columns"),
    ("qubes.Filecopy * work personal", "too few columns"),
    ("work personal allow", "too few columns"),
    (
        "a * b c deny 1= 2= 3= 4= 5= 6= 7= 8= 9= 10= 11= 12=",
        "more than 16 words",
    ),
    // Services and arguments.
    (
        "qubes/Filecopy * work personal allow",
        "`qubes/Filecopy`: the service's name has `/` as byte 6",
    ),
    (
        "qubes.Filecopy+a * work personal allow",
        "the service's name has `+` as byte 15",
    ),
    (
        ".hidden * work personal allow",
        "not beginning with `.` or `-`",
    ),
    (
        "$a * work personal allow",
        "the service's name has `$` as byte 1",
    ),
    (
        "a b work personal allow",
        "the argument `b` does not begin with `+`; write `+b`",
    ),
    (
        "a +b/c work personal allow",
        "`+b/c`: the argument has `/` as byte 2",
    ),
    (
        "* +b work personal allow",
        "the service `*` takes no argument but `*`",
    ),
    (
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa * b c deny",
        "the service's name has 65 bytes; at most 64",
    ),
    // Sources and targets.
    ("a * @dispvm personal allow", "`@dispvm` cannot be a source"),
    (
        "a * @default personal allow",
        "`@default` cannot be a source",
    ),
    (
        "a * @invalid personal allow",
        "there is no token `@invalid`",
    ),
    ("a * work @invalid deny", "there is no token `@invalid`"),
    (
        "a * work @dispvm: deny",
        "`@dispvm:`: the domain's name is empty",
    ),
    (
        "a * work @dispvm:@tag: deny",
        "`@dispvm:@tag:`: the tag is empty",
    ),
    (
        "a * work @dispvm:@type:AppVM deny",
        "`@dispvm:@type:AppVM`: the domain's name has `@` as byte 1",
    ),
    ("a * @tag: work deny", "`@tag:`: the tag is empty"),
    (
        "a * @tag:a.b work deny",
        "`@tag:a.b`: the tag has `.` as byte 2",
    ),
    (
        "a * @type:NoVM work deny",
        "there is no type `NoVM`; use AppVM",
    ),
    (
        "a * $anyvm work deny",
        "`$anyvm`: the domain's name has `$` as byte 1",
    ),
    (
        "a * wörk work deny",
        "the domain's name has `\\xc3` as byte 2",
    ),
    (
        "a * uuid:d8a249f1-b02b-4944-a9e5-437def2fbe2c work deny",
        "domains have no UUIDs here",
    ),
    (
        "a * work @dispvm:uuid:d8a249f1-b02b-4944-a9e5-437def2fbe2c deny",
        "domains have no UUIDs here",
    ),
    (
        "a * aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b deny",
        "the domain's name has 32 bytes; at most 31",
    ),
    // Actions and parameters.
    (
        "a * b c permit",
        "there is no action `permit`; use allow, ask or deny",
    ),
    ("a * b c Allow", "there is no action `Allow`"),
    (
        "a * b c allow,target=d",
        "there is no action `allow,target=d`",
    ),
    ("a * b c allow extra", "`extra` is no parameter"),
    ("a * b c allow notify", "`notify` is no parameter"),
    (
        "a * b c allow # why",
        "a comment must stand on a line of its own",
    ),
    (
        "a * b c allow colour=red",
        "`allow` has no parameter `colour`; it has: target, user, notify, autostart",
    ),
    (
        "a * b c allow default_target=d",
        "`allow` has no parameter `default_target`",
    ),
    (
        "a * b c deny target=d",
        "`deny` has no parameter `target`; it has: notify",
    ),
    (
        "a * b c deny default_target=d",
        "`deny` has no parameter `default_target`",
    ),
    ("a * b c deny user=d", "`deny` has no parameter `user`"),
    (
        "a * b c deny autostart=no",
        "`deny` has no parameter `autostart`",
    ),
    ("a * b c ask Notify=no", "`ask` has no parameter `Notify`"),
    (
        "a * b c ask notify=true",
        "`notify=true`: write notify=yes or notify=no",
    ),
    (
        "a * b c ask autostart=",
        "`autostart=`: write autostart=yes or autostart=no",
    ),
    ("a * b c ask target=d target=d", "`target=` is given twice"),
    (
        "a * b c ask notify=no notify=no",
        "`notify=` is given twice",
    ),
    (
        "a * b c ask user=",
        "`user=`: a user's name is 1 to 32 letters",
    ),
    ("a * b c ask user=a:b", "`user=a:b`: a user's name is"),
    ("a * b c ask user=-a", "`user=-a`: a user's name is"),
    ("a * b c ask target=", "the domain's name is empty"),
    (
        "a * b c ask target=@anyvm",
        "`@anyvm` cannot be a redirection",
    ),
    ("a * b c ask target=*", "`*` cannot be a redirection"),
    (
        "a * b c ask target=@default",
        "`@default` cannot be a redirection",
    ),
    (
        "a * b c allow target=@tag:d",
        "`@tag:d` cannot be a redirection",
    ),
    (
        "a * b c allow target=@dispvm:@tag:d",
        "`@dispvm:@tag:d` cannot be a redirection",
    ),
    (
        "a * b c ask default_target=@type:AppVM",
        "`@type:AppVM` cannot be a redirection",
    ),
    (
        "a * b @default allow",
        "`allow` for the target @default needs target=",
    ),
    (
        "a * b @default allow user=c",
        "`allow` for the target @default needs target=",
    ),
    // Lines with `!`.
    ("!include", "write: !include FILE"),
    ("!include a b", "write: !include FILE"),
    ("!include-dir", "write: !include-dir FOLDER"),
    (
        "!include-service a *",
        "write: !include-service SERVICE ARGUMENT FILE",
    ),
    (
        "!include-service * +a b",
        "the service `*` takes no argument but `*`",
    ),
    (
        "!include-service a b c",
        "the argument `b` does not begin with `+`",
    ),
    ("!included a", "there is no `!included`; use !include"),
    ("! include a", "there is no `!`"),
    (
        "!compat-4.0",
        "!compat-4.0 reads /etc/qubes-rpc/policy, which does not exist here; remove the line",
    ),
    ("!include a", "`a` cannot be read"),
    ("!include p", "`p` includes itself"),
    ("!include ./p", "`p` includes itself"),
    ("!include-service a * p", "`p` includes itself"),
    (
        "!include /etc/qubes/policy.d/include/a",
        "`/etc/qubes/policy.d/include/a` leaves the policy folder",
    ),
    ("!include ../a", "`../a` leaves the policy folder"),
    ("!include include/../../a", "leaves the policy folder"),
    ("!include-dir ..", "`..` leaves the policy folder"),
    (
        "!include-dir include",
        "`include` is not a folder inside the policy folder",
    ),
    ("!include-service a * /etc/a", "leaves the policy folder"),
    // What editors show differently.
    (
        "# hidden\r* * * * allow",
        "the line has the control character `\\r`",
    ),
    (
        "a\u{0} * b c deny",
        "the line has the control character `\\u{0}`",
    ),
    (
        "a * b c\u{b}deny",
        "the line has the control character `\\u{b}`",
    ),
    ("a * b c\u{a0}deny", "too few columns"),
];

#[test]
fn each_error_names_the_line_and_what_to_do() {
    let mut wrong = Vec::new();
    for (line, expected) in LINES {
        // The last line is wrong too: the first error counts.
        let text = format!("# comment\n* * @anyvm @anyvm deny\n\n{line}\nnonsense\n");
        match Policy::parse("p", &text) {
            Ok(_) => wrong.push(format!("{line}: no error")),
            Err(error) => {
                let error = error.to_string();
                if !error.starts_with("p:4: ") || !error.contains(expected) {
                    wrong.push(format!("{line}\n  want {expected}\n  got  {error}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_file_is_bounded() {
    let long = format!("\n#{}", "x".repeat(2048));
    let lines = "\n".repeat(9000);
    let rules = "* * a b deny\n".repeat(8192);
    for (text, expected) in [
        (&long, "p:2: the line has more than 2048 bytes"),
        (&lines, "p:8193: the file has more than 8192 lines"),
        (&"#\n".repeat(200_000), "p: is larger than 262144 bytes"),
    ] {
        let error = Policy::parse("p", text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    assert_eq!(Policy::parse("p", &rules).unwrap().rules().len(), 8192);
}

#[test]
fn a_rule_is_shown_as_it_is_written() {
    for line in [
        "a.b + work personal allow",
        "a.b +c @anyvm @default ask target=d default_target=@dispvm user=root notify=yes autostart=no",
        "* * @tag:a @dispvm:@tag:b deny",
        "a * @type:AppVM @dispvm:c deny notify=no",
        "a * * @adminvm allow target=@dispvm:e",
    ] {
        let policy = Policy::parse("p", line).unwrap();
        let shown: Vec<String> = policy.rules().iter().map(ToString::to_string).collect();
        assert_eq!(shown, [line]);
    }
}

#[test]
fn rules_that_never_match_are_warned_of() {
    let text = "a * dom0 b allow\na * @dispvm:c b allow\na * c b allow\n";
    let policy = Policy::parse("p", text).unwrap();
    let warnings: Vec<String> = policy.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "p:1: the source `@adminvm` never matches: the host's own calls need no policy",
            "p:2: the source `@dispvm:c` never matches: a disposable that exists is matched by its \
             name, @type:DispVM or a tag",
        ]
    );
}
