//! Runs scenarios by name on one host, tells their times, and keeps what they leave.

use std::path::{Path, PathBuf};
use std::time::Instant;

use bulkhead_image::builder::HostImages;
use bulkhead_image::desktop::DesktopImage;

use super::context::{Context, GUEST_HAS_CRASHED, GUEST_HAS_PANICKED};
use super::disk::DiskContext;
use super::here::HereContext;
use super::own_host::OwnHostContext;
use super::{Outcome, Place, Scenario, name_matches};
use crate::machine::{Accelerator, BootOptions, FROZEN, Machine, best_accelerator};

/// What a run of scenarios came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// Scenarios that held.
    pub passed: usize,
    /// Names of those that held only when they ran once more, after a fault of the emulator.
    pub repeated: Vec<String>,
    /// Names of those that did not, with what they found.
    pub failed: Vec<(String, String)>,
}

/// What QEMU's emulation does now and then, whatever is tested (docs/testing.md): the *outer* kernel
/// meets a breakpoint that nobody set, or a VM's saved registers are not its own, so that its guest
/// crashes or panics. Or the outer kernel answers nothing more, which no program of ours could bring about.
/// A scenario that failed beside one of these runs a second time, and only then.
const EMULATOR_FAULTS: [&str; 4] = ["Oops: int3", GUEST_HAS_CRASHED, GUEST_HAS_PANICKED, FROZEN];

/// Which run of a scenario it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    First,
    Second,
}

/// The scenarios whose names match one of the patterns; all when there is no pattern.
pub fn select(all: Vec<Scenario>, patterns: &[String]) -> Result<Vec<Scenario>, String> {
    if let Some(unknown) = patterns
        .iter()
        .find(|pattern| !all.iter().any(|s| name_matches(pattern, s.name)))
    {
        return Err(format!(
            "no scenario is named {unknown:?}; `cargo xtask e2e --list` lists them"
        ));
    }
    Ok(all
        .into_iter()
        .filter(|s| patterns.is_empty() || patterns.iter().any(|p| name_matches(p, s.name)))
        .collect())
}

/// What scenarios run on. Only what the chosen ones need is there.
#[derive(Debug, Default)]
pub struct Images {
    /// The test host.
    pub host: Option<HostImages>,
    /// The bootable disk image.
    pub disk: Option<DesktopImage>,
    /// Our programs, built with optimisation.
    pub programs: PathBuf,
    /// Scenarios run at their full size.
    pub long: bool,
}

/// Runs the scenarios in order. Domains are killed between scenarios; the host is booted anew only
/// after a failure, so that one broken scenario does not colour the next.
pub fn run(scenarios: &[Scenario], images: &Images, target: &Path) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let mut machine: Option<Machine> = None;
    let mut queue: Vec<(&Scenario, Attempt)> = scenarios
        .iter()
        .rev()
        .map(|s| (s, Attempt::First))
        .collect();
    while let Some((scenario, attempt)) = queue.pop() {
        let folder = target.join("e2e").join(scenario.name);
        fresh_folder(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        if attempt == Attempt::First {
            let _ = std::fs::remove_dir_all(folder.with_extension("first"));
        }
        let start = Instant::now();
        eprintln!("scenario {}: {}", scenario.name, scenario.about);
        let (outcome, mut consoles) = match scenario.run {
            Place::Host(run) => in_host(run, &mut machine, images, &folder)?,
            Place::OwnHost(run) => {
                end(machine.take())?;
                let host = images.host.as_ref().ok_or("there is no test host")?;
                let outcome = run(&OwnHostContext::new(host, &folder, images.long));
                (outcome, console_logs(&folder))
            }
            Place::Disk(run) => {
                end(machine.take())?;
                let image = images.disk.as_ref().ok_or("there is no disk image")?;
                let outcome = run(&DiskContext::new(image, &folder, images.long));
                (outcome, serial_logs(&folder))
            }
            Place::Here(run) => {
                let outcome = run(&HereContext::new(&images.programs, &folder));
                (outcome, String::new())
            }
        };
        let seconds = start.elapsed().as_secs_f32();
        let Err(failure) = outcome else {
            eprintln!("scenario {} ... ok ({seconds:.1} s)", scenario.name);
            tally.passed += 1;
            continue;
        };
        eprintln!("scenario {} ... FAILED ({seconds:.1} s)", scenario.name);
        let failure = failure.to_string();
        eprintln!("  {failure}");
        let _ = std::fs::write(folder.join("failure.txt"), &failure);
        // The machine's console does not have this.
        consoles.extend(failure.lines().filter(|line| line.starts_with(FROZEN)));
        if let Some(broken) = machine.take() {
            let _ = std::fs::write(folder.join("host-console.log"), broken.console_log());
        }
        let fault = match attempt {
            Attempt::First => emulator_fault(best_accelerator(), &consoles),
            Attempt::Second => None,
        };
        let Some(fault) = fault else {
            eprintln!("  pictures and logs: {}", folder.display());
            tally.repeated.retain(|name| name != scenario.name);
            tally.failed.push((scenario.name.to_owned(), failure));
            continue;
        };
        let kept = folder.with_extension("first");
        let _ = std::fs::remove_dir_all(&kept);
        std::fs::rename(&folder, &kept).map_err(|e| format!("{}: {e}", folder.display()))?;
        eprintln!(
            "  the emulated processor had a fault ({fault:?}); once more; pictures and logs: {}",
            kept.display()
        );
        tally.repeated.push(scenario.name.to_owned());
        queue.push((scenario, Attempt::Second));
    }
    end(machine)?;
    Ok(tally)
}

