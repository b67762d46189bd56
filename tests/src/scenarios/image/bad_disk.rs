//! A disk or a screen that will not do: words for a person, no crash, nothing lost.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::check;
use crate::e2e::disk::{BOOT_LIMIT, DiskContext};
use crate::e2e::{Failure, Outcome, Place, Scenario};
use crate::machine::desktop::Desktop;

/// From the power button to a machine that is off. Above the time that a service gets to end itself.
const POWER_LIMIT: Duration = Duration::from_secs(120);

pub(in crate::scenarios) const SMALL: Scenario = Scenario {
    name: "image-small-disk",
    about: "a disk that is too small is refused with its size and the size that is needed",
    run: Place::Disk(small),
};

pub(in crate::scenarios) const DAMAGED: Scenario = Scenario {
    name: "image-damaged-data",
    about: "a damaged data partition is told and left as it is",
    run: Place::Disk(damaged),
};

pub(in crate::scenarios) const NO_SCREEN: Scenario = Scenario {
    name: "image-no-screen",
    about: "without a screen the log says what was looked for",
    run: Place::Disk(no_screen),
};

fn small(context: &DiskContext<'_>) -> Outcome {
    let mut options = context.machine("machine");
    let data = &context.image().partitions.data;
    options.disk_bytes = data.start_bytes + data.size_bytes + (1 << 20);
    let mut desktop = Desktop::start(&options)?;
    let told = desktop.wait_for("too small", BOOT_LIMIT)?;
    check!(
        told.contains("MiB") && told.contains("needs at least"),
        "the message names no sizes: {told}"
    );
    std::thread::sleep(Duration::from_secs(1));
    context.screenshot(&mut desktop, "told")?;
    desktop.cut_power();
    context.discard(&options)
}

fn damaged(context: &DiskContext<'_>) -> Outcome {
    let options = context.machine("machine");
    let mut desktop = context.boot(&options)?;
    // The first boot has made the file system; its head is on the disk after a clean end, which the
    // machine's power button brings about.
    // Pressed as soon as the compositor has its device: it keeps a press until the manager is there to hear
    // of it.
    let _ = desktop.qmp("system_powerdown", serde_json::json!({}));
    if let Err(error) = desktop.wait_for_power_off(POWER_LIMIT) {
        context.screenshot(&mut desktop, "still-on")?;
        return Err(Failure::new(format!("the power button: {error}")));
    }
    let start = context.image().partitions.data.start_bytes;
    let disk = File::options()
        .read(true)
        .write(true)
        .open(options.disk())?;
    let mut before = vec![0; 1 << 20];
    disk.read_exact_at(&mut before, start)?;
    check!(
        before.iter().any(|byte| *byte != 0),
        "there is no file system to damage"
    );
    // XFS's superblock and those of its structures that follow it.
    before[..64 << 10].fill(0xa5);
    disk.write_all_at(&before, start)?;
    disk.sync_all()?;

    let mut desktop = Desktop::start(&options)?;
    let told = desktop.wait_for("is damaged", BOOT_LIMIT)?;
    check!(told.contains("data partition"), "the message says: {told}");
    desktop.wait_for("nothing was deleted", Duration::from_secs(20))?;
    std::thread::sleep(Duration::from_secs(1));
    context.screenshot(&mut desktop, "told")?;
    desktop.cut_power();
    let mut after = vec![0; 1 << 20];
    disk.read_exact_at(&mut after, start)?;
    check!(
        before == after,
        "something was written to the damaged partition"
    );
    context.discard(&options)
}

fn no_screen(context: &DiskContext<'_>) -> Outcome {
    let mut options = context.machine("machine");
    options.displays = 0;
    let mut desktop = Desktop::start(&options)?;
    let told = desktop.wait_for("/dev/dri", BOOT_LIMIT)?;
    context.log("told.txt", told.as_bytes())?;
    // The session is tried a few times, and then the machine says so and turns off.
    desktop.wait_for("the desktop does not start", Duration::from_secs(120))?;
    // So that it can be read, that takes a while.
    if context.rounds(0, 1) > 0 {
        desktop.wait_for_power_off(Duration::from_secs(150))?;
    } else {
        desktop.cut_power();
    }
    context.discard(&options)
}
