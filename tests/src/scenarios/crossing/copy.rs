//! Files and streams cross where the policy or the user say so, and nowhere else.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::check;
use crate::e2e::context::{Background, Context};
use crate::e2e::desktop::Desktop;
use crate::e2e::{Failure, Outcome, Place, Scenario};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "crossing-copy",
    about: "files, streams and the host's services, by policy and by the user's answer; the log of it",
    run: Place::Host(run),
};

const POLICY: &str = "\
qubes.Filecopy  *  work      personal  allow
qubes.Filecopy  *  personal  work      deny
my.Upper        +x work      personal  allow
my.Upper        *  work      personal  deny
qubes.StartApp  +foot work   personal  allow
qubes.OpenInVM  *  work      personal  allow
";

fn run(context: &Context<'_>) -> Outcome {
    context.domain("work", "red")?;
    context.domain("personal", "green")?;
    // A domain that is not running is started for a call that is allowed.
    let _ = context.host(&["bulkhead", "stop", "personal"])?;
    policy(context, POLICY)?;
    allowed(context)?;
    services(context)?;
    denied(context)?;
    hostile(context)?;
    policy(context, "")?;
    asked(context)?;
    log(context)?;
    policy(context, &format!("{POLICY}{}", super::scp::RULE))?;
    super::throughput::compare(context)?;
    super::throughput::large(context)?;
    context.host_ok(&["sh", "-c", "rm -r ~/.config/bulkhead/policy.d"])?;
    for domain in ["work", "personal"] {
        context.guest_ok(
            domain,
            &[
                "sh",
                "-c",
                "rm -rf ~/Incoming ~/sent ~/.local/share/bulkhead",
            ],
        )?;
    }
    Ok(())
}

fn policy(context: &Context<'_>, text: &str) -> Outcome {
    let script = format!(
        "mkdir -p ~/.config/bulkhead/policy.d; printf %s '{text}' > \
         ~/.config/bulkhead/policy.d/30-user.policy"
    );
    context.host_ok(&["sh", "-c", &script]).map(drop)
}

/// A file, a folder with a link and an empty file: whole, under safe names, not executable.
fn allowed(context: &Context<'_>) -> Outcome {
    context.guest_ok(
        "work",
        &[
            "sh",
            "-c",
            "mkdir -p ~/sent/folder/in && cd ~/sent && head -c 20000000 /dev/urandom > big && \
             printf '#!/bin/sh\\ntouch /tmp/ran\\n' > folder/in/script && chmod +x folder/in/script && \
             : > folder/empty && ln -s in/script folder/link && truncate -s 10G sparse",
        ],
    )?;
    let begun = Instant::now();
    let output = context.guest(
        "work",
        &[
            "sh",
            "-c",
            "cd ~/sent && bulkhead-copy --to personal big folder sparse",
        ],
    )?;
    check!(
        output.status == 0,
        "the copy: {} {}",
        output.status,
        output.stderr_text()
    );
    println!(
        "  20 MB, a folder and 10 GiB of holes, with the target's start: {:?}",
        begun.elapsed()
    );
    let list =
        "find . -type f ! -name sparse -exec sha256sum {} + | sort; stat -c '%s %a %n' sparse";
    let sent = format!("cd ~/sent && chmod 600 sparse && {list}");
    let arrived = format!("cd ~/Incoming/work && {list}");
    let sent = context.guest_ok("work", &["sh", "-c", &sent])?;
    let arrived = context.guest_ok("personal", &["sh", "-c", &arrived])?;
    check!(sent == arrived, "sent\n{sent}\narrived\n{arrived}");
    let more = context.guest_ok(
        "personal",
        &[
            "sh",
            "-c",
            "cd ~/Incoming/work; readlink folder/link; find . -type f -perm /111; du -m sparse; ls -A",
        ],
    )?;
    check!(
        more == "in/script\n0\tsparse\nbig\nfolder\nsparse\n",
        "the link, executable files, holes, names: {more}"
    );
    // Once more: nothing is replaced.
    context.guest_ok(
        "work",
        &[
            "sh",
            "-c",
            "cd ~/sent && bulkhead-move --to personal folder && test ! -e folder",
        ],
    )?;
    let names = context.guest_ok("personal", &["sh", "-c", "ls ~/Incoming/work"])?;
    check!(
        names == "big\nfolder\nfolder (1)\nsparse\n",
        "names: {names}"
    );
    Ok(())
}

