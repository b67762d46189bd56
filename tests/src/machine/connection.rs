//! The connection to the machine's PID 1: one thread reads frames and hands them to whoever runs
//! the command they belong to.

use std::{
    collections::HashMap,
    io::ErrorKind,
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use bulkhead_host_init::protocol::{Frame, Kind};

/// The outer end of a machine's command port.
pub(super) struct Connection {
    writer: Mutex<UnixStream>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    phase: Phase,
    next_stream: u32,
    streams: HashMap<u32, mpsc::Sender<Frame>>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Booting,
    Ready,
    Closed,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase) {
        let mut state = self.lock();
        state.phase = phase;
        if phase == Phase::Closed {
            // Whoever waits for a frame learns that none will come.
            state.streams.clear();
        }
        self.changed.notify_all();
    }
}

impl Connection {
    /// Waits for QEMU to connect.
    pub(super) fn accept(
        listener: &UnixListener,
        deadline: Instant,
        mut is_running: impl FnMut() -> bool,
    ) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !is_running() || Instant::now() > deadline {
                        return Err(ErrorKind::NotConnected.into());
                    }
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error),
            }
        };
        stream.set_nonblocking(false)?;
        Self::new(stream)
    }

    fn new(stream: UnixStream) -> std::io::Result<Self> {
        let mut reader = stream.try_clone()?;
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            while let Ok(frame) = Frame::read(&mut reader) {
                if frame.kind == Kind::Ready {
                    of_thread.set(Phase::Ready);
                    continue;
                }
                let mut state = of_thread.lock();
                let is_last = matches!(frame.kind, Kind::Exit | Kind::Failed);
                let number = frame.stream;
                // A frame for nobody is late output of a command that is no longer watched.
                if let Some(sender) = state.streams.get(&number) {
                    let _ = sender.send(frame);
                }
                if is_last {
                    state.streams.remove(&number);
                }
            }
            of_thread.set(Phase::Closed);
        });
        Ok(Self {
            writer: Mutex::new(stream),
            shared,
        })
    }

    pub(super) fn is_ready(&self) -> bool {
        self.shared.lock().phase == Phase::Ready
    }

    pub(super) fn is_open(&self) -> bool {
        self.shared.lock().phase != Phase::Closed
    }

    pub(super) fn wait_for_change(&self, limit: Duration) {
        let state = self.shared.lock();
        if state.phase == Phase::Booting {
            drop(self.shared.changed.wait_timeout(state, limit));
        } else {
            drop(state);
            thread::sleep(limit / 10);
        }
    }

    /// A number for a new command, and where its frames arrive.
    pub(super) fn open_stream(&self) -> (u32, mpsc::Receiver<Frame>) {
        let (sender, receiver) = mpsc::channel();
        let mut state = self.shared.lock();
        state.next_stream += 1;
        let number = state.next_stream;
        if state.phase != Phase::Closed {
            state.streams.insert(number, sender);
        }
        (number, receiver)
    }

    pub(super) fn send(&self, frame: &Frame) -> std::io::Result<()> {
        frame.write(&mut *self.writer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn close(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writer.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_find_their_command_and_a_lost_machine_ends_all() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let connection = Connection::new(ours).unwrap();
        let (first, first_frames) = connection.open_stream();
        let (second, second_frames) = connection.open_stream();
        assert_ne!(first, second);
        Frame::new(second, Kind::Stdout, "two")
            .write(&mut theirs)
            .unwrap();
        Frame::new(first, Kind::Stdout, "one")
            .write(&mut theirs)
            .unwrap();
        Frame::new(77, Kind::Stdout, "nobody's")
            .write(&mut theirs)
            .unwrap();
        assert_eq!(first_frames.recv().unwrap().payload, b"one");
        assert_eq!(second_frames.recv().unwrap().payload, b"two");
        drop(theirs);
        assert!(first_frames.recv().is_err());
        assert!(!connection.is_open());
        let (_, frames) = connection.open_stream();
        assert!(frames.recv().is_err());
    }
}
