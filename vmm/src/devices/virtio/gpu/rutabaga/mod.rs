//! The other backend: rutabaga_gfx, one instance per context, each on a thread of its own.
//!
//! Rutabaga does what the protocol asks for (SEND, RECEIVE, pipes); what a guest may ask for is
//! decided before it sees anything, by the code that serves the native backend too. Around it:
//!
//! * [`thread`]: the instance, its bounded queue of jobs, and rings in memory of the host. Rutabaga
//!   uses only the first piece of a ring and trusts that it stays; so it gets whole ones of ours,
//!   and messages are copied from there to the guest's pages. It gives numbers to descriptors in
//!   the messages themselves; read back from our memory they cannot have been forged.
//! * [`relay`]: rutabaga connects to a private [`socket`] of ours and not to the compositor. A
//!   descriptor at which its worker would end without completing fences never reaches it, what it
//!   sends is always taken, and how much it has not read is known. Only a relay gives all three: a
//!   watchdog on the POLL alone cannot tell a dead worker from a compositor that is silent.
//! * [`pump`]: a pipe between rutabaga and each pipe that the guest writes to, so that its WRITE
//!   does not wait.
//! * [`watchdog`]: if it waits all the same, or its worker dies, the context is closed after
//!   `watchdog_ms`, and its fences complete. A thread that does not come back is left behind with
//!   memory of its own only, and counts against the number of threads.
//!
//! Rutabaga looks at `/proc/self/fd` to tell descriptors apart: a VMM that uses it needs `/proc`,
//! and may create a socket beside the compositor's.

pub mod pump;
pub mod relay;
pub mod socket;
pub mod thread;
pub mod watchdog;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::super::poller::{Interest, Poller};
use super::cross_domain::command::{
    self, CHANNEL_WAYLAND, ID_BLOB, ID_WRITE_PIPE, Identifier, READ, SEND_BYTES, WRITE_BYTES,
};
use super::cross_domain::connection::Connection;
use super::cross_domain::image::Image;
use super::cross_domain::objects::{MAX_PIPES, Objects, READ_PIPE_START, Received};
use super::cross_domain::pipe::PipeState;
use super::cross_domain::ring::{check_rings, ring_bytes, write_ring};
use super::cross_domain::{BlobError, ContextError, CrossDomainBackend, Host, PipeMark};
use super::protocol::u32_at;
use super::resources::HostMemory;
use super::worker::borrow_eventfd;
use pump::Pump;
use relay::Relay;
use socket::PrivateSocket;
pub use thread::Threads;
use thread::{ContextThread, Job, Sent};
use watchdog::{Progress, Watchdog};

/// Tokens of a context's descriptors. Numbers of pipes start at 2 and end before [`ITEM_PUMP`].
const ITEM_OUTER: u32 = 0;
const ITEM_NOTIFY: u32 = 1;
/// With the number of a pipe: the end of the pump's pipe from which we read.
const ITEM_PUMP: u32 = 0x8000_0000;
const ITEM_INNER: u32 = 0x8000_0000;
const ITEM_WATCHDOG: u32 = 0x8000_0001;
/// No ring of rutabaga's is longer.
const MAX_RING_BYTES: usize = 64 << 10;

/// What can go wrong with rutabaga or its thread. The context is closed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Rutabaga returned an error, or panicked.
    #[error("rutabaga ended: {0}")]
    Ended(String),
    /// It does not come back from a call, or its worker has died.
    #[error("rutabaga made no progress for {0:?}")]
    Stalled(Duration),
    /// The guest asks faster than rutabaga works.
    #[error("too much waits for rutabaga")]
    Backlog,
    /// Threads of closed contexts have not ended.
    #[error("there are {0} threads of rutabaga already; some have not ended")]
    TooManyThreads(u32),
    /// The host has no more threads.
    #[error("starting a thread for rutabaga: {0}")]
    Thread(std::io::Error),
    /// What rutabaga said makes no sense.
    #[error("rutabaga wrote a message that does not fit what it was given")]
    Message,
    /// A pipe per message is more than rutabaga can do, and the data is too short to be divided.
    #[error("rutabaga cannot send so many pipes with so little data")]
    ManyPipes,
}

#[derive(Debug)]
enum Link {
    /// Before INIT.
    Idle,
    Open(Box<Open>),
    Closed,
}

#[derive(Debug)]
struct Open {
    thread: ContextThread,
    relay: Relay,
    notify: EventFd,
    watchdog: Watchdog,
    patience: Duration,
    /// Rutabaga waits for a message.
    polling: bool,
    /// Messages that came out of it, and their bytes as far as they came from the compositor.
    messages: u64,
    received: u64,
}

