//! A domain boots to its agent, runs programs and stops.

use crate::check;
use crate::e2e::context::Context;
use crate::e2e::{Outcome, Place, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "path-boot",
    about: "a domain boots to its agent, runs programs with their output and status, and stops",
    run: Place::Host(run),
};

fn run(context: &Context<'_>) -> Outcome {
    context.domain("work", "red")?;
    let kernel = context.guest_ok("work", &["uname", "-s", "-m"])?;
    check!(kernel.trim() == "Linux x86_64", "uname said {kernel:?}");

    // A domain with two processors has two.
    context.host_ok(&[
        "bulkhead",
        "create",
        "twin",
        "--label",
        "blue",
        "--template",
        "apps",
        "--cpus",
        "2",
    ])?;
    let processors = context.guest_ok("twin", &["nproc"])?;
    check!(processors.trim() == "2", "nproc said {processors:?}");
    context.host_ok(&["bulkhead", "stop", "twin"])?;

    // It is a machine of its own: another kernel instance, its own PID 1, its own host name.
    let host_boot = context.host_ok(&["cat", "/proc/sys/kernel/random/boot_id"])?;
    let guest_boot = context.guest_ok("work", &["cat", "/proc/sys/kernel/random/boot_id"])?;
    check!(host_boot != guest_boot, "the guest has the host's boot id");
    let name = context.guest_ok("work", &["cat", "/proc/sys/kernel/hostname"])?;
    check!(name.trim() == "work", "the guest's host name is {name:?}");
    let who = context.guest_ok("work", &["id", "-un"])?;
    check!(who.trim() == "user", "programs run as {who:?}");
    let links = context.guest_ok("work", &["ls", "/sys/class/net"])?;
    check!(
        links.trim() == "lo",
        "the guest has network devices: {links:?}"
    );

    // Output, errors, input and status pass unchanged.
    let output = context.guest("work", &["sh", "-c", "echo out; echo err >&2; exit 7"])?;
    check!(output.status == 7, "the status was {}", output.status);
    check!(
        output.stdout == b"out\n",
        "stdout was {:?}",
        output.stdout_text()
    );
    check!(
        output.stderr_text().contains("err"),
        "stderr was {:?}",
        output.stderr_text()
    );
    let piped = context.host_ok(&[
        "sh",
        "-c",
        "head -c 3000000 /dev/zero | tr '\\0' x | bulkhead run work -- sha256sum; \
         head -c 3000000 /dev/zero | tr '\\0' x | sha256sum",
    ])?;
    let sums: Vec<&str> = piped.lines().collect();
    check!(
        sums.len() == 2 && sums[0] == sums[1],
        "3 MB through standard input changed: {piped}"
    );

    // What is written at home stays over a stop and a start; what is written elsewhere does not.
    context.guest_ok("work", &["sh", "-c", "echo kept > ~/note; sync"])?;
    context.host_ok(&["bulkhead", "stop", "work"])?;
    check!(
        context.state("work")? == "halted",
        "work is not halted after stop"
    );
    let note = context.guest_ok("work", &["cat", "/home/user/note"])?;
    check!(note == "kept\n", "the note at home became {note:?}");
    let second_boot = context.guest_ok("work", &["cat", "/proc/sys/kernel/random/boot_id"])?;
    check!(second_boot != guest_boot, "work did not really stop");
    context.host_ok(&["bulkhead", "stop", "work"])?;
    check!(
        context
            .host_ok(&["sh", "-c", "pgrep -c bulkhead-vmm || true"])?
            .trim()
            == "0",
        "a VMM process outlived its domain"
    );
    Ok(())
}
