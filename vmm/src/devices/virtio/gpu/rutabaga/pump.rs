//! A pipe between rutabaga and the pipe that the compositor gave us.
//!
//! Rutabaga writes to pipes with a call that waits, and holds a lock meanwhile that its own reader
//! needs: an application that pastes into itself would never return. So rutabaga gets a pipe of
//! ours, and is given a WRITE only while that pipe is empty; what it holds is moved on without
//! waiting.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::super::cross_domain::pipe::{
    MAX_WAITING_BYTES, PipeState, ReadPart, ReadPipe, TooMuch, WritePipe,
};
use super::thread::Job;

/// The two pipes, and what the guest wrote that rutabaga has not been given yet.
#[derive(Debug)]
pub struct Pump {
    from: ReadPipe,
    to: WritePipe,
    /// Rutabaga's number, once it is known.
    pub number: Option<u32>,
    held: VecDeque<(Vec<u8>, bool)>,
    held_bytes: usize,
    /// Bytes that rutabaga was given and that have not come out of our pipe.
    under_way: usize,
    accepted: u64,
    /// Rutabaga was told of the end.
    ended: bool,
}

impl Pump {
    /// Takes over the compositor's pipe; the other value is for rutabaga.
    pub fn new(compositors: OwnedFd) -> Result<(Self, OwnedFd), Errno> {
        let (from, rutabagas) = ReadPipe::create()?;
        let pump = Self {
            from,
            to: WritePipe::new(compositors)?,
            number: None,
            held: VecDeque::new(),
            held_bytes: 0,
            under_way: 0,
            accepted: 0,
            ended: false,
        };
        Ok((pump, rutabagas))
    }

    /// Takes bytes from the guest.
    pub fn write(&mut self, data: &[u8], ends: bool) -> Result<(), TooMuch> {
        if self.held_bytes + data.len() > MAX_WAITING_BYTES {
            return Err(TooMuch);
        }
        self.held_bytes += data.len();
        self.accepted = self.accepted.saturating_add(data.len() as u64);
        self.held.push_back((data.to_vec(), ends));
        Ok(())
    }

    /// How many bytes the guest has written.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// How many of them the compositor's pipe has taken.
    pub fn delivered(&self) -> u64 {
        self.to.delivered()
    }

    /// Our pipe may have something.
    pub fn set_ready(&mut self) {
        self.from.ready = true;
    }

    /// Moves what can be moved, and says what rutabaga shall do next.
    pub fn advance(&mut self, buffer: &mut [u8]) -> (PipeState, Option<Job>) {
        loop {
            if self.to.flush() == PipeState::Finished {
                return (PipeState::Finished, self.end());
            }
            if self.to.delivered() < self.to.accepted() {
                return (PipeState::Open, None);
            }
            let state = match self.from.read(buffer) {
                ReadPart::Nothing => break,
                ReadPart::Bytes(count) => {
                    self.under_way = self.under_way.saturating_sub(count);
                    let data = buffer.get(..count).unwrap_or_default();
                    // Nothing waits, so there is room for one buffer.
                    self.to.write(data, false).unwrap_or(PipeState::Finished)
                }
                ReadPart::End => PipeState::Finished,
            };
            if state == PipeState::Finished {
                return (PipeState::Finished, self.end());
            }
        }
        let Some(number) = self.number.filter(|_| self.under_way == 0) else {
            return (PipeState::Open, None);
        };
        let job = self.held.pop_front().map(|(data, ends)| {
            self.held_bytes -= data.len();
            self.under_way = data.len();
            self.ended |= ends;
            Job::Write(number, ends, data)
        });
        (PipeState::Open, job)
    }

    /// Rutabaga keeps its end until it is told to let go.
    fn end(&mut self) -> Option<Job> {
        let number = self.number.filter(|_| !self.ended)?;
        self.ended = true;
        Some(Job::Write(number, true, Vec::new()))
    }

    /// The end of our pipe from which is read.
    pub fn from(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }

    /// The compositor's pipe.
    pub fn to(&self) -> BorrowedFd<'_> {
        self.to.as_fd()
    }
}
