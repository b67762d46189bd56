//! The bootable disk image: from power-on to the desktop, and what happens when something is wrong.

pub(super) mod bad_disk;
pub(super) mod desktop;
pub(super) mod host;
pub(super) mod menu;
pub(super) mod outputs;
pub(super) mod power_cut;
pub(super) mod reproducible;
pub(super) mod tampered;

use crate::e2e::Failure;

/// Shell words that run a command as the desktop user, with the session's bus.
pub(super) const AS_USER: &str = "runuser -u user -- env HOME=/home/user XDG_RUNTIME_DIR=/run/user/1000 \
    DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus";

/// A script that goes on with `rest` once the session's manager answers.
pub(super) fn in_session(rest: &str) -> String {
    format!("until {AS_USER} bulkhead list > /dev/null 2>&1; do sleep 1; done\n{rest}")
}

/// What a test's script wrote, line by line, from a machine's serial line: the journal puts the
/// sender before each line.
pub(super) fn script_lines(serial: &str) -> impl Iterator<Item = &str> {
    serial
        .lines()
        .filter_map(|line| line.split_once("test[")?.1.split_once("]: "))
        .map(|(_, text)| text.trim_end())
}

/// The script's lines between `BEGIN` and `END` lines of a section.
fn section<'a>(serial: &'a str, name: &str) -> Result<Vec<&'a str>, Failure> {
    let begin = format!("BEGIN {name}");
    let end = format!("END {name}");
    let mut lines = script_lines(serial).skip_while(|line| *line != begin);
    if lines.next().is_none() {
        return Err(Failure::new(format!("the script did not come to {name}")));
    }
    Ok(lines.take_while(|line| *line != end).collect())
}