/// Ends the host that scenarios share: one emulated machine at a time.
fn end(machine: Option<Machine>) -> Result<(), String> {
    machine.map_or(Ok(()), |machine| {
        machine.power_off().map_err(|e| e.to_string())
    })
}

/// Runs a scenario in the test host, booted if it is not. The second answer is the host's console.
fn in_host(
    run: fn(&Context<'_>) -> Outcome,
    machine: &mut Option<Machine>,
    images: &Images,
    folder: &Path,
) -> Result<(Outcome, String), String> {
    if machine.is_none() {
        let host = images.host.as_ref().ok_or("there is no test host")?;
        *machine = Some(boot(host, images.long)?);
    }
    let Some(running) = machine.as_ref() else {
        return Err("there is no test host".to_owned());
    };
    let context = Context::new(running, folder).at_full_size(images.long);
    let crashes = context.crashes().unwrap_or(0);
    let outcome = run(&context);
    keep_logs(&context);
    let mut consoles = running.console_log();
    if outcome.is_err() && context.crashes().is_ok_and(|now| now > crashes) {
        consoles += GUEST_HAS_CRASHED;
    }
    // A host that cannot be cleaned is not used again.
    if outcome.is_ok()
        && let Err(failure) = context.host_ok(&["sh", "-c", CLEAN])
    {
        eprintln!("  the host is booted anew: {failure}");
        *machine = None;
    }
    Ok((outcome, consoles))
}

/// The line in which one of [`EMULATOR_FAULTS`] shows. A real processor has none of them.
fn emulator_fault(accelerator: Accelerator, consoles: &str) -> Option<&str> {
    if accelerator != Accelerator::Emulation {
        return None;
    }
    consoles
        .lines()
        .find(|line| EMULATOR_FAULTS.iter().any(|fault| line.contains(fault)))
}

/// What the machines of a scenario said on their serial lines, as far as it is kept.
fn serial_logs(folder: &Path) -> String {
    let machines = std::fs::read_dir(folder).into_iter().flatten().flatten();
    machines
        .filter_map(|entry| std::fs::read(entry.path().join("serial.log")).ok())
        .map(|log| String::from_utf8_lossy(&log).into_owned())
        .collect()
}

/// What test hosts of a scenario's own said on their consoles.
fn console_logs(folder: &Path) -> String {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .ends_with("-console.log")
        })
        .filter_map(|entry| std::fs::read(entry.path()).ok())
        .map(|log| String::from_utf8_lossy(&log).into_owned())
        .collect()
}

/// What brings a host back to its first state: no domain, no program of a scenario.
const CLEAN: &str = r#"for d in $(bulkhead list --json | sed -n 's/.*"name": *"\([a-z0-9-]*\)".*/\1/p'); do
    bulkhead kill $d 2>/dev/null; bulkhead remove --yes $d; done"#;

/// The host's disk is in its memory: files of full size need more of it.
const LONG_MEMORY_MIB: u32 = 14 * 1024;

fn boot(images: &HostImages, long: bool) -> Result<Machine, String> {
    let mut options = BootOptions::new(images.clone());
    if long {
        options.memory_mib = LONG_MEMORY_MIB;
    }
    let machine = Machine::boot(&options).map_err(|e| e.to_string())?;
    eprintln!(
        "host booted in {:.1} s ({:?})",
        machine.boot_time().as_secs_f32(),
        machine.accelerator()
    );
    Ok(machine)
}

/// Copies the logs of the session and of every domain out of the host.
fn keep_logs(context: &Context<'_>) {
    let script = "cd ~/.local/state/bulkhead 2>/dev/null && \
        find . -name '*.log*' -size -4M | tar -cf /out/logs.tar -T - ; true";
    let _ = context.host(&["sh", "-c", script]);
    for name in ["logs.tar", "session.log"] {
        let _ = context.bring_back(name);
    }
}

fn fresh_folder(folder: &PathBuf) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fault_of_an_emulated_processor_is_one() {
        let crash = "booted\nthe VMM has ended domain=work reason=\"its guest crashed\"\n";
        let fault = emulator_fault(Accelerator::Emulation, crash);
        assert!(fault.is_some_and(|line| line.contains("domain=work")));
        assert!(emulator_fault(Accelerator::Emulation, "Oops: int3 [#1]").is_some());
        assert_eq!(emulator_fault(Accelerator::Kvm, crash), None);
        assert_eq!(emulator_fault(Accelerator::Emulation, "Oops: 0002"), None);
    }
}
