//! One context's thread: rutabaga lives here, and here it may wait.
//!
//! Rutabaga is given rings of its own, in memory of the host. It never holds an address of guest
//! memory, what it wrote can be read back without the guest having changed it, and it does not
//! matter that it uses only the first piece of a ring.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rutabaga_gfx::{
    RUTABAGA_BLOB_FLAG_USE_MAPPABLE, RUTABAGA_BLOB_FLAG_USE_SHAREABLE, RUTABAGA_BLOB_MEM_GUEST,
    RUTABAGA_BLOB_MEM_HOST3D, RUTABAGA_CAPSET_CROSS_DOMAIN, RUTABAGA_FLAG_FENCE,
    RUTABAGA_FLAG_INFO_RING_IDX, RUTABAGA_PATH_TYPE_WAYLAND, ResourceCreateBlob, Rutabaga,
    RutabagaBuilder, RutabagaError, RutabagaFence, RutabagaHandle, RutabagaHandler, RutabagaIovec,
    RutabagaMagmaHandle, RutabagaPath,
};
use vmm_sys_util::eventfd::EventFd;

use super::super::cross_domain::command::{self, Identifier};
use super::super::protocol::{u32_at, u64_at};
use super::super::resources::HostMemory;
use super::Failure;

/// Jobs that may wait for a thread.
const MAX_JOBS: usize = 1024;
/// Bytes that may wait for it.
const MAX_WAITING_BYTES: usize = 4 << 20;
/// The one context of each instance.
const CONTEXT: u32 = 1;
/// Resources of an instance; what is sent gets the numbers after them for as long as that takes.
const QUERY_RING: u32 = 1;
const CHANNEL_RING: u32 = 2;
const FIRST_SENT: u32 = 3;
const QUERY_BYTES: usize = 4096;
/// `MAGMA_GPU_HANDLE_TYPE_MEM_SHM`, which rutabaga does not export.
const HANDLE_SHARED_MEMORY: u32 = 4;
/// The timeline of polls.
const RING_CHANNEL: u8 = 1;

/// A descriptor that goes to the compositor.
#[derive(Debug)]
pub enum Sent {
    /// Memory of a blob.
    Memory(Arc<HostMemory>),
    /// The pipe that rutabaga is about to make, and the number that it will give it.
    Pipe(u32),
}

/// Work for the thread.
#[derive(Debug)]
pub enum Job {
    /// SEND.
    Send(Vec<Sent>, Vec<u8>),
    /// WRITE to the pipe with rutabaga's number.
    Write(u32, bool, Vec<u8>),
    /// Let go of memory that the compositor sent: we have a descriptor of our own.
    Release(u32),
    /// Wait for one message.
    Poll,
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Self::Send(_, data) | Self::Write(_, _, data) => data.len(),
            Self::Release(_) | Self::Poll => 0,
        }
    }
}

/// How many threads there may be, those included that do not end.
#[derive(Clone, Debug)]
pub struct Threads {
    running: Arc<AtomicU32>,
    limit: u32,
}

impl Threads {
    /// At most `limit`.
    pub fn new(limit: u32) -> Self {
        Self {
            running: Arc::default(),
            limit,
        }
    }

    fn start(&self) -> Result<Place, Failure> {
        if self.running.fetch_add(1, Ordering::SeqCst) >= self.limit {
            self.running.fetch_sub(1, Ordering::SeqCst);
            return Err(Failure::TooManyThreads(self.limit));
        }
        Ok(Place(Arc::clone(&self.running)))
    }
}

