//! `cargo xtask host`.

use std::{
    io::{stderr, stdout},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use bulkhead_tests::machine::{BootOptions, Exec, Exit, Machine};

use crate::{TaskResult, image::BuildArguments};

/// Boot the test host, run a command in it as the desktop user, and return its exit status
#[derive(clap::Args)]
pub struct Host {
    /// Start the desktop session first
    #[arg(long)]
    session: bool,
    /// Keep what the command writes to /out in this folder
    #[arg(long, value_name = "DIR", default_value = "target/host/out")]
    out: PathBuf,
    /// Make this folder readable at /share
    #[arg(long, value_name = "DIR")]
    share: Option<PathBuf>,
    /// Write a picture of the desktop when the command has ended
    #[arg(long, value_name = "FILE.png")]
    screenshot: Option<PathBuf>,
    /// Run as the administrator instead
    #[arg(long)]
    root: bool,
    /// Run with this template's files as the root, directly on the host's compositor
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Memory of the host
    #[arg(long, value_name = "MIB", default_value_t = 3072)]
    memory: u32,
    /// Processors of the host
    #[arg(long, value_name = "N", default_value_t = 2)]
    processors: u32,
    /// Kill the command if it runs longer
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Boot without guests and templates
    #[arg(long)]
    no_images: bool,
    /// Boot the host that has the programs that benchmarks compare us with
    #[arg(long)]
    bench: bool,
    /// More words for the host kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "")]
    append: String,
    #[command(flatten)]
    build: BuildArguments,
    /// The command; a shell that says what machine this is if none is given
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Host {
    pub fn run(self) -> TaskResult {
        // The lock on the images is held only while they are made.
        let images = self.build.builder()?.host(!self.no_images, self.bench)?;
        let machine = Machine::boot(&BootOptions {
            memory_mib: self.memory,
            processors: self.processors,
            out: Some(std::path::absolute(&self.out)?),
            share: self.share.as_ref().map(std::path::absolute).transpose()?,
            console: Some(self.out.with_extension("console.log")),
            command_line: self.append.clone(),
            ..BootOptions::new(images)
        })?;
        tracing::info!(
            "test host is up after {:.1} s ({:?})",
            machine.boot_time().as_secs_f64(),
            machine.accelerator()
        );
        let exit = machine.exec_streaming(&self.command(), &mut stdout(), &mut stderr());
        if let Some(file) = &self.screenshot {
            let shot = machine.exec(
                &Exec::new(["testctl", "screenshot", "/out/desktop.png"])
                    .with_session(Vec::<String>::new())
                    .timeout(Duration::from_secs(30)),
            )?;
            if !shot.success() {
                return Err(format!("no screenshot: {}", shot.errors()).into());
            }
            if let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::copy(machine.out().join("desktop.png"), file)?;
        }
        let exit = exit?;
        machine.power_off()?;
        Ok(match exit {
            Exit::Status(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
            // As a shell says it.
            Exit::Signal(signal) => ExitCode::from(u8::try_from(128 + signal).unwrap_or(1)),
        })
    }

    fn command(&self) -> Exec {
        let mut exec = if self.command.is_empty() {
            Exec::shell("uname -a; id; ls -l /dev/kvm; ls /usr/lib/bulkhead")
        } else {
            Exec::new(self.command.clone())
        };
        if self.root {
            exec = exec.as_root();
        }
        if self.session || self.screenshot.is_some() {
            exec = exec.with_session(Vec::<String>::new());
        }
        if let Some(template) = &self.template {
            exec = exec.in_template(template);
        }
        if let Some(seconds) = self.timeout {
            exec = exec.timeout(Duration::from_secs(seconds));
        }
        exec
    }
}
