//! From power-on to two applications of two domains and back, by keyboard and tablet alone.
//!
//! What is seen is judged by the display's pixels, as a person would: borders by their colours, a
//! terminal's answer by the colour that it was told to paint.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bulkhead_image::Layout;

use crate::check;
use crate::e2e::context::{GREEN, RED};
use crate::e2e::disk::DiskContext;
use crate::e2e::picture::{Area, Picture};
use crate::e2e::{Failure, Outcome, Place, Scenario};
use crate::machine::desktop::Desktop;

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "image-desktop",
    about: "power-on to the menu, two apps of two domains, move, resize, close, reboot, files kept",
    run: Place::Disk(run),
};

/// foot's `ESC[42m` and `ESC[45m` of its own palette, which nothing else on the display has.
const PROOF: &str = r"printf '\033[48;2;1;222;111m%1500s\033[0m\n'";
const PROOF_COLOUR: [u8; 3] = [1, 222, 111];
const KEPT: &str = r"printf '\033[48;2;222;1;222m%1500s\033[0m\n'";
const KEPT_COLOUR: [u8; 3] = [222, 1, 222];
/// A domain starts, on a busy emulated machine.
const START_LIMIT: Duration = Duration::from_secs(240);
const SOON: Duration = Duration::from_secs(45);
/// Domains are stopped in order first.
const REBOOT_LIMIT: Duration = Duration::from_secs(120);
/// Where the power menu has the line that starts the machine again.
const REBOOT_LINE: u32 = 40 + 44 + 44 + 22;

/// The steps, each with a picture in `target/image-test/`.
struct Steps<'a> {
    context: &'a DiskContext<'a>,
    pictures: PathBuf,
    number: usize,
}

impl Steps<'_> {
    /// Waits for a step's picture and keeps it.
    fn wait(
        &mut self,
        desktop: &mut Desktop,
        name: &str,
        limit: Duration,
        shows: impl FnMut(&Picture) -> bool,
    ) -> Result<Picture, Failure> {
        self.number += 1;
        let name = format!("{:02}-{name}", self.number);
        let result = self.context.wait_picture(desktop, &name, limit, shows);
        let file = format!("{name}.png");
        std::fs::copy(self.context.folder().join(&file), self.pictures.join(&file))?;
        eprintln!("  {name} after {:.0} s", desktop.uptime().as_secs_f32());
        result
    }
}

fn run(context: &DiskContext<'_>) -> Outcome {
    let pictures = Layout::of_this_workspace().target().join("image-test");
    let _ = std::fs::remove_dir_all(&pictures);
    std::fs::create_dir_all(&pictures)?;
    let mut steps = Steps {
        context,
        pictures,
        number: 0,
    };
    let options = context.machine("machine");
    let mut desktop = context.boot(&options)?;
    let empty = steps.wait(&mut desktop, "desktop", SOON, has_panel)?;

    // Super, "term", Enter.
    open_menu(&mut steps, &mut desktop, &empty, "menu")?;
    desktop.type_text("term")?;
    std::thread::sleep(Duration::from_secs(1));
    steps.wait(&mut desktop, "filtered", SOON, |_| true)?;
    desktop.press(&["ret"])?;
    let first = steps.wait(&mut desktop, "terminal", START_LIMIT, |p| {
        window(p, RED).is_some() || window(p, GREEN).is_some()
    })?;
    let (colour, other) = if window(&first, RED).is_some() {
        (RED, GREEN)
    } else {
        (GREEN, RED)
    };
    // A domain's home keeps what is written to it.
    std::thread::sleep(Duration::from_secs(3));
    desktop.type_text(&format!("echo kept > proof; sync; {PROOF}\n"))?;
    let share = |p: &Picture, colour| p.share_of(p.area(), colour, 3);
    steps.wait(&mut desktop, "typed", SOON, |p| {
        share(p, PROOF_COLOUR) > 0.01
    })?;

    // A second application, of the other domain, beside it.
    let domain = if other == GREEN { "personal" } else { "work" };
    let before = context.screenshot(&mut desktop, "before-second")?;
    open_menu(&mut steps, &mut desktop, &before, "menu-again")?;
    desktop.type_text(&format!("{domain} mouse"))?;
    std::thread::sleep(Duration::from_secs(1));
    steps.wait(&mut desktop, "filtered-again", SOON, |_| true)?;
    desktop.press(&["ret"])?;
    steps.wait(&mut desktop, "two-domains", START_LIMIT, |p| {
        window(p, RED).is_some() && window(p, GREEN).is_some()
    })?;
    std::thread::sleep(Duration::from_secs(2));

    // Move the second window by its title bar, and resize it by its corner.
    let now = context.screenshot(&mut desktop, "before-move")?;
    let area = window(&now, other).ok_or_else(|| Failure::new("no second window"))?;
    // The label is on the left, the buttons on the right: the bar's middle is for dragging.
    let grip = place(area.x + area.width / 2, area.y + 8);
    let target = place(area.x + area.width / 2 + 420, area.y + 8 + 90);
    desktop.drag(grip, target)?;
    let moved = steps.wait(&mut desktop, "moved", SOON, |p| {
        window(p, other)
            .is_some_and(|w| (w.x - area.x - 420).abs() <= 4 && (w.y - area.y - 90).abs() <= 4)
    })?;
    let area = window(&moved, other).ok_or_else(|| Failure::new("no second window"))?;
    let corner = place(area.x + area.width - 2, area.y + area.height - 2);
    let target = place(area.x + area.width - 122, area.y + area.height - 82);
    desktop.drag(corner, target)?;
    steps.wait(&mut desktop, "resized", SOON, |p| {
        window(p, other).is_some_and(|w| {
            (w.width - area.width + 120).abs() <= 12 && (w.height - area.height + 80).abs() <= 24
        })
    })?;
    // Close it from the keyboard; the first window stays.
    desktop.press(&["meta_l", "q"])?;
    steps.wait(&mut desktop, "closed", SOON, |p| {
        window(p, other).is_none() && window(p, colour).is_some()
    })?;

    // Reboot from the desktop: the panel's power button, then a yes.
    reboot(&mut steps, &mut desktop)?;
    context.wait_ready(&mut desktop)?;
    let empty = steps.wait(&mut desktop, "desktop-again", SOON, has_panel)?;
    open_menu(&mut steps, &mut desktop, &empty, "menu-after-reboot")?;
    let name = if colour == RED { "work" } else { "personal" };
    desktop.type_text(&format!("{name} term"))?;
    std::thread::sleep(Duration::from_secs(1));
    desktop.press(&["ret"])?;
    steps.wait(&mut desktop, "terminal-again", START_LIMIT, |p| {
        window(p, colour).is_some()
    })?;
    std::thread::sleep(Duration::from_secs(3));
    desktop.type_text(&format!("test \"$(cat proof)\" = kept && {KEPT}\n"))?;
    steps.wait(&mut desktop, "kept", SOON, |p| share(p, KEPT_COLOUR) > 0.01)?;
    context.log("serial.log", desktop.serial_log().as_bytes())?;
    desktop.cut_power();
    context.discard(&options)
}

