//! virtio-rng (virtio 1.2, 5.4): random bytes from the host's kernel, at a limited rate.

use std::io;
use std::time::Instant;

use vmm_sys_util::eventfd::EventFd;

use super::device::{ActivateError, Activation, VirtioDevice};
use super::worker::{Worker, readable, wait};

const TYPE_ENTROPY: u32 = 4;
const QUEUE_SIZE: u16 = 64;
const F_EVENT_IDX: u64 = 1 << 29;
/// One request gets at most so much, however large its buffers are.
const REQUEST_BYTES: usize = 4096;
/// A guest that asks without end would otherwise keep a host processor busy.
const BYTES_PER_SECOND: u64 = 1 << 20;
const BURST_BYTES: u64 = 64 << 10;

/// The device.
#[derive(Default)]
pub struct Rng {
    worker: Option<Worker>,
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> u32 {
        TYPE_ENTROPY
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        F_EVENT_IDX
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let worker = Worker::spawn("rng", move |stop| serve(activation, &stop))
            .map_err(ActivateError::host("starting the thread for random bytes"))?;
        self.worker = Some(worker);
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.stop();
        }
    }
}

/// A token bucket.
struct Allowance {
    bytes: u64,
    updated: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self {
            bytes: BURST_BYTES,
            updated: now,
        }
    }

    /// Adds what time brought. Parts of a byte are kept by not moving the clock.
    fn refill(&mut self, now: Instant) {
        let elapsed_us = now.saturating_duration_since(self.updated).as_micros();
        let gained = elapsed_us.saturating_mul(u128::from(BYTES_PER_SECOND)) / 1_000_000;
        if gained > 0 {
            let gained = u64::try_from(gained).unwrap_or(u64::MAX);
            self.bytes = self.bytes.saturating_add(gained).min(BURST_BYTES);
            self.updated = now;
        }
    }

    /// How long until a whole request may be served.
    fn wait_ms(&self) -> Option<u32> {
        let missing = (REQUEST_BYTES as u64)
            .checked_sub(self.bytes)
            .filter(|missing| *missing > 0)?;
        u32::try_from(missing * 1000 / BYTES_PER_SECOND + 1).ok()
    }
}

fn serve(activation: Activation, stop: &EventFd) {
    let Activation {
        memory,
        mut queues,
        fault,
        ..
    } = activation;
    let Some(queue) = queues.first_mut() else {
        return;
    };
    let mut allowance = Allowance::new(Instant::now());
    let mut more = true;
    loop {
        allowance.refill(Instant::now());
        let pause = allowance.wait_ms();
        let timeout_ms = if more { Some(pause.unwrap_or(0)) } else { None };
        // While the allowance is used up kicks are left alone.
        let kick = if more {
            (readable(&queue.kick).0, 0)
        } else {
            readable(&queue.kick)
        };
        match wait([readable(stop), kick], timeout_ms) {
            Ok([true, _]) => return,
            Ok([_, kicked]) => {
                if kicked {
                    let _ = queue.kick.read();
                }
            }
            Err(error) => return fault.report(format!("rng: waiting: {error}")),
        }
        allowance.refill(Instant::now());
        if allowance.wait_ms().is_some() {
            more = true;
            continue;
        }
        let result = queue.take(&memory).and_then(|taken| {
            let Some(buffers) = taken else {
                return queue.rearm(&memory);
            };
            let length = buffers.writable_len().min(REQUEST_BYTES as u64) as usize;
            let mut bytes = [0; REQUEST_BYTES];
            let random = bytes.get_mut(..length).unwrap_or_default();
            let written = fill(random)
                .ok()
                .and_then(|()| buffers.write(&memory, 0, random).ok())
                .map_or(0, |()| length as u32);
            allowance.bytes = allowance.bytes.saturating_sub(length.max(64) as u64);
            queue.give_back(&memory, buffers.head, written)?;
            queue.notify(&memory)?;
            Ok(true)
        });
        match result {
            Ok(waiting) => more = waiting,
            Err(error) => return fault.report(format!("rng: {error}")),
        }
    }
}

/// Fills `bytes` from the kernel's generator.
fn fill(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        // SAFETY: `rest` is writable for its length.
        let count = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(count) {
            Ok(count) => filled += count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_allowance_runs_out_and_comes_back() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        allowance.bytes = 0;
        assert_eq!(allowance.wait_ms(), Some(4));
        allowance.refill(start + Duration::from_millis(4));
        assert_eq!(allowance.wait_ms(), None);
        allowance.refill(start + Duration::from_secs(3600));
        assert_eq!(allowance.bytes, BURST_BYTES);
    }
}
