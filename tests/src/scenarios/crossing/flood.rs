//! A guest that floods the door for calls slows down only itself.

use std::time::Duration;

use crate::check;
use crate::e2e::context::Context;
use crate::e2e::{Failure, Outcome, Place, Scenario};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "crossing-flood",
    about: "calls without end, huge names, half-open and noisy connections slow only their own domain",
    run: Place::Host(run),
};

/// A neighbour's call may take so many times as long beside a flood. Both guests and the host share
/// the processors: a guest that does nothing but compute makes it about twice as long.
const MOST: f64 = 8.0;

fn run(context: &Context<'_>) -> Outcome {
    context.domain("work", "red")?;
    context.domain("personal", "green")?;
    let hostile = context.install_hostile("work", "hostile-calls")?;
    let neighbour = context.install_hostile("personal", "hostile-calls")?;
    let latency = || -> Result<u64, Failure> {
        let text = context.guest_ok("personal", &[&neighbour, "latency", "40"])?;
        text.trim()
            .parse()
            .map_err(|_| Failure::new(format!("no latency: {text}")))
    };
    latency()?;
    let alone = latency()?;
    // What a neighbour costs that leaves the door alone.
    let busy = context.spawn_in("work", &["timeout", "8", "sh", "-c", "while :; do :; done"])?;
    std::thread::sleep(Duration::from_secs(1));
    let beside_busy = latency()?;
    drop(busy);
    let mut told = format!("alone {alone} us, beside a busy guest {beside_busy} us\n");
    let attacks = context.guest_ok("work", &[&hostile, "list"])?;
    for attack in attacks.lines() {
        let flood = context.spawn_in("work", &[&hostile, attack])?;
        std::thread::sleep(Duration::from_secs(1));
        let during = latency()?;
        drop(flood);
        let ratio = during as f64 / alone.max(1) as f64;
        told += &format!("beside {attack} {during} us, {ratio:.2} times\n");
        check!(
            ratio < MOST,
            "a call beside {attack} takes {ratio:.1} times as long: {told}"
        );
    }
    print!("  {}", told.replace('\n', "\n  ").trim_end());
    println!();
    context.log("latency.txt", told.as_bytes())?;
    for domain in ["work", "personal"] {
        check!(context.state(domain)? == "running", "{domain} has ended");
    }
    // The flooding domain is served again, and the log has not drowned.
    let date = context.guest("work", &["bulkhead-rpc", "@adminvm", "qubes.GetDate"])?;
    check!(
        date.status == 0,
        "the domain is never served again: {date:?}"
    );
    let lines = context.host_ok(&[
        "sh",
        "-c",
        "wc -l < ~/.local/state/bulkhead/transfers.jsonl",
    ])?;
    let lines: u64 = lines.trim().parse().unwrap_or(u64::MAX);
    check!(lines < 2000, "the log has {lines} lines");
    Ok(())
}
