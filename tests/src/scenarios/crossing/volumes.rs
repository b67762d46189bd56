//! A home grows, is copied and goes back; that of a named disposable is forgotten.

use crate::check;
use crate::e2e::context::Context;
use crate::e2e::{Outcome, Place, Scenario};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "crossing-volumes",
    about: "a home grows with its volume, a clone has its files, a named disposable forgets its own",
    run: Place::Host(run),
};

fn run(context: &Context<'_>) -> Outcome {
    // Small: the journal of a large filesystem alone would be too much to copy at a start.
    let make = |name: &str, kind: &str| {
        let size = ["--home-size", "32", "--cpus", "1", "--kind", kind];
        let mut command = vec!["bulkhead", "create", name];
        command.extend(size);
        context.host_ok(&command).map(drop)
    };
    make("work", "app")?;
    context.guest_ok("work", &["sh", "-c", "echo kept > ~/file; sync"])?;
    let size_kib = |name: &str| -> Result<u64, crate::e2e::Failure> {
        let text = context.guest_ok(name, &["df", "-k", "--output=size", "/home"])?;
        let size = text.lines().last().unwrap_or_default().trim().parse();
        Ok(size.unwrap_or(0))
    };
    let small = size_kib("work")?;
    check!(small < 32 << 10, "a home of 32 MiB shows {small} KiB");
    context.host_ok(&["bulkhead", "stop", "work"])?;
    context.host_ok(&["bulkhead", "prefs", "work", "home_size_mib", "200M"])?;
    context.host_ok(&["bulkhead", "clone", "work", "copy"])?;

    // The second start makes a snapshot, and the file system grows.
    context.guest_ok("work", &["sh", "-c", "echo lost > ~/file; sync"])?;
    let large = size_kib("work")?;
    check!(
        large > 150 << 10,
        "the home has {large} KiB after its volume has grown to 200 MiB"
    );
    let info = context.host_ok(&["bulkhead", "info", "work"])?;
    check!(info.contains("the last 2"), "no snapshot was made:\n{info}");
    context.host_ok(&["bulkhead", "stop", "work"])?;
    context.host_ok(&["bulkhead", "revert", "work", "--yes"])?;
    for name in ["work", "copy"] {
        let text = context.guest_ok(name, &["cat", "/home/user/file"])?;
        check!(text == "kept\n", "{name} has {text:?}");
        context.host_ok(&["bulkhead", "stop", name])?;
    }

    make("web", "named-disposable")?;
    for _ in 0..2 {
        let script = "test ! -e ~/file && echo secret > ~/file && sync";
        context.guest_ok("web", &["sh", "-c", script])?;
        context.host_ok(&["bulkhead", "stop", "web"])?;
    }
    Ok(())
}
