//! A standalone domain owns its root; a service domain has no windows and starts with the manager.

use crate::check;
use crate::e2e::context::Context;
use crate::e2e::{Outcome, Place, Scenario};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "crossing-standalone",
    about: "a standalone domain keeps what it changes of its root, and goes back; a service domain has no display",
    run: Place::Host(run),
};

fn run(context: &Context<'_>) -> Outcome {
    let create = |name: &str, kind: &str| {
        let size = ["--home-size", "48", "--cpus", "1", "--kind", kind];
        let mut command = vec!["bulkhead", "create", name];
        command.extend(size);
        context.host_ok(&command).map(drop)
    };
    let root = |name: &str, script: &str| {
        context.host_ok(&["bulkhead", "run", "--root", name, "--", "sh", "-c", script])
    };
    create("lab", "standalone")?;
    // A program of its own, one of the template's taken away, a setting changed.
    root(
        "lab",
        "printf '#!/bin/sh\\necho mine\\n' > /usr/local/bin/mine && chmod 755 /usr/local/bin/mine \
         && rm /usr/bin/foot && echo changed > /etc/motd && echo kept > /home/user/file && sync",
    )?;
    context.host_ok(&["bulkhead", "stop", "lab"])?;
    let look = "mine; test ! -e /usr/bin/foot && cat /etc/motd ~/file";
    let text = context.guest_ok("lab", &["sh", "-c", look])?;
    check!(text == "mine\nchanged\nkept\n", "it has {text:?}");
    // The home is mounted as in all other domains.
    let mounts = context.guest_ok("lab", &["cat", "/proc/mounts"])?;
    let home = mounts.lines().find(|line| line.contains(" /home "));
    check!(
        home.is_some_and(|line| line.contains("nosuid") && line.contains("nodev")),
        "/home is mounted so:\n{mounts}"
    );
    // As it was before this start, and before the changes if there was something to keep.
    root(
        "lab",
        "echo lost > /etc/motd; echo lost > /home/user/file; sync",
    )?;
    context.host_ok(&["bulkhead", "stop", "lab"])?;
    context.host_ok(&["bulkhead", "revert", "lab", "--yes"])?;
    let text = context.guest_ok("lab", &["sh", "-c", look])?;
    check!(
        text == "mine\nchanged\nkept\n",
        "after going back: {text:?}"
    );
    context.host_ok(&["bulkhead", "kill", "lab"])?;

    create("quiet", "service")?;
    let text = root("quiet", "ls /dev/dri 2>&1; test ! -e /dev/dri && echo none")?;
    check!(text.ends_with("none\n"), "a service has a display: {text}");
    let apps = context.host_ok(&["bulkhead", "apps", "--json"])?;
    check!(
        !apps.contains("quiet") && apps.contains("lab"),
        "the menu shows:\n{apps}"
    );
    context.host_ok(&["bulkhead", "kill", "quiet"])?;
    Ok(())
}
