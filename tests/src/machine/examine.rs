//! What a machine does at the moment when a command in it took too long. It goes into the error, since
//! the machine is gone when somebody reads that.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::json;

use super::{
    MachineError,
    connection::Connection,
    exec::{Exec, Process},
    qmp::Qmp,
};

/// Where a machine leaves its traces.
#[derive(Debug, Clone)]
pub(super) struct Traces {
    /// What its kernel and PID 1 said.
    pub(super) console: PathBuf,
    /// QEMU's control socket.
    pub(super) monitor: PathBuf,
}

/// What the error says of a machine that did not even list its processes.
pub const FROZEN: &str = "the machine itself answered nothing";

/// How long the machine may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Each process but the kernel's own, with its state and where in the kernel it waits. Then each thread
/// that is in an uninterruptible wait ("D", proc(5)) now and five seconds later, with its stack there.
const PROCESSES: &str = r#"
for p in /proc/[0-9]*; do
    command=$(tr '\0\n' '  ' < $p/cmdline 2>/dev/null | head -c 120)
    test -n "$command" || continue
    echo "${p#/proc/} $(sed -n 's/^State:[[:space:]]*//p' $p/status) $(cat $p/wchan) $command"
done
waiting() {
    for t in /proc/[0-9]*/task/*; do
        read -r line 2>/dev/null < $t/stat || continue
        case ${line##*) } in D*) echo ${t##*/} ;; esac
    done
}
before=" $(echo $(waiting)) "
sleep 5
for t in $(waiting); do
    case $before in *" $t "*) echo "not even to be killed: $t $(cat /proc/$t/comm) $(tr '\n' ' ' < /proc/$t/stack)" ;; esac
done; true"#;

/// Says which processes run in the machine, or, if it does not tell, where its processors are.
pub(super) fn what_hangs(connection: &Arc<Connection>, traces: &Traces) -> String {
    let exec = Exec::shell(PROCESSES).as_root().looking(ANSWER);
    let answer = Process::start(Arc::clone(connection), &exec, traces.clone())
        .and_then(Process::wait)
        .map(|output| output.text());
    match answer {
        Ok(processes) => format!("its processes then:\n{processes}"),
        Err(_) => format!("{FROZEN}; {}", processors(&traces.monitor)),
    }
}

/// What QEMU says of the machine: whether it runs, and twice where each processor is.
fn processors(monitor: &Path) -> String {
    let ask = || {
        let mut qmp = Qmp::connect(monitor, ANSWER, || true)?;
        let status = qmp.command("query-status", json!({}))?;
        let mut told = format!("QEMU says {status}");
        for _ in 0..2 {
            let line = json!({ "command-line": "info registers -a" });
            let registers = qmp.command("human-monitor-command", line)?;
            let of_interest = registers
                .as_str()
                .unwrap_or_default()
                .lines()
                .filter(|line| line.starts_with("CPU#") || line.starts_with("RIP="));
            for line in of_interest {
                told.push('\n');
                told.push_str(line);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(told)
    };
    ask().unwrap_or_else(|error| match error {
        MachineError::NoQemu(why) => format!("nor did QEMU ({why})"),
        error => format!("nor did QEMU ({error})"),
    })
}
