//! What a scenario in test hosts of its own holds: the images, and a folder for logs. Such a scenario
//! boots machines with devices that no other scenario should meet.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_image::builder::HostImages;

use super::{Failure, Outcome};
use crate::machine::{BootOptions, Exec, Machine, Output};

/// One running scenario.
pub struct OwnHostContext<'a> {
    images: &'a HostImages,
    folder: PathBuf,
    long: bool,
}

impl<'a> OwnHostContext<'a> {
    /// A scenario that boots `images`; logs go to `folder`. `long`: at its full size.
    pub fn new(images: &'a HostImages, folder: &Path, long: bool) -> OwnHostContext<'a> {
        OwnHostContext {
            images,
            folder: folder.to_owned(),
            long,
        }
    }

    /// How often to do something: `short` times, or `long` times by `cargo xtask e2e --long`.
    pub fn rounds(&self, short: usize, long: usize) -> usize {
        if self.long { long } else { short }
    }

    /// The scenario's own folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps a file in the scenario's folder.
    pub fn log(&self, name: &str, bytes: &[u8]) -> Outcome {
        Ok(std::fs::write(self.folder.join(name), bytes)?)
    }

    /// What a machine of this scenario boots with; its console is kept as `NAME-console.log`.
    pub fn options(&self, name: &str) -> BootOptions {
        BootOptions {
            console: Some(self.folder.join(format!("{name}-console.log"))),
            ..BootOptions::new(self.images.clone())
        }
    }

    /// Boots a machine for `work`, keeps the log of its session whatever becomes of that, and switches it
    /// off.
    pub fn in_machine(
        &self,
        options: &BootOptions,
        work: impl FnOnce(&Machine) -> Outcome,
    ) -> Outcome {
        let machine = Machine::boot(options)?;
        let outcome = work(&machine);
        if let Ok(log) = std::fs::read(machine.out().join("session.log")) {
            self.log("session.log", &log)?;
        }
        outcome?;
        machine.power_off()?;
        Ok(())
    }

    /// Runs a shell script as the machine's administrator, keeps what it said as `NAME.txt`, and
    /// returns it.
    pub fn root(&self, machine: &Machine, name: &str, script: &str) -> Result<Output, Failure> {
        let output = machine.exec(
            &Exec::shell(script)
                .as_root()
                .timeout(Duration::from_secs(if self.long { 3600 } else { 240 })),
        )?;
        let kept = format!("{:?}\n{}{}", output.exit, output.text(), output.errors());
        self.log(&format!("{name}.txt"), kept.as_bytes())?;
        Ok(output)
    }

    /// As [`OwnHostContext::root`]; any other status than 0 is a failure.
    pub fn root_ok(&self, machine: &Machine, name: &str, script: &str) -> Result<String, Failure> {
        let output = self.root(machine, name, script)?;
        if output.success() {
            return Ok(output.text());
        }
        Err(Failure::new(format!(
            "{name}: {:?}\nstdout: {}\nstderr: {}",
            output.exit,
            output.text(),
            output.errors()
        )))
    }
}