/// A context served by rutabaga.
#[derive(Debug)]
pub struct RutabagaBackend {
    path: Arc<PathBuf>,
    patience: Duration,
    threads: Threads,
    link: Link,
    query_ring: u32,
    channel_ring: u32,
    objects: Objects,
    last_read_pipe: u32,
    read_pipes: HashSet<u32>,
    pumps: BTreeMap<u32, Pump>,
}

impl Open {
    fn start(
        path: &std::path::Path,
        ring_bytes: usize,
        patience: Duration,
        threads: &Threads,
        host: &Host<'_>,
    ) -> Result<Self, ContextError> {
        let failed = |what| move |error| ContextError::Host(what, error);
        let errno = |error: std::io::Error| {
            rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO)
        };
        let outer = Connection::open(path).map_err(|source| ContextError::Connect {
            path: path.display().to_string(),
            source,
        })?;
        let socket = PrivateSocket::beside(path)
            .map_err(failed("making a socket beside the compositor's"))?;
        let notify = EventFd::new(EFD_NONBLOCK)
            .and_then(|notify| Ok((notify.try_clone()?, notify)))
            .map_err(|error| failed("making an eventfd")(errno(error)))?;
        let (notify, for_thread) = notify;
        let watchdog = Watchdog::new(patience).map_err(failed("making a timer"))?;
        let watching = failed("watching a context");
        let poller = host.poller;
        poller
            .add(
                borrow_eventfd(&notify),
                host.token(ITEM_NOTIFY),
                Interest::Readable,
            )
            .map_err(watching)?;
        poller
            .add(&watchdog, host.token(ITEM_WATCHDOG), Interest::Readable)
            .map_err(watching)?;
        let socket_path = socket.path().to_path_buf();
        let relay = Relay::new(outer, socket, host)?;
        let thread = ContextThread::start(socket_path, ring_bytes, for_thread, threads)?;
        Ok(Self {
            thread,
            relay,
            notify,
            watchdog,
            patience,
            polling: false,
            messages: 0,
            received: 0,
        })
    }

    fn give(&mut self, job: Job) -> Result<(), ContextError> {
        self.thread.give(job)?;
        self.expect_progress()
    }

    fn progress(&self) -> Progress {
        Progress {
            jobs: self.thread.progress().0,
            messages: self.messages,
        }
    }

    fn expect_progress(&mut self) -> Result<(), ContextError> {
        let now = self.progress();
        self.watchdog
            .expect(now)
            .map_err(|error| ContextError::Host("setting a timer", error))
    }

    /// Time has passed.
    fn tick(&mut self) -> Result<(), ContextError> {
        let (_, all_done) = self.thread.progress();
        // It was asked for a message, and one is there for it to read.
        let message_due = self.polling && self.relay.forwarded > self.received;
        let now = self.progress();
        match self.watchdog.tick(now, !all_done || message_due) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::Stalled(self.patience).into()),
            Err(error) => Err(ContextError::Host("setting a timer", error)),
        }
    }
}

impl RutabagaBackend {
    /// A context that will connect to the socket at `path`.
    pub fn new(path: Arc<PathBuf>, patience: Duration, threads: Threads) -> Self {
        Self {
            path,
            patience,
            threads,
            link: Link::Idle,
            query_ring: 0,
            channel_ring: 0,
            objects: Objects::default(),
            last_read_pipe: READ_PIPE_START,
            read_pipes: HashSet::new(),
            pumps: BTreeMap::new(),
        }
    }

    fn open(&mut self) -> Result<&mut Open, ContextError> {
        match &mut self.link {
            Link::Open(open) => Ok(open),
            Link::Idle | Link::Closed => Err(ContextError::NotInitialized),
        }
    }

    /// Rutabaga counts in the same way, and would leak the pipe's descriptor if the guest did not.
    fn expect_read_pipe(&mut self, given: u32) -> Result<u32, ContextError> {
        let expected = self.last_read_pipe.wrapping_add(1).max(READ_PIPE_START);
        if given != expected {
            return Err(ContextError::PipeNumber { given, expected });
        }
        if self.read_pipes.len() >= MAX_PIPES {
            return Err(ContextError::TooManyPipes);
        }
        self.last_read_pipe = expected;
        self.read_pipes.insert(expected);
        Ok(expected)
    }

