//! The device's thread: takes requests from the queues, answers them, and moves messages between
//! contexts and the compositor. Nothing on it blocks but waiting for events.

mod requests;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::super::buffers::Buffers;
use super::super::device::{DeviceFault, Interrupt};
use super::super::poller::{Interest, Poller, Readiness};
use super::backend::BackendChoice;
use super::cross_domain::command::{self, MAX_BUFFER_BYTES};
use super::cross_domain::ring::write_end;
use super::cross_domain::{ContextError, CrossDomainBackend, Host, PipeMark};
use super::protocol::{self, HEADER_BYTES, Header, Request, Status};
use super::resources::{Quotas, Resources};
use super::stats::Stats;
use crate::memory::GuestMemory;

/// Tokens of the device's own descriptors. Those of contexts are larger: a context's number, which
/// is never 0, is in their upper half.
const TOKEN_STOP: u64 = 0;
const TOKEN_CONTROL: u64 = 1;
const TOKEN_CURSOR: u64 = 2;
/// One message of the compositor, or one read of a pipe, is no longer than this.
const SCRATCH_BYTES: usize = 64 << 10;
/// Polls of one context that may wait: one, and one more that crossed with an answer.
const MAX_POLLS: usize = 2;
/// After so many contexts closed for a mistake the log says no more: a guest must not fill it.
const MAX_LOGGED_MISTAKES: u64 = 100;
/// Timelines of a context: that of polls, and the first of those for writes to pipes.
const RING_CHANNEL: u8 = 1;

/// One queue of the device.
pub struct QueueIo {
    /// The queue.
    pub queue: Queue,
    /// Readable after the guest added something.
    pub kick: EventFd,
    /// Tells the guest that something was used.
    pub interrupt: Interrupt,
}

/// A request that is not answered yet.
struct Pending {
    buffers: Buffers,
    header: Header,
}

struct Context {
    backend: Box<dyn CrossDomainBackend>,
    dead: bool,
    attached: HashSet<u32>,
    polls: VecDeque<Pending>,
    /// Per timeline, in order: requests that wait until pipes are drained.
    writes: BTreeMap<u8, VecDeque<(Pending, Vec<PipeMark>)>>,
}

