//! The demo: two applications, two guests, one desktop, one picture.
//!
//! It is the README's first command, so it says each stage with its time and, where something goes
//! wrong, what was missing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bulkhead_image::builder::HostImages;

use crate::check;
use crate::e2e::Failure;
use crate::e2e::context::{Context, GREEN, RED};
use crate::e2e::desktop::Desktop;
use crate::e2e::picture::Area;
use crate::machine::{BootOptions, Machine};

/// Prints stages with the time each took.
struct Stages {
    start: Instant,
    last: Instant,
}

impl Stages {
    fn new() -> Stages {
        Stages {
            start: Instant::now(),
            last: Instant::now(),
        }
    }

    fn done(&mut self, what: &str) {
        let now = Instant::now();
        eprintln!(
            "[{:6.1} s] {what} ({:.1} s)",
            (now - self.start).as_secs_f32(),
            (now - self.last).as_secs_f32()
        );
        self.last = now;
    }
}

/// Boots the host, starts both applications, types a command and takes the picture.
pub fn run(images: &HostImages, target: &Path) -> Result<PathBuf, Failure> {
    let folder = target.join("demo");
    std::fs::create_dir_all(&folder)?;
    let mut stages = Stages::new();
    let machine = Machine::boot(&BootOptions::new(images.clone()))
        .map_err(|error| Failure::new(format!("the host did not boot: {error}")))?;
    stages.done("host and desktop are up");
    let context = Context::new(&machine, &folder);
    let outcome = show(&context, &mut stages);
    if outcome.is_err() {
        let _ = std::fs::write(folder.join("host-console.log"), machine.console_log());
        let _ = context.bring_back("session.log");
    }
    outcome?;
    machine
        .power_off()
        .map_err(|error| Failure::new(error.to_string()))?;
    stages.done("host is off");
    Ok(folder.join("desktop.png"))
}

fn show(context: &Context<'_>, stages: &mut Stages) -> Result<(), Failure> {
    let desktop = Desktop::new(context);
    context.domain("work", "red")?;
    context.domain("personal", "green")?;
    stages.done("domains work (red) and personal (green) exist");

    let _foot = context.spawn_in("work", &["foot", "-W", "66x24"])?;
    let terminal = desktop.wait_window("foot's window", Duration::from_secs(120), |w| {
        w.domain == "work" && w.kind == "toplevel"
    })?;
    stages.done("work booted, foot shows its window");
    let _editor = context.spawn_in("personal", &["mousepad", "/etc/os-release"])?;
    let editor = desktop.wait_window("mousepad's window", Duration::from_secs(120), |w| {
        w.domain == "personal" && w.kind == "toplevel"
    })?;
    stages.done("personal booted, mousepad shows its window");

    desktop.settle(1000)?;
    desktop.screenshot("started")?;
    desktop.click(terminal.centre().0, terminal.centre().1)?;
    let before = desktop.crop(terminal.id, "before")?;
    desktop.type_text("uname -a\n")?;
    desktop.wait("the guest's answer", Duration::from_secs(30), || {
        let now = desktop.crop(terminal.id, "before")?;
        Ok((before.difference(&now, 8) > 0.005).then_some(()))
    })?;
    desktop.settle(700)?;
    stages.done("uname -a typed by injected keys, answered");

    let picture = desktop.screenshot("desktop")?;
    for (window, colour, name) in [(&terminal, RED, "red"), (&editor, GREEN, "green")] {
        let border = Area {
            x: window.x - 3,
            y: window.y + 10,
            width: 2,
            height: window.height - 20,
        };
        check!(
            picture.share_of(border, colour, 12) > 0.9,
            "the border of {} is not {name}",
            window.domain
        );
    }
    let _ = std::fs::remove_file(context.folder().join("before.png"));
    stages.done("picture taken, borders checked");
    Ok(())
}
