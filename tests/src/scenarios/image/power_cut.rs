//! The plug is pulled while a domain writes: what the guest had synced is there afterwards.

use std::time::{Duration, SystemTime};

use super::{AS_USER, in_session, script_lines};
use crate::check;
use crate::e2e::disk::DiskContext;
use crate::e2e::{Failure, Outcome, Place, Scenario};
use crate::machine::desktop::Desktop;

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "image-power-cut",
    about: "power cuts at random moments of a domain's writing lose nothing that was synced",
    run: Place::Disk(run),
};

/// In the guest: says what it finds, then counts for ever and says each number once it is synced.
const WRITER: &str = r#"cd ~; i=$(cat count 2>/dev/null || echo 0); echo found $i; \
    sum=$(cat block.sum 2>/dev/null); test -z "$sum" || echo "$sum" | sha256sum -c --quiet || echo BROKEN; \
    while true; do i=$((i+1)); \
    head -c 200000 /dev/urandom > block && sha256sum block > block.sum && sync block block.sum; \
    echo $i > count.new && sync count.new && mv count.new count && sync . && echo synced $i; done"#;

fn run(context: &DiskContext<'_>) -> Outcome {
    let cuts = context.rounds(3, 10);
    let mut options = context.machine("machine");
    let writer = format!("{AS_USER} bulkhead run work -- sh -c '{WRITER}'");
    options.script = Some(in_session(&writer));
    let mut random = Random::new();
    let mut synced = 0;
    for cut in 1..=cuts {
        let (mut desktop, found) = boot(context, &options, cut)?;
        check!(
            found >= synced,
            "after cut {} of {cuts}: {synced} was synced, {found} was found",
            cut - 1
        );
        desktop.wait_for("synced", Duration::from_secs(60))?;
        let moment = Duration::from_millis(random.below(4000));
        std::thread::sleep(moment);
        let log = desktop.serial_log();
        desktop.cut_power();
        synced = last(&log, "synced ").unwrap_or(0);
        context.log(&format!("cut-{cut:02}.log"), log.as_bytes())?;
        eprintln!(
            "  cut {cut} of {cuts}: after {} ms of writing, {found} found, {synced} synced",
            moment.as_millis()
        );
        check!(synced > found, "nothing was written before cut {cut}");
    }
    let (mut desktop, found) = boot(context, &options, cuts + 1)?;
    check!(
        found >= synced,
        "after the last cut: {synced} was synced, {found} was found"
    );
    context.screenshot(&mut desktop, "after")?;
    desktop.cut_power();
    context.discard(&options)
}

/// Boots and waits for what the writer found.
fn boot(
    context: &DiskContext<'_>,
    options: &crate::machine::desktop::DesktopOptions,
    number: usize,
) -> Result<(Desktop, u64), Failure> {
    let mut desktop = context.boot(options)?;
    desktop.wait_for("found ", Duration::from_secs(120))?;
    let log = desktop.serial_log();
    check!(
        !script_lines(&log).any(|line| line.contains("BROKEN") || line.contains("FAILED")),
        "at boot {number} a block that had been synced was not whole"
    );
    let found = last(&log, "found ").ok_or_else(|| Failure::new("the writer found no number"))?;
    Ok((desktop, found))
}

fn last(log: &str, word: &str) -> Option<u64> {
    script_lines(log)
        .filter_map(|line| line.strip_prefix(word)?.parse().ok())
        .last()
}

/// xorshift: any moment is as good as another, but none twice.
pub(in crate::scenarios) struct Random(u64);

impl Random {
    pub(in crate::scenarios) fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self(now.map_or(1, |now| now.as_nanos() as u64 | 1))
    }

    pub(in crate::scenarios) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}