/// The queues of the guest are not queues any more.
#[derive(Debug, thiserror::Error)]
#[error("virtio-gpu: the guest broke its {0} queue")]
struct BrokenQueue(&'static str);

/// Everything that the thread works on.
pub struct Worker {
    memory: GuestMemory,
    control: QueueIo,
    cursor: QueueIo,
    stop: EventFd,
    fault: DeviceFault,
    poller: Poller,
    stats: Arc<Stats>,
    backend: BackendChoice,
    quotas: Quotas,
    resources: Resources,
    contexts: HashMap<u32, Context>,
    scratch: Vec<u8>,
    commands: Vec<u8>,
    /// Answers were put into the control queue and the guest does not know yet.
    answered: bool,
    /// The log says that the guest has used up its contexts.
    told_of_quota: bool,
}

/// What [`Worker::new`] needs.
pub struct WorkerParts {
    /// Guest RAM.
    pub memory: GuestMemory,
    /// Requests.
    pub control: QueueIo,
    /// Requests about the cursor, all of which are ignored.
    pub cursor: QueueIo,
    /// Ends the thread when written.
    pub stop: EventFd,
    /// Ends the VM.
    pub fault: DeviceFault,
    /// Counters.
    pub stats: Arc<Stats>,
    /// What contexts are made of.
    pub backend: BackendChoice,
    /// Quotas.
    pub quotas: Quotas,
    /// Resources of the guest, none yet.
    pub resources: Resources,
}

impl Worker {
    /// Sets up the thread's state.
    pub fn new(parts: WorkerParts) -> Result<Self, rustix::io::Errno> {
        let poller = Poller::new()?;
        let borrow = borrow_eventfd;
        poller.add(borrow(&parts.stop), TOKEN_STOP, Interest::Readable)?;
        poller.add(
            borrow(&parts.control.kick),
            TOKEN_CONTROL,
            Interest::Readable,
        )?;
        poller.add(borrow(&parts.cursor.kick), TOKEN_CURSOR, Interest::Readable)?;
        Ok(Self {
            memory: parts.memory,
            control: parts.control,
            cursor: parts.cursor,
            stop: parts.stop,
            fault: parts.fault,
            poller,
            stats: parts.stats,
            backend: parts.backend,
            quotas: parts.quotas,
            resources: parts.resources,
            contexts: HashMap::new(),
            scratch: vec![0; SCRATCH_BYTES],
            commands: Vec::new(),
            answered: false,
            told_of_quota: false,
        })
    }

    /// Works until told to stop.
    pub fn run(mut self) {
        let mut happened: Vec<Readiness> = Vec::new();
        loop {
            if let Err(error) = self.poller.wait(&mut happened) {
                tracing::error!(%error, "virtio-gpu cannot wait for events");
                break;
            }
            if happened.iter().any(|event| event.token == TOKEN_STOP) {
                let _ = self.stop.read();
                break;
            }
            if let Err(error) = self.handle(&happened) {
                self.fault.report(error.to_string());
                break;
            }
        }
        for context in self.contexts.values_mut() {
            context.backend.close(&self.poller);
        }
        tracing::debug!(counters = ?self.stats.values(), "virtio-gpu stopped");
    }

    fn handle(&mut self, happened: &[Readiness]) -> Result<(), BrokenQueue> {
        for event in happened {
            match event.token {
                TOKEN_STOP => {}
                TOKEN_CONTROL => self.control_kicked()?,
                TOKEN_CURSOR => self.cursor_kicked()?,
                token => self.context_event(token, event)?,
            }
        }
        self.signal()
    }

    fn signal(&mut self) -> Result<(), BrokenQueue> {
        if std::mem::take(&mut self.answered) {
            let needed = self.control.queue.needs_notification(&self.memory);
            if needed.map_err(|_| BrokenQueue("control"))? {
                self.stats.interrupts.add(1);
                self.control.interrupt.signal();
            }
        }
        Ok(())
    }

    fn control_kicked(&mut self) -> Result<(), BrokenQueue> {
        let broken = |_| BrokenQueue("control");
        let _ = self.control.kick.read();
        let memory = self.memory.clone();
        let queue = &mut self.control.queue;
        queue.disable_notification(&memory).map_err(broken)?;
        loop {
            let mut served = 0;
            // One chain at a time: answering needs the queue.
            while let Some(chain) = self.control.queue.iter(&memory).map_err(broken)?.next() {
                self.request(Buffers::collect(chain))?;
                served += 1;
                if served >= self.control.queue.size() {
                    // Other things want a turn; come back at once.
                    let _ = self.control.kick.write(1);
                    return Ok(());
                }
            }
            // The guest waits for answers before it asks more: tell it before looking again.
            self.signal()?;
            let queue = &mut self.control.queue;
            if !queue.enable_notification(&memory).map_err(broken)? {
                return Ok(());
            }
        }
    }

    /// There is no cursor: its requests are returned unread.
    fn cursor_kicked(&mut self) -> Result<(), BrokenQueue> {
        let broken = |_| BrokenQueue("cursor");
        let _ = self.cursor.kick.read();
        let queue = &mut self.cursor.queue;
        let mut used = false;
        for _ in 0..queue.size() {
            let chain = queue.iter(&self.memory).map_err(broken)?.next();
            let Some(head) = chain.map(|chain| chain.head_index()) else {
                break;
            };
            queue.add_used(&self.memory, head, 0).map_err(broken)?;
            used = true;
        }
        if used && queue.needs_notification(&self.memory).map_err(broken)? {
            self.cursor.interrupt.signal();
        }
        Ok(())
    }

    fn context_event(&mut self, token: u64, event: &Readiness) -> Result<(), BrokenQueue> {
        // Both halves of a token fit into 32 bits.
        let (id, item) = ((token >> 32) as u32, token as u32);
        self.with_backend(id, |backend, host| {
            backend.event(item, event.readable, event.writable, host)
        })?;
        self.progress(id)
    }

    /// Lets a living context's backend do something; a mistake closes the context.
    fn with_backend<T>(
        &mut self,
        id: u32,
        work: impl FnOnce(&mut dyn CrossDomainBackend, &mut Host<'_>) -> Result<T, ContextError>,
    ) -> Result<Option<T>, BrokenQueue> {
        let Some(context) = self.contexts.get_mut(&id).filter(|context| !context.dead) else {
            return Ok(None);
        };
        let mut host = Host {
            context: id,
            memory: &self.memory,
            resources: &self.resources,
            attached: &context.attached,
            poller: &self.poller,
            stats: &self.stats,
            scratch: &mut self.scratch,
        };
        match work(context.backend.as_mut(), &mut host) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                self.kill(id, &error)?;
                Ok(None)
            }
        }
    }

    /// Closes a context that made a mistake. Whatever waits for it is answered, and the guest finds
    /// an end of messages in its ring.
    fn kill(&mut self, id: u32, error: &ContextError) -> Result<(), BrokenQueue> {
        let Some(context) = self.contexts.get_mut(&id) else {
            return Ok(());
        };
        self.stats.contexts_killed.add(1);
        if self.stats.contexts_killed.get() <= MAX_LOGGED_MISTAKES {
            tracing::warn!(context = id, %error, "closing a Wayland connection of the guest");
        }
        context.dead = true;
        context.backend.close(&self.poller);
        let mut waiting: Vec<Pending> = context.polls.drain(..).collect();
        for queue in std::mem::take(&mut context.writes).into_values() {
            waiting.extend(queue.into_iter().map(|(pending, _)| pending));
        }
        self.write_end(id);
        for pending in waiting {
            self.answer(&pending, Status::ErrUnspecified, &[])?;
        }
        Ok(())
    }

    fn write_end(&mut self, id: u32) {
        let Some(context) = self.contexts.get(&id) else {
            return;
        };
        if let Some(ring) = context.backend.channel_ring() {
            let host = Host {
                context: id,
                memory: &self.memory,
                resources: &self.resources,
                attached: &context.attached,
                poller: &self.poller,
                stats: &self.stats,
                scratch: &mut [],
            };
            // A ring that is gone takes no message; the guest chose so.
            let _ = write_end(ring, &host);
        }
    }

    /// Answers what can be answered now: polls for which there is a message, writes that are done.
    fn progress(&mut self, id: u32) -> Result<(), BrokenQueue> {
        while self.contexts.get(&id).is_some_and(|c| !c.polls.is_empty()) {
            let delivered = self.with_backend(id, |backend, host| backend.deliver(host))?;
            if delivered != Some(true) {
                break;
            }
            let poll = self
                .contexts
                .get_mut(&id)
                .and_then(|context| context.polls.pop_front());
            if let Some(poll) = poll {
                self.answer(&poll, Status::OkNoData, &[])?;
            }
        }
        let Some(context) = self.contexts.get_mut(&id) else {
            return Ok(());
        };
        let mut done = Vec::new();
        for queue in context.writes.values_mut() {
            while let Some((pending, marks)) = queue.pop_front() {
                if !context.backend.drained(&marks) {
                    queue.push_front((pending, marks));
                    break;
                }
                done.push(pending);
            }
        }
        context.writes.retain(|_, queue| !queue.is_empty());
        for pending in done {
            self.answer(&pending, Status::OkNoData, &[])?;
        }
        Ok(())
    }

    /// Puts an answer into the queue.
    fn answer(
        &mut self,
        pending: &Pending,
        status: Status,
        body: &[u8],
    ) -> Result<(), BrokenQueue> {
        let header = pending.header.response(status);
        let buffers = &pending.buffers;
        // A guest that left no room for an answer gets none.
        let written = buffers.write(&self.memory, 0, &header).and_then(|()| {
            buffers.write(&self.memory, HEADER_BYTES as u64, body)?;
            Ok(HEADER_BYTES + body.len())
        });
        let length = u32::try_from(written.unwrap_or(0)).unwrap_or(0);
        self.answered = true;
        self.control
            .queue
            .add_used(&self.memory, buffers.head, length)
            .map_err(|_| BrokenQueue("control"))
    }

    fn request(&mut self, buffers: Buffers) -> Result<(), BrokenQueue> {
        self.stats.requests.add(1);
        let length = buffers.readable_len().min(protocol::MAX_FIXED_BYTES as u64) as usize;
        let mut fixed = [0; protocol::MAX_FIXED_BYTES];
        let parsed = fixed.get_mut(..length).and_then(|part| {
            buffers.read(&self.memory, 0, part).ok()?;
            protocol::parse(part)
        });
        let Some((header, request)) = parsed else {
            let pending = Pending {
                buffers,
                header: Header::default(),
            };
            return self.answer(&pending, Status::ErrInvalidParameter, &[]);
        };
        let pending = Pending { buffers, header };
        if let Request::Submit { bytes } = request {
            return self.submit(pending, &request, bytes);
        }
        let (status, body) = match self.simple(&pending, &request)? {
            Ok((status, body)) => (status, body),
            Err(status) => (status, Vec::new()),
        };
        self.answer(&pending, status, &body)
    }

    fn submit(
        &mut self,
        pending: Pending,
        request: &Request,
        untrusted_bytes: u32,
    ) -> Result<(), BrokenQueue> {
        self.stats.execbuffers.add(1);
        let id = pending.header.context;
        let ring = pending.header.fence_ring();
        match self.contexts.get(&id) {
            None => return self.answer(&pending, Status::ErrInvalidContext, &[]),
            Some(context) if context.dead => {
                self.write_end(id);
                return self.answer(&pending, Status::ErrUnspecified, &[]);
            }
            Some(_) => {}
        }
        let mut commands = std::mem::take(&mut self.commands);
        commands.clear();
        let length = untrusted_bytes as usize;
        let result = if length > MAX_BUFFER_BYTES {
            Err(ContextError::Command(command::CommandError::Buffer(length)))
        } else {
            commands.resize(length, 0);
            pending
                .buffers
                .read(&self.memory, request.payload_offset(), &mut commands)
                .map_err(|_| ContextError::Command(command::CommandError::Buffer(length)))
        };
        let marks = self.with_backend(id, |backend, host| {
            result?;
            backend.submit(&commands, host)
        })?;
        self.commands = commands;
        let Some(marks) = marks else {
            return self.answer(&pending, Status::ErrUnspecified, &[]);
        };
        let Some(context) = self.contexts.get_mut(&id) else {
            return self.answer(&pending, Status::ErrInvalidContext, &[]);
        };
        match ring {
            Some(RING_CHANNEL) => {
                context.polls.push_back(pending);
                if context.polls.len() > MAX_POLLS {
                    return self.kill(id, &ContextError::TooManyPolls);
                }
            }
            Some(ring) if ring > RING_CHANNEL => {
                let queue = context.writes.entry(ring).or_default();
                queue.push_back((pending, marks));
            }
            _ => self.answer(&pending, Status::OkNoData, &[])?,
        }
        self.progress(id)
    }
}

/// An eventfd as something that can be waited for.
pub fn borrow_eventfd(eventfd: &EventFd) -> std::os::fd::BorrowedFd<'_> {
    use std::os::fd::{AsRawFd, BorrowedFd};
    // SAFETY: the descriptor is open for as long as `eventfd`, whose lifetime the result has.
    unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }
}
