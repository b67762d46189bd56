//! Flow control: carries one stream between a descriptor and a connection, on a thread of its own.
//!
//! [`Outgoing`] reads a descriptor and sends data while it has credit; [`Incoming`] keeps what
//! arrives (never more than [`WINDOW_BYTES`]), writes it to a descriptor and gives credit for what
//! was written. Both sides of a connection use both. Nothing here sets a descriptor to
//! non-blocking: descriptors may be shared with a caller's shell.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::message::{Message, Stream};
use crate::{MAX_DATA, WINDOW_BYTES};

/// How long a stream must stay empty, after its command ended, to count as finished although
/// some background process still holds it open.
const QUIET_MS: i32 = 200;
/// Written at once where the kernel cannot be told not to wait. A pipe that polls writable takes this much
/// without blocking.
const WRITE_BYTES: usize = 4096;

/// The peer sent more than it had credit for, or gave more credit than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer ignored the flow control of {0:?}")]
pub struct Overrun(pub Stream);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks, so the data is whole in any case.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sending half of a connection, shared by all threads that send frames on it.
pub struct Outbox(Mutex<Box<dyn Write + Send>>);

impl Outbox {
    /// Sends through `writer`, which must block rather than write half a frame.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Outbox(Mutex::new(Box::new(writer)))
    }

    /// Sends one message.
    pub fn send(&self, message: &Message) -> io::Result<()> {
        let frame = message.encode().map_err(io::Error::other)?;
        let mut writer = lock(&self.0);
        writer.write_all(&frame)?;
        writer.flush()
    }
}

/// Interrupts a `poll`.
struct Wake(File);

impl Wake {
    fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers; its result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else owns it.
        Ok(Wake(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    fn wake(&self) {
        // It fails only when it is already awake.
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }

    fn clear(&self) {
        let _ = (&self.0).read(&mut [0; 8]);
    }
}

/// Waits until `fd` has one of `events`, or `wake` was called, or the time is over.
/// Tells whether `fd` is ready.
fn wait(fd: RawFd, events: i16, wake: &Wake, timeout_ms: i32) -> io::Result<bool> {
    let mut polled = [
        libc::pollfd {
            fd,
            events,
            revents: 0,
        },
        libc::pollfd {
            fd: wake.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        },
    ];
    // SAFETY: the pointer and count describe `polled`, which outlives the call.
    let result = unsafe { libc::poll(polled.as_mut_ptr(), 2, timeout_ms) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted {
            Ok(false)
        } else {
            Err(error)
        };
    }
    if polled[1].revents != 0 {
        wake.clear();
    }
    if polled[0].revents & libc::POLLNVAL != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    Ok(polled[0].revents != 0)
}

/// Writes as much as `target`, which polls writable, takes without waiting: of a frame often all, where a
/// page at a time would wake the reader for each.
fn write_some(target: &mut File, bytes: &[u8]) -> io::Result<usize> {
    let part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: `part` describes `bytes`, which is only read and outlives the call; -1 is the file's own place.
    let count = unsafe { libc::pwritev2(target.as_raw_fd(), &part, 1, -1, libc::RWF_NOWAIT) };
    if let Ok(count) = usize::try_from(count) {
        return Ok(count);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // Pipes can since Linux 6.4, terminals and some files cannot.
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::EAGAIN) => {
            target.write(&bytes[..bytes.len().min(WRITE_BYTES)])
        }
        _ => Err(error),
    }
}

/// How [`Outgoing`] is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// At once; nothing more is wanted.
    Now,
    /// When the source ends or has had nothing for a moment.
    WhenQuiet,
}

struct OutgoingState {
    credit: u32,
    stop: Option<Stop>,
}

/// From a descriptor to the connection.
pub struct Outgoing {
    stream: Stream,
    state: Mutex<OutgoingState>,
    changed: Condvar,
    wake: Wake,
}

impl Outgoing {
    /// A pump with a full window of credit.
    pub fn new(stream: Stream) -> io::Result<Self> {
        let state = Mutex::new(OutgoingState {
            credit: WINDOW_BYTES,
            stop: None,
        });
        Ok(Outgoing {
            stream,
            state,
            changed: Condvar::new(),
            wake: Wake::new()?,
        })
    }

