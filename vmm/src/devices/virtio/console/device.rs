//! The device: two queues and the thread that moves bytes.

use std::time::{Duration, Instant};

use virtio_queue::QueueT;
use vmm_sys_util::eventfd::EventFd;

use super::endpoint::{Endpoint, Port};
use crate::devices::virtio::buffers::Buffers;
use crate::devices::virtio::device::{ActivateError, Activation, ActiveQueue, VirtioDevice};
use crate::devices::virtio::queue::QueueError;
use crate::devices::virtio::worker::{Worker, readable, wait};
use crate::memory::GuestMemory;

const TYPE_CONSOLE: u32 = 3;
const QUEUE_SIZE: u16 = 64;
/// Bytes moved at a time.
const CHUNK: usize = 4096;
/// A request of the driver is read up to here; Linux sends pages.
const MAX_OUTPUT: u64 = 64 << 10;

/// The console.
pub struct Console {
    endpoint: Endpoint,
    worker: Option<Worker>,
}

impl Console {
    /// A console that leads to `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            worker: None,
        }
    }
}

impl VirtioDevice for Console {
    fn device_type(&self) -> u32 {
        TYPE_CONSOLE
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        0
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let endpoint = self
            .endpoint
            .try_clone()
            .map_err(ActivateError::host("copying the console"))?;
        let worker = Worker::spawn("console", move |stop| serve(endpoint, activation, &stop))
            .map_err(ActivateError::host("starting the console's thread"))?;
        self.worker = Some(worker);
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.stop();
        }
    }
}

fn serve(endpoint: Endpoint, activation: Activation, stop: &EventFd) {
    let fault = activation.fault.clone();
    let mut port = Port::new(endpoint);
    if let Err(error) = run(&mut port, activation, stop) {
        fault.report(format!("console: {error}"));
    }
    // Last words: what the guest wrote just before it ended, as far as somebody takes it.
    let deadline = Instant::now() + Duration::from_millis(200);
    while let Some(fd) = port.blocked_output() {
        let left = deadline
            .saturating_duration_since(Instant::now())
            .as_millis() as u32;
        match wait([(fd, libc::POLLOUT)], Some(left)) {
            Ok([true]) => port.flush(),
            _ => return,
        }
    }
}

fn run(port: &mut Port, activation: Activation, stop: &EventFd) -> Result<(), QueueError> {
    let Activation {
        memory, mut queues, ..
    } = activation;
    let [receive, transmit] = queues.as_mut_slice() else {
        return Ok(());
    };
    let mut more_output = true;
    // Whether the guest has buffers for input, as far as we know.
    let mut can_receive = true;
    loop {
        let nothing = readable(stop).0;
        let input = port.input().filter(|_| can_receive);
        let ready = wait(
            [
                readable(stop),
                readable(&transmit.kick),
                readable(&receive.kick),
                input.map_or((nothing, 0), |fd| (fd, libc::POLLIN)),
                port.blocked_output()
                    .map_or((nothing, 0), |fd| (fd, libc::POLLOUT)),
                port.listener()
                    .map_or((nothing, 0), |fd| (fd, libc::POLLIN)),
            ],
            more_output.then_some(0),
        );
        let Ok([stopped, sent, room, typed, writable, client]) = ready else {
            return Ok(());
        };
        if sent {
            let _ = transmit.kick.read();
        }
        if room {
            let _ = receive.kick.read();
            can_receive = true;
        }
        if client {
            port.accept();
        }
        if writable {
            port.flush();
        }
        more_output = transmit.serve(&memory, |buffers| {
            take_output(port, &memory, buffers);
            0
        })?;
        if typed {
            can_receive = give_input(port, &memory, receive)?;
        }
        if stopped {
            return Ok(());
        }
    }
}

/// Passes one buffer of the guest's output on.
fn take_output(port: &mut Port, memory: &GuestMemory, buffers: &Buffers) {
    let length = buffers.readable_len().min(MAX_OUTPUT);
    let mut chunk = [0; CHUNK];
    for offset in (0..length).step_by(CHUNK) {
        let size = (length - offset).min(CHUNK as u64) as usize;
        let Some(piece) = chunk.get_mut(..size) else {
            return;
        };
        if buffers.read(memory, offset, piece).is_err() {
            return;
        }
        port.write(piece);
    }
}

/// Passes input that is there to the guest. Returns whether the guest has room for more.
fn give_input(
    port: &mut Port,
    memory: &GuestMemory,
    receive: &mut ActiveQueue,
) -> Result<bool, QueueError> {
    if !receive.queue.ready() {
        return Ok(false);
    }
    let Some(buffers) = receive.take(memory)? else {
        return receive.rearm(memory);
    };
    let mut chunk = [0; CHUNK];
    let room = buffers.writable_len().min(CHUNK as u64) as usize;
    let count = port.read(chunk.get_mut(..room).unwrap_or_default());
    if count == 0 && room > 0 {
        receive.untake();
        return Ok(true);
    }
    let bytes = chunk.get(..count).unwrap_or_default();
    let written = if buffers.write(memory, 0, bytes).is_ok() {
        count as u32
    } else {
        0
    };
    receive.give_back(memory, buffers.head, written)?;
    receive.notify(memory)?;
    Ok(true)
}
