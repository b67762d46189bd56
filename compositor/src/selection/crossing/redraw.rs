//! Draws a picture of a hostile domain anew, so that none of its bytes reaches another domain.
//!
//! A disposable decodes it; that is where a picture made to harm a decoder does its harm. What comes
//! back are plain pixels, as in Qubes' trusted images: a header of twenty bytes, which may say nothing
//! but what is known already and how many bytes a pixel has, and exactly so many pixels. Whatever they
//! are, they are a picture. They are encoded here, by a thread, row by row as they come.
//!
//! The entry is [`start`]. It knows nothing of clipboards: whatever moves a picture between domains
//! gives it the picture, the disposable's two pipes, and what is to be done in the end.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::{PipeFlags, pipe_with},
};
use smithay::reexports::calloop::{
    LoopHandle, RegistrationToken,
    channel::{Event, channel},
};

use super::{Parcel, png::Size};
use crate::state::State;

/// The first bytes of pixels (`appvm-manager/rpc/src/picture.rs` writes them).
const MAGIC: [u8; 8] = *b"BLKHPIX1";
/// The magic; width, height and bytes of a pixel, each four bytes, little endian.
const HEADER_BYTES: usize = 20;
/// No picture is longer when it is encoded anew: the target's domain makes the desktop keep it.
const MAX_PNG_BYTES: usize = 128 << 20;
/// Written to the disposable in one go.
const CHUNK_BYTES: usize = 64 * 1024;

