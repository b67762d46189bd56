//! Copy and paste of 8 MiB within a domain arrives whole.

use std::time::Duration;

use crate::check;
use crate::e2e::context::Context;
use crate::e2e::desktop::Desktop;
use crate::e2e::{Outcome, Place, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "path-clipboard",
    about: "copy and paste of 8 MiB within a domain arrives whole, twice at once as well",
    run: Place::Host(run),
};

fn run(context: &Context<'_>) -> Outcome {
    context.domain("work", "red")?;
    let desktop = Desktop::new(context);
    let _foot = context.spawn_in("work", &["foot"])?;
    desktop.wait_window("foot", Duration::from_secs(180), |w| w.domain == "work")?;

    // Base64 of random bytes: nothing compresses or repeats, so a lost piece shows.
    context.guest_ok(
        "work",
        &[
            "sh",
            "-c",
            "head -c 6291456 /dev/urandom | base64 -w0 > /tmp/big; test $(wc -c < /tmp/big) = 8388608",
        ],
    )?;
    let expected = context.guest_ok("work", &["sh", "-c", "sha256sum < /tmp/big"])?;
    context.guest_ok(
        "work",
        &[
            "sh",
            "-c",
            "wl-copy -t text/plain < /tmp/big > /dev/null 2>&1",
        ],
    )?;
    let pasted = context.guest_ok(
        "work",
        &[
            "sh",
            "-c",
            "timeout 120 wl-paste -n -t text/plain | sha256sum",
        ],
    )?;
    check!(pasted == expected, "8 MiB arrived changed or short");

    let twice = context.guest_ok(
        "work",
        &[
            "sh",
            "-c",
            "timeout 120 wl-paste -n -t text/plain | sha256sum > /tmp/a & \
             timeout 120 wl-paste -n -t text/plain | sha256sum > /tmp/b; wait; cat /tmp/a /tmp/b",
        ],
    )?;
    check!(
        twice.lines().count() == 2 && twice.lines().all(|line| line == expected.trim_end()),
        "two pastes at once arrived changed or short: {twice}"
    );
    Ok(())
}
