//! A hostile guest that speaks to the virtio-gpu device itself: only its own VM can suffer.

use std::time::Duration;

use crate::check;
use crate::e2e::context::Context;
use crate::e2e::desktop::Desktop;
use crate::e2e::{Outcome, Place, Scenario};

pub(super) const NATIVE: Scenario = Scenario {
    name: "path-hostile-gpu",
    about: "a guest that tries rutabaga's known faults hurts at most its own VM",
    run: Place::Host(|context| run(context, "native")),
};

pub(super) const RUTABAGA: Scenario = Scenario {
    name: "path-hostile-rutabaga",
    about: "the same attacks on a domain whose display goes through rutabaga itself",
    run: Place::Host(|context| run(context, "rutabaga")),
};

fn run(context: &Context<'_>, backend: &str) -> Outcome {
    context.domain("work", "red")?;
    let line =
        format!("echo 'gpu_backend = \"{backend}\"' >> ~/.config/bulkhead/domains/work.toml");
    context.host_ok(&["sh", "-c", &line])?;
    context.domain("personal", "green")?;
    let desktop = Desktop::new(context);
    let _bystander = context.spawn_in("personal", &["foot", "-W", "60x20"])?;
    desktop.wait_window("the bystander", Duration::from_secs(180), |w| {
        w.domain == "personal"
    })?;
    let _own = context.spawn_in("work", &["foot", "-W", "60x20"])?;
    desktop.wait_window("the attacker's own app", Duration::from_secs(180), |w| {
        w.domain == "work"
    })?;
    let compositor = context.host_ok(&["pgrep", "-x", "bulkhead-compos"])?;
    let vmms = context.host_ok(&["pgrep", "-c", "bulkhead-vmm"])?;
    let hostile = context.install_hostile("work", "hostile-gpu")?;

    let list = context.guest_ok("work", &[&hostile, "list"])?;
    // Whether the attacker's own window is still the one from before.
    let mut alive = true;
    for attack in list.lines() {
        let tried = context.attack("work", "hostile-gpu", attack)?;
        let output = tried.output;
        context.log(&format!("{attack}.txt"), &output.stdout)?;
        alive &= !tried.own_vm_ended;
        check!(
            output.status == 0,
            "{attack}: status {}: {} {}",
            output.status,
            output.stdout_text(),
            output.stderr_text()
        );
        let now = context.host_ok(&["pgrep", "-x", "bulkhead-compos"])?;
        check!(now == compositor, "{attack} ended the compositor");
        let now = context.host_ok(&["pgrep", "-c", "bulkhead-vmm"])?;
        check!(
            now == vmms,
            "{attack} ended a VMM ({vmms} before, {now} now)"
        );
    }

    let threads = context.host_ok(&[
        "sh",
        "-c",
        "for p in $(pgrep -x bulkhead-vmm); do cat /proc/$p/task/*/comm; done",
    ])?;
    check!(
        !alive || threads.contains("rutabaga") == (backend == "rutabaga"),
        "the attacks did not go to the backend {backend}: {threads}"
    );

    // Both the bystander and, if its VM lived, the attacker's own older window still obey.
    for domain in if alive {
        &["personal", "work"][..]
    } else {
        &["personal"]
    } {
        let domain = *domain;
        let window = desktop.wait_window(domain, Duration::from_secs(5), |w| {
            w.domain == domain && w.app_id.contains("foot")
        })?;
        desktop.click(window.centre().0, window.centre().1)?;
        desktop.type_text("touch /tmp/alive\n")?;
        desktop.wait("foot to obey", Duration::from_secs(30), || {
            Ok((context.guest(domain, &["test", "-e", "/tmp/alive"])?.status == 0).then_some(()))
        })?;
    }
    desktop.screenshot("after")?;
    Ok(())
}
