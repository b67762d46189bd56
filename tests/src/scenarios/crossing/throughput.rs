//! A copy between domains beside a plain stream of bytes and `scp` between the same two guests.

use std::time::Duration;

use super::scp;
use crate::check;
use crate::e2e::context::Context;
use crate::e2e::{Failure, Outcome};

const PORT: &str = "5000";
/// A copy makes sure of more than a stream does; it may cost this many times as much.
const MOST: f64 = 4.0;
/// `scp` makes sure of less, but encrypts.
const MOST_OF_SCP: f64 = 1.0;

/// Copies one large file from `work` to `personal`, by each of three ways. The two that are close to
/// each other are done twice; the better time counts.
pub(super) fn compare(context: &Context<'_>) -> Outcome {
    let mib = context.rounds(24, 128) as u64;
    let make = format!(
        "rm -rf ~/sent; head -c {}M /dev/urandom > ~/large; sha256sum < ~/large",
        mib
    );
    let sum = context.guest_ok("work", &["sh", "-c", &make])?;
    context.guest_ok("personal", &["sh", "-c", "rm -rf ~/Incoming"])?;
    for domain in ["work", "personal"] {
        context.install_hostile(domain, "vsock-stream")?;
    }
    let mut copies = Vec::new();
    let mut streams = Vec::new();
    scp::prepare(context)?;
    for _ in 0..2 {
        copies.push(copy(context, &sum)?);
        streams.push(stream(context, &sum)?);
    }
    let scp = milliseconds(&scp::copy(context)?)?;
    arrived(context, "~/large", &sum)?;
    let best = |times: &[Duration]| times.iter().min().copied().unwrap_or_default();
    let (copy, stream) = (best(&copies), best(&streams));
    let rate = |time: Duration| mib as f64 / time.as_secs_f64();
    let times = |other: Duration| copy.as_secs_f64() / other.as_secs_f64();
    let told = format!(
        "{mib} MiB: bulkhead-copy {:.1} MiB/s; plain vsock stream {:.1} MiB/s, a copy takes {:.2} \
         times its time; scp {:.1} MiB/s, a copy takes {:.2} times its time",
        rate(copy),
        rate(stream),
        times(stream),
        rate(scp),
        times(scp),
    );
    println!("  {told}");
    context.log("throughput.txt", told.as_bytes())?;
    check!(times(stream) < MOST, "{told}");
    check!(times(scp) < MOST_OF_SCP, "{told}");
    context
        .guest_ok("work", &["rm", "-f", "/home/user/large"])
        .map(drop)
}

/// A large file arrives whole, and who waits for it sees how far it has come.
pub(super) fn large(context: &Context<'_>) -> Outcome {
    let mib = context.rounds(64, 2048);
    let make = format!("head -c {mib}M /dev/urandom > ~/large; sha256sum < ~/large");
    let sum = context.guest_ok("work", &["sh", "-c", &make])?;
    // Progress is for terminals.
    let copy = "script -qec 'bulkhead-copy --to personal large' /dev/null";
    let shown = context.guest_ok("work", &["sh", "-c", copy])?;
    arrived(context, "~/Incoming/work/large", &sum)?;
    let lines: Vec<&str> = shown
        .split(['\r', '\n'])
        .filter(|line| line.contains(" of ") && line.contains("large"))
        .collect();
    println!("  {mib} MiB arrived; {} lines of progress", lines.len());
    context.log("progress.txt", lines.join("\n").as_bytes())?;
    check!(lines.len() > 3, "its progress was shown so:\n{shown}");
    context
        .guest_ok("work", &["rm", "-f", "/home/user/large"])
        .map(drop)
}

/// With all that belongs to it: counting, the policy, the checksum, the disk's word.
fn copy(context: &Context<'_>, sum: &str) -> Result<Duration, Failure> {
    let script = "a=$(date +%s%3N); bulkhead-copy --to personal ~/large || exit 1; \
                  b=$(date +%s%3N); echo $((b - a))";
    let told = context.guest_ok("work", &["sh", "-c", script])?;
    arrived(context, "~/Incoming/work/large", sum)?;
    milliseconds(&told)
}

fn stream(context: &Context<'_>, sum: &str) -> Result<Duration, Failure> {
    let program = "/tmp/vsock-stream";
    let _sender = context.spawn_in("work", &[program, "send", PORT, "/home/user/large"])?;
    let _receiver =
        context.spawn_in("personal", &[program, "receive", PORT, "/home/user/large"])?;
    let socket = |domain: &str| format!("/run/user/1000/bulkhead/domains/{domain}/vsock.sock");
    let (from, to) = (socket("work"), socket("personal"));
    let told = context.host_ok(&["vsock-stream", "relay", &from, &to, PORT])?;
    arrived(context, "~/large", sum)?;
    milliseconds(&told)
}

fn arrived(context: &Context<'_>, file: &str, sum: &str) -> Outcome {
    let script = format!("sha256sum < {file}; rm {file}");
    let found = context.guest_ok("personal", &["sh", "-c", &script])?;
    check!(found == sum, "{file} arrived changed or short");
    Ok(())
}

fn milliseconds(told: &str) -> Result<Duration, Failure> {
    let number = told.trim().parse();
    let number = number.map_err(|_| Failure::new(format!("no time: {told}")))?;
    Ok(Duration::from_millis(number))
}
