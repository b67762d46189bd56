//! The seat: who may use the screen and the keyboard. libseat opens the devices for us, so that
//! the compositor needs no rights of its own, and takes them back when the user goes to another
//! terminal.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use smithay::{
    backend::session::{
        Event as SessionEvent, Session,
        libseat::{LibSeatSession, LibSeatSessionNotifier},
    },
    reexports::calloop::{
        Dispatcher, EventLoop, EventSource, Poll, PostAction, Readiness, Token, TokenFactory,
    },
};

use super::error::{ScreenError, event_loop};

/// The seat is usually given at once; after this the user is taken to be at another terminal.
const PATIENCE: Duration = Duration::from_secs(2);

/// What happens to the seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeatEvent {
    /// The devices are somebody else's now.
    Paused,
    /// The devices are ours.
    Resumed,
    /// There is no seat any more.
    Lost,
}

/// smithay's source of these events panics when the seat's daemon is gone; this one says so.
pub(super) struct SeatEvents(LibSeatSessionNotifier);

impl EventSource for SeatEvents {
    type Event = SeatEvent;
    type Metadata = ();
    type Ret = ();
    type Error = io::Error;

    fn process_events<F>(
        &mut self,
        readiness: Readiness,
        token: Token,
        mut callback: F,
    ) -> io::Result<PostAction>
    where
        F: FnMut(SeatEvent, &mut ()),
    {
        let mut happened = Vec::new();
        let result = catch_unwind(AssertUnwindSafe(|| {
            self.0.process_events(readiness, token, |event, ()| {
                happened.push(match event {
                    SessionEvent::PauseSession => SeatEvent::Paused,
                    SessionEvent::ActivateSession => SeatEvent::Resumed,
                });
            })
        }));
        for event in happened {
            callback(event, &mut ());
        }
        match result {
            Ok(Ok(action)) => Ok(action),
            Ok(Err(_)) | Err(_) => {
                callback(SeatEvent::Lost, &mut ());
                Ok(PostAction::Disable)
            }
        }
    }

    fn register(
        &mut self,
        poll: &mut Poll,
        factory: &mut TokenFactory,
    ) -> smithay::reexports::calloop::Result<()> {
        self.0.register(poll, factory)
    }

    fn reregister(
        &mut self,
        poll: &mut Poll,
        factory: &mut TokenFactory,
    ) -> smithay::reexports::calloop::Result<()> {
        self.0.reregister(poll, factory)
    }

    fn unregister(&mut self, poll: &mut Poll) -> smithay::reexports::calloop::Result<()> {
        self.0.unregister(poll)
    }
}

/// Takes the seat and waits a little until its devices can be opened. They cannot while the user
/// is at another terminal; that is no error.
pub(super) fn take() -> Result<(LibSeatSession, SeatEvents), ScreenError> {
    let (session, notifier) =
        LibSeatSession::new().map_err(|error| ScreenError::Seat(error.to_string()))?;
    if session.is_active() {
        return Ok((session, SeatEvents(notifier)));
    }
    let mut events = EventLoop::<bool>::try_new().map_err(event_loop)?;
    let source = Dispatcher::new(SeatEvents(notifier), |event, (), ours: &mut bool| {
        *ours = event == SeatEvent::Resumed;
    });
    let token = events
        .handle()
        .register_dispatcher(source.clone())
        .map_err(event_loop)?;
    let (mut ours, until) = (false, Instant::now() + PATIENCE);
    while !ours && Instant::now() < until {
        let left = until.saturating_duration_since(Instant::now());
        events.dispatch(Some(left), &mut ours).map_err(event_loop)?;
    }
    events.handle().remove(token);
    drop(events);
    Ok((session, source.into_source_inner()))
}
