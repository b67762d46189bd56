//! Pipes between a guest's application and something on the host, for clipboard and drag-and-drop.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

/// So much may wait for a reader that does not read.
pub const MAX_WAITING_BYTES: usize = 256 << 10;

/// A pipe that the guest writes to. Counting starts at 0; positions never wrap in practice.
#[derive(Debug)]
pub struct WritePipe {
    fd: OwnedFd,
    waiting: VecDeque<u8>,
    /// Bytes that the guest has written.
    accepted: u64,
    ends: bool,
}

/// More waits for a pipe than may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_WAITING_BYTES} bytes wait for one pipe")]
pub struct TooMuch;

/// What became of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipeState {
    /// It goes on.
    Open,
    /// Everything was written and its end announced, or nobody reads it any more.
    Finished,
}

impl WritePipe {
    /// Takes over the write end of a pipe.
    pub fn new(fd: OwnedFd) -> Result<Self, Errno> {
        set_nonblocking(&fd)?;
        Ok(Self {
            fd,
            waiting: VecDeque::new(),
            accepted: 0,
            ends: false,
        })
    }

    /// Takes bytes from the guest.
    pub fn write(&mut self, data: &[u8], ends: bool) -> Result<PipeState, TooMuch> {
        if self.waiting.len() + data.len() > MAX_WAITING_BYTES {
            return Err(TooMuch);
        }
        self.accepted = self.accepted.saturating_add(data.len() as u64);
        self.ends |= ends;
        let mut written = 0;
        if self.waiting.is_empty() {
            match write_all(&self.fd, data) {
                Ok(count) => written = count,
                Err(_) => return Ok(PipeState::Finished),
            }
        }
        self.waiting.extend(data.get(written..).unwrap_or_default());
        Ok(self.state())
    }

    /// Writes what waits, as far as the pipe takes it.
    pub fn flush(&mut self) -> PipeState {
        while !self.waiting.is_empty() {
            let (front, _) = self.waiting.as_slices();
            match write_all(&self.fd, front) {
                Ok(0) => break,
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(_) => return PipeState::Finished,
            }
        }
        self.state()
    }

    /// How many bytes the guest has written so far.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// How many of them the pipe has taken.
    pub fn delivered(&self) -> u64 {
        self.accepted.saturating_sub(self.waiting.len() as u64)
    }

    fn state(&self) -> PipeState {
        if self.ends && self.waiting.is_empty() {
            PipeState::Finished
        } else {
            PipeState::Open
        }
    }
}

impl AsFd for WritePipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Writes until the pipe is full; an error means that nobody reads it.
fn write_all(fd: &OwnedFd, data: &[u8]) -> Result<usize, Errno> {
    let mut written = 0;
    while let Some(rest) = data.get(written..)
        && !rest.is_empty()
    {
        match rustix::io::write(fd, rest) {
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// A pipe that the guest reads from.
#[derive(Debug)]
pub struct ReadPipe {
    fd: OwnedFd,
    /// Whether a read may bring something.
    pub ready: bool,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPart {
    /// Nothing yet.
    Nothing,
    /// So many bytes.
    Bytes(usize),
    /// Everyone who could write has closed it.
    End,
}

impl ReadPipe {
    /// A new pipe: the end that we keep, and the one that goes to the host.
    pub fn create() -> Result<(Self, OwnedFd), Errno> {
        // Only our end must not block: the flag of the other belongs to whoever writes to it.
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        set_nonblocking(&read)?;
        let pipe = Self {
            fd: read,
            ready: false,
        };
        Ok((pipe, write))
    }

    /// Reads what is there. The end is `read() == 0` and nothing else.
    pub fn read(&mut self, buffer: &mut [u8]) -> ReadPart {
        loop {
            match rustix::io::read(&self.fd, &mut *buffer) {
                Ok(0) => return ReadPart::End,
                Ok(count) => return ReadPart::Bytes(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.ready = false;
                    return ReadPart::Nothing;
                }
                Err(_) => return ReadPart::End,
            }
        }
    }
}

impl AsFd for ReadPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn set_nonblocking(fd: &OwnedFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (OwnedFd, WritePipe) {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        (read, WritePipe::new(write).unwrap())
    }

    #[test]
    fn a_full_pipe_keeps_bytes_and_order() {
        let (read, mut pipe) = pair();
        let data: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
        assert_eq!(pipe.write(&data, true), Ok(PipeState::Open));
        assert!(pipe.delivered() < pipe.accepted());
        let mut got = Vec::new();
        let mut buffer = [0; 8192];
        while got.len() < data.len() {
            let count = rustix::io::read(&read, &mut buffer).unwrap();
            got.extend_from_slice(&buffer[..count]);
            pipe.flush();
        }
        assert_eq!(got, data);
        assert_eq!(pipe.flush(), PipeState::Finished);
    }

    #[test]
    fn a_pipe_that_nobody_drains_is_bounded() {
        let (_read, mut pipe) = pair();
        let mut result = Ok(PipeState::Open);
        for _ in 0..10_000 {
            result = pipe.write(&[0; 4096], false);
            if result.is_err() {
                break;
            }
        }
        assert_eq!(result, Err(TooMuch));
    }

    #[test]
    fn a_pipe_without_reader_is_finished() {
        let (read, mut pipe) = pair();
        drop(read);
        assert_eq!(pipe.write(b"x", false), Ok(PipeState::Finished));
    }
}
