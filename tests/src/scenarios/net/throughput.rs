//! What the network between guests carries, and for how much of the processor, beside the same guests
//! under QEMU: with TAPs on a bridge, with and without the kernel's vhost, and with `passt`.

use serde_json::Value;

use crate::check;
use crate::e2e::own_host::OwnHostContext;
use crate::e2e::{Failure, Outcome, Place, Scenario};
use crate::machine::{Accelerator, BootOptions, Machine};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "net-throughput",
    about: "bytes a second, latency and processor time between guests, beside QEMU with TAPs and a bridge, and with passt",
    run: Place::OwnHost(run),
};

/// All guests of all kinds run at once.
const MEMORY_MIB: u32 = 4608;
/// An emulated host's figures jump: the scenario fails only where something is badly broken.
const WORST: f64 = 6.0;

fn run(own: &OwnHostContext<'_>) -> Outcome {
    let machine = Machine::boot(&BootOptions {
        memory_mib: MEMORY_MIB,
        ..own.options("host")
    })?;
    // More guests than these take minutes to start where they are emulated.
    let ways = ["tap,passt", "tap,vhost,passt"][own.rounds(0, 1)];
    let rounds = own.rounds(3, 15);
    let milliseconds = own.rounds(600, 600);
    // Where processors are emulated, the last one is that of all guests (docs/testing.md).
    let processor = match machine.accelerator() {
        Accelerator::Emulation => "$(($(nproc) - 1))",
        Accelerator::Kvm => "",
    };
    let script = format!("net-bench {ways} {rounds} {milliseconds} {processor}");
    let outcome = own.root(&machine, "net-bench", &script)?;
    if !outcome.success() {
        let said = "tail -n 20 /tmp/net-bench/*.errors /tmp/net-bench/*.serial";
        own.root(&machine, "guests", said)?;
        return Err(Failure::new(format!("net-bench: {}", outcome.errors())));
    }
    machine.power_off()?;
    let figures: Value = serde_json::from_str(&outcome.text())?;
    let text = serde_json::to_string_pretty(&figures)?;
    own.log("figures.json", text.as_bytes())?;
    let ratios = &figures["ratios"];
    println!("  ours in times of theirs: {ratios:#}");

    for (path, way) in [
        ("neighbour", "tap"),
        ("neighbour", "passt"),
        ("forwarded", "tap"),
    ] {
        let ratio = |name: &str| {
            let ratio = ratios[path][way][name]["median"].as_f64();
            ratio.ok_or_else(|| Failure::new(format!("no {name} of {path} beside {way}")))
        };
        let throughput = (ratio("up_mib_s")? * ratio("down_mib_s")?).sqrt();
        let latency = ratio("ping_us")?;
        check!(
            throughput > 1.0 / WORST && latency < WORST,
            "{path}: {throughput:.2} of the bytes a second of {way}, {latency:.2} times its latency"
        );
    }
    Ok(())
}