/// Streams to a domain's own service, and to the host's.
fn services(context: &Context<'_>) -> Outcome {
    context.guest_ok(
        "personal",
        &[
            "sh",
            "-c",
            "mkdir -p ~/.local/share/bulkhead/rpc && cd ~/.local/share/bulkhead/rpc && \
             printf '#!/bin/sh\\necho \"$QREXEC_REMOTE_DOMAIN $1\"; tr a-z A-Z; echo secret >&2; exit 7\\n' \
             > my.Upper && chmod +x my.Upper",
        ],
    )?;
    let output = context.guest(
        "work",
        &["sh", "-c", "echo hello | bulkhead-rpc personal my.Upper+x"],
    )?;
    check!(
        (
            output.status,
            output.stdout_text().as_str(),
            output.stderr_text().as_str()
        ) == (7, "work x\nHELLO\n", ""),
        "{output:?}"
    );
    let date = context.guest_ok("work", &["bulkhead-rpc", "@adminvm", "qubes.GetDate"])?;
    check!(
        date.starts_with("20") && date.ends_with("+00:00\n"),
        "the time: {date}"
    );
    context.guest_ok("work", &["bulkhead-notify", "the backup is", "done"])?;
    context.guest_ok("work", &["bulkhead-rpc", "personal", "qubes.StartApp+foot"])?;
    let desktop = Desktop::new(context);
    desktop.wait_window("foot", Duration::from_secs(60), |window| {
        window.domain == "personal"
    })?;
    context.guest_ok("personal", &["pkill", "foot"])?;
    opened(context, &desktop)?;
    // 10 MB through both relays, as many bytes back.
    let counted = context.guest_ok(
        "work",
        &[
            "sh",
            "-c",
            "head -c 10000000 /dev/zero | bulkhead-rpc personal my.Upper+x | wc -c",
        ],
    )?;
    check!(counted.trim() == "10000007", "bytes: {counted}");
    Ok(())
}

/// A file opens in another domain by that one's own program, and by nobody's leave in a new disposable,
/// which goes with its window.
fn opened(context: &Context<'_>, desktop: &Desktop<'_>) -> Outcome {
    let note = "echo hello > ~/sent/note.txt; bulkhead-open";
    let there = format!("{note} --to personal ~/sent/note.txt");
    context.guest_ok("work", &["sh", "-c", &there])?;
    let patience = Duration::from_secs(90);
    let titled = |window: &crate::e2e::desktop::Window| window.title.contains("note.txt");
    desktop.wait_window("the note in personal", patience, |window| {
        window.domain == "personal" && titled(window)
    })?;
    desktop.screenshot("opened-in-personal")?;
    context.guest_ok("personal", &["pkill", "mousepad"])?;
    let disposable = format!("{note} ~/sent/note.txt");
    context.guest_ok("work", &["sh", "-c", &disposable])?;
    let window = desktop.wait_window("the note in a disposable", patience, |window| {
        window.domain.starts_with("disp") && titled(window)
    })?;
    desktop.screenshot("opened-in-a-disposable")?;
    context.guest_ok(&window.domain, &["pkill", "mousepad"])?;
    desktop.wait("the disposable's end", patience, || {
        let list = context.host_ok(&["bulkhead", "list", "--json"])?;
        Ok((!list.contains(&window.domain)).then_some(()))
    })
}

fn denied(context: &Context<'_>) -> Outcome {
    for (domain, call) in [
        ("work", "bulkhead-rpc personal my.Upper+y"),
        ("work", "bulkhead-rpc personal no.Such"),
        ("work", "bulkhead-rpc nosuch no.Such"),
        ("work", "bulkhead-rpc personal qubes.ClipboardPaste"),
        ("personal", "bulkhead-copy --to work /etc/hostname"),
    ] {
        let output = context.guest(domain, &["sh", "-c", call])?;
        let told = output.stderr_text();
        check!(
            output.status == 126 && told.trim_end().ends_with(": refused"),
            "{call}: {} {told}",
            output.status
        );
    }
    let output = context.guest("work", &["bulkhead-rpc", "../x", "a b"])?;
    check!(output.stderr_text().contains("malformed"), "{output:?}");
    Ok(())
}

/// Streams that nobody honest writes arrive nowhere, and end.
fn hostile(context: &Context<'_>) -> Outcome {
    let program = context.install_hostile("work", "hostile-files")?;
    let look = "find / -xdev \\( -name '*evil*' -o -name '.incoming-*' -o -name sda -path '*home*' \\); \
                find ~ -newer /tmp/before ! -path '*/.cache*' ! -path '*/.config*'; ls -A ~/Incoming/work";
    let before = context.guest_ok(
        "personal",
        &["sh", "-c", &format!("touch /tmp/before; {look}")],
    )?;
    let attacks = context.guest_ok("work", &[&program, "list"])?;
    let mut told = String::new();
    for attack in attacks.lines() {
        let script = format!(
            "{program} {attack} 2>/tmp/attack | timeout 60 bulkhead-rpc personal qubes.Filecopy \
             > /tmp/answer; echo $?; cat /tmp/attack"
        );
        let output = context.guest_ok("work", &["sh", "-c", &script])?;
        told += &output;
        let status = output.lines().next().unwrap_or_default();
        check!(
            status != "0" && status != "124",
            "{attack} was taken, or did not end: {output}"
        );
    }
    context.log("hostile-files.txt", told.as_bytes())?;
    let after = context.guest_ok("personal", &["sh", "-c", look])?;
    // The folder itself was written to.
    let after = after.replace("/home/user/Incoming/work\n", "");
    check!(before == after, "before\n{before}\nafter\n{after}");
    for domain in ["work", "personal"] {
        check!(context.state(domain)? == "running", "{domain} has ended");
    }
    Ok(())
}

