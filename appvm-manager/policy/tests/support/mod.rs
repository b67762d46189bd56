//! Runs a table of cases: see the head of `evaluation.table` for how one is written.

use bulkhead_policy::{Call, Domain, Kind, Name, Policy, Snapshot, Tag, Verdict};

/// Runs every case of the table and says all differences at once. Returns how many calls were
/// evaluated. A `case` without policy lines uses `policy`.
pub fn run(table: &str, policy: Option<&Policy>) -> usize {
    let mut domains = Vec::new();
    let mut title = "";
    let mut lines: Vec<&str> = Vec::new();
    let mut calls = 0;
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(table.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
        } else if let Some(words) = line.strip_prefix("domain ") {
            domains.push(domain(words));
        } else if let Some(text) = line.strip_prefix("case ") {
            title = text;
            lines.clear();
        } else if let Some(rule) = line.strip_prefix('|') {
            lines.push(rule);
        } else {
            let (call, expected) = line.split_once(" = ").expect(line);
            let loaded = Policy::parse("p", &lines.join("\n"));
            let policy = match (policy, &loaded) {
                (Some(policy), _) if lines.is_empty() => policy,
                (_, Ok(loaded)) => loaded,
                (_, Err(error)) => panic!("{number}: {title}: {error}"),
            };
            let snapshot = Snapshot::new(domains.clone()).unwrap();
            let got = verdict(policy, call, &snapshot);
            let expected = expected.split_whitespace().collect::<Vec<_>>().join(" ");
            if got != expected {
                wrong.push(format!(
                    "{number}: {title}: {call}\n  want {expected}\n  got  {got}"
                ));
            }
            calls += 1;
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    calls
}

/// `NAME KIND [tags=A,B] [default=NAME] [makes] [running] [internal]`
fn domain(words: &str) -> Domain {
    let mut words = words.split_whitespace();
    let name = words.next().unwrap().parse().unwrap();
    let kind = match words.next().unwrap() {
        "App" => Kind::App,
        "Service" => Kind::Service,
        "Disposable" => Kind::Disposable,
        "Standalone" => Kind::Standalone,
        "Template" => Kind::Template,
        other => panic!("no kind {other}"),
    };
    let mut domain = Domain::new(name, kind);
    for word in words {
        match word.split_once('=') {
            Some(("tags", tags)) => {
                let tags = tags.split(',').map(|tag| tag.parse::<Tag>().unwrap());
                domain.tags = tags.collect();
            }
            Some(("default", name)) => domain.default_disposable = Some(name.parse().unwrap()),
            None if word == "makes" => domain.makes_disposables = true,
            None if word == "running" => domain.running = true,
            None if word == "internal" => domain.internal = true,
            _ => panic!("no property {word}"),
        }
    }
    domain
}

fn verdict(policy: &Policy, call: &str, snapshot: &Snapshot) -> String {
    let words: Vec<&str> = call.split_whitespace().collect();
    let (service, source, target) = match words.as_slice() {
        [service, source, "->", target] => (service, source, *target),
        [service, source, "->"] => (service, source, ""),
        _ => panic!("a call is: SERVICE SOURCE -> TARGET, not {call}"),
    };
    let source: Name = source.parse().unwrap();
    match Call::parse(source, service.as_bytes(), target.as_bytes()) {
        Ok(call) => show(&policy.evaluate(&call, snapshot)),
        Err(_) => "malformed".to_owned(),
    }
}

/// The verdict as a table has it.
fn show(verdict: &Verdict) -> String {
    let mut text = String::new();
    let flags = |user: Option<String>, notify: bool, autostart: bool| {
        let mut flags = user.map(|user| format!(" user={user}")).unwrap_or_default();
        if notify {
            flags.push_str(" notify");
        }
        if !autostart {
            flags.push_str(" autostart=no");
        }
        flags
    };
    match verdict {
        Verdict::Allow(allow) => {
            text += &format!("allow {}", allow.target);
            let user = allow.user.as_ref().map(ToString::to_string);
            text += &flags(user, allow.notify, allow.autostart);
        }
        Verdict::Ask(ask) => {
            text += "ask";
            for target in &ask.targets {
                text += &format!(" {target}");
            }
            if let Some(target) = &ask.default_target {
                text += &format!(" default={target}");
            }
            let user = ask.user.as_ref().map(ToString::to_string);
            text += &flags(user, ask.notify, ask.autostart);
        }
        Verdict::Deny(deny) => {
            let reason = format!("{:?}", deny.reason);
            let variant = reason.split('(').next().unwrap_or_default();
            text += &format!("deny {variant}");
            if !deny.notify {
                text += " quiet";
            }
        }
    }
    match verdict.rule() {
        Some(place) => format!("{text} ({})", place.line),
        None => text,
    }
}
