//! The device as the transport sees it: features, configuration, start and stop.

use std::sync::Arc;
use std::thread::JoinHandle;

use bulkhead_vmm_api::GpuConfig;
use virtio_queue::QueueT;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::super::device::{
    ActivateError, Activation, ActiveQueue, SharedMemoryRegion, VirtioDevice,
};
use super::backend::BackendChoice;
use super::resources::{Quotas, Resources};
use super::stats::Stats;
use super::worker::{QueueIo, Worker, WorkerParts};

const DEVICE_TYPE: u32 = 16;
/// Control and cursor. With indirect descriptors a request takes one entry, and each context
/// has one poll waiting.
const QUEUE_SIZES: [u16; 2] = [1024, 16];
/// `VIRTIO_GPU_F_VIRGL`, without which Linux offers no contexts.
const FEATURE_VIRGL: u64 = 1 << 0;
const FEATURE_RESOURCE_BLOB: u64 = 1 << 3;
const FEATURE_CONTEXT_INIT: u64 = 1 << 4;
const FEATURE_INDIRECT: u64 = 1 << 28;
const FEATURE_EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_GPU_SHM_ID_HOST_VISIBLE`.
const SHARED_MEMORY_ID: u8 = 1;
/// One scanout, never enabled: Linux 6.1 refuses a device with none.
const SCANOUTS: u32 = 1;
const CAPSETS: u32 = 1;

/// virtio-gpu.
pub struct Gpu {
    backend: BackendChoice,
    quotas: Quotas,
    window_bytes: u64,
    stats: Arc<Stats>,
    running: Option<Running>,
}

struct Running {
    stop: EventFd,
    thread: JoinHandle<()>,
}

impl Gpu {
    /// A device as configured.
    pub fn new(config: &GpuConfig) -> Self {
        allow_descriptors();
        let count = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
        Self {
            backend: BackendChoice::new(config),
            quotas: Quotas {
                contexts: count(config.max_contexts),
                resources: count(config.max_resources),
                blob_bytes: u64::from(config.max_blob_mib) << 20,
            },
            window_bytes: u64::from(config.window_mib) << 20,
            stats: Arc::new(Stats::default()),
            running: None,
        }
    }

    /// What the device counts.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// The configuration space (virtio 1.2, 5.7.4): no events, one scanout, one capability set.
    fn config(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[8..12].copy_from_slice(&SCANOUTS.to_le_bytes());
        bytes[12..16].copy_from_slice(&CAPSETS.to_le_bytes());
        bytes
    }
}

/// Each blob is a descriptor, and usual soft limits are below the quota of blobs. The hard limit,
/// which whoever starts the VMM sets, stays.
fn allow_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files; many windows may fail");
    }
}

impl VirtioDevice for Gpu {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        FEATURE_VIRGL
            | FEATURE_RESOURCE_BLOB
            | FEATURE_CONTEXT_INIT
            | FEATURE_INDIRECT
            | FEATURE_EVENT_IDX
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = self.config();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(source) = config.get(start..) else {
            return;
        };
        let count = source.len().min(data.len());
        data[..count].copy_from_slice(&source[..count]);
    }

    // Only `events_clear` can be written, and there are no events.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn shared_memory(&self) -> Option<SharedMemoryRegion> {
        Some(SharedMemoryRegion {
            id: SHARED_MEMORY_ID,
            length: self.window_bytes,
        })
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.reset();
        let features = activation.features;
        let mut queues = activation.queues.into_iter().map(|active| {
            let ActiveQueue {
                mut queue,
                kick,
                interrupt,
            } = active;
            queue.set_event_idx(features & FEATURE_EVENT_IDX != 0);
            QueueIo {
                queue,
                kick,
                interrupt,
            }
        });
        let (Some(control), Some(cursor)) = (queues.next(), queues.next()) else {
            return Err(ActivateError::Driver("virtio-gpu needs two queues"));
        };
        if !control.queue.ready() || !cursor.queue.ready() {
            return Err(ActivateError::Driver(
                "virtio-gpu was started without its queues",
            ));
        }
        let host = ActivateError::host;
        let stop = EventFd::new(EFD_NONBLOCK).map_err(host("virtio-gpu: making an eventfd"))?;
        let worker = Worker::new(WorkerParts {
            memory: activation.memory,
            control,
            cursor,
            stop: stop
                .try_clone()
                .map_err(host("virtio-gpu: copying an eventfd"))?,
            fault: activation.fault,
            stats: Arc::clone(&self.stats),
            backend: self.backend.clone(),
            quotas: self.quotas,
            resources: Resources::new(self.quotas, activation.window),
        })
        .map_err(|error| host("virtio-gpu: waiting for events")(error.into()))?;
        let thread = std::thread::Builder::new()
            .name("gpu".into())
            .spawn(move || {
                crate::emulated::run_anywhere();
                worker.run()
            })
            .map_err(host("virtio-gpu: starting its thread"))?;
        self.running = Some(Running { stop, thread });
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(running) = self.running.take() {
            // The only failure is a full counter, and then the thread stops as well.
            let _ = running.stop.write(1);
            if running.thread.join().is_err() {
                tracing::error!("the thread of virtio-gpu panicked");
            }
        }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        self.reset();
    }
}
