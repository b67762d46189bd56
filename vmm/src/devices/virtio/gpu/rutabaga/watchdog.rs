//! A timer that notices a thread which makes no progress.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// What is compared from one tick to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Jobs done.
    pub jobs: u64,
    /// Messages that came out of rutabaga.
    pub messages: u64,
}

/// The timer. It runs only while something is expected of the thread.
#[derive(Debug)]
pub struct Watchdog {
    timer: OwnedFd,
    patience: Duration,
    /// At the last tick, while it runs.
    last: Option<Progress>,
}

impl Watchdog {
    /// A timer that does not run.
    pub fn new(patience: Duration) -> Result<Self, Errno> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self {
            timer: timerfd_create(TimerfdClockId::Monotonic, flags)?,
            patience,
            last: None,
        })
    }

    /// Something is expected of the thread from now on.
    pub fn expect(&mut self, now: Progress) -> Result<(), Errno> {
        if self.last.is_none() {
            self.last = Some(now);
            self.set()?;
        }
        Ok(())
    }

    /// Time has passed: whether all is well.
    pub fn tick(&mut self, now: Progress, busy: bool) -> Result<bool, Errno> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.timer, &mut count);
        if !busy {
            self.last = None;
            return Ok(true);
        }
        let last = self.last.replace(now);
        self.set()?;
        Ok(last != Some(now))
    }

    fn set(&self) -> Result<(), Errno> {
        let none = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let once = Timespec {
            tv_sec: i64::try_from(self.patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(self.patience.subsec_nanos()),
        };
        let setting = Itimerspec {
            it_interval: none,
            it_value: once,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting).map(drop)
    }
}

impl AsFd for Watchdog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
