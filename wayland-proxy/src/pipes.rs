//! Copy, paste and drop: data between the application's pipes and the host's.
//!
//! Everything is written, in order, with back-pressure; the end is `read() == 0` and nothing else.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventFlags};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use crate::channel::{Channel, ChannelError, PIPE_WRITE_BYTES, PipeId, PipeWrite};
use crate::event::{self, Watch};
use crate::stats::Stats;

/// Data that waits for an application which does not read. Beyond it nothing more is taken from
/// the host for this application: its events wait behind the data. So much lets a whole ordinary
/// paste through even to an application that first waits for something else.
const MAX_QUEUED_BYTES: usize = 32 * 1024 * 1024;
/// Pipes of one application at a time; the host allows 64.
const MAX_PIPES: usize = 60;
/// Pieces moved per pipe and wakeup, so that no pipe starves the rest.
const PIECES_PER_WAKEUP: usize = 8;

/// A descriptor of the application that is written to.
#[derive(Debug)]
struct Sink {
    fd: OwnedFd,
    watch: Watch,
    queue: VecDeque<u8>,
    /// No more will come; close when the queue is empty.
    ended: bool,
    /// The application closed its end; the host does not know and goes on until the end.
    discarding: bool,
}

/// The read end of a pipe whose write end the application has.
#[derive(Debug)]
struct Source {
    fd: OwnedFd,
    watch: Watch,
}

/// The pipes of one application.
#[derive(Debug)]
pub struct Pipes {
    epoll: OwnedFd,
    sinks: HashMap<u32, Sink>,
    sources: HashMap<u32, Source>,
    queued_bytes: usize,
    stats: Rc<Stats>,
}

/// Gives a descriptor that can be written without blocking.
///
/// The flag belongs to the open file, which the application may still use: a pipe is opened anew.
pub fn nonblocking_writer(fd: OwnedFd) -> Option<OwnedFd> {
    let stat = rustix::fs::fstat(&fd).ok()?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            match rustix::fs::open(path, flags, Mode::empty()) {
                Ok(opened) => Some(opened),
                Err(_) => rustix::io::ioctl_fionbio(&fd, true).is_ok().then_some(fd),
            }
        }
        FileType::RegularFile => Some(fd),
        _ => rustix::io::ioctl_fionbio(&fd, true).is_ok().then_some(fd),
    }
}

impl Pipes {
    /// No pipes yet.
    pub fn new(stats: Rc<Stats>) -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            sinks: HashMap::new(),
            sources: HashMap::new(),
            queued_bytes: 0,
            stats,
        })
    }

    /// Readable when [`Pipes::pump`] has something to do.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Whether another pipe may be opened.
    pub fn has_room(&self) -> bool {
        self.sinks.len() + self.sources.len() < MAX_PIPES
    }

    /// So much waits for the application that nothing more may come.
    pub fn is_full(&self) -> bool {
        self.queued_bytes >= MAX_QUEUED_BYTES
    }

    /// From now on what comes from the host's pipe `id` goes to the application's descriptor.
    pub fn add_sink(&mut self, id: PipeId, fd: OwnedFd) {
        if let Some(fd) = nonblocking_writer(fd) {
            let watch = Watch::new(u64::from(id.0));
            let sink = Sink {
                fd,
                watch,
                queue: VecDeque::new(),
                ended: false,
                discarding: false,
            };
            self.sinks.insert(id.0, sink);
        }
    }

    /// Data from the host. For an application that closed its end it goes nowhere.
    pub fn deliver(&mut self, id: PipeId, bytes: &[u8], hang_up: bool) {
        let Some(sink) = self.sinks.get_mut(&id.0) else {
            return;
        };
        Stats::add(&self.stats.pipe_bytes, bytes.len() as u64);
        sink.ended |= hang_up;
        if !sink.discarding {
            sink.queue.extend(bytes);
            self.queued_bytes += bytes.len();
        }
        self.drain(id.0);
    }

    fn drain(&mut self, id: u32) {
        let Some(sink) = self.sinks.get_mut(&id) else {
            return;
        };
        let mut gone = false;
        let mut blocked = false;
        while !sink.queue.is_empty() && !gone && !blocked {
            match rustix::io::write(&sink.fd, sink.queue.as_slices().0) {
                Ok(n) => {
                    self.queued_bytes = self.queued_bytes.saturating_sub(n);
                    drop(sink.queue.drain(..n));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => blocked = true,
                Err(_) => gone = true,
            }
        }
        let flags = if blocked {
            EventFlags::OUT
        } else {
            EventFlags::empty()
        };
        gone |= sink.watch.set(&self.epoll, &sink.fd, flags).is_err();
        if gone {
            sink.discarding = true;
            self.queued_bytes = self.queued_bytes.saturating_sub(sink.queue.len());
            sink.queue.clear();
        }
        if sink.ended && sink.queue.is_empty() {
            self.sinks.remove(&id);
        }
    }

    /// Makes a pipe for what the application is to write for the host's pipe `id`: gives the
    /// application's end.
    pub fn add_source(&mut self, id: PipeId) -> io::Result<OwnedFd> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        let mut watch = Watch::new(u64::from(id.0));
        watch.set(&self.epoll, &read, EventFlags::IN)?;
        self.sources.insert(id.0, Source { fd: read, watch });
        Ok(write)
    }

    /// The host's pipe takes the next piece.
    pub fn writable(&mut self, id: PipeId) {
        if let Some(source) = self.sources.get_mut(&id.0)
            && source
                .watch
                .set(&self.epoll, &source.fd, EventFlags::IN)
                .is_err()
        {
            self.sources.remove(&id.0);
        }
    }

    /// Moves what can be moved.
    pub fn pump(&mut self, channel: &mut dyn Channel) -> Result<(), ChannelError> {
        let ready = event::wait(&self.epoll, MAX_PIPES, Some(Timespec::default()))
            .map_err(ChannelError::io("waiting for pipes"))?;
        for (token, _) in ready {
            let Ok(id) = u32::try_from(token) else {
                continue;
            };
            if self.sinks.contains_key(&id) {
                self.drain(id);
            } else {
                for _ in 0..PIECES_PER_WAKEUP {
                    if !self.pull(id, channel)? {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Moves one piece from the application to the host; false when there is no next one now.
    fn pull(&mut self, id: u32, channel: &mut dyn Channel) -> Result<bool, ChannelError> {
        let Some(source) = self.sources.get_mut(&id) else {
            return Ok(false);
        };
        let mut piece = [0; PIPE_WRITE_BYTES];
        let len = match rustix::io::read(&source.fd, &mut piece[..]) {
            Ok(len) => len,
            Err(Errno::INTR) => return Ok(true),
            Err(Errno::AGAIN) => return Ok(false),
            Err(_) => 0,
        };
        Stats::add(&self.stats.pipe_bytes, len as u64);
        let data = piece.get(..len).unwrap_or_default();
        match channel.write_pipe(PipeId(id), data, len == 0)? {
            _ if len == 0 => {}
            PipeWrite::Done => return Ok(true),
            PipeWrite::Pending
                if source
                    .watch
                    .set(&self.epoll, &source.fd, EventFlags::empty())
                    .is_ok() =>
            {
                return Ok(false);
            }
            // Closing this end tells the application that nobody reads any more.
            PipeWrite::Pending | PipeWrite::Broken => {}
        }
        self.sources.remove(&id);
        Ok(false)
    }
}
