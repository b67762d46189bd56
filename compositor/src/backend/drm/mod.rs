//! The desktop on a screen of our own: KMS with atomic commits, pictures in plain memory drawn with
//! Pixman, keyboards and pointers from libinput, all of it through a seat, so that the compositor
//! needs no rights of its own.
//!
//! All outputs that are plugged in show the desktop, each a part of it, beside each other. With none the
//! desktop goes on unseen until one is plugged in again. A picture is drawn only when something changed,
//! and the next one only after all outputs show it.
//!
//! Start reading at [`Drm::start`]; then [`monitor`] for the way of one picture, [`plan`] for what each
//! output shows, and [`events`] for what happens later.

mod error;
mod events;
mod gpu;
mod input;
mod memory;
mod monitor;
mod plan;
mod pointer;
mod seat;

use std::time::{Duration, Instant};

pub use error::ScreenError;
use gpu::Gpu;
use monitor::{Monitor, Shown};
use plan::Plan;
use seat::Seat;
use smithay::{
    backend::{
        renderer::pixman::PixmanRenderer,
        session::Session,
        udev::{UdevBackend, all_gpus},
    },
    reexports::{
        calloop::{
            LoopHandle,
            timer::{TimeoutAction, Timer},
        },
        input::{Device, Libinput},
    },
};

use super::{Backend, Drawn, Screen, wish::OutputWish};
use crate::{
    layout::{Point, Rect},
    server::StartError,
    state::State,
};

/// A device's driver may still be loading when the desktop starts.
const WAIT_FOR_DEVICE: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A screen that has not shown a picture for so long will not.
const FLIGHT: Duration = Duration::from_secs(1);
/// After the device refused a picture.
const RETRY: Duration = Duration::from_secs(1);

/// Is the screen ours?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ownership {
    /// We draw.
    Ours,
    /// The user is at another terminal.
    Away,
}

/// The screen, and everything that comes with it.
pub struct Drm {
    seat: Seat,
    ownership: Ownership,
    input: Libinput,
    /// For the lights on them.
    keyboards: Vec<Device>,
    wishes: Vec<OutputWish>,
    renderer: PixmanRenderer,
    events: LoopHandle<'static, State>,
    /// From left to right. Dropped before the device that they are on.
    monitors: Vec<Monitor>,
    gpu: Option<Gpu>,
    /// The device refused a picture; until a timer ends none is tried.
    refused: bool,
}

impl std::fmt::Debug for Drm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drm")
            .field("ownership", &self.ownership)
            .field(
                "outputs",
                &self.monitors.iter().map(Monitor::plan).collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}

impl Backend {
    /// Takes the seat, the graphics device and the input devices. Answers the screen too, if
    /// something is plugged in, and where others lie beside it.
    pub(crate) fn drm(
        wishes: Vec<OutputWish>,
        events: &LoopHandle<'static, State>,
    ) -> Result<(Self, Option<Screen>, Vec<Rect>), StartError> {
        let drm = Drm::start(wishes, events)?;
        let (screen, others) = drm.shown();
        Ok((Self::Drm(Box::new(drm)), screen, others))
    }
}

impl Drm {
    fn start(
        wishes: Vec<OutputWish>,
        events: &LoopHandle<'static, State>,
    ) -> Result<Self, ScreenError> {
        let renderer =
            PixmanRenderer::new().map_err(|error| ScreenError::Renderer(error.to_string()))?;
        let taken = seat::take()?;
        let ownership = if taken.ours {
            Ownership::Ours
        } else {
            tracing::info!("the user is at another terminal; waiting");
            Ownership::Away
        };
        let (seat, said) = taken.split();
        let seat_name = seat.seat();
        wait_for_device(&seat_name)?;
        let udev = UdevBackend::new(&seat_name).map_err(ScreenError::Udev)?;
        let input = input::start(&seat, events)?;
        let mut drm = Self {
            seat,
            ownership,
            input,
            keyboards: Vec::new(),
            wishes,
            renderer,
            events: events.clone(),
            monitors: Vec::new(),
            gpu: None,
            refused: false,
        };
        if ownership == Ownership::Ours {
            drm.find_gpu()?;
            drm.light();
        }
        seat::listen(&drm.seat, said, events)?;
        events::listen(udev, events)?;
        Ok(drm)
    }

    /// Opens the first device that something is plugged into, else the first that can show
    /// anything.
    fn find_gpu(&mut self) -> Result<(), ScreenError> {
        let seat_name = self.seat.seat();
        let paths = all_gpus(&seat_name).map_err(ScreenError::Udev)?;
        if paths.is_empty() {
            return Err(no_device(seat_name));
        }
        let mut reasons = Vec::new();
        let mut spare = None;
        for path in paths {
            let gpu = match Gpu::open(&mut self.seat, &path, &self.events) {
                Ok(gpu) => gpu,
                Err(reason) => {
                    reasons.push(format!("{}: {reason}", path.display()));
                    continue;
                }
            };
            if plan::any_connected(&gpu.device) {
                if let Some(spare) = spare.take() {
                    Gpu::close(spare, &self.events, &mut self.seat);
                }
                self.gpu = Some(gpu);
                return Ok(());
            }
            if spare.is_none() && plan::has_connectors(&gpu.device) {
                spare = Some(gpu);
            } else {
                reasons.push(format!("{}: it has no outputs", path.display()));
                gpu.close(&self.events, &mut self.seat);
            }
        }
        self.gpu = spare;
        if self.gpu.is_some() {
            Ok(())
        } else {
            Err(ScreenError::NoUsableDevice(reasons.join("; ")))
        }
    }

