//! The figures of docs/performance.md, measured as ratios within one run, and their goals.

use std::time::Duration;

use serde_json::{Value, json};

use crate::check;
use crate::e2e::context::Context;
use crate::e2e::desktop::Desktop;
use crate::e2e::{Failure, Outcome, Place, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "path-performance",
    about: "boot beside microvm, the VMM's own memory, copies, execbuffers and CPU per frame",
    run: Place::Host(run),
};

/// Boots of each machine; the medians are compared.
/// An even number: each is first as often as second.
const BOOTS: &str = "8";
/// How long frames are counted.
const WATCH: Duration = Duration::from_secs(12);
/// A goal of the VMM: memory of its own beyond the guest's RAM.
const VMM_OWN_KIB: u64 = 8 * 1024;

fn run(context: &Context<'_>) -> Outcome {
    context.domain("work", "red")?;
    let _direct = context.direct_domain("direct", "blue")?;
    let mut figures = serde_json::Map::new();
    figures.insert("boot".into(), boot(context)?);
    figures.insert("first_frame".into(), first_frame(context)?);
    figures.insert("memory".into(), memory(context)?);
    figures.insert("frames".into(), frames(context)?);
    let figures = Value::Object(figures);
    let text = serde_json::to_string_pretty(&figures)?;
    context.log("figures.json", text.as_bytes())?;
    eprintln!("{text}");

    let own = figures["memory"]["own_kib"].as_u64().unwrap_or(u64::MAX);
    check!(
        own <= VMM_OWN_KIB,
        "the VMM holds {own} KiB beyond guest RAM"
    );
    // Two by design; the sample can begin or end within a frame.
    let execbuffers = figures["frames"]["execbuffers_per_frame"].as_f64();
    check!(
        execbuffers.is_some_and(|n| n <= 2.05),
        "{execbuffers:?} execbuffers per frame"
    );
    let copied = figures["frames"]["bytes_copied_per_damaged_byte"].as_f64();
    // Once: the next picture is drawn over one that was drawn. A frame that is late takes another
    // picture, in which what changed before has to be made up for.
    check!(
        copied.is_some_and(|n| n <= 1.1),
        "{copied:?} bytes copied per damaged byte"
    );
    Ok(())
}

/// Time to the agent's ready line, ours beside QEMU's microvm, in turns on the same host.
fn boot(context: &Context<'_>) -> Result<Value, Failure> {
    let output = context.host_ok(&["bench-boot", BOOTS, "/run/user/1000/direct.sock"])?;
    let samples: Value = serde_json::from_str(output.trim())?;
    let ours = median(&samples["bulkhead_ms"]);
    let microvm = median(&samples["microvm_ms"]);
    Ok(json!({
        "bulkhead_ms_median": ours,
        "microvm_ms_median": microvm,
        "ratio": ours / microvm,
        "samples": samples,
    }))
}

/// `bulkhead run` to the first window frame, by stage.
fn first_frame(context: &Context<'_>) -> Result<Value, Failure> {
    context.host(&["bulkhead", "kill", "work"])?;
    let timings = context.host_ok(&[
        "sh",
        "-c",
        "timeout 60 bulkhead run --timings work -- timeout 8 weston-simple-shm 2>&1 || true",
    ])?;
    context.log("timings.txt", timings.as_bytes())?;
    Ok(json!(timings.lines().collect::<Vec<_>>()))
}

/// What the VMM process holds beyond the guest's RAM.
fn memory(context: &Context<'_>) -> Result<Value, Failure> {
    context.guest_ok("work", &["true"])?;
    let smaps = context.root(&[
        "sh",
        "-c",
        "cat /proc/$(pgrep -x bulkhead-vmm | head -1)/smaps",
    ])?;
    let text = smaps.stdout_text();
    context.log("vmm-smaps.txt", text.as_bytes())?;
    // Guest RAM is the largest anonymous mapping; everything else is the VMM's own.
    let mut mappings: Vec<(String, u64, u64, u64)> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if !first.ends_with(':') {
            mappings.push((line.to_owned(), 0, 0, 0));
        } else if let Some(last) = mappings.last_mut() {
            let kib: u64 = second.parse().unwrap_or(0);
            match first {
                "Size:" => last.1 = kib,
                "Pss:" => last.2 = kib,
                "Rss:" => last.3 = kib,
                _ => {}
            }
        }
    }
    let ram = mappings
        .iter()
        .max_by_key(|mapping| mapping.3)
        .cloned()
        .ok_or_else(|| Failure::new("no VMM to measure"))?;
    let own: u64 = mappings
        .iter()
        .filter(|mapping| mapping.0 != ram.0)
        .map(|mapping| mapping.3)
        .sum();
    Ok(json!({
        "guest_ram_mapping_kib": ram.1,
        "guest_ram_resident_kib": ram.3,
        "own_kib": own,
    }))
}

