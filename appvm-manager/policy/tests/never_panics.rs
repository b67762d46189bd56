//! Whatever bytes come, nothing panics; and what is promised of every verdict holds.

use bulkhead_policy::{
    Call, Destination, Domain, Folder, IntendedTarget, Kind, Policy, Snapshot, Verdict,
};
use proptest::prelude::*;

/// Words that rules are made of, and some that they are not.
const WORDS: &[&str] = &[
    "*",
    "+",
    "+a",
    "a",
    "b",
    "a.b",
    "@anyvm",
    "@adminvm",
    "dom0",
    "@default",
    "@dispvm",
    "@dispvm:a",
    "@dispvm:b",
    "@dispvm:@tag:t",
    "@tag:t",
    "@type:AppVM",
    "@type:DispVM",
    "allow",
    "ask",
    "deny",
    "target=a",
    "target=@dispvm",
    "target=dom0",
    "default_target=b",
    "user=root",
    "notify=yes",
    "notify=no",
    "autostart=no",
    "!include",
    "!include-dir",
    "!include-service",
    "p",
    "q",
    "include/x",
    "..",
    "/",
    "#",
    "$anyvm",
    "$include:q",
    ",",
    "=",
    "@",
    "\u{e9}",
    "\r",
];

fn lines() -> impl Strategy<Value = String> {
    let word = prop::sample::select(WORDS);
    let line = prop::collection::vec(word, 0..8).prop_map(|words| words.join(" "));
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

/// Lines that are rules.
fn rules() -> impl Strategy<Value = String> {
    let source = prop::sample::select(&["*", "@anyvm", "a", "b", "@tag:t", "@type:AppVM"][..]);
    let target = prop::sample::select(
        &[
            "*",
            "@anyvm",
            "a",
            "b",
            "c",
            "dom0",
            "@default",
            "@dispvm",
            "@dispvm:a",
            "@dispvm:b",
            "@dispvm:@tag:t",
            "@tag:t",
            "@type:AppVM",
            "@type:AdminVM",
        ][..],
    );
    let action = prop::sample::select(
        &[
            "deny",
            "deny notify=no",
            "ask",
            "ask autostart=no",
            "ask default_target=b",
            "ask default_target=@dispvm",
            "ask target=@dispvm",
            "ask target=c",
            "allow target=a",
            "allow target=@dispvm",
            "allow target=dom0 autostart=no",
            "allow target=ghost",
        ][..],
    );
    let line = (source, target, action).prop_map(|(s, t, a)| format!("* * {s} {t} {a}"));
    prop::collection::vec(line, 1..10).prop_map(|lines| lines.join("\n"))
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let domain = |name: &'static str| {
        let default = prop::option::of(prop::sample::select(&["a", "b", "c", "ghost"][..]));
        let flags = any::<[bool; 4]>();
        (default, flags).prop_map(move |(default, [makes, running, internal, tagged])| {
            let mut domain = Domain::new(name.parse().unwrap(), Kind::App);
            domain.default_disposable = default.map(|name| name.parse().unwrap());
            domain.makes_disposables = makes;
            domain.running = running;
            domain.internal = internal;
            domain.tags.extend(tagged.then(|| "t".parse().unwrap()));
            domain
        })
    };
    (domain("a"), domain("b"), domain("c")).prop_map(|(a, b, c)| Snapshot::new([a, b, c]).unwrap())
}