struct Place(Arc<AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Shared {
    done: AtomicU64,
    waiting_bytes: AtomicUsize,
    message: Mutex<Option<Vec<u8>>>,
    ended: AtomicBool,
    reason: Mutex<Option<String>>,
    notify: EventFd,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The device's side of a thread. Dropping it lets the thread end, and waits for nothing.
#[derive(Debug)]
pub struct ContextThread {
    jobs: SyncSender<Job>,
    shared: Arc<Shared>,
    given: u64,
}

impl ContextThread {
    /// Starts rutabaga, which connects to the socket at `path`. `notify` is written when there is
    /// a message, and when the thread ends.
    pub fn start(
        path: PathBuf,
        ring_bytes: usize,
        notify: EventFd,
        threads: &Threads,
    ) -> Result<Self, Failure> {
        let place = threads.start()?;
        let (jobs, queue) = sync_channel(MAX_JOBS);
        let shared = Arc::new(Shared {
            done: AtomicU64::new(0),
            waiting_bytes: AtomicUsize::new(0),
            message: Mutex::new(None),
            ended: AtomicBool::new(false),
            reason: Mutex::new(None),
            notify,
        });
        let ending = Ending(Arc::clone(&shared), place);
        std::thread::Builder::new()
            .name("gpu-rutabaga".into())
            .spawn(move || {
                crate::emulated::run_anywhere();
                let ending = ending;
                if let Err(error) = serve(&path, ring_bytes, &queue, &ending.0) {
                    *lock(&ending.0.reason) = Some(error.to_string());
                }
            })
            .map_err(Failure::Thread)?;
        Ok(Self {
            jobs,
            shared,
            given: 0,
        })
    }

    /// Gives the thread something to do.
    pub fn give(&mut self, job: Job) -> Result<(), Failure> {
        let bytes = job.bytes();
        let before = self
            .shared
            .waiting_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > MAX_WAITING_BYTES {
            return Err(Failure::Backlog);
        }
        self.given += 1;
        match self.jobs.try_send(job) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(Failure::Backlog),
            Err(TrySendError::Disconnected(_)) => Err(self.end_reason()),
        }
    }

    /// The message that rutabaga wrote into its ring since the last poll.
    pub fn take_message(&self) -> Option<Vec<u8>> {
        lock(&self.shared.message).take()
    }

    /// How many jobs are done, and whether that is all.
    pub fn progress(&self) -> (u64, bool) {
        let done = self.shared.done.load(Ordering::SeqCst);
        (done, done == self.given)
    }

    /// After a notification: whether the thread goes on.
    pub fn check(&self) -> Result<(), Failure> {
        let _ = self.shared.notify.read();
        match self.shared.ended.load(Ordering::SeqCst) {
            true => Err(self.end_reason()),
            false => Ok(()),
        }
    }

    fn end_reason(&self) -> Failure {
        let reason = lock(&self.shared.reason).clone();
        Failure::Ended(reason.unwrap_or_else(|| "its thread panicked".into()))
    }
}

/// Says that the thread ended, however it did.
struct Ending(Arc<Shared>, #[allow(dead_code)] Place);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::SeqCst);
        let _ = self.0.notify.write(1);
    }
}

/// Memory that rutabaga writes to by address. Freed when the last thread that may do so has ended.
struct Ring {
    base: *mut u8,
    length: usize,
}

// SAFETY: memory of our own without an owning thread. Who accesses it when is said at each access.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    fn new(length: usize) -> Arc<Self> {
        let base = Box::into_raw(vec![0u8; length].into_boxed_slice()).cast();
        Arc::new(Self { base, length })
    }

    fn iovec(&self) -> RutabagaIovec {
        RutabagaIovec {
            base: self.base.cast(),
            len: self.length,
        }
    }

    /// # Safety
    /// Rutabaga must not be writing into this ring.
    unsafe fn read(&self, length: usize) -> Vec<u8> {
        // SAFETY: the memory is ours and at least so long; the caller says that it rests.
        unsafe { std::slice::from_raw_parts(self.base, length.min(self.length)) }.to_vec()
    }

    /// The message at the start of the ring.
    ///
    /// # Safety
    /// As for [`Ring::read`].
    unsafe fn message(&self) -> Vec<u8> {
        // SAFETY: passed on.
        let header = unsafe { self.read(command::SEND_BYTES) };
        let (fixed, length_at) = match header.first() {
            Some(&command::READ) => (command::WRITE_BYTES, 16),
            _ => (command::SEND_BYTES, 12),
        };
        let data = u32_at(&header, length_at).unwrap_or(0) as usize;
        // SAFETY: passed on.
        unsafe { self.read(fixed.saturating_add(data)) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let slice = std::ptr::slice_from_raw_parts_mut(self.base, self.length);
        // SAFETY: made by `Box::into_raw` from a slice of this length, and nobody has it now.
        drop(unsafe { Box::from_raw(slice) });
    }
}

