//! Disposables leave nothing on the host: no file, socket, process, shared memory or descriptor.

use std::time::Duration;

use serde_json::Value;

use crate::check;
use crate::e2e::context::Context;
use crate::e2e::desktop::Desktop;
use crate::e2e::{Failure, Outcome, Place, Scenario};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "crossing-disposables",
    about: "disposables that come and go leave no file, socket, process or memory on the host",
    run: Place::Host(run),
};

/// What may be left: names of files, listening sockets, programs; then what the session's own
/// programs hold, by kind.
const LOOK: &str = r#"
echo FILES
find /home/user /run/user/1000 /dev/shm /tmp -mindepth 1 2>/dev/null | sort
echo SOCKETS
awk '$8 ~ /bulkhead/ {print $8}' /proc/net/unix | sort
echo PROGRAMS
for p in /proc/[0-9]*; do
    test -e $p/exe || continue
    case $(cat $p/comm) in sh|find|sort|awk|cat) ;; *) cat $p/comm ;; esac
done 2>/dev/null | sort
"#;
const HELD: &str = r#"
for name in bulkheadd bulkhead-compos; do
    for pid in $(pgrep -x $name); do
        for fd in /proc/$pid/fd/*; do
            readlink $fd | sed "s/:\[.*//; s/^/$name /"
        done
    done
done | sort | uniq -c
"#;

fn run(context: &Context<'_>) -> Outcome {
    let rounds = context.rounds(3, 50);
    context.domain("work", "red")?;
    let look = || root(context, LOOK);
    let held = || root(context, HELD);
    let before = look()?;
    context.log("before.txt", before.as_bytes())?;
    // What is made once is there from the first one on.
    let mut names = come_and_go(context, 1, 1)?;
    let held_before = held()?;
    context.log("held-before.txt", held_before.as_bytes())?;
    while names.len() < rounds {
        let together = (rounds - names.len()).min(2);
        names.extend(come_and_go(context, names.len() + 1, together)?);
    }
    names.sort();
    names.dedup();
    check!(names.len() == rounds, "a name came twice: {names:?}");
    let desktop = Desktop::new(context);
    let same = |what: &str, before: &str, look: &dyn Fn() -> Result<String, Failure>| {
        let settled = desktop.wait(what, Duration::from_secs(10), || {
            Ok((look()? == before).then_some(()))
        });
        settled.or_else(|_| {
            let now = look()?;
            let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
            let (old, new) = (lines(before), lines(&now));
            let more: Vec<_> = new.iter().filter(|line| !old.contains(line)).collect();
            let less: Vec<_> = old.iter().filter(|line| !new.contains(line)).collect();
            context.log("now.txt", now.as_bytes())?;
            Err(Failure::new(format!(
                "{what}: more now: {more:?}; less now: {less:?}; now.txt has all"
            )))
        })
    };
    same("the host as it was", &before, &look)?;
    same("descriptors as they were", &held_before, &held)?;
    check!(
        context.state("work")? == "halted",
        "the domain that disposables are made from was started"
    );
    Ok(())
}

fn root(context: &Context<'_>, script: &str) -> Result<String, Failure> {
    let output = context.root(&["sh", "-c", script])?;
    check!(output.status == 0, "{}", output.stderr_text());
    Ok(output.stdout_text())
}

/// Disposables that are there at the same time, from the first window to the end: by turns the last
/// window is closed, the machine is killed, and it is stopped. `number` is the first one's.
fn come_and_go(
    context: &Context<'_>,
    number: usize,
    together: usize,
) -> Result<Vec<String>, Failure> {
    let launch = "bulkhead launch work foot --disposable & ".repeat(together) + "wait";
    let names = context.host_ok(&["sh", "-c", &launch])?;
    let names: Vec<String> = names.lines().map(str::to_owned).collect();
    check!(
        names.len() == together,
        "{together} were launched: {names:?}"
    );
    let desktop = Desktop::new(context);
    for (name, number) in names.iter().zip(number..) {
        let window =
            desktop.wait_window("a disposable's window", Duration::from_secs(120), |w| {
                w.domain == *name
            })?;
        if number == 1 {
            desktop.screenshot("disposable")?;
        }
        context.guest_ok(name, &["sh", "-c", "echo secret > ~/secret; sync"])?;
        match number % 3 {
            1 => {
                let id = window.id.to_string();
                context.host_ok(&["bulkhead", "windows", "--close", &id])?;
            }
            2 => drop(context.host_ok(&["bulkhead", "kill", name])?),
            _ => drop(context.host_ok(&["bulkhead", "stop", name])?),
        }
    }
    desktop.wait(
        "the disposables to be gone",
        Duration::from_secs(60),
        || {
            let list = context.host_ok(&["bulkhead", "list", "--json"])?;
            let list: Value = serde_json::from_str(&list)?;
            let one = |domain: &Value| names.iter().any(|name| domain["name"] == name.as_str());
            let there = list.as_array().is_some_and(|all| all.iter().any(one));
            Ok((!there).then_some(()))
        },
    )?;
    eprintln!("  {} came and went", names.join(" and "));
    Ok(names)
}
