//! A killed guest's windows vanish and the rest goes on.

use std::time::Duration;

use crate::check;
use crate::e2e::context::{Context, GREEN, RED};
use crate::e2e::desktop::Desktop;
use crate::e2e::{Outcome, Place, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "path-kill",
    about: "a killed guest's windows vanish, the other domain goes on, the killed one starts again",
    run: Place::Host(run),
};

fn run(context: &Context<'_>) -> Outcome {
    context.domain("work", "red")?;
    context.domain("personal", "green")?;
    let desktop = Desktop::new(context);
    let _work = context.spawn_in("work", &["foot", "-W", "60x20"])?;
    let _personal = context.spawn_in("personal", &["foot", "-W", "60x20"])?;
    for domain in ["work", "personal"] {
        desktop.wait_window(domain, Duration::from_secs(180), |w| w.domain == domain)?;
    }
    desktop.settle(400)?;
    desktop.screenshot("both")?;

    // Not by the manager: the VMM process itself dies, as in a crash.
    context.host_ok(&[
        "sh",
        "-c",
        "kill -9 $(pgrep -f 'bulkhead-vmm.*' -u user | head -1)",
    ])?;
    let survivor = desktop.wait(
        "one domain's windows to vanish",
        Duration::from_secs(10),
        || {
            let windows = desktop.windows()?;
            let work = windows.iter().any(|w| w.domain == "work" && w.mapped);
            let personal = windows.iter().any(|w| w.domain == "personal" && w.mapped);
            Ok(match (work, personal) {
                (true, false) => Some("work"),
                (false, true) => Some("personal"),
                _ => None,
            })
        },
    )?;
    let (killed, colour) = if survivor == "work" {
        ("personal", GREEN)
    } else {
        ("work", RED)
    };
    let picture = desktop.screenshot("one-left")?;
    check!(
        picture.share_of(picture.area(), colour, 4) < 0.0005,
        "something in the colour of the killed domain is still on the screen"
    );

    // The other one still takes keys.
    let window = desktop.wait_window("the survivor", Duration::from_secs(5), |w| {
        w.domain == survivor
    })?;
    desktop.click(window.centre().0, window.centre().1)?;
    desktop.type_text("touch /tmp/alive\n")?;
    desktop.wait("the survivor to obey", Duration::from_secs(60), || {
        Ok((context
            .guest(survivor, &["test", "-e", "/tmp/alive"])?
            .status
            == 0)
            .then_some(()))
    })?;

    // The manager noticed, and starts the killed one again.
    desktop.wait("the manager to notice", Duration::from_secs(10), || {
        Ok((context.state(killed)? != "running").then_some(()))
    })?;
    context.guest_ok(killed, &["true"])?;
    check!(
        context.state(killed)? == "running",
        "{killed} did not start again"
    );
    Ok(())
}
