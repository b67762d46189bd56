//! What a scenario on the bootable disk image holds: the image, a folder for pictures and logs, and
//! short words for what nearly every such scenario does: switch a machine on, look, wait.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bulkhead_image::desktop::DesktopImage;

use super::picture::Picture;
use super::{Failure, Outcome};
use crate::machine::desktop::{Desktop, DesktopOptions};

/// What the log says when the session's parts run.
pub const READY: &str = "bulkhead: session ready";
/// From power-on to the desktop, on a busy emulated machine.
pub const BOOT_LIMIT: Duration = Duration::from_secs(240);

/// The input devices that a test uses, as the compositor's log names them.
const DEVICES: [&str; 3] = ["Power Button", "QEMU Virtio Keyboard", "QEMU Virtio Tablet"];
const DEVICES_LIMIT: Duration = Duration::from_secs(60);

/// One running scenario on the disk image.
pub struct DiskContext<'a> {
    image: &'a DesktopImage,
    folder: PathBuf,
    long: bool,
}

impl<'a> DiskContext<'a> {
    /// A scenario on `image`; pictures and logs go to `folder`. `long`: at its full size.
    pub fn new(image: &'a DesktopImage, folder: &Path, long: bool) -> DiskContext<'a> {
        DiskContext {
            image,
            folder: folder.to_owned(),
            long,
        }
    }

    /// The image, which is only read.
    pub fn image(&self) -> &DesktopImage {
        self.image
    }

    /// The scenario's own folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps a file beside the scenario's pictures.
    pub fn log(&self, name: &str, bytes: &[u8]) -> Outcome {
        Ok(std::fs::write(self.folder.join(name), bytes)?)
    }

    /// How often to do something: `short` times, or `long` times by `cargo xtask e2e --long`.
    pub fn rounds(&self, short: usize, long: usize) -> usize {
        if self.long { long } else { short }
    }

    /// A machine that is not switched on yet; its disk is made at its first start.
    pub fn machine(&self, name: &str) -> DesktopOptions {
        DesktopOptions::new(&self.image.disk, self.folder.join(name))
    }

    /// Switches a machine on and waits for the desktop.
    pub fn boot(&self, options: &DesktopOptions) -> Result<Desktop, Failure> {
        let mut desktop = Desktop::start(options)?;
        self.wait_ready(&mut desktop)?;
        Ok(desktop)
    }

    /// Waits for a desktop that starts, and for its keyboard, tablet and power button: on an emulated machine
    /// udev may still be busy with them, and what is pressed before the compositor has them is lost.
    pub fn wait_ready(&self, desktop: &mut Desktop) -> Outcome {
        desktop.wait_for(READY, BOOT_LIMIT)?;
        let deadline = Instant::now() + DEVICES_LIMIT;
        loop {
            let log = desktop.serial_log();
            // The machine may have been started before.
            let starts = log.matches(READY).count();
            let told = |name: &str| {
                let told = log.lines().filter(|line| line.contains("input device"));
                told.filter(|line| line.contains(name)).count()
            };
            let missing = DEVICES.iter().find(|name| told(name) < starts);
            let Some(missing) = missing else {
                return Ok(());
            };
            if Instant::now() > deadline {
                return Err(Failure::new(format!(
                    "the compositor has no input device {missing:?} after {} s",
                    DEVICES_LIMIT.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Keeps a picture of the display under this name.
    pub fn screenshot(&self, desktop: &mut Desktop, name: &str) -> Result<Picture, Failure> {
        let file = self.folder.join(format!("{name}.png"));
        desktop.screenshot(&file)?;
        Picture::open(&file).map_err(Failure::new)
    }

    /// Waits until the display shows what is asked for, and keeps the picture that did; when it
    /// does not come to be, keeps the last one.
    pub fn wait_picture(
        &self,
        desktop: &mut Desktop,
        name: &str,
        timeout: Duration,
        mut shows: impl FnMut(&Picture) -> bool,
    ) -> Result<Picture, Failure> {
        let deadline = Instant::now() + timeout;
        loop {
            let picture = self.screenshot(desktop, name)?;
            if shows(&picture) {
                return Ok(picture);
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!(
                    "the display did not come to show `{name}` within {} s; {}.png is what it shows",
                    timeout.as_secs(),
                    self.folder.join(name).display()
                )));
            }
            std::thread::sleep(Duration::from_millis(400));
        }
    }

    /// Throws a machine's disk away: it is large, and only of use while the scenario runs.
    pub fn discard(&self, options: &DesktopOptions) -> Outcome {
        Ok(std::fs::remove_file(options.disk())?)
    }
}
