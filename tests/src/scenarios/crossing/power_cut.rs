//! The plug is pulled while files cross and domains are made, copied and taken back: afterwards
//! everything is as before or as after, and nothing is half made.

use std::time::Duration;

use crate::check;
use crate::e2e::disk::DiskContext;
use crate::e2e::{Failure, Outcome, Place, Scenario};
use crate::machine::desktop::{Desktop, DesktopOptions};
use crate::scenarios::image::{AS_USER, in_session, power_cut::Random, script_lines};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "crossing-power-cut",
    about: "power cuts during copy, clone, create, rename and revert leave nothing half made",
    run: Place::Disk(run),
};

/// Of the desktop's user, on the host. `base` has a home with a file in it, and a snapshot of that.
const SCRIPT: &str = r#"
cd ~
if ! test -e .prepared; then
    mkdir -p .config/bulkhead/policy.d
    echo 'qubes.Filecopy * work personal allow' > .config/bulkhead/policy.d/30-user.policy
    bulkhead create base --cpus 1 --home-size 64M
    bulkhead run base -- sh -c 'echo kept > kept; sync'; bulkhead stop base
    bulkhead run base -- true; bulkhead stop base
    touch .prepared; sync
fi
bulkhead list --json | grep '"error"' | sed 's/^/BROKEN /'
find .config/bulkhead .local/share/bulkhead -name '.bulkhead-*' | sed 's/^/LEFT /'
for folder in .local/share/bulkhead/domains/*/; do
    name=$(basename $folder)
    test -e .config/bulkhead/domains/$name.toml || echo ORPHAN $name
done
bulkhead list --json | sed -n 's/.*"name": *"\(copy[0-9]*\)".*/there \1/p'
last=$(bulkhead list --json | sed -n 's/.*"name": *"\(copy[0-9]*\)".*/\1/p' | tail -n 1)
if test -n "$last"; then
    test "$(bulkhead run $last -- cat kept)" = kept || echo BROKEN $last
    bulkhead stop $last
fi
bulkhead run personal -- sh -c 'cd Incoming/work 2>/dev/null || exit 0
    for one in *; do test -e "$one" || continue
        (cd "$one" && sha256sum -c --quiet sum) || echo BROKEN "$one"; done'
bulkhead run work -- sh -c 'test -e d/sum || { mkdir d; head -c 3000000 /dev/urandom > d/data
    cd d; sha256sum data > sum; sync; }'
echo CHECKED
bulkhead run work -- sh -c 'while bulkhead-copy --to personal d; do echo copied; done' &
while true; do
    now=$(date +%s)
    bulkhead clone base copy$now && echo cloned copy$now
    bulkhead create new$now --cpus 1 && bulkhead rename new$now old$now && bulkhead remove old$now --yes
    bulkhead revert base --yes > /dev/null && echo reverted
    test -z "$before" || { bulkhead remove copy$before --yes && echo removed copy$before; }
    before=$now
    sleep 1
done
"#;

fn run(context: &DiskContext<'_>) -> Outcome {
    let cuts = context.rounds(1, 10);
    let mut options = context.machine("machine");
    options.script = Some(in_session(&format!(
        "cat > /tmp/script <<'END'\n{SCRIPT}\nEND\n{AS_USER} sh /tmp/script"
    )));
    let mut random = Random::new();
    let mut expected = Vec::new();
    for cut in 1..=cuts {
        let mut desktop = boot(context, &options, cut, &expected)?;
        for word in ["copied", "reverted"] {
            desktop.wait_for(word, Duration::from_secs(90))?;
        }
        let moment = Duration::from_millis(random.below(4000));
        std::thread::sleep(moment);
        let log = desktop.serial_log();
        desktop.cut_power();
        context.log(&format!("cut-{cut:02}.log"), log.as_bytes())?;
        expected = promised(&log);
        eprintln!(
            "  cut {cut} of {cuts}: {} ms after the first copy and revert",
            moment.as_millis()
        );
    }
    let mut desktop = boot(context, &options, cuts + 1, &expected)?;
    context.screenshot(&mut desktop, "after")?;
    desktop.cut_power();
    context.discard(&options)
}

/// Boots and looks at what is there.
fn boot(
    context: &DiskContext<'_>,
    options: &DesktopOptions,
    number: usize,
    expected: &[String],
) -> Result<Desktop, Failure> {
    let mut desktop = context.boot(options)?;
    desktop.wait_for("CHECKED", Duration::from_secs(240))?;
    let log = desktop.serial_log();
    let wrong = ["BROKEN", "LEFT", "ORPHAN", "FAILED"];
    let lines: Vec<&str> = script_lines(&log)
        .filter(|line| wrong.iter().any(|word| line.contains(word)))
        .collect();
    check!(lines.is_empty(), "at boot {number}: {lines:?}");
    for name in expected {
        let there = format!("there {name}");
        check!(
            script_lines(&log).any(|line| line == there),
            "at boot {number}: {name} was made before the cut, and is gone"
        );
    }
    Ok(desktop)
}

/// Copies that were said to be made, and not said to be removed again. The last one that was about to
/// be removed may be gone without a word.
fn promised(log: &str) -> Vec<String> {
    let words = |verb: &str| -> Vec<String> {
        let lines = script_lines(log).filter_map(|line| line.strip_prefix(verb));
        lines.map(|name| name.trim().to_owned()).collect()
    };
    let removed = words("removed ");
    let mut made = words("cloned ");
    made.retain(|name| !removed.contains(name));
    // The newest is not touched before the next one is there.
    made.into_iter().next_back().into_iter().collect()
}