fn serve(
    path: &std::path::Path,
    ring_bytes: usize,
    queue: &Receiver<Job>,
    shared: &Arc<Shared>,
) -> Result<(), RutabagaError> {
    // Both rings outlive the instance: it is dropped first, and waits for its own thread.
    let query = Ring::new(QUERY_BYTES);
    let channel = Ring::new(ring_bytes);
    let fences = {
        let (shared, channel) = (Arc::clone(shared), Arc::clone(&channel));
        RutabagaHandler::new(move |fence: RutabagaFence| {
            if fence.ring_idx == RING_CHANNEL {
                // SAFETY: only rutabaga's worker writes to this ring, and it is that which calls
                // here, after having written.
                let message = unsafe { channel.message() };
                *lock(&shared.message) = Some(message);
                let _ = shared.notify.write(1);
            }
        })
    };
    let paths = vec![RutabagaPath {
        path: path.to_path_buf(),
        path_type: RUTABAGA_PATH_TYPE_WAYLAND,
    }];
    let rutabaga = RutabagaBuilder::new(1 << RUTABAGA_CAPSET_CROSS_DOMAIN, fences)
        .set_rutabaga_paths(Some(paths))
        .build()?;
    let mut instance = Instance {
        rutabaga,
        page_object: 0,
        polls: 0,
    };
    instance.start(&query, &channel)?;
    for job in queue {
        let bytes = job.bytes();
        instance.run(job)?;
        shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        shared.done.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

struct Instance {
    rutabaga: Rutabaga,
    /// Rutabaga's number for an image of one page, under which any memory of ours is imported.
    page_object: u32,
    polls: u64,
}

impl Instance {
    fn start(&mut self, query: &Ring, channel: &Ring) -> Result<(), RutabagaError> {
        self.rutabaga
            .create_context(CONTEXT, RUTABAGA_CAPSET_CROSS_DOMAIN, None)?;
        for (number, ring) in [(QUERY_RING, query), (CHANNEL_RING, channel)] {
            let blob = ResourceCreateBlob {
                blob_mem: RUTABAGA_BLOB_MEM_GUEST,
                blob_flags: RUTABAGA_BLOB_FLAG_USE_MAPPABLE,
                blob_id: 0,
                size: ring.length as u64,
            };
            self.rutabaga
                .resource_create_blob(0, number, blob, Some(vec![ring.iovec()]), None)?;
            self.rutabaga.context_attach_resource(CONTEXT, number)?;
        }
        self.submit(command::init(QUERY_RING, CHANNEL_RING))?;
        // Asked once: rutabaga remembers each question for ever.
        self.submit(command::image_requirements(4096, 1, *b"R8  "))?;
        // SAFETY: rutabaga writes to this ring in `submit_command` only, which has returned.
        let answer = unsafe { query.read(64) };
        match (u64_at(&answer, 40), u32_at(&answer, 48)) {
            (Some(4096), Some(number)) if number != 0 => self.page_object = number,
            _ => return Err(RutabagaError::InvalidCrossDomainState),
        }
        Ok(())
    }

    fn submit(&mut self, mut commands: Vec<u8>) -> Result<(), RutabagaError> {
        self.rutabaga.submit_command(CONTEXT, &mut commands, &[])
    }

    fn run(&mut self, job: Job) -> Result<(), RutabagaError> {
        match job {
            Job::Send(sent, data) => self.send(&sent, &data),
            Job::Write(pipe, hang_up, data) => {
                // It fails when nobody reads the pipe any more, and then rutabaga has closed it.
                if let Err(error) = self.submit(command::write(pipe, hang_up, &data)) {
                    tracing::trace!(%error, "a pipe's reader is gone");
                }
                Ok(())
            }
            Job::Release(object) => {
                self.create_blob(FIRST_SENT, object, None)?;
                self.rutabaga.unref_resource(FIRST_SENT)
            }
            Job::Poll => {
                self.polls += 1;
                self.rutabaga.create_fence(RutabagaFence {
                    flags: RUTABAGA_FLAG_FENCE | RUTABAGA_FLAG_INFO_RING_IDX,
                    fence_id: self.polls,
                    ctx_id: CONTEXT,
                    ring_idx: RING_CHANNEL,
                })
            }
        }
    }

    fn send(&mut self, sent: &[Sent], data: &[u8]) -> Result<(), RutabagaError> {
        #[cfg(test)]
        if data == super::tests::STALL {
            std::thread::sleep(std::time::Duration::from_secs(3));
        }
        let mut identifiers = Vec::with_capacity(sent.len());
        for (item, number) in sent.iter().zip(FIRST_SENT..) {
            identifiers.push(match item {
                Sent::Pipe(pipe) => Identifier::ReadPipe(*pipe),
                Sent::Memory(memory) => {
                    let copy = memory.fd.try_clone();
                    let copy = copy.map_err(|_| RutabagaError::InvalidResourceId)?;
                    self.create_blob(number, self.page_object, Some(copy))?;
                    self.rutabaga.context_attach_resource(CONTEXT, number)?;
                    Identifier::Blob(number)
                }
            });
        }
        self.submit(command::send(&identifiers, data))?;
        for identifier in identifiers {
            if let Identifier::Blob(number) = identifier {
                self.rutabaga.context_detach_resource(CONTEXT, number)?;
                self.rutabaga.unref_resource(number)?;
            }
        }
        Ok(())
    }

    fn create_blob(
        &mut self,
        number: u32,
        object: u32,
        memory: Option<OwnedFd>,
    ) -> Result<(), RutabagaError> {
        let blob = ResourceCreateBlob {
            blob_mem: RUTABAGA_BLOB_MEM_HOST3D,
            blob_flags: RUTABAGA_BLOB_FLAG_USE_MAPPABLE | RUTABAGA_BLOB_FLAG_USE_SHAREABLE,
            blob_id: u64::from(object),
            size: 4096,
        };
        let handle = memory.map(|fd| {
            RutabagaHandle::MagmaGpuHandle(RutabagaMagmaHandle {
                os_handle: fd.into(),
                handle_type: HANDLE_SHARED_MEMORY,
            })
        });
        self.rutabaga
            .resource_create_blob(CONTEXT, number, blob, None, handle)
    }
}
