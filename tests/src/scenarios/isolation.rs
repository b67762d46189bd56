//! Two domains at once never share a selection, a socket or a file.

use std::time::Duration;

use crate::check;
use crate::e2e::context::Context;
use crate::e2e::desktop::Desktop;
use crate::e2e::{Outcome, Place, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "path-isolation",
    about: "two domains at once never share a selection, a socket, a file or memory",
    run: Place::Host(run),
};

fn run(context: &Context<'_>) -> Outcome {
    context.domain("work", "red")?;
    context.domain("personal", "green")?;
    let desktop = Desktop::new(context);

    // Files: what one writes the other does not have.
    context.guest_ok(
        "work",
        &["sh", "-c", "echo secret > ~/secret; echo s > /tmp/secret"],
    )?;
    for path in ["/home/user/secret", "/tmp/secret"] {
        let output = context.guest("personal", &["cat", path])?;
        check!(output.status != 0, "personal can read {path} of work");
    }

    // Selections: each domain keeps its own, and sees only its own.
    let _work = context.spawn_in("work", &["foot", "-W", "60x20"])?;
    desktop.wait_window("work's window", Duration::from_secs(180), |w| {
        w.domain == "work"
    })?;
    let _personal = context.spawn_in("personal", &["foot", "-W", "60x20"])?;
    desktop.wait_window("personal's window", Duration::from_secs(180), |w| {
        w.domain == "personal"
    })?;
    context.copy_text("work", "from work")?;
    let seen = context.paste_text("personal")?;
    check!(
        !seen.contains("from work"),
        "personal pasted what work had copied: {seen:?}"
    );
    context.copy_text("personal", "from personal")?;
    let seen = context.paste_text("work")?;
    check!(
        seen == "from work",
        "work pasted {seen:?} instead of its own text"
    );
    let seen = context.paste_text("personal")?;
    check!(seen == "from personal", "personal pasted {seen:?}");

    // Sockets: each VMM holds its own domain's Wayland socket only, and no descriptor that names
    // the other domain's folder.
    let held = context.host_ok(&[
        "sh",
        "-c",
        "for pid in $(pgrep bulkhead-vmm); do \
           tr '\\0' ' ' < /proc/$pid/cmdline; echo; \
           ls -l /proc/$pid/fd | sed 's/.*-> //' | grep -E 'domains/' || true; echo --; done",
    ])?;
    for block in held.split("--\n") {
        check!(
            !(block.contains("domains/work/") && block.contains("domains/personal/")),
            "one VMM holds files of both domains:\n{block}"
        );
    }

    // Memory: both guests' RAM is private to their own process.
    let shared = context.host_ok(&[
        "sh",
        "-c",
        "for pid in $(pgrep bulkhead-vmm); do \
           awk '/^[0-9a-f]+-[0-9a-f]+ rw-s/ {print $6}' /proc/$pid/maps; done \
         | sort | uniq -c",
    ])?;
    context.log("writable-shared-mappings.txt", shared.as_bytes())?;
    check!(
        !shared.contains("home.img") && !shared.contains("root.erofs"),
        "a VMM maps a disk image writable and shared:\n{shared}"
    );

    // Privileged protocols are not announced in a guest.
    let globals = context.guest_ok("work", &["wayland-info"])?;
    context.log("wayland-info.txt", globals.as_bytes())?;
    for forbidden in [
        "zwlr_layer_shell",
        "ext_session_lock",
        "screencopy",
        "data_control",
        "virtual_pointer",
        "virtual_keyboard",
        "input_method",
        "foreign_toplevel",
        "output_management",
        "output_power",
        "gamma_control",
        "security_context",
        "drm_lease",
    ] {
        check!(
            !globals.contains(forbidden),
            "a guest is offered {forbidden}"
        );
    }
    for expected in [
        "wl_compositor",
        "wl_shm",
        "xdg_wm_base",
        "wl_seat",
        "wp_viewporter",
    ] {
        check!(
            globals.contains(expected),
            "a guest is not offered {expected}"
        );
    }
    desktop.screenshot("both")?;
    Ok(())
}