    /// Moves on what is in a pump, and gives rutabaga its next WRITE.
    fn advance(&mut self, number: u32, host: &mut Host<'_>) -> Result<(), ContextError> {
        let Link::Open(open) = &mut self.link else {
            return Ok(());
        };
        while let Some(pump) = self.pumps.get_mut(&number) {
            let (state, job) = pump.advance(host.scratch);
            let more = job.is_some();
            if state == PipeState::Finished {
                host.poller.remove(pump.from());
                host.poller.remove(pump.to());
                self.pumps.remove(&number);
            }
            if let Some(job) = job {
                open.give(job)?;
            }
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// A message of rutabaga's, with our numbers in the place of its own, into the guest's ring.
    fn translate(&mut self, message: &[u8], host: &mut Host<'_>) -> Result<(), ContextError> {
        let word = |at: usize| u32_at(message, at).ok_or(Failure::Message);
        let bytes = |at: usize, length: u32| {
            let end = at.saturating_add(length as usize);
            message.get(at..end).ok_or(Failure::Message)
        };
        let ring = self.channel_ring;
        if message.first() == Some(&READ) {
            let (pipe, ends, data) = (word(8)?, word(12)? != 0, bytes(WRITE_BYTES, word(16)?)?);
            if ends && data.is_empty() {
                self.read_pipes.remove(&pipe);
            }
            host.stats.pipe_bytes.add(data.len() as u64);
            let header = command::read_header(pipe, data.is_empty(), data.len() as u32);
            return write_ring(ring, &[&header, data], host);
        }
        let (count, data) = (word(8)? as usize, bytes(SEND_BYTES, word(12)?)?);
        let mut identifiers = Vec::new();
        let mut pipes = Vec::new();
        let open = self.open()?;
        for index in 0..count.min(command::MAX_IDENTIFIERS) {
            let rutabagas = word(16 + index * 4)?;
            let expected = open.relay.expected.pop_front().ok_or(Failure::Message)?;
            identifiers.push(match expected.kind {
                Received::Memory(size) => {
                    open.give(Job::Release(rutabagas))?;
                    (expected.number, ID_BLOB, size)
                }
                Received::WritePipe => {
                    pipes.push((expected.number, rutabagas));
                    (expected.number, ID_WRITE_PIPE, 0)
                }
            });
        }
        open.received += data.len() as u64;
        for (number, rutabagas) in pipes {
            match self.pumps.get_mut(&number) {
                Some(pump) => {
                    pump.number = Some(rutabagas);
                    self.advance(number, host)?;
                }
                // Closed before the guest knew of it; rutabaga shall forget it.
                None => self.open()?.give(Job::Write(rutabagas, true, Vec::new()))?,
            }
        }
        host.stats.bytes_received.add(data.len() as u64);
        let header = command::receive_header(&identifiers, data.len() as u32);
        write_ring(ring, &[&header, data], host)
    }

    fn forward(&mut self, host: &mut Host<'_>) -> Result<(), ContextError> {
        if let Link::Open(open) = &mut self.link {
            let before = open.relay.forwarded;
            open.relay
                .give_to_rutabaga(&mut self.objects, &mut self.pumps, host)?;
            if open.relay.forwarded > before {
                open.expect_progress()?;
            }
        }
        Ok(())
    }
}

impl CrossDomainBackend for RutabagaBackend {
    fn init(
        &mut self,
        query_ring: u32,
        channel_ring: u32,
        channel_type: u32,
        host: &mut Host<'_>,
    ) -> Result<(), ContextError> {
        if !matches!(self.link, Link::Idle) {
            return Err(ContextError::InitializedTwice);
        }
        if channel_type != CHANNEL_WAYLAND {
            return Err(ContextError::ChannelType(channel_type));
        }
        check_rings([query_ring, channel_ring], host.resources, host.attached)?;
        self.query_ring = query_ring;
        self.channel_ring = channel_ring;
        let bytes = ring_bytes(host.resources, channel_ring).unwrap_or(0);
        // No message may be longer than the guest's ring.
        let bytes =
            usize::try_from(bytes).map_or(MAX_RING_BYTES, |bytes| bytes.min(MAX_RING_BYTES));
        let open = Open::start(&self.path, bytes, self.patience, &self.threads, host)?;
        self.link = Link::Open(Box::new(open));
        Ok(())
    }

    fn image_requirements(
        &mut self,
        image: Image,
        host: &mut Host<'_>,
    ) -> Result<(), ContextError> {
        self.open()?;
        let pumps = &self.pumps;
        let answer = self
            .objects
            .requirements(image, |number| pumps.contains_key(&number))?;
        write_ring(self.query_ring, &[&answer], host)
    }

    /// Rutabaga makes at most one pipe per SEND: one with more is divided, so that each part has a
    /// pipe and at least one byte. For the compositor's stream that makes no difference.
    fn send(
        &mut self,
        identifiers: &[Identifier],
        data: &[u8],
        host: &mut Host<'_>,
    ) -> Result<(), ContextError> {
        self.open()?;
        let mut parts = vec![Vec::new()];
        let mut has_pipe = false;
        for identifier in identifiers {
            let item = match *identifier {
                Identifier::Blob(resource) => {
                    let own = host.attached.contains(&resource);
                    let memory = host.resources.host_memory(resource);
                    match memory {
                        Ok(memory) if own => Sent::Memory(memory),
                        _ => return Err(ContextError::Blob(resource)),
                    }
                }
                Identifier::ReadPipe(given) => {
                    if std::mem::replace(&mut has_pipe, true) {
                        parts.push(Vec::new());
                    }
                    Sent::Pipe(self.expect_read_pipe(given)?)
                }
            };
            if let Some(part) = parts.last_mut() {
                part.push(item);
            }
        }
        let mut rest = data;
        let mut left = parts.len();
        for part in parts {
            left -= 1;
            let length = if left == 0 { rest.len() } else { 1 };
            let (now, later) = rest
                .split_at_checked(length)
                .filter(|(now, _)| !now.is_empty())
                .ok_or(Failure::ManyPipes)?;
            rest = later;
            self.open()?.give(Job::Send(part, now.to_vec()))?;
        }
        Ok(())
    }

    fn write(
        &mut self,
        pipe: u32,
        data: &[u8],
        ends: bool,
        host: &mut Host<'_>,
    ) -> Result<Option<PipeMark>, ContextError> {
        self.open()?;
        let Some(pump) = self.pumps.get_mut(&pipe) else {
            // It may have closed itself because nobody reads it any more. What was never a pipe
            // is a mistake of the guest's, and rutabaga would drop an object for it.
            return match self.objects.may_have_been_pipe(pipe) {
                true => Ok(None),
                false => Err(ContextError::NoWritePipe(pipe)),
            };
        };
        pump.write(data, ends)?;
        host.stats.pipe_bytes.add(data.len() as u64);
        let mark = (pipe, pump.accepted());
        self.advance(pipe, host)?;
        Ok(Some(mark))
    }

    fn drained(&self, marks: &[PipeMark]) -> bool {
        marks.iter().all(|(pipe, position)| {
            let pump = self.pumps.get(pipe);
            pump.is_none_or(|pump| pump.delivered() >= *position)
        })
    }

    fn deliver(&mut self, host: &mut Host<'_>) -> Result<bool, ContextError> {
        let open = self.open()?;
        match open.thread.take_message() {
            Some(message) => {
                open.polling = false;
                open.messages += 1;
                self.translate(&message, host)?;
                host.stats.messages.add(1);
                // There may be room now for more descriptors.
                self.forward(host)?;
                Ok(true)
            }
            None => {
                if !std::mem::replace(&mut open.polling, true) {
                    open.give(Job::Poll)?;
                }
                Ok(false)
            }
        }
    }

    fn event(
        &mut self,
        item: u32,
        _readable: bool,
        writable: bool,
        host: &mut Host<'_>,
    ) -> Result<(), ContextError> {
        let Link::Open(open) = &mut self.link else {
            return Ok(());
        };
        match item {
            ITEM_OUTER => {
                open.relay.outer_event(writable)?;
                self.forward(host)
            }
            ITEM_INNER => {
                open.relay.inner_event(writable, host)?;
                self.forward(host)
            }
            ITEM_NOTIFY => Ok(open.thread.check()?),
            ITEM_WATCHDOG => open.tick(),
            item => {
                let number = item & !ITEM_PUMP;
                if let Some(pump) = self.pumps.get_mut(&number) {
                    pump.set_ready();
                }
                self.advance(number, host)
            }
        }
    }

    fn create_blob(&mut self, untrusted_id: u64, size: u64) -> Result<HostMemory, BlobError> {
        self.objects.create_blob(untrusted_id, size)
    }

    fn channel_ring(&self) -> Option<u32> {
        (self.channel_ring != 0).then_some(self.channel_ring)
    }

    fn close(&mut self, poller: &Poller) {
        if let Link::Open(open) = &self.link {
            open.relay.close(poller);
            poller.remove(borrow_eventfd(&open.notify));
            poller.remove(&open.watchdog);
        }
        // Our ends of everything that the thread may wait for close here, so that it ends.
        self.link = Link::Closed;
        for pump in self.pumps.values() {
            poller.remove(pump.from());
            poller.remove(pump.to());
        }
        self.pumps.clear();
        self.read_pipes.clear();
        self.objects.clear();
    }
}
