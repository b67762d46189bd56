//! The seat: who may use the screen and the keyboard. libseat opens the devices for us, so that
//! the compositor needs no rights of its own, and takes them back when the user goes to another
//! terminal.
//!
//! smithay has such a session too; it panics when the seat's daemon ends, or waits for ever.

use std::{
    cell::RefCell,
    collections::HashMap,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use libseat::SeatEvent;
use smithay::{
    backend::session::{AsErrno, Session},
    reexports::{
        calloop::{
            Interest, LoopHandle, Mode, PostAction,
            channel::{Channel, Event, channel},
            generic::Generic,
        },
        rustix::{fs::OFlags, net::RecvFlags},
    },
};

use super::error::{ScreenError, event_loop};
use crate::{server::StartError, state::State};

/// The seat is usually given at once; after this the user is taken to be at another terminal.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks whether it is given.
const LOOK_EVERY_MS: i32 = 50;

/// The seat, and the devices that it opened for us.
#[derive(Clone)]
pub(super) struct Seat(Rc<Inner>);

struct Inner {
    seat: RefCell<libseat::Seat>,
    devices: RefCell<HashMap<RawFd, libseat::Device>>,
    name: String,
}

/// What the seat's daemon answered.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct SeatError(std::io::Error);

/// For libseat's own type of errors, which has no name outside of it.
fn seat_error(number: impl Into<i32>) -> SeatError {
    SeatError(std::io::Error::from_raw_os_error(number.into()))
}

impl AsErrno for SeatError {
    fn as_errno(&self) -> Option<i32> {
        self.0.raw_os_error()
    }
}

/// What the seat says later, and whether the devices are ours now.
pub(super) struct Taken {
    pub seat: Seat,
    pub ours: bool,
    events: Channel<SeatEvent>,
}

fn refused(number: impl Into<i32>) -> ScreenError {
    ScreenError::Seat(seat_error(number).to_string())
}

/// Takes the seat and waits a little until its devices can be opened. They cannot while the user
/// is at another terminal; that is no error.
pub(super) fn take() -> Result<Taken, ScreenError> {
    let (sender, events) = channel();
    let mut seat = libseat::Seat::open(move |_, event| {
        // Nobody listens any more only when everything ends.
        let _ = sender.send(event);
    })
    .map_err(refused)?;
    let name = seat.name().to_owned();
    let until = Instant::now() + PATIENCE;
    let mut ours = false;
    while !ours && Instant::now() < until {
        seat.dispatch(LOOK_EVERY_MS).map_err(refused)?;
        while let Ok(event) = events.try_recv() {
            ours = matches!(event, SeatEvent::Enable);
        }
    }
    Ok(Taken {
        seat: Seat(Rc::new(Inner {
            seat: RefCell::new(seat),
            devices: RefCell::default(),
            name,
        })),
        ours,
        events,
    })
}

/// Hears from the seat from now on.
pub(super) fn listen(
    seat: &Seat,
    said: Channel<SeatEvent>,
    events: &LoopHandle<'static, State>,
) -> Result<(), ScreenError> {
    let later = seat.clone();
    events
        .insert_source(said, move |event, (), state| {
            let Event::Msg(event) = event else { return };
            match event {
                SeatEvent::Enable => state.return_to_screen(),
                SeatEvent::Disable => {
                    state.leave_screen();
                    if let Err(error) = later.0.seat.borrow_mut().disable() {
                        state.seat_lost(&seat_error(error));
                    }
                }
            }
        })
        .map_err(event_loop)?;
    // A descriptor of our own: libseat closes its one when the daemon is gone, and then nobody
    // would hear of it.
    let socket = seat
        .0
        .seat
        .borrow_mut()
        .get_fd()
        .map_err(refused)?
        .try_clone_to_owned()
        .map_err(|error| ScreenError::Seat(error.to_string()))?;
    let seat = seat.clone();
    events
        .insert_source(
            Generic::new(socket, Interest::READ, Mode::Level),
            move |_, socket, state: &mut State| {
                // libseat takes the end of the connection for silence.
                if at_its_end(socket.as_fd()) {
                    let gone = std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
                    state.seat_lost(&SeatError(gone));
                    return Ok(PostAction::Remove);
                }
                let dispatched = seat.0.seat.borrow_mut().dispatch(0);
                if let Err(error) = dispatched {
                    state.seat_lost(&seat_error(error));
                    return Ok(PostAction::Remove);
                }
                Ok(PostAction::Continue)
            },
        )
        .map(|_| ())
        .map_err(event_loop)
}

fn at_its_end(socket: std::os::fd::BorrowedFd<'_>) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let peeked = rustix::net::recv(socket, &mut [0u8; 1], flags);
    matches!(peeked, Ok((0, _)))
}

impl Taken {
    /// Its parts.
    pub(super) fn split(self) -> (Seat, Channel<SeatEvent>) {
        (self.seat, self.events)
    }
}

impl State {
    fn seat_lost(&mut self, error: &SeatError) {
        tracing::error!(%error, "the seat is lost");
        self.fail(StartError::Screen(ScreenError::SeatLost));
    }
}

impl Session for Seat {
    type Error = SeatError;

    fn open(&mut self, path: &Path, _: OFlags) -> Result<OwnedFd, SeatError> {
        let opened = self.0.seat.borrow_mut().open_device(&path);
        let device = opened.map_err(seat_error)?;
        let number = device.as_fd().as_raw_fd();
        self.0.devices.borrow_mut().insert(number, device);
        // SAFETY: libseat just opened this descriptor for us and never closes it; the number is
        // kept only to find the device again.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }

    fn close(&mut self, fd: OwnedFd) -> Result<(), SeatError> {
        let device = self.0.devices.borrow_mut().remove(&fd.as_raw_fd());
        if let Some(device) = device {
            let closed = self.0.seat.borrow_mut().close_device(device);
            closed.map_err(seat_error)?;
        }
        Ok(())
    }

    fn change_vt(&mut self, number: i32) -> Result<(), SeatError> {
        let asked = self.0.seat.borrow_mut().switch_session(number);
        asked.map_err(seat_error)
    }

    fn is_active(&self) -> bool {
        // Whoever asks knows it from the events.
        true
    }

    fn seat(&self) -> String {
        self.0.name.clone()
    }
}
