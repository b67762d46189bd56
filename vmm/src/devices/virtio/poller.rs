//! Waiting for descriptors: a thin, safe layer over epoll.

use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

/// So many events are taken at a time.
const BATCH: usize = 64;

/// What happened to a descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    /// The number under which it was added.
    pub token: u64,
    /// There is something to read, the end included.
    pub readable: bool,
    /// There is room for writing, or writing will fail.
    pub writable: bool,
    /// Both directions are closed.
    pub hung_up: bool,
}

/// A set of descriptors to wait for.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

/// How a descriptor is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// As long as there is something to read.
    Readable,
    /// Each time that there is something new to read.
    ReadableEdge,
    /// Each time that there is new room for writing.
    WritableEdge,
    /// Both of the edges.
    BothEdges,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Readable => EventFlags::IN,
            Self::ReadableEdge => EventFlags::IN | EventFlags::RDHUP | EventFlags::ET,
            Self::WritableEdge => EventFlags::OUT | EventFlags::ET,
            Self::BothEdges => {
                EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET
            }
        }
    }
}

impl Poller {
    /// An empty set.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
        })
    }

    /// Adds `fd`, whose events will carry `token`.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<(), Errno> {
        let data = EventData::new_u64(token);
        epoll::add(&self.epoll, fd, data, interest.flags())
    }

    /// Removes `fd`. Needed before closing it: another process may hold the same open file, and
    /// then closing alone would leave it in the set.
    pub fn remove(&self, fd: impl AsFd) {
        // It can only fail for a descriptor that is not in the set, which is what we want.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until something happened and replaces the contents of `happened` by it.
    pub fn wait(&self, happened: &mut Vec<Readiness>) -> Result<(), Errno> {
        let mut events = Vec::with_capacity(BATCH);
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
        happened.clear();
        happened.extend(events.iter().map(|event: &epoll::Event| {
            let flags = event.flags;
            let broken = flags.intersects(EventFlags::HUP | EventFlags::ERR);
            Readiness {
                token: event.data.u64(),
                readable: broken || flags.intersects(EventFlags::IN | EventFlags::RDHUP),
                writable: broken || flags.contains(EventFlags::OUT),
                hung_up: broken,
            }
        }));
        Ok(())
    }
}