    /// Lights the outputs that are to show the desktop. Answers whether those are others, or have other
    /// modes or places, than before.
    fn light(&mut self) -> bool {
        let in_use: Vec<_> = self
            .monitors
            .iter()
            .map(|m| (m.connector(), m.crtc()))
            .collect();
        let plans = match &self.gpu {
            Some(gpu) => plan::make(&gpu.device, &self.wishes, &in_use),
            None => return self.darken(),
        };
        if plans.is_empty() {
            if self.monitors.is_empty() {
                tracing::info!("no output is plugged in yet");
            } else {
                tracing::warn!("no output is plugged in; the desktop goes on unseen");
            }
            return self.darken();
        }
        if self.monitors.iter().map(Monitor::plan).eq(&plans) {
            return false;
        }
        // First those that go, or change: what they had may be another one's then. The others' pictures
        // are still on their way.
        let events = &self.events;
        self.monitors.retain_mut(|monitor| {
            let mut plans = plans.iter();
            let stays = plans.any(|plan| monitor.plan().is_same_but_for_place(plan));
            if !stays && let Some(timer) = monitor.flight.take() {
                events.remove(timer);
            }
            stays
        });
        let Some(gpu) = &mut self.gpu else {
            return true;
        };
        let mut lit = Vec::new();
        for plan in plans {
            let kept = self
                .monitors
                .iter()
                .position(|monitor| monitor.plan().is_same_but_for_place(&plan));
            if let Some(kept) = kept {
                lit.push(self.monitors.remove(kept));
                continue;
            }
            let (name, screen) = (plan.name.clone(), plan.screen());
            match Monitor::new(&mut gpu.device, plan, &mut self.renderer) {
                Ok(monitor) => {
                    tracing::info!(
                        output = name,
                        width = screen.pixels().w,
                        height = screen.pixels().h,
                        refresh_mhz = screen.refresh_mhz,
                        scale = screen.scale,
                        pointer_plane = monitor.has_pointer_plane(),
                        "shows the desktop"
                    );
                    lit.push(monitor);
                }
                Err(error) => tracing::error!(output = name, error, "cannot be lit"),
            }
        }
        self.monitors = lit;
        // One that cannot be lit leaves no gap.
        let mut x = 0;
        for monitor in &mut self.monitors {
            monitor.move_to(Point::new(x, 0));
            x = monitor.plan().rect().right();
        }
        true
    }

    /// What the first output shows, and where the others are.
    fn shown(&self) -> (Option<Screen>, Vec<Rect>) {
        let mut plans = self.monitors.iter().map(Monitor::plan);
        let screen = plans.next().map(Plan::screen);
        (screen, plans.map(Plan::rect).collect())
    }

    fn darken(&mut self) -> bool {
        self.forget_flights();
        let any = !self.monitors.is_empty();
        self.monitors.clear();
        any
    }

    /// Pictures that are on their way are not waited for.
    fn forget_flights(&mut self) {
        for monitor in &mut self.monitors {
            if let Some(timer) = monitor.flight.take() {
                self.events.remove(timer);
            }
        }
    }

    /// Is a picture, or a part of one, on its way?
    fn in_flight(&self) -> bool {
        self.monitors.iter().any(|m| m.flight.is_some())
    }

    /// Can a picture be drawn now? With no output it can: clients go on, nothing is shown.
    pub(super) fn ready(&self) -> bool {
        self.ownership == Ownership::Ours && !self.in_flight() && !self.refused
    }

    /// Draws on each output its part.
    pub(super) fn draw(&mut self, state: &mut State) -> Drawn {
        let mut all = Drawn::nothing();
        let mut refused = false;
        for monitor in &mut self.monitors {
            let states = match monitor.draw(state, &mut self.renderer) {
                Shown::Same(states) => states,
                Shown::Soon(states) => {
                    let crtc = monitor.crtc();
                    let timer = Timer::from_duration(FLIGHT);
                    let armed = self.events.insert_source(timer, move |_, (), state| {
                        state.flight_lost(crtc);
                        TimeoutAction::Drop
                    });
                    match armed {
                        Ok(timer) => monitor.flight = Some(timer),
                        Err(error) => tracing::error!(%error, "no timer for a picture"),
                    }
                    all.changed = true;
                    all.later = true;
                    states
                }
                Shown::NotDrawn => {
                    state.dirty = true;
                    continue;
                }
                Shown::Refused(error) => {
                    tracing::warn!(
                        output = monitor.plan().name,
                        error,
                        "the device refused a picture; one more try in a second"
                    );
                    refused = true;
                    continue;
                }
            };
            match &mut all.states {
                Some(known) => known.states.extend(states.states),
                None => all.states = Some(states),
            }
        }
        if refused {
            state.dirty = true;
            let timer = Timer::from_duration(RETRY);
            let armed = self.events.insert_source(timer, |_, (), state| {
                state.try_again();
                TimeoutAction::Drop
            });
            self.refused = armed.is_ok();
        }
        all
    }
}

fn no_device(seat: String) -> ScreenError {
    ScreenError::NoDevice {
        seat,
        waited_s: WAIT_FOR_DEVICE.as_secs(),
    }
}

fn wait_for_device(seat: &str) -> Result<(), ScreenError> {
    let until = Instant::now() + WAIT_FOR_DEVICE;
    while all_gpus(seat).map_err(ScreenError::Udev)?.is_empty() {
        if Instant::now() >= until {
            return Err(no_device(seat.into()));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
