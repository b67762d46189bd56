//! A root that was changed: each change is caught and told, and nothing of it runs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

use bulkhead_image::Layout;

use crate::check;
use crate::e2e::disk::{BOOT_LIMIT, DiskContext, READY};
use crate::e2e::{Failure, Outcome, Place, Scenario};
use crate::machine::desktop::{Desktop, DesktopOptions};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "image-tampered",
    about: "a flipped bit in the root is caught and told on the screen, and never run",
    run: Place::Disk(run),
};

/// What the screen and the log say.
const TOLD: &str = "damaged or was changed";

/// The first of the bits.
const HEAD: &str = "superblock";

fn run(context: &DiskContext<'_>) -> Outcome {
    let root = &context.image().partitions.root_a;
    // The file system's own head, which is read before anything runs.
    tried(context, HEAD, root.start_bytes + 1024 + 3)?;
    // Code of a program that starts late.
    let at = code_of_the_compositor(context)?;
    tried(context, "program", at)
}

/// Flips one bit at `at` of a machine's disk and switches the machine on.
fn tried(context: &DiskContext<'_>, name: &str, at: u64) -> Outcome {
    let options = context.machine(name);
    // The disk is made by a first start, which ends before the firmware has done anything.
    Desktop::start(&options)?.cut_power();
    flip(&options, at)?;
    let mut desktop = Desktop::start(&options)?;
    let told = desktop.wait_for(TOLD, BOOT_LIMIT)?;
    check!(
        told.contains("system on this disk"),
        "the message does not say what is damaged: {told}"
    );
    std::thread::sleep(Duration::from_secs(1));
    let picture = context.screenshot(&mut desktop, name)?;
    // White on red: the message's head.
    let red = picture.share_of(picture.area(), [0xaa, 0, 0], 0x28);
    check!(
        red > 0.000_5,
        "the screen shows no message; see {name}.png (red: {red})"
    );
    let log = desktop.serial_log();
    context.log(&format!("{name}.log"), log.as_bytes())?;
    check!(
        !log.contains(READY),
        "the desktop started from a changed root"
    );
    // Without anybody at the keyboard it turns off: seen once, since it takes half a minute.
    if name == HEAD || context.rounds(0, 1) > 0 {
        desktop.wait_for_power_off(Duration::from_secs(90))?;
    } else {
        desktop.cut_power();
    }
    context.discard(&options)
}

fn flip(options: &DesktopOptions, at: u64) -> Outcome {
    let disk = File::options()
        .read(true)
        .write(true)
        .open(options.disk())?;
    let mut byte = [0];
    disk.read_exact_at(&mut byte, at)?;
    disk.write_all_at(&[byte[0] ^ 0x10], at)?;
    Ok(disk.sync_all()?)
}

/// The place on the disk of the middle of the compositor's first block, which is read when it starts.
fn code_of_the_compositor(context: &DiskContext<'_>) -> Result<u64, Failure> {
    let root = Layout::of_this_workspace()
        .desktop()
        .join("virtual/root.erofs");
    let output = Command::new("dump.erofs")
        .args(["-e", "--path=/usr/lib/bulkhead/bulkhead-compositor"])
        .arg(&root)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // "   0:        0..   12665 |   12665 :   13123584..  13127680 |    4096"
    let start = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("0: "))
        .and_then(|extent| extent.split(':').nth(1)?.split("..").next())
        .and_then(|start| start.trim().parse::<u64>().ok());
    match start {
        Some(start) => Ok(context.image().partitions.root_a.start_bytes + start + 2048),
        None => Err(Failure::new(format!(
            "{} does not say where the compositor lies: {text} {}",
            root.display(),
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}
