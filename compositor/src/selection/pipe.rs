//! A pipe whose other end is somebody's who may never do anything: it is watched, and so is the time.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::pipe::{PipeFlags, pipe_with};
use smithay::reexports::calloop::{
    Interest, LoopHandle, Mode, PostAction, RegistrationToken,
    generic::Generic,
    timer::{TimeoutAction, Timer},
};

use crate::state::State;

/// Bytes that are read or written in one go.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
/// Goes before others have their turn: a domain that is fast must not stop the desktop.
pub(super) const CHUNKS_PER_TURN: usize = 8;

/// A pipe in the loop, and the timer beside it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    pipe: RegistrationToken,
    timer: RegistrationToken,
}

impl Watched {
    /// Calls `ready` when something can be done with our end, and `deadline` after `stalled`.
    pub(super) fn begin(
        events: &LoopHandle<'static, State>,
        end: File,
        interest: Interest,
        mut ready: impl FnMut(&File, &mut State) -> PostAction + 'static,
        stalled: Duration,
        mut deadline: impl FnMut(&mut State) -> TimeoutAction + 'static,
    ) -> io::Result<Self> {
        let source = Generic::new(end, interest, Mode::Level);
        let pipe = events
            .insert_source(source, move |_, file, state| Ok(ready(file, state)))
            .map_err(|error| io::Error::other(error.to_string()))?;
        let timer = Timer::from_duration(stalled);
        match events.insert_source(timer, move |_, (), state| deadline(state)) {
            Ok(timer) => Ok(Self { pipe, timer }),
            Err(error) => {
                events.remove(pipe);
                Err(io::Error::other(error.to_string()))
            }
        }
    }

    /// Closes our end.
    pub(super) fn stop(self, events: &LoopHandle<'static, State>) {
        events.remove(self.pipe);
        self.ended(events);
    }

    /// `ready` has had the end, and removes the pipe by its answer.
    pub(super) fn ended(self, events: &LoopHandle<'static, State>) {
        events.remove(self.timer);
    }
}

/// A pipe to read from: our end, which never blocks, and the one to be given away.
pub(super) fn to_read() -> io::Result<(File, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // Our end only: the other one is the source's, which may expect to block.
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((File::from(read), write))
}

/// How far one turn has come.
pub(super) enum Turn {
    /// More may follow.
    More,
    /// The source closed its end.
    End,
    /// More than the limit.
    TooMuch,
    Failed(std::io::Error),
}

/// Takes what is in the pipe, one turn's worth of it.
pub(super) fn take_turn(mut pipe: &File, untrusted_bytes: &mut Vec<u8>, limit: usize) -> Turn {
    for _ in 0..CHUNKS_PER_TURN {
        // One byte more than the limit shows that there is too much.
        let room = limit
            .saturating_sub(untrusted_bytes.len())
            .saturating_add(1);
        let mut chunk = [0; CHUNK_BYTES];
        let Some(chunk) = chunk.get_mut(..room.min(CHUNK_BYTES)) else {
            return Turn::TooMuch;
        };
        match pipe.read(chunk) {
            Ok(0) => return Turn::End,
            Ok(count) => untrusted_bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Turn::More,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Turn::Failed(error),
        }
        if untrusted_bytes.len() > limit {
            return Turn::TooMuch;
        }
    }
    Turn::More
}
