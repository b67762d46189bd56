//! `cargo xtask desktop`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use bulkhead_image::Layout;
use bulkhead_tests::machine::desktop::{Desktop as Machine, DesktopOptions};

use crate::{
    TaskResult,
    image::{BuildArguments, firmware},
};
use bulkhead_image::recipe::Firmware;

/// Build the bootable disk image and boot it as a machine of its own; its disk and its log stay
/// in a folder
#[derive(clap::Args)]
pub struct Desktop {
    /// Where the machine's disk (`disk.raw`) and log (`serial.log`) are; an existing disk is used
    /// as it is
    #[arg(long, value_name = "DIR", default_value = "target/desktop")]
    folder: PathBuf,
    /// Begin with a new disk
    #[arg(long)]
    new: bool,
    /// Write a picture of the display when the line has come
    #[arg(long, value_name = "FILE.png")]
    screenshot: Option<PathBuf>,
    /// Wait for this text on the serial line
    #[arg(long, value_name = "TEXT", default_value = "bulkhead: session ready")]
    wait_for: String,
    /// How long to wait for it
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    timeout: u64,
    /// Then stay for so long before the picture
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    stay: u64,
    /// Show the machine in a window until it switches off (needs a QEMU with a display)
    #[arg(long)]
    window: bool,
    /// More words for the kernel's command line, such as `bulkhead.backend=headless`
    #[arg(long, value_name = "WORDS", default_value = "")]
    append: String,
    /// Run this shell script inside, as root; its output is on the serial line
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Size of a new disk
    #[arg(long, value_name = "MIB", default_value_t = 16384)]
    disk: u64,
    /// Memory
    #[arg(long, value_name = "MIB", default_value_t = 3072)]
    memory: u32,
    /// Firmware of the disk: `virtual` or `full`
    #[arg(long, value_name = "KIND", default_value = "virtual", value_parser = firmware)]
    firmware: Firmware,
    /// Boot the image that is there, as it is
    #[arg(long)]
    no_image: bool,
    #[command(flatten)]
    build: BuildArguments,
}

impl Desktop {
    pub fn run(self) -> TaskResult {
        let image = if self.no_image {
            Layout::of_this_workspace()
                .disk_image()
                .join("bulkhead.raw")
        } else {
            self.build.builder()?.desktop(self.firmware)?.disk
        };
        let mut options = DesktopOptions {
            disk_bytes: self.disk << 20,
            memory_mib: self.memory,
            command_line: self.append.clone(),
            script: self
                .script
                .as_ref()
                .map(std::fs::read_to_string)
                .transpose()?,
            ..DesktopOptions::new(image, std::path::absolute(&self.folder)?)
        };
        if self.window {
            options.qemu_arguments = ["-display", "gtk"].map(str::to_owned).into();
        }
        if self.new && options.disk().exists() {
            std::fs::remove_file(options.disk())?;
        }
        let mut machine = Machine::start(&options)?;
        let line = machine.wait_for(&self.wait_for, Duration::from_secs(self.timeout));
        if let Ok(line) = &line {
            println!("[{:.1} s] {line}", machine.uptime().as_secs_f64());
            std::thread::sleep(Duration::from_secs(self.stay));
        }
        if let Some(file) = &self.screenshot
            && machine.is_on()
        {
            machine.screenshot(file)?;
            println!("the display: {}", file.display());
        }
        line?;
        while self.window && machine.is_on() {
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(ExitCode::SUCCESS)
    }
}