/// Whether a call may end there.
fn possible(target: &Destination, source: &str, snapshot: &Snapshot) -> bool {
    match target {
        Destination::Host => true,
        Destination::Domain(name) => name.as_str() != source && snapshot.get(name).is_some(),
        Destination::NewDisposable { template } => snapshot.disposable_template(template).is_some(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_a_policy_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("p.policy"), &bytes).unwrap();
        let _ = Policy::load(&[Folder::on_disk(folder.path())]);
    }

    #[test]
    fn any_words_are_a_policy_or_an_error_with_a_line(p in lines(), q in lines()) {
        let files = [("p.policy", &p), ("q", &q), ("include/x", &q), ("include/y.policy", &q)];
        let files = files.map(|(path, text)| (path, text.clone()));
        if let Err(error) = Policy::load(&[Folder::in_memory(files)]) {
            prop_assert!(error.to_string().len() < 2000);
        }
    }

    #[test]
    fn any_bytes_are_a_call_or_an_error(
        service in prop::collection::vec(any::<u8>(), 0..300),
        target in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let source = "a".parse().unwrap();
        match Call::parse(source, &service, &target) {
            Ok(call) => prop_assert!(call.to_string().is_ascii()),
            Err(error) => prop_assert!(error.to_string().len() < 1000),
        }
    }

    #[test]
    fn a_rule_reads_the_same_when_it_is_written_again(text in rules()) {
        // `@default allow` without target= is an error, and not among the rules above.
        let policy = Policy::parse("p", &text).unwrap();
        let again: Vec<String> = policy.rules().iter().map(ToString::to_string).collect();
        let again = Policy::parse("p", &again.join("\n")).unwrap();
        prop_assert_eq!(policy.rules(), again.rules());
    }

    #[test]
    fn a_verdict_keeps_its_promises(
        text in rules(),
        snapshot in snapshot(),
        target in prop::sample::select(
            &["", "a", "b", "c", "ghost", "dom0", "@dispvm", "@dispvm:a", "@dispvm:b"][..]
        ),
    ) {
        let policy = Policy::parse("p", &text).unwrap();
        let call = Call::parse("a".parse().unwrap(), b"s", target.as_bytes()).unwrap();
        match policy.evaluate(&call, &snapshot) {
            Verdict::Allow(allow) => {
                prop_assert!(possible(&allow.target, "a", &snapshot));
            }
            Verdict::Ask(ask) => {
                prop_assert!(!ask.targets.is_empty());
                for target in &ask.targets {
                    prop_assert!(possible(target, "a", &snapshot));
                    prop_assert_eq!(&ask.choose(target).unwrap().rule, &ask.rule);
                }
                if let Some(default) = &ask.default_target {
                    prop_assert!(ask.targets.contains(default));
                }
                let never = Destination::Domain("ghost".parse().unwrap());
                prop_assert!(ask.choose(&never).is_err());
            }
            Verdict::Deny(deny) => prop_assert!(!deny.reason.to_string().is_empty()),
        }
        // Without a rule there is never more than a refusal.
        let nothing = Policy::default().evaluate(&call, &snapshot);
        prop_assert!(matches!(nothing, Verdict::Deny(_)));
    }

    /// Where no rule redirects, a question offers exactly the targets for which a call would not
    /// be refused by a rule.
    #[test]
    fn a_question_offers_what_a_call_would_get(text in rules(), snapshot in snapshot()) {
        let text = text
            .lines()
            .filter(|line| !line.contains(" target=") && !line.contains("autostart"))
            .collect::<Vec<_>>()
            .join("\n");
        let policy = Policy::parse("p", &text).unwrap();
        let call = |target| Call {
            service: "s".parse().unwrap(),
            argument: Default::default(),
            source: "a".parse().unwrap(),
            target,
        };
        let asks = |target| {
            matches!(policy.evaluate(&call(target), &snapshot), Verdict::Ask(_))
        };
        let Verdict::Ask(ask) = policy.evaluate(&call(IntendedTarget::Default), &snapshot) else {
            return Ok(());
        };
        let own = snapshot.get(&"a".parse().unwrap()).unwrap().default_disposable.clone();
        for target in &ask.targets {
            let direct = match target {
                Destination::Host => asks(IntendedTarget::AdminVm),
                Destination::Domain(name) => asks(IntendedTarget::Domain(name.clone())),
                Destination::NewDisposable { template } => {
                    asks(IntendedTarget::DispVmOf(template.clone()))
                        || (own.as_ref() == Some(template) && asks(IntendedTarget::DispVm))
                }
            };
            prop_assert!(direct, "{target} is offered, but a call to it is not asked:\n{text}");
        }
        for domain in snapshot.iter().filter(|d| !d.internal && d.name.as_str() != "a") {
            let offered = ask.targets.contains(&Destination::Domain(domain.name.clone()));
            prop_assert_eq!(offered, asks(IntendedTarget::Domain(domain.name.clone())), "{}", &text);
        }
        let offered = ask.targets.contains(&Destination::Host);
        prop_assert_eq!(offered, asks(IntendedTarget::AdminVm), "{}", &text);
    }
}
