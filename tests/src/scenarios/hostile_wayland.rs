//! A hostile Wayland client in a guest: host and other domains go on.

use std::time::Duration;

use crate::check;
use crate::e2e::context::Context;
use crate::e2e::desktop::Desktop;
use crate::e2e::{Outcome, Place, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "path-hostile-wayland",
    about: "hostile clients, through the proxy and past it, hurt no other domain",
    run: Place::Host(run),
};

fn run(context: &Context<'_>) -> Outcome {
    context.domain("work", "red")?;
    context.domain("personal", "green")?;
    let desktop = Desktop::new(context);
    let _foot = context.spawn_in("personal", &["foot", "-W", "60x20"])?;
    let bystander = desktop.wait_window("the bystander", Duration::from_secs(180), |w| {
        w.domain == "personal"
    })?;
    let compositor = context.host_ok(&["pgrep", "-x", "bulkhead-compos"])?;
    let hostile = context.install_hostile("work", "hostile-wayland")?;
    let _direct = context.direct_domain("direct", "blue")?;

    let list = context.guest_ok("work", &[&hostile, "list"])?;
    for attack in list.lines() {
        // Through the proxy, as an application of the guest would.
        let output = context.attack("work", "hostile-wayland", attack)?.output;
        context.log(&format!("{attack}-proxy.txt"), &output.stdout)?;
        check!(
            output.status == 0,
            "{attack} could not be tried through the proxy: {} {}",
            output.stdout_text(),
            output.stderr_text()
        );
        // Past the proxy: straight on a domain's socket, as a guest with its own proxy would.
        let output = context.host_direct_program("direct", "hostile-wayland", &[attack])?;
        context.log(&format!("{attack}-direct.txt"), &output.stdout)?;
        check!(
            output.status == 0,
            "{attack} could not be tried directly: {} {}",
            output.stdout_text(),
            output.stderr_text()
        );
        let now = context.host_ok(&["pgrep", "-x", "bulkhead-compos"])?;
        check!(now == compositor, "{attack} ended the compositor");
        if attack == "fullscreen" {
            let size = output.stdout_text();
            check!(
                !size.contains("1280x") && !size.contains("x800"),
                "fullscreen was granted over the border: {size}"
            );
        }
    }

    let still = desktop.wait_window("the bystander", Duration::from_secs(5), |w| {
        w.id == bystander.id
    })?;
    desktop.click(still.centre().0, still.centre().1)?;
    desktop.type_text("touch /tmp/alive\n")?;
    desktop.wait("the bystander to obey", Duration::from_secs(30), || {
        Ok((context
            .guest("personal", &["test", "-e", "/tmp/alive"])?
            .status
            == 0)
            .then_some(()))
    })?;
    // The domain that attacked is still usable too: only its bad clients were cut.
    let _window = context.spawn_in("work", &["weston-flower"])?;
    desktop.wait_window("a good client of work", Duration::from_secs(180), |w| {
        w.domain == "work"
    })?;
    desktop.screenshot("after")?;
    Ok(())
}
