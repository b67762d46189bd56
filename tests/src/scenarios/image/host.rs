//! The running desktop from inside: nothing listens, no interface is up, nothing has a privilege
//! bit, and an idle desktop sleeps.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::{AS_USER, in_session, section};
use crate::check;
use crate::e2e::disk::DiskContext;
use crate::e2e::{Failure, Outcome, Place, Scenario};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "image-host",
    about: "no listening socket, no interface up, no route, no setuid program; an idle desktop sleeps",
    run: Place::Disk(run),
};

/// How long wake-ups are counted.
const WATCH_S: u64 = 30;
/// The goal of each process.
const WAKEUPS_PER_S: f64 = 2.0;

const SCRIPT: &str = r#"
echo BEGIN sockets
for f in tcp tcp6 udp udp6 udplite udplite6 raw raw6 icmp icmp6 packet; do
    test -e /proc/net/$f && tail -n +2 /proc/net/$f | sed "s/^/$f /"
done
echo END sockets
echo BEGIN interfaces
for i in /sys/class/net/*; do echo "$(basename $i) $(cat $i/flags)"; done
echo END interfaces
echo BEGIN routes
tail -n +2 /proc/net/route
test -e /proc/net/ipv6_route && grep -v ' lo$' /proc/net/ipv6_route
echo END routes
echo BEGIN privileged
find / -xdev -type f -perm /6000
find /home /var /run /tmp /dev -type f -perm /6000
echo END privileged
echo BEGIN compilers
for p in gcc cc ld as python3 perl curl wget ssh nc apt dpkg; do command -v $p; done
echo END compilers
echo BEGIN template
printf 'name = "lost"\nlabel = "blue"\ntemplate = "nosuch"\n' > /home/user/.config/bulkhead/domains/lost.toml
chown user:user /home/user/.config/bulkhead/domains/lost.toml
AS_USER bulkhead run lost -- true 2>&1
echo "status $?"
rm /home/user/.config/bulkhead/domains/lost.toml
echo END template
sleep 15
count() {
    for p in /proc/[0-9]*; do
        test -e $p/exe || continue
        name=$(tr '\0' ' ' < $p/cmdline | cut -c 1-60)
        test -n "$name" || continue
        n=$(cat $p/task/*/status 2>/dev/null | awk '/^voluntary_ctxt/ {s+=$2} END {print s+0}')
        echo "$1 ${p#/proc/} $n $(stat -c %U $p) $name"
    done
}
count before > /run/wakeups
sleep WATCH
count after >> /run/wakeups
echo BEGIN wakeups
cat /run/wakeups
echo END wakeups
"#;

fn run(context: &DiskContext<'_>) -> Outcome {
    let mut options = context.machine("machine");
    let script = SCRIPT.replace("AS_USER", AS_USER);
    options.script = Some(in_session(&script.replace("WATCH", &WATCH_S.to_string())));
    let mut desktop = context.boot(&options)?;
    desktop.wait_for("END wakeups", Duration::from_secs(WATCH_S + 180))?;
    context.screenshot(&mut desktop, "idle")?;
    let log = desktop.serial_log();
    context.log("serial.log", log.as_bytes())?;
    desktop.cut_power();
    context.discard(&options)?;

    for (name, what) in [
        ("sockets", "a network socket is open on the host"),
        ("routes", "the host has a route"),
        ("privileged", "a program has a set-user-id bit"),
        (
            "compilers",
            "the host has a program that it should not have",
        ),
    ] {
        let lines = section(&log, name)?;
        check!(lines.is_empty(), "{what}: {lines:?}");
    }
    let up = |line: &&&str| {
        let flags = line.split_once(" 0x").map_or("", |(_, flags)| flags);
        // IFF_UP, netdevice(7).
        u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 != 0)
    };
    let interfaces = section(&log, "interfaces")?;
    check!(!interfaces.is_empty(), "no interface was listed at all");
    let up: Vec<_> = interfaces.iter().filter(up).collect();
    check!(up.is_empty(), "an interface is up: {up:?}");
    let told = section(&log, "template")?.join(" ");
    check!(
        told.contains("nosuch") && told.contains("template") && !told.contains("status 0"),
        "a domain of a missing template says: {told}"
    );
    let rates = wakeups(&section(&log, "wakeups")?)?;
    context.log("wakeups.json", json!(rates).to_string().as_bytes())?;
    for name in [
        "bulkhead-compos",
        "bulkheadd",
        "bulkhead-ui panel",
        "bulkhead-ui menu",
    ] {
        check!(
            rates.keys().any(|command| command.contains(name)),
            "{name} does not run: {rates:?}"
        );
    }
    for (command, rate) in &rates {
        eprintln!("  {rate:5.2} wake-ups a second: {command}");
        check!(
            *rate < WAKEUPS_PER_S,
            "{command} wakes {rate:.2} times a second on an idle desktop"
        );
    }
    Ok(())
}

/// Wake-ups a second of each program that is the user's, or that the desktop needs.
fn wakeups(lines: &[&str]) -> Result<BTreeMap<String, f64>, Failure> {
    let mut before = BTreeMap::new();
    let mut rates = BTreeMap::new();
    for line in lines {
        let mut words = line.splitn(5, ' ');
        let (Some(when), Some(pid), Some(count), Some(user), Some(command)) = (
            words.next(),
            words.next(),
            words.next().and_then(|n| n.parse::<u64>().ok()),
            words.next(),
            words.next(),
        ) else {
            return Err(Failure::new(format!("not a count: {line}")));
        };
        if when == "before" {
            before.insert(pid.to_owned(), count);
        } else if let Some(start) = before.get(pid)
            && (user == "user" || command.contains("seatd"))
        {
            let rate = count.saturating_sub(*start) as f64 / WATCH_S as f64;
            rates.insert(format!("{command} ({pid})"), rate);
        }
    }
    Ok(rates)
}