/// Why there is no picture, in words for the user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRedrawn {
    #[error("it is no picture")]
    NoPicture,
    #[error("the disposable gave no picture")]
    Header,
    #[error("the disposable gave a picture of another size")]
    Size,
    #[error("the disposable gave too few pixels")]
    Short,
    #[error("the disposable gave more than the pixels")]
    Long,
    #[error("the disposable took too long")]
    Late,
    #[error(
        "it is larger than {} when drawn anew",
        super::parcel::shown_size(MAX_PNG_BYTES)
    )]
    TooLarge,
    #[error("nobody wants it any more")]
    Stopped,
    #[error("it cannot be drawn anew: {0}")]
    Io(#[from] io::Error),
    #[error("it cannot be drawn anew: {0}")]
    Encode(#[from] png::EncodingError),
}

/// The disposable's pipes.
#[derive(Debug)]
pub(crate) struct Ends {
    /// Takes the picture.
    pub picture: OwnedFd,
    /// Gives its pixels.
    pub pixels: OwnedFd,
}

/// A picture that is being drawn. It is given up by [`Redraw::stop`].
#[derive(Debug)]
pub(in crate::selection) struct Redraw {
    result: RegistrationToken,
    /// The other end of it tells the thread that nobody waits any more.
    _stop: OwnedFd,
}

impl Redraw {
    /// Closes the pipes soon, and tells nobody; also right when it has ended already.
    pub(in crate::selection) fn stop(self, events: &LoopHandle<'static, State>) {
        events.remove(self.result);
    }
}

/// Begins to draw a picture anew. `done` is called once, unless it is stopped before, within `limit`
/// and a moment.
pub(in crate::selection) fn start(
    events: &LoopHandle<'static, State>,
    picture: Arc<Parcel>,
    ends: Ends,
    limit: Duration,
    done: impl FnOnce(&mut State, Result<Parcel, NotRedrawn>) + 'static,
) -> io::Result<Redraw> {
    let (stop, stop_here) = pipe_with(PipeFlags::CLOEXEC)?;
    let (sender, receiver) = channel();
    let mut done = Some(done);
    let result = events
        .insert_source(receiver, move |event, (), state| {
            if let (Event::Msg(result), Some(done)) = (event, done.take()) {
                done(state, result);
            }
        })
        .map_err(|error| io::Error::other(error.to_string()))?;
    let deadline = Instant::now() + limit;
    let thread = std::thread::Builder::new()
        .name("redraw".into())
        .spawn(move || {
            // Whoever waited may be gone.
            let _ = sender.send(redraw(&picture, ends, stop, deadline));
        });
    if let Err(error) = thread {
        events.remove(result);
        return Err(error);
    }
    Ok(Redraw {
        result,
        _stop: stop_here,
    })
}

/// Draws it, at the pace of the disposable.
fn redraw(
    picture: &Parcel,
    ends: Ends,
    stop: OwnedFd,
    deadline: Instant,
) -> Result<Parcel, NotRedrawn> {
    let size = picture.size().ok_or(NotRedrawn::NoPicture)?;
    // Our ends only: each end of a pipe is an open file of its own.
    rustix::io::ioctl_fionbio(&ends.picture, true).map_err(io::Error::from)?;
    rustix::io::ioctl_fionbio(&ends.pixels, true).map_err(io::Error::from)?;
    let mut exchange = Exchange {
        picture: Some(File::from(ends.picture)),
        unsent: picture.bytes(),
        pixels: File::from(ends.pixels),
        stop,
        deadline,
    };
    let colour = header(&mut exchange, size)?;
    encode(&mut exchange, size, colour)
}

/// What a pixel is made of, eight bits each.
fn colour_of(untrusted_channels: u32) -> Option<(png::ColorType, usize)> {
    match untrusted_channels {
        1 => Some((png::ColorType::Grayscale, 1)),
        2 => Some((png::ColorType::GrayscaleAlpha, 2)),
        3 => Some((png::ColorType::Rgb, 3)),
        4 => Some((png::ColorType::Rgba, 4)),
        _ => None,
    }
}

fn header(
    exchange: &mut Exchange<'_>,
    expected: Size,
) -> Result<(png::ColorType, usize), NotRedrawn> {
    let mut untrusted = [0; HEADER_BYTES];
    exchange
        .read_exact(&mut untrusted)
        .map_err(|error| match error {
            NotRedrawn::Short => NotRedrawn::Header,
            error => error,
        })?;
    let numbers = untrusted.strip_prefix(&MAGIC).ok_or(NotRedrawn::Header)?;
    let (numbers, []) = numbers.as_chunks::<4>() else {
        return Err(NotRedrawn::Header);
    };
    let [untrusted_width, untrusted_height, untrusted_channels] = <[[u8; 4]; 3]>::try_from(numbers)
        .map_err(|_| NotRedrawn::Header)?
        .map(u32::from_le_bytes);
    // The picture's own header says its size, and an honest decoder can give no other (PNG
    // specification, third edition, 11.2.1).
    if (untrusted_width, untrusted_height) != (expected.width, expected.height) {
        return Err(NotRedrawn::Size);
    }
    colour_of(untrusted_channels).ok_or(NotRedrawn::Header)
}

/// A PNG file of the pixels that come, and of nothing else.
fn encode(
    exchange: &mut Exchange<'_>,
    size: Size,
    (colour, channels): (png::ColorType, usize),
) -> Result<Parcel, NotRedrawn> {
    let mut parcel = Bounded {
        bytes: Vec::new(),
        full: false,
    };
    let encoded = encode_into(&mut parcel, exchange, size, (colour, channels));
    let full = parcel.full;
    // Made in any case, so that what is given up is overwritten as well.
    let parcel = Parcel::drawn(size, parcel.bytes);
    match encoded {
        Err(NotRedrawn::Encode(_)) if full => Err(NotRedrawn::TooLarge),
        encoded => encoded.map(|()| parcel),
    }
}

fn encode_into(
    into: &mut Bounded,
    exchange: &mut Exchange<'_>,
    size: Size,
    (colour, channels): (png::ColorType, usize),
) -> Result<(), NotRedrawn> {
    let mut encoder = png::Encoder::new(into, size.width, size.height);
    encoder.set_color(colour);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    let mut rows = writer.stream_writer()?;
    let width = usize::try_from(size.width).map_err(|_| NotRedrawn::Size)?;
    // At most 64 KiB: a side has 16,384 pixels, a pixel four bytes.
    let mut row = vec![0; width.saturating_mul(channels)];
    for _ in 0..size.height {
        exchange.read_exact(&mut row)?;
        rows.write_all(&row)
            .map_err(|error| NotRedrawn::Encode(error.into()))?;
    }
    if exchange.read(&mut [0])? != 0 {
        return Err(NotRedrawn::Long);
    }
    rows.finish()?;
    writer.finish()?;
    Ok(())
}

/// Bytes in memory, up to a limit.
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(bytes.len()) > MAX_PNG_BYTES {
            self.full = true;
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives the picture and takes the pixels, in whatever order the disposable likes.
struct Exchange<'a> {
    /// None when everything is sent, or no more is wanted.
    picture: Option<File>,
    unsent: &'a [u8],
    pixels: File,
    stop: OwnedFd,
    deadline: Instant,
}

impl Exchange<'_> {
    fn read_exact(&mut self, mut buffer: &mut [u8]) -> Result<(), NotRedrawn> {
        while !buffer.is_empty() {
            match self.read(buffer)? {
                0 => return Err(NotRedrawn::Short),
                count => buffer = buffer.get_mut(count..).unwrap_or_default(),
            }
        }
        Ok(())
    }

    /// 0 at the end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, NotRedrawn> {
        loop {
            match (&self.pixels).read(buffer) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait()?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Until there may be pixels. What the disposable takes meanwhile is sent.
    fn wait(&mut self) -> Result<(), NotRedrawn> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NotRedrawn::Late);
            }
            let left = Timespec::try_from(left).map_err(|_| NotRedrawn::Late)?;
            let mut fds = vec![
                PollFd::new(&self.stop, PollFlags::IN),
                PollFd::new(&self.pixels, PollFlags::IN),
            ];
            if let Some(picture) = &self.picture {
                fds.push(PollFd::from_borrowed_fd(picture.as_fd(), PollFlags::OUT));
            }
            match poll(&mut fds, Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            let happened = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
            let (stopped, pixels, wanted) = (happened(0), happened(1), happened(2));
            if stopped {
                return Err(NotRedrawn::Stopped);
            }
            if wanted {
                self.send();
            }
            if pixels {
                return Ok(());
            }
        }
    }

    fn send(&mut self) {
        let Some(mut picture) = self.picture.as_ref() else {
            return;
        };
        let chunk = self.unsent.get(..CHUNK_BYTES).unwrap_or(self.unsent);
        match picture.write(chunk) {
            Ok(count) => self.unsent = self.unsent.get(count..).unwrap_or_default(),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // It wants no more: what it gives will show whether that was enough.
            Err(_) => self.unsent = &[],
        }
        if self.unsent.is_empty() {
            self.picture = None;
        }
    }
}

#[cfg(test)]
mod tests;
