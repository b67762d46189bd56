//! An application's window appears, draws, resizes, takes keys and pointer, and closes.

use std::time::Duration;

use serde_json::json;

use crate::check;
use crate::e2e::context::{Context, GREEN, RED};
use crate::e2e::desktop::{Desktop, KEY_LEFTMETA};
use crate::e2e::picture::Area;
use crate::e2e::{Outcome, Place, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "path-window",
    about: "an app window appears with its border, draws, resizes, takes keys and pointer, closes",
    run: Place::Host(run),
};

/// Evdev code of the right mouse button's sibling key used to close a window: Super+Q.
const KEY_Q: u32 = 16;

fn run(context: &Context<'_>) -> Outcome {
    context.domain("work", "red")?;
    context.domain("personal", "green")?;
    let desktop = Desktop::new(context);

    let _foot = context.spawn_in("work", &["foot"])?;
    let window = desktop.wait_window("foot's window", Duration::from_secs(180), |w| {
        w.domain == "work" && w.kind == "toplevel"
    })?;
    desktop.settle(500)?;
    let picture = desktop.screenshot("appeared")?;
    check!(
        picture.share_of(left_border(window.area()), RED, 12) > 0.9,
        "the border left of work's window is not red"
    );
    check!(picture.colours(window.area()) > 2, "foot drew nothing");

    // Keys: the shell in foot obeys.
    desktop.click(window.centre().0, window.centre().1)?;
    desktop.type_text("echo typed-$((6*7)) > /tmp/keys\n")?;
    desktop.wait("the keys to arrive", Duration::from_secs(60), || {
        let output = context.guest("work", &["cat", "/tmp/keys"])?;
        Ok((output.stdout == b"typed-42\n").then_some(()))
    })?;

    // Pointer: a drag over text in foot makes a primary selection, which changes its pixels.
    let before = desktop.crop(window.id, "before-selection")?;
    desktop.drag(
        (window.x + 4, window.y + 8),
        (window.x + window.width - 8, window.y + 60),
        &[],
    )?;
    desktop.settle(400)?;
    let after = desktop.crop(window.id, "after-selection")?;
    check!(
        before.difference(&after, 16) > 0.002,
        "dragging over foot's text selected nothing"
    );

    // Resize by the bottom right corner of the border.
    let corner = (window.x + window.width + 2, window.y + window.height + 2);
    desktop.drag(corner, (corner.0 - 160, corner.1 - 120), &[])?;
    let resized = desktop.wait("foot to become smaller", Duration::from_secs(60), || {
        Ok(desktop
            .windows_of("work")?
            .into_iter()
            .find(|w| w.width < window.width - 80 && w.height < window.height - 50))
    })?;
    desktop.settle(400)?;
    let picture = desktop.screenshot("resized")?;
    check!(
        picture.share_of(left_border(resized.area()), RED, 12) > 0.9,
        "the border did not follow the resize"
    );

    // Move by Super and drag.
    let (x, y) = resized.centre();
    desktop.drag((x, y), (x + 90, y + 70), &[KEY_LEFTMETA])?;
    desktop.wait("foot to move", Duration::from_secs(10), || {
        Ok(desktop
            .windows_of("work")?
            .into_iter()
            .find(|w| (w.x - resized.x - 90).abs() < 20 && (w.y - resized.y - 70).abs() < 20))
    })?;

    // A second domain beside it, with its own colour.
    let _other = context.spawn_in("personal", &["weston-flower"])?;
    let flower = desktop.wait_window("the flower", Duration::from_secs(180), |w| {
        w.domain == "personal"
    })?;
    desktop.settle(400)?;
    let picture = desktop.screenshot("two-domains")?;
    check!(
        picture.share_of(left_border(flower.area()), GREEN, 12) > 0.9,
        "the border of personal's window is not green"
    );

    // Close: by Super+Q for the focused window, by the shell's exit for the other.
    desktop.click(flower.centre().0, flower.centre().1)?;
    desktop.chord(&[KEY_LEFTMETA, KEY_Q])?;
    desktop.wait("the flower to close", Duration::from_secs(60), || {
        Ok(desktop.windows_of("personal")?.is_empty().then_some(()))
    })?;
    let foot = desktop.wait_window("foot to be there still", Duration::from_secs(5), |w| {
        w.domain == "work"
    })?;
    desktop.ask(json!({"op": "pointer_move", "x": foot.x + 10, "y": foot.y + 10}))?;
    desktop.click(foot.x + 10, foot.y + 10)?;
    desktop.type_text("exit\n")?;
    desktop.wait("foot to close", Duration::from_secs(60), || {
        Ok(desktop.windows_of("work")?.is_empty().then_some(()))
    })?;
    desktop.screenshot("closed")?;
    Ok(())
}

/// A strip inside the left border, away from its corners.
fn left_border(client: Area) -> Area {
    Area {
        x: client.x - 3,
        y: client.y + 10,
        width: 2,
        height: (client.height - 20).max(1),
    }
}
