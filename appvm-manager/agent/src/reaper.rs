//! One thread that waits for every child, known or inherited, as PID 1 must.
//!
//! A process's identifier may be reused as soon as it was waited for, so signals go through
//! here too: only to processes that have not been reaped.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_protocol::ExitReason;

#[derive(Default)]
struct State {
    children: HashMap<i32, Sender<ExitReason>>,
    /// How many children were started; tells the reaper that there are new ones.
    started: u64,
    /// The last wait said that no child is left.
    alone: bool,
}

/// Handle on the reaper; clones are the same one.
#[derive(Clone, Default)]
pub struct Reaper(Arc<(Mutex<State>, Condvar)>);

/// A running child.
#[derive(Debug)]
pub struct Child {
    /// Its process identifier, which is its group's too.
    pub pid: i32,
    /// Tells once how it ended.
    pub ended: Receiver<ExitReason>,
}

impl Reaper {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let reaper = Reaper::default();
        let worker = reaper.clone();
        thread::Builder::new()
            .name("reaper".into())
            .spawn(move || worker.run())?;
        Ok(reaper)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut seen = 0;
        loop {
            let mut status = 0;
            // SAFETY: `status` is a valid place for the result.
            let pid = unsafe { libc::waitpid(-1, &mut status, 0) };
            let mut state = self.lock();
            if pid > 0 {
                if let Some(sender) = state.children.remove(&pid) {
                    // Whoever started it may not care any more.
                    let _ = sender.send(reason(status));
                }
                continue;
            }
            // No children (or, never, an interruption): wait for the next one.
            state.alone = true;
            self.0.1.notify_all();
            while state.started == seen {
                state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            seen = state.started;
            state.alone = false;
        }
    }

    /// Runs `fork`, which gives a new child's identifier, with the reaper held off until the
    /// child is known.
    pub fn register<E>(&self, fork: impl FnOnce() -> Result<i32, E>) -> Result<Child, E> {
        let mut state = self.lock();
        let pid = fork()?;
        let (sender, ended) = mpsc::channel();
        state.children.insert(pid, sender);
        state.started += 1;
        state.alone = false;
        self.0.1.notify_all();
        Ok(Child { pid, ended })
    }

    /// Signals the process group of a child, unless the child was reaped already.
    pub fn signal_group(&self, pid: i32, signal: i32) -> bool {
        let state = self.lock();
        if !state.children.contains_key(&pid) {
            return false;
        }
        // SAFETY: no pointers; the group belongs to our unreaped child.
        unsafe { libc::kill(-pid, signal) == 0 }
    }

    /// Waits until no process is left, at most this long.
    pub fn wait_until_alone(&self, most: Duration) -> bool {
        let end = Instant::now() + most;
        let mut state = self.lock();
        while !state.alone {
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                return false;
            };
            let (next, _) = self
                .0
                .1
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
        true
    }
}

fn reason(status: i32) -> ExitReason {
    if libc::WIFSIGNALED(status) {
        ExitReason::Signal(libc::WTERMSIG(status) as u8)
    } else {
        ExitReason::Code(libc::WEXITSTATUS(status) as u8)
    }
}