    /// The peer took `bytes`.
    pub fn add_credit(&self, bytes: u32) -> Result<(), Overrun> {
        let mut state = lock(&self.state);
        match state.credit.checked_add(bytes) {
            Some(credit) if credit <= WINDOW_BYTES => state.credit = credit,
            _ => return Err(Overrun(self.stream)),
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Ends [`Outgoing::run`]. `Now` wins over `WhenQuiet`.
    pub fn stop(&self, how: Stop) {
        let mut state = lock(&self.state);
        if state.stop != Some(Stop::Now) {
            state.stop = Some(how);
        }
        drop(state);
        self.changed.notify_all();
        self.wake.wake();
    }

    /// Carries `source` until it ends or [`Outgoing::stop`] is called, then sends `Eof`.
    pub fn run(&self, source: impl Into<OwnedFd>, outbox: &Outbox) -> io::Result<()> {
        let mut source = File::from(source.into());
        let mut buffer = vec![0; MAX_DATA];
        loop {
            let (credit, stop) = {
                let mut state = lock(&self.state);
                while state.credit == 0 && state.stop != Some(Stop::Now) {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                (state.credit, state.stop)
            };
            let timeout = match stop {
                Some(Stop::Now) => break,
                Some(Stop::WhenQuiet) => QUIET_MS,
                None => -1,
            };
            if !wait(source.as_raw_fd(), libc::POLLIN, &self.wake, timeout)? {
                if stop == Some(Stop::WhenQuiet) {
                    break;
                }
                continue;
            }
            let most = MAX_DATA.min(credit as usize);
            let count = match source.read(&mut buffer[..most]) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                // A terminal whose last program has gone answers EIO; other errors end it too.
                Err(_) => break,
            };
            lock(&self.state).credit -= count as u32;
            let bytes = buffer[..count].to_vec();
            outbox.send(&Message::Data {
                stream: self.stream,
                bytes,
            })?;
        }
        drop(source);
        outbox.send(&Message::Eof {
            stream: self.stream,
        })
    }
}

#[derive(Default)]
struct IncomingState {
    queue: VecDeque<Vec<u8>>,
    /// Bytes that arrived and for which no credit was given back yet.
    held: usize,
    ended: bool,
    aborted: bool,
    /// The target takes nothing more: what still arrives is dropped.
    refused: bool,
}

/// From the connection to a descriptor.
pub struct Incoming {
    stream: Stream,
    state: Mutex<IncomingState>,
    changed: Condvar,
    wake: Wake,
}

impl Incoming {
    /// A pump with nothing in it.
    pub fn new(stream: Stream) -> io::Result<Self> {
        let state = Mutex::new(IncomingState::default());
        Ok(Incoming {
            stream,
            state,
            changed: Condvar::new(),
            wake: Wake::new()?,
        })
    }

    /// Data arrived. An error means that the peer sent more than it was allowed to.
    pub fn push(&self, untrusted_bytes: Vec<u8>) -> Result<(), Overrun> {
        let mut state = lock(&self.state);
        if state.refused || state.ended || untrusted_bytes.is_empty() {
            return Ok(());
        }
        let held = state.held + untrusted_bytes.len();
        if held > WINDOW_BYTES as usize {
            return Err(Overrun(self.stream));
        }
        state.held = held;
        state.queue.push_back(untrusted_bytes);
        self.changed.notify_all();
        Ok(())
    }

    /// Nothing more will arrive: write what is there, close the target.
    pub fn finish(&self) {
        lock(&self.state).ended = true;
        self.changed.notify_all();
    }

    /// Drop everything.
    pub fn abort(&self) {
        let mut state = lock(&self.state);
        state.aborted = true;
        state.ended = true;
        drop(state);
        self.changed.notify_all();
        self.wake.wake();
    }

    /// Writes what arrives to `target` until [`Incoming::finish`] or [`Incoming::abort`], then
    /// closes it. When `target` takes nothing more, the peer is told by `Eof`.
    pub fn run(&self, target: impl Into<OwnedFd>, outbox: &Outbox) -> io::Result<()> {
        let mut target = File::from(target.into());
        let mut peer_listens = true;
        loop {
            let bytes = {
                let mut state = lock(&self.state);
                loop {
                    if state.aborted {
                        return Ok(());
                    }
                    if let Some(bytes) = state.queue.pop_front() {
                        break bytes;
                    }
                    if state.ended {
                        return Ok(());
                    }
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            };
            match self.write(&mut target, &bytes) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(_) => {
                    drop(target);
                    let mut state = lock(&self.state);
                    state.refused = true;
                    state.queue.clear();
                    drop(state);
                    return outbox.send(&Message::Eof {
                        stream: self.stream,
                    });
                }
            }
            let mut state = lock(&self.state);
            state.held -= bytes.len();
            let ended = state.ended;
            drop(state);
            // Data never exceeds MAX_DATA, so its length fits.
            let count = bytes.len() as u32;
            // After the end the peer wants no credit, and may be gone already: also before whoever
            // reads the connection has come to that end. What has arrived is written all the same.
            if !ended && peer_listens {
                let credit = Message::Credit {
                    stream: self.stream,
                    bytes: count,
                };
                peer_listens = outbox.send(&credit).is_ok();
            }
        }
    }

    /// Whether everything was written; `false` after an abort.
    fn write(&self, target: &mut File, mut bytes: &[u8]) -> io::Result<bool> {
        while !bytes.is_empty() {
            let ready = wait(target.as_raw_fd(), libc::POLLOUT, &self.wake, -1)?;
            if lock(&self.state).aborted {
                return Ok(false);
            }
            if !ready {
                continue;
            }
            match write_some(target, bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::frame::read_message;

    fn connection() -> (Arc<Outbox>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Arc::new(Outbox::new(ours)), theirs)
    }

    #[test]
    fn what_has_arrived_is_written_though_the_peer_is_gone() {
        let (outbox, theirs) = connection();
        drop(theirs);
        let incoming = Arc::new(Incoming::new(Stream::Stdout).unwrap());
        for byte in 0..4 {
            incoming.push(vec![byte; 1000]).unwrap();
        }
        let (mut reader, writer) = io::pipe().unwrap();
        let pump = incoming.clone();
        let thread = thread::spawn(move || pump.run(writer, &outbox));
        let mut first = [0; 1000];
        reader.read_exact(&mut first).unwrap();
        // Only now does the reader of the connection come to its end.
        incoming.finish();
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len(), 3000);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn a_source_stops_at_its_credit_and_goes_on_with_more() {
        let (outbox, mut peer) = connection();
        let (source, mut writer) = UnixStream::pair().unwrap();
        let pump = Arc::new(Outgoing::new(Stream::Stdout).unwrap());
        let thread = {
            let (pump, outbox) = (pump.clone(), outbox.clone());
            thread::spawn(move || pump.run(source, &outbox))
        };
        let total = WINDOW_BYTES as usize * 3;
        let feeder = thread::spawn(move || writer.write_all(&vec![7; total]));
        let mut received = 0;
        let mut allowed = WINDOW_BYTES as usize;
        loop {
            match read_message(&mut peer).unwrap() {
                Message::Data { bytes, .. } => {
                    received += bytes.len();
                    assert!(received <= allowed);
                    if received == allowed && received < total {
                        allowed += 1000;
                        pump.add_credit(1000).unwrap();
                        allowed += 100_000;
                        pump.add_credit(100_000).unwrap();
                    }
                }
                Message::Eof { .. } => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(received, total);
        feeder.join().unwrap().unwrap();
        thread.join().unwrap().unwrap();
        assert_eq!(pump.add_credit(WINDOW_BYTES), Err(Overrun(Stream::Stdout)));
    }

    #[test]
    fn too_much_data_is_an_error_and_never_kept() {
        let pump = Incoming::new(Stream::Stdin).unwrap();
        for _ in 0..WINDOW_BYTES as usize / MAX_DATA {
            pump.push(vec![0; MAX_DATA]).unwrap();
        }
        assert_eq!(pump.push(vec![0]), Err(Overrun(Stream::Stdin)));
    }

    #[test]
    fn a_full_pipe_keeps_nobody_and_gets_all_once_it_is_read() {
        let (outbox, _theirs) = connection();
        for read_it in [true, false] {
            let incoming = Arc::new(Incoming::new(Stream::Stdout).unwrap());
            for byte in 0..8 {
                incoming.push(vec![byte; MAX_DATA]).unwrap();
            }
            let (mut reader, writer) = io::pipe().unwrap();
            let (pump, to) = (incoming.clone(), outbox.clone());
            let thread = thread::spawn(move || pump.run(writer, &to));
            // More than the pipe holds.
            thread::sleep(std::time::Duration::from_millis(50));
            assert!(!thread.is_finished());
            if read_it {
                incoming.finish();
                let mut all = Vec::new();
                reader.read_to_end(&mut all).unwrap();
                let expected: Vec<u8> = (0..8).flat_map(|byte| vec![byte; MAX_DATA]).collect();
                assert!(all == expected);
            } else {
                incoming.abort();
            }
            thread.join().unwrap().unwrap();
        }
    }

    #[test]
    fn a_target_that_is_gone_is_told_to_the_peer() {
        let (outbox, mut peer) = connection();
        let (target, reader) = UnixStream::pair().unwrap();
        drop(reader);
        let pump = Incoming::new(Stream::Stdout).unwrap();
        pump.push(vec![1; 10]).unwrap();
        pump.run(target, &outbox).unwrap();
        let message = read_message(&mut peer).unwrap();
        assert_eq!(
            message,
            Message::Eof {
                stream: Stream::Stdout
            }
        );
        pump.push(vec![1; 10]).unwrap();
    }

    #[test]
    fn an_abort_ends_a_blocked_writer_and_a_stop_ends_a_blocked_reader() {
        let (outbox, _peer) = connection();
        let (target, _unread) = UnixStream::pair().unwrap();
        let incoming = Arc::new(Incoming::new(Stream::Stdin).unwrap());
        let outgoing = Arc::new(Outgoing::new(Stream::Stdout).unwrap());
        let (source, _silent) = UnixStream::pair().unwrap();
        let threads = [
            {
                let (pump, outbox) = (incoming.clone(), outbox.clone());
                thread::spawn(move || pump.run(target, &outbox))
            },
            {
                let (pump, outbox) = (outgoing.clone(), outbox.clone());
                thread::spawn(move || pump.run(source, &outbox))
            },
        ];
        for _ in 0..8 {
            incoming.push(vec![0; MAX_DATA]).unwrap();
        }
        thread::sleep(std::time::Duration::from_millis(50));
        incoming.abort();
        outgoing.stop(Stop::WhenQuiet);
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    }
}