/// No rule of the user's: the question says what it is about, and the answer counts.
fn asked(context: &Context<'_>) -> Outcome {
    context.guest_ok("work", &["sh", "-c", "printf 12345 > ~/sent/report.pdf"])?;
    let ask = || -> Result<(Background, Value), Failure> {
        let script = "cd ~/sent; bulkhead-copy report.pdf > /tmp/told 2>&1; echo $? >> /tmp/told";
        let copying = context.spawn_in("work", &["sh", "-c", script])?;
        Ok((copying, question(context)?))
    };
    let (copying, open) = ask()?;
    check!(
        open["source"] == "work"
            && open["service"] == "qubes.Filecopy"
            && open["files"] == serde_json::json!(["report.pdf (5 B)"])
            && open["bytes"] == 5,
        "the question: {open}"
    );
    let targets = open["targets"].to_string();
    check!(
        targets.contains("\"personal\"") && !targets.contains("\"work\""),
        "the targets: {targets}"
    );
    let id = open["id"].to_string();
    let wrong = context.host(&["bulkhead", "ask", "allow", &id, "--target", "work"])?;
    check!(wrong.status == 1, "a target that was not offered was taken");
    context.host_ok(&["bulkhead", "ask", "deny", &id])?;
    check!(
        told(context, copying)? == "bulkhead-copy: refused\n126\n",
        "after the no"
    );
    let found = context.guest("personal", &["sh", "-c", "ls ~/Incoming/work/report*"])?;
    check!(found.status != 0, "after a no something arrived");

    let (copying, open) = ask()?;
    let id = open["id"].to_string();
    context.host_ok(&["bulkhead", "ask", "allow", &id, "--target", "personal"])?;
    check!(told(context, copying)? == "0\n", "after the yes");
    context.guest_ok(
        "personal",
        &[
            "sh",
            "-c",
            "test \"$(cat ~/Incoming/work/report.pdf)\" = 12345",
        ],
    )?;

    // A caller that goes away takes its question with it.
    let (copying, _) = ask()?;
    context.guest_ok("work", &["pkill", "bulkhead-copy"])?;
    let none = context.host_ok(&["bulkhead", "ask", "list"])?;
    drop(copying);
    check!(
        none.contains("No domain waits"),
        "a question without a caller: {none}"
    );
    Ok(())
}

/// The only open question.
fn question(context: &Context<'_>) -> Result<Value, Failure> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let text = context.host_ok(&["bulkhead", "ask", "list", "--json"])?;
        let asks: Value = serde_json::from_str(&text)?;
        if let Some([one]) = asks.as_array().map(Vec::as_slice) {
            return Ok(one.clone());
        }
        check!(Instant::now() < end, "no question: {text}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What the program said, once it has ended.
fn told(context: &Context<'_>, mut program: Background) -> Result<String, Failure> {
    let end = Instant::now() + Duration::from_secs(30);
    while !program.ended() {
        check!(Instant::now() < end, "the program has not ended");
        std::thread::sleep(Duration::from_millis(100));
    }
    context.guest_ok("work", &["cat", "/tmp/told"])
}

fn log(context: &Context<'_>) -> Outcome {
    let text = context.host_ok(&["bulkhead", "transfers"])?;
    context.log("transfers.txt", text.as_bytes())?;
    let records = context.host_ok(&["bulkhead", "transfers", "--json"])?;
    let records: Value = serde_json::from_str(&records)?;
    let records = records.as_array().map(Vec::as_slice).unwrap_or_default();
    let has = |verdict: &str, target: &str, rule: &str, detail: &str| {
        records.iter().any(|record| {
            let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
            text("verdict") == verdict
                && text("target") == target
                && text("rule") == rule
                && text("detail").contains(detail)
        })
    };
    check!(has("allowed", "personal", "30-user.policy:1", ""), "{text}");
    check!(
        has("refused", "", "30-user.policy:2", "denied by policy"),
        "{text}"
    );
    check!(
        has("failed", "personal", "30-user.policy:3", "status 7"),
        "{text}"
    );
    check!(text.contains("refused by the user"), "{text}");
    check!(text.contains("report.pdf (5 B)"), "{text}");
    Ok(())
}