/// What one frame of weston-simple-damage costs in a guest and directly on the host.
fn frames(context: &Context<'_>) -> Result<Value, Failure> {
    let desktop = Desktop::new(context);
    let guest = {
        let _client = context.spawn_in("work", &["weston-simple-damage"])?;
        desktop.wait_window("simple-damage in work", Duration::from_secs(180), |w| {
            w.domain == "work"
        })?;
        let before = guest_sample(context)?;
        std::thread::sleep(WATCH);
        let after = guest_sample(context)?;
        difference(&before, &after)
    };
    desktop.wait("simple-damage to end", Duration::from_secs(60), || {
        Ok(desktop.windows_of("work")?.is_empty().then_some(()))
    })?;
    let direct = {
        let _client = context.spawn_direct("direct", &["weston-simple-damage"])?;
        desktop.wait_window("simple-damage directly", Duration::from_secs(180), |w| {
            w.domain == "direct"
        })?;
        let before = direct_sample(context, &desktop)?;
        std::thread::sleep(WATCH);
        let after = direct_sample(context, &desktop)?;
        difference(&before, &after)
    };
    let guest_frames = guest[0].max(1.0);
    let direct_frames = direct[0].max(1.0);
    let guest_us = (guest[1] + guest[2]) / guest_frames / 1000.0;
    let direct_us = direct[1] / direct_frames / 1000.0;
    Ok(json!({
        "guest_frames": guest_frames,
        "direct_frames": direct_frames,
        "guest_client_cpu_us_per_frame": guest[1] / guest_frames / 1000.0,
        "guest_proxy_cpu_us_per_frame": guest[2] / guest_frames / 1000.0,
        "direct_client_cpu_us_per_frame": direct_us,
        "cpu_ratio": guest_us / direct_us,
        "execbuffers_per_frame": guest[3] / guest_frames,
        "bytes_copied_per_frame": guest[4] / guest_frames,
        "bytes_copied_per_damaged_byte": guest[4] / guest[5].max(1.0),
    }))
}

/// Frames, client CPU ns, proxy CPU ns, execbuffers, bytes copied, bytes damaged: so far.
fn guest_sample(context: &Context<'_>) -> Result<Vec<f64>, Failure> {
    let text = context.guest_ok(
        "work",
        &[
            "sh",
            "-c",
            "p=$(pgrep -f bulkhead-wayland-proxy | head -1); kill -USR1 $p; sleep 0.3; \
             cut -d' ' -f1 /proc/$(pgrep -f ^weston-simple-damage | head -1)/schedstat \
               /proc/$p/schedstat; cat /run/user/1000/wayland-proxy.json",
        ],
    )?;
    let lines: Vec<&str> = text.lines().collect();
    let [client, proxy, stats] = lines.as_slice() else {
        return Err(Failure::new(format!(
            "cannot read the guest's counters: {text}"
        )));
    };
    let stats: Value = serde_json::from_str(stats)?;
    let counter = |name: &str| stats[name].as_f64().unwrap_or(0.0);
    Ok(vec![
        counter("frames"),
        client.parse().unwrap_or(0.0),
        proxy.parse().unwrap_or(0.0),
        counter("execbuffers"),
        counter("bytes_copied"),
        counter("damaged_bytes"),
    ])
}

/// Frames and client CPU ns of the client that runs on the host itself.
fn direct_sample(context: &Context<'_>, desktop: &Desktop<'_>) -> Result<Vec<f64>, Failure> {
    let window = desktop.wait_window("simple-damage directly", Duration::from_secs(5), |w| {
        w.domain == "direct"
    })?;
    let cpu = context.host_ok(&[
        "sh",
        "-c",
        "cut -d' ' -f1 /proc/$(pgrep -f ^weston-simple-damage | head -1)/schedstat",
    ])?;
    Ok(vec![
        window.commits as f64,
        cpu.trim().parse().unwrap_or(0.0),
    ])
}

fn difference(before: &[f64], after: &[f64]) -> Vec<f64> {
    after.iter().zip(before).map(|(a, b)| a - b).collect()
}

fn median(samples: &Value) -> f64 {
    let mut values: Vec<f64> = samples
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_f64)
        .collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        return (at(middle.saturating_sub(1)) + at(middle)) / 2.0;
    }
    at(middle)
}
