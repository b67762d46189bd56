//! The proxy survives a client that dies in mid-message, and every other broken client.

use std::time::Duration;

use crate::check;
use crate::e2e::context::Context;
use crate::e2e::desktop::Desktop;
use crate::e2e::{Outcome, Place, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "path-half-message",
    about: "the proxy survives clients that die in mid-message or say nonsense; others go on",
    run: Place::Host(run),
};

fn run(context: &Context<'_>) -> Outcome {
    context.domain("work", "red")?;
    let desktop = Desktop::new(context);
    let _foot = context.spawn_in("work", &["foot"])?;
    let foot = desktop.wait_window("foot", Duration::from_secs(180), |w| w.domain == "work")?;
    let proxy = context.guest_ok("work", &["pgrep", "-f", "bulkhead-wayland-proxy"])?;
    let hostile = context.install_hostile("work", "hostile-wayland")?;

    for attack in ["half-message", "bad-sizes", "bad-objects", "garbage"] {
        let output = context.guest("work", &["timeout", "100", &hostile, attack])?;
        context.log(&format!("{attack}.txt"), &output.stdout)?;
        check!(
            output.status == 0,
            "{attack} could not be tried: {} {}",
            output.stdout_text(),
            output.stderr_text()
        );
        let now = context.guest_ok("work", &["pgrep", "-f", "bulkhead-wayland-proxy"])?;
        check!(
            now == proxy,
            "the proxy was restarted by {attack}: {proxy:?} became {now:?}"
        );
    }

    // The window that was there before still takes keys.
    desktop.click(foot.centre().0, foot.centre().1)?;
    desktop.type_text("touch /tmp/alive\n")?;
    desktop.wait("foot to obey", Duration::from_secs(60), || {
        Ok((context.guest("work", &["test", "-e", "/tmp/alive"])?.status == 0).then_some(()))
    })?;
    desktop.screenshot("after")?;
    Ok(())
}
