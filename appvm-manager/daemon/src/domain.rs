//! A domain's state while the daemon runs.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bulkhead_protocol::{DomainName, Label, Power};
use tokio::sync::{mpsc, watch};

/// How far a start has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Files are checked, sockets made.
    Preparing,
    /// The VMM runs, the guest's kernel boots.
    Kernel,
    /// The agent has said hello and prepares the session.
    Agent,
}

impl Stage {
    /// For people and D-Bus.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Preparing => "preparing",
            Stage::Kernel => "kernel",
            Stage::Agent => "agent",
        }
    }
}

/// What a domain does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing runs.
    Halted,
    /// On its way.
    Starting {
        /// How far.
        stage: Stage,
    },
    /// Its agent takes commands.
    Running,
    /// It was asked to end.
    Stopping,
    /// It ended, but not as it should.
    Failed {
        /// Why, for a person.
        reason: String,
    },
}

impl State {
    /// The state without its details.
    pub fn name(&self) -> &'static str {
        match self {
            State::Halted => "halted",
            State::Starting { .. } => "starting",
            State::Running => "running",
            State::Stopping => "stopping",
            State::Failed { .. } => "failed",
        }
    }

    /// The stage or the reason.
    pub fn detail(&self) -> &str {
        match self {
            State::Starting { stage } => stage.name(),
            State::Failed { reason } => reason,
            _ => "",
        }
    }

    /// Whether a VMM belongs to it.
    pub fn is_active(&self) -> bool {
        matches!(
            self,
            State::Starting { .. } | State::Running | State::Stopping
        )
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail() {
            "" => f.write_str(self.name()),
            detail => write!(f, "{} ({detail})", self.name()),
        }
    }
}

/// Named points in time of the last start. Those of the host are microseconds of
/// `CLOCK_MONOTONIC`; those that begin with `guest.` are milliseconds since the guest's boot and
/// the guest's own word.
pub type Timings = BTreeMap<String, u64>;

/// Microseconds of `CLOCK_MONOTONIC`.
pub fn now_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// A domain that the daemon has had to do with since it started.
pub struct Domain {
    /// Its name.
    pub name: DomainName,
    /// Held by whoever starts it or removes it.
    pub transition: tokio::sync::Mutex<()>,
    /// What it does now. Changed only through [`crate::manager::Manager::set_state`].
    pub state: watch::Sender<State>,
    machine: Mutex<Option<std::sync::Arc<Machine>>>,
    timings: Mutex<Timings>,
    snapshot_problem: Mutex<String>,
}

impl Domain {
    /// One that does nothing.
    pub fn new(name: DomainName) -> Self {
        Domain {
            name,
            transition: tokio::sync::Mutex::new(()),
            state: watch::Sender::new(State::Halted),
            machine: Mutex::new(None),
            timings: Mutex::new(Timings::new()),
            snapshot_problem: Mutex::default(),
        }
    }

    /// Why the last start made no snapshot of its home; empty where it did or need not.
    pub fn snapshot_problem(&self) -> String {
        let problem = self.snapshot_problem.lock();
        problem.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what the last start's snapshot came to.
    pub fn set_snapshot_problem(&self, problem: String) {
        let mut noted = self
            .snapshot_problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *noted = problem;
    }

    /// The machine that runs it, if one does.
    pub fn machine(&self) -> Option<std::sync::Arc<Machine>> {
        self.machine
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Sets or takes away the machine.
    pub fn set_machine(&self, machine: Option<std::sync::Arc<Machine>>) {
        *self.machine.lock().unwrap_or_else(PoisonError::into_inner) = machine;
    }

    /// Notes a point in time of the start.
    pub fn mark(&self, what: &str, value: u64) {
        let mut timings = self.timings.lock().unwrap_or_else(PoisonError::into_inner);
        timings.insert(what.to_owned(), value);
    }

    /// Forgets the start before.
    pub fn clear_timings(&self) {
        self.timings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// The points in time of the last start.
    pub fn timings(&self) -> Timings {
        self.timings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Whether it ended as it should.
    pub orderly: bool,
    /// Why, for a person.
    pub reason: String,
}

/// A running VMM and what belongs to it.
pub struct Machine {
    /// The process.
    pub pid: i32,
    /// The process, safe from reuse of its number.
    pub pidfd: OwnedFd,
    /// Its label when it started.
    pub label: Label,
    /// The folder with its sockets.
    pub runtime: PathBuf,
    /// Where its control socket listens.
    pub control: PathBuf,
    /// Where its vsock listens for connections to the guest.
    pub vsock: PathBuf,
    /// Where its console listens.
    pub console: PathBuf,
    /// Requests to its agent.
    pub agent: mpsc::UnboundedSender<Power>,
    /// How it ended, once everything of it is cleaned up.
    pub ended: watch::Receiver<Option<Ended>>,
    /// Someone asked it to end.
    pub end_requested: AtomicBool,
}

impl Machine {
    /// Ends it at once.
    pub fn kill(&self) {
        self.end_requested.store(true, Ordering::SeqCst);
        let result = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        if let Err(error) = result
            && error != rustix::io::Errno::SRCH
        {
            tracing::error!(pid = self.pid, %error, "the VMM could not be killed");
        }
    }

    /// Waits until it has ended and nothing of it is left.
    pub async fn gone(&self) -> Ended {
        let mut ended = self.ended.clone();
        match ended
            .wait_for(Option::is_some)
            .await
            .map(|ended| ended.clone())
        {
            Ok(Some(ended)) => ended,
            _ => Ended {
                orderly: false,
                reason: "the daemon lost sight of it".into(),
            },
        }
    }
}
