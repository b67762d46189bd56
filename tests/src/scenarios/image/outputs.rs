//! Outputs come and go while windows are on them.

use std::time::Duration;

use super::desktop::{has_panel, place, window};
use super::{AS_USER, in_session};
use crate::check;
use crate::e2e::context::{GREEN, RED};
use crate::e2e::disk::{DiskContext, READY};
use crate::e2e::picture::Picture;
use crate::e2e::{Failure, Outcome, Place, Scenario};

pub(in crate::scenarios) const UNPLUGGED: Scenario = Scenario {
    name: "image-unplugged-output",
    about: "an output that goes and comes back takes no window with it; a second one shows the desktop beside the first",
    run: Place::Disk(run),
};

/// What QEMU's second display has.
const SECOND: (u32, u32) = (1024, 768);
const SOON: Duration = Duration::from_secs(45);

/// A line of shell that plugs one of the graphics device's outputs in (`on`, `detect`) or out (`off`): in sysfs;
/// virtio's driver sends no event for that, so udev sends the one that a real cable would bring.
const TELL: &str = "tell() { echo $2 > $(echo /sys/class/drm/card*-Virtual-$1/status); udevadm trigger -c change -s drm; sleep 4; }";

fn run(context: &DiskContext<'_>) -> Outcome {
    let mut options = context.machine("machine");
    options.displays = 2;
    options.script = Some(in_session(&format!(
        r#"{TELL}
        {AS_USER} sh -c 'bulkhead run work -- foot -W 60x20 & \
            until bulkhead windows --json | grep -q foot; do sleep 1; done; echo SHOWN; wait' &
        until journalctl -b -t test -o cat | grep -q SHOWN; do sleep 1; done
        tell 1 off; echo DARK; sleep 4
        tell 1 detect; echo AGAIN
        tell 2 on; echo TWO
        personal() {{ {AS_USER} bulkhead windows --json | grep -q personal; }}
        until personal; do sleep 1; done
        tell 2 off; echo LEFT
        while personal; do sleep 1; done
        tell 2 on; tell 1 off; echo CHANGED; wait"#
    )));
    let mut desktop = context.boot(&options)?;
    desktop.wait_for("SHOWN", Duration::from_secs(120))?;
    let red = |picture: &Picture| window(picture, RED).is_some();
    context.wait_picture(&mut desktop, "1-before", SOON, red)?;

    // With no output the desktop goes on.
    desktop.wait_for("DARK", Duration::from_secs(60))?;
    context.screenshot(&mut desktop, "2-none")?;
    desktop.wait_for("AGAIN", Duration::from_secs(60))?;
    let first = context.wait_picture(&mut desktop, "3-again", SOON, red)?;
    let at = window(&first, RED).ok_or_else(|| Failure::new("no window"))?;

    desktop.wait_for("TWO", Duration::from_secs(60))?;
    desktop.look_at(1);
    context.wait_picture(&mut desktop, "4-second", SOON, is_ground)?;
    // The tablet's axes reach over both.
    let (width, height) = options.size;
    desktop.set_size((width + SECOND.0, height));
    let grip = place(at.x + at.width / 2, at.y + 8);
    let target = place(width as i32 + 300 + at.width / 2, 208);
    desktop.drag(grip, target)?;
    let there = context.wait_picture(&mut desktop, "5-there", SOON, |p| {
        window(p, RED).is_some_and(|w| (w.x - 300).abs() <= 4 && (w.y - 200).abs() <= 4)
    })?;
    check!(
        (there.width, there.height) == SECOND,
        "the second output shows {}x{}",
        there.width,
        there.height
    );
    desktop.look_at(0);
    context.wait_picture(&mut desktop, "6-gone", SOON, |p| {
        has_panel(p) && window(p, RED).is_none()
    })?;

    // It fills the output that it is on.
    desktop.look_at(1);
    desktop.press(&["meta_l", "m"])?;
    context.wait_picture(&mut desktop, "7-filled", SOON, |p| {
        window(p, RED).is_some_and(|w| w.width >= SECOND.0 as i32 - 1)
    })?;
    desktop.look_at(0);
    let here = context.screenshot(&mut desktop, "8-first-meanwhile")?;
    check!(
        window(&here, RED).is_none(),
        "the window is on the first output as well"
    );

    // The panel is on the first output, and so is the menu; the window that it brings is the script's sign.
    desktop.press(&["meta_l"])?;
    context.wait_picture(&mut desktop, "9-menu", SOON, |p| {
        p.difference(&here, 0) > 0.02
    })?;
    desktop.type_text("personal foot")?;
    std::thread::sleep(Duration::from_secs(1));
    desktop.press(&["ret"])?;
    desktop.wait_for("LEFT", Duration::from_secs(240))?;
    context.wait_picture(&mut desktop, "10-back", SOON, |p| {
        red(p) && window(p, GREEN).is_some()
    })?;

    // The other one alone: the panel and all windows are there then.
    desktop.press(&["meta_l", "q"])?;
    desktop.wait_for("CHANGED", Duration::from_secs(60))?;
    desktop.look_at(1);
    context.wait_picture(&mut desktop, "11-other-alone", SOON, |p| {
        has_panel(p) && red(p)
    })?;
    let log = desktop.serial_log();
    context.log("serial.log", log.as_bytes())?;
    check!(log.matches(READY).count() == 1, "the session started again");
    // Before anybody has touched one: they are set up as soon as they are opened.
    check!(
        log.contains("input device") && log.contains("Power Button"),
        "the log names no keyboards"
    );
    desktop.cut_power();
    context.discard(&options)
}

/// Nothing but the desktop's ground.
fn is_ground(picture: &Picture) -> bool {
    picture.share_of(picture.area(), [43, 48, 59], 4) > 0.98
}