/// Taps Super until the menu is seen; the first tap has to do it.
fn open_menu(
    steps: &mut Steps<'_>,
    desktop: &mut Desktop,
    before: &Picture,
    name: &str,
) -> Outcome {
    desktop.press(&["meta_l"])?;
    // The clock may tick meanwhile; a menu is larger than a clock.
    steps.wait(desktop, name, SOON, |p| p.difference(before, 16) > 0.05)?;
    Ok(())
}

/// The panel's power button, the line for starting again, and once more to be sure.
fn reboot(steps: &mut Steps<'_>, desktop: &mut Desktop) -> Outcome {
    let before = steps.wait(desktop, "before-power", SOON, |_| true)?;
    desktop.click(before.width - 37, 16)?;
    steps.wait(desktop, "power", SOON, |p| p.difference(&before, 16) > 0.01)?;
    let line = (before.width - 180, REBOOT_LINE);
    desktop.click(line.0, line.1)?;
    steps.wait(desktop, "sure", SOON, |_| true)?;
    desktop.click(line.0, line.1)?;
    let deadline = Instant::now() + REBOOT_LIMIT;
    while desktop.restarts()? == 0 {
        check!(
            Instant::now() < deadline,
            "the machine did not start again within {} s",
            REBOOT_LIMIT.as_secs()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// The panel is a dark bar over the whole width.
pub(super) fn has_panel(picture: &Picture) -> bool {
    let bar = Area {
        x: 0,
        y: 2,
        width: picture.width as i32,
        height: 26,
    };
    picture.share_of(bar, [0x1c, 0x1d, 0x21], 10) > 0.6
}

/// The outer edge of a window with a border of this colour: the rectangle around all longer lines of
/// it below the panel, across or down. Another window may cover a part of it.
pub(super) fn window(picture: &Picture, colour: [u8; 3]) -> Option<Area> {
    const LINE: i32 = 100;
    const BELOW_PANEL: i32 = 37;
    let (width, height) = (picture.width as i32, picture.height as i32);
    let is = |x, y| crate::e2e::picture::near(picture.at(x, y), colour, 6);
    let (mut left, mut right, mut top, mut bottom) = (width, 0, height, 0);
    let mut add = |x0: i32, y0: i32, x1: i32, y1: i32| {
        (left, right) = (left.min(x0), right.max(x1));
        (top, bottom) = (top.min(y0), bottom.max(y1));
    };
    for y in BELOW_PANEL..height {
        for (start, end) in lines(width, LINE, |x| is(x, y)) {
            add(start, y, end, y + 1);
        }
    }
    for x in 0..width {
        for (start, end) in lines(height, LINE, |y| y >= BELOW_PANEL && is(x, y)) {
            add(x, start, x + 1, end);
        }
    }
    // A line in the menu is long, too, but no rectangle.
    (bottom - top > LINE && right - left > LINE).then_some(Area {
        x: left,
        y: top,
        width: right - left,
        height: bottom - top,
    })
}

/// Where at least `least` in a row are so: start and end of each.
fn lines(length: i32, least: i32, is: impl Fn(i32) -> bool) -> Vec<(i32, i32)> {
    let mut found = Vec::new();
    let mut start = 0;
    for at in 0..=length {
        if at < length && is(at) {
            continue;
        }
        if at - start >= least {
            found.push((start, at));
        }
        start = at + 1;
    }
    found
}

pub(super) fn place(x: i32, y: i32) -> (u32, u32) {
    (x.max(0).unsigned_abs(), y.max(0).unsigned_abs())
}
