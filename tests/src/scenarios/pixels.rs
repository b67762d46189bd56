//! Real clients show the same pixels through the proxy as directly on the compositor.

mod simple_shm;

use std::time::Duration;

use crate::check;
use crate::e2e::context::Context;
use crate::e2e::desktop::Desktop;
use crate::e2e::picture::Picture;
use crate::e2e::{Failure, Outcome, Place, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "path-pixels",
    about: "weston's clients, foot and a GTK app show the same pixels as directly on the host",
    run: Place::Host(run),
};

/// How a client's picture is compared.
enum Compare {
    /// Every pixel, but for a small share (cursors, clocks).
    Same { tolerance: u8, share: f64 },
    /// The client is animated: the colours and the covered area must be alike.
    Animated,
    /// What the client draws is known but for the time: each picture is one of its frames, and
    /// never parts of two.
    Frames(fn(&Picture) -> Result<(), String>),
}

struct Client {
    name: &'static str,
    command: &'static [&'static str],
    compare: Compare,
}

/// `libfaketime`, where both a guest's programs and the host's find it.
const CLOCK: &str = "/run/user/1000/libfaketime.so.1";
const STOPPED_CLOCK: &str = "LD_PRELOAD=/run/user/1000/libfaketime.so.1";

/// Pictures of an animation that are looked at.
const FRAMES: usize = 30;

const CLIENTS: &[Client] = &[
    Client {
        // Its flower is random: the seed is the clock's microseconds, so the clock stands still.
        name: "weston-flower",
        command: &[
            "env",
            STOPPED_CLOCK,
            "FAKETIME=2026-01-01 12:00:00",
            // Not the clock that timers and frames go by.
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
            "weston-flower",
        ],
        compare: Compare::Same {
            tolerance: 8,
            share: 0.002,
        },
    },
    Client {
        name: "foot",
        command: &[
            "foot",
            "-o",
            "cursor.blink=no",
            "sh",
            "-c",
            "printf 'the same pixels\\n\\033[31mred \\033[32mgreen\\n'; exec sleep 600",
        ],
        compare: Compare::Same {
            tolerance: 8,
            share: 0.002,
        },
    },
    Client {
        name: "mousepad",
        command: &["mousepad", "/etc/debian_version"],
        compare: Compare::Same {
            tolerance: 16,
            share: 0.02,
        },
    },
    Client {
        name: "weston-simple-shm",
        command: &["weston-simple-shm"],
        compare: Compare::Frames(simple_shm::is_a_frame),
    },
    Client {
        name: "weston-simple-damage",
        command: &["weston-simple-damage"],
        compare: Compare::Animated,
    },
];

fn run(context: &Context<'_>) -> Outcome {
    context.domain("work", "red")?;
    // The same template's programs on the host itself, as a domain of their own.
    let _direct = context.direct_domain("direct", "blue")?;
    let desktop = Desktop::new(context);
    install_clock(context)?;
    let mut failures = Vec::new();
    for client in CLIENTS {
        if let Err(failure) = compare(context, &desktop, client) {
            eprintln!("  {}: {failure}", client.name);
            failures.push(format!("{}: {failure}", client.name));
        }
    }
    check!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Puts `libfaketime` where [`CLOCK`] says, in the guest and on the host.
fn install_clock(context: &Context<'_>) -> Outcome {
    let script = format!(
        "cp /usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1 {CLOCK} && \
         bulkhead run work -- sh -c 'cat > {CLOCK}' < {CLOCK}"
    );
    context.host_ok(&["sh", "-c", &script]).map(drop)
}

fn compare(context: &Context<'_>, desktop: &Desktop<'_>, client: &Client) -> Outcome {
    let name = client.name;
    wait_gone(desktop, "work")?;
    wait_gone(desktop, "direct")?;
    let through = {
        let _running = context.spawn_in("work", client.command)?;
        picture_of(desktop, "work", &format!("{name}-through"), client)?
    };
    wait_gone(desktop, "work")?;
    let direct = {
        let _running = context.spawn_direct("direct", client.command)?;
        picture_of(desktop, "direct", &format!("{name}-direct"), client)?
    };
    wait_gone(desktop, "direct")?;
    check!(
        (through.width, through.height) == (direct.width, direct.height),
        "the sizes differ: {}x{} through the proxy, {}x{} directly",
        through.width,
        through.height,
        direct.width,
        direct.height
    );
    match client.compare {
        Compare::Same { tolerance, share } => {
            let difference = through.difference(&direct, tolerance);
            check!(
                difference <= share,
                "{:.2} % of the pixels differ",
                difference * 100.0
            );
        }
        // Both were looked at when they were taken.
        Compare::Frames(_) => {}
        Compare::Animated => {
            let (a, b) = (histogram(&through), histogram(&direct));
            let distance: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0;
            check!(
                distance < 0.25,
                "the colours differ by {:.0} %",
                distance * 100.0
            );
        }
    }
    Ok(())
}

fn picture_of(
    desktop: &Desktop<'_>,
    domain: &str,
    name: &str,
    client: &Client,
) -> Result<Picture, Failure> {
    let window = desktop.wait_window(name, Duration::from_secs(120), |w| {
        w.domain == domain && w.kind == "toplevel" && w.width > 1
    })?;
    match client.compare {
        Compare::Same { .. } => desktop.settle(1500)?,
        Compare::Frames(is_a_frame) => frames_of(desktop, window.id, name, is_a_frame)?,
        Compare::Animated => {
            let first = desktop.crop(window.id, name)?;
            desktop.wait("the animation to move", Duration::from_secs(30), || {
                let now = desktop.crop(window.id, name)?;
                Ok((first.difference(&now, 0) > 0.0).then_some(()))
            })?;
        }
    }
    desktop.screenshot(&format!("{name}-desktop"))?;
    desktop.crop(window.id, name)
}

/// Looks at several pictures of an animation, whenever they come.
fn frames_of(
    desktop: &Desktop<'_>,
    window: u64,
    name: &str,
    is_a_frame: fn(&Picture) -> Result<(), String>,
) -> Outcome {
    let mut last: Option<Picture> = None;
    let mut moved = 0;
    for number in 1..=FRAMES {
        let picture = desktop.crop(window, name)?;
        if let Err(why) = is_a_frame(&picture) {
            return Err(Failure::new(format!("picture {number} of {name}: {why}")));
        }
        moved += usize::from(last.is_some_and(|last| last.difference(&picture, 0) > 0.0));
        last = Some(picture);
    }
    // A busy machine shows some of them twice.
    check!(
        moved >= 3,
        "{name}: only {moved} of {FRAMES} pictures moved"
    );
    Ok(())
}

fn wait_gone(desktop: &Desktop<'_>, domain: &str) -> Outcome {
    desktop.wait("the client to end", Duration::from_secs(60), || {
        Ok(desktop.windows_of(domain)?.is_empty().then_some(()))
    })
}

/// Share of pixels in each of 64 coarse colours.
fn histogram(picture: &Picture) -> Vec<f64> {
    let mut bins = vec![0f64; 64];
    let area = picture.area();
    let share = 1.0 / f64::from((area.width * area.height).max(1));
    for y in 0..area.height {
        for x in 0..area.width {
            let [r, g, b] = picture.at(x, y).map(|channel| usize::from(channel >> 6));
            bins[r * 16 + g * 4 + b] += share;
        }
    }
    bins
}
