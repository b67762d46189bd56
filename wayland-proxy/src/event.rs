//! A thin layer over epoll.

use std::os::fd::AsFd;

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

/// A descriptor's place in an epoll set. With no flags it is taken out: an epoll set reports
/// hang-ups of every member, asked for or not, and a hang-up that nobody handles now would wake
/// the loop for ever.
#[derive(Debug)]
pub struct Watch {
    token: u64,
    flags: EventFlags,
}

impl Watch {
    /// Not in the set yet.
    pub fn new(token: u64) -> Self {
        Self {
            token,
            flags: EventFlags::empty(),
        }
    }

    /// Watches for these events from now on.
    pub fn set(&mut self, set: impl AsFd, fd: impl AsFd, flags: EventFlags) -> Result<(), Errno> {
        if flags == self.flags {
            return Ok(());
        }
        let data = EventData::new_u64(self.token);
        match (self.flags.is_empty(), flags.is_empty()) {
            (true, _) => epoll::add(set, fd, data, flags)?,
            (false, true) => epoll::delete(set, fd)?,
            (false, false) => epoll::modify(set, fd, data, flags)?,
        }
        self.flags = flags;
        Ok(())
    }
}

/// What is ready in an epoll set, at most so many, after waiting no longer than `timeout`
/// (`None` for ever). Token and flags of each.
pub fn wait(
    set: impl AsFd,
    max: usize,
    timeout: Option<Timespec>,
) -> Result<Vec<(u64, EventFlags)>, Errno> {
    let empty = epoll::Event {
        flags: EventFlags::empty(),
        data: EventData::new_u64(0),
    };
    let mut events = vec![empty; max];
    let count = match epoll::wait(set, &mut events[..], timeout.as_ref()) {
        Ok(count) => count,
        Err(Errno::INTR) => 0,
        Err(errno) => return Err(errno),
    };
    // The event's fields are unaligned; copy them.
    Ok(events
        .iter()
        .take(count)
        .map(|event| ({ event.data }.u64(), { event.flags }))
        .collect())
}
