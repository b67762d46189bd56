//! What happens to the screen while the desktop runs: pictures are seen, outputs and devices come
//! and go, the user goes to another terminal and comes back.

use std::time::{Duration, Instant};

use smithay::{
    backend::{
        drm::{DrmEvent, DrmEventMetadata, DrmEventTime},
        session::Session,
        udev::{UdevBackend, UdevEvent},
    },
    reexports::{
        calloop::LoopHandle, drm::control::crtc,
        wayland_protocols::wp::presentation_time::server::wp_presentation_feedback::Kind,
    },
};

use super::{
    Drm, Ownership,
    error::{ScreenError, event_loop},
    gpu::Gpu,
    input,
    monitor::{Monitor, describe},
};
use crate::{
    backend::{Backend, frame::Seen},
    server::StartError,
    state::{State, monotonic},
};

/// Between two pictures on a device without a clock (virtio-gpu answers every picture at once).
const UNCLOCKED_FRAME: Duration = Duration::from_micros(16_667);

/// Hears of devices from now on.
pub(super) fn listen(
    udev: UdevBackend,
    events: &LoopHandle<'static, State>,
) -> Result<(), ScreenError> {
    events
        .insert_source(udev, |event, (), state| state.device_changed(&event))
        .map_err(event_loop)?;
    Ok(())
}

impl Drm {
    /// A picture on its way has arrived, or never will. Answers whether there was one.
    fn landed(&mut self, crtc: crtc::Handle) -> bool {
        let on = self.monitors.iter_mut().find(|m| m.crtc() == crtc);
        let timer = on.and_then(|m| m.flight.take());
        if let Some(timer) = timer {
            self.events.remove(timer);
        }
        timer.is_some()
    }

    fn lose_gpu(&mut self) {
        self.darken();
        if let Some(gpu) = self.gpu.take() {
            gpu.close(&self.events, &mut self.seat);
        }
    }
}

impl State {
    fn drm(&mut self) -> Option<&mut Drm> {
        match &mut self.backend {
            Some(Backend::Drm(drm)) => Some(drm),
            _ => None,
        }
    }

    /// The device says that a picture is seen, or that something went wrong.
    pub(super) fn screen_event(&mut self, event: DrmEvent, metadata: Option<DrmEventMetadata>) {
        let crtc = match event {
            DrmEvent::VBlank(crtc) => crtc,
            DrmEvent::Error(error) => {
                tracing::warn!(error = describe(&error), "graphics device");
                return;
            }
        };
        let Some(drm) = self.drm() else { return };
        if !drm.landed(crtc) || drm.in_flight() {
            // Nobody's, or another output is still to show its part of the same picture.
            return;
        }
        // Devices without a clock of their own answer at once, with the number 0.
        let sequence = metadata.map_or(0, |m| m.sequence);
        let clocked = sequence != 0;
        let at = match metadata.map(|m| m.time) {
            Some(DrmEventTime::Monotonic(at)) if at > Duration::ZERO => at,
            _ => monotonic(),
        };
        if !clocked {
            // Nothing but our own clock holds such a device back, whatever its mode claims.
            self.frame_time = self.frame_time.max(UNCLOCKED_FRAME);
        } else if let Some(earlier) = Instant::now().checked_sub(self.frame_time) {
            // The screen's own clock sets the pace; ours would only run beside it.
            self.last_frame = earlier;
        }
        self.picture_seen(Seen {
            at,
            sequence: if clocked {
                u64::from(sequence)
            } else {
                self.pictures
            },
            kind: if clocked {
                Kind::Vsync | Kind::HwClock | Kind::HwCompletion
            } else {
                Kind::HwCompletion
            },
        });
    }

    pub(super) fn flight_lost(&mut self, crtc: crtc::Handle) {
        let Some(drm) = self.drm() else { return };
        if let Some(monitor) = drm.monitors.iter_mut().find(|m| m.crtc() == crtc) {
            // The timer that called is over.
            monitor.flight = None;
            if monitor.forget_what_is_shown().is_ok() {
                tracing::warn!("the screen did not show a picture; drawing all of it again");
            }
        }
        self.picture_lost();
        self.dirty = true;
    }

    pub(super) fn try_again(&mut self) {
        if let Some(drm) = self.drm() {
            drm.refused = false;
        }
        self.dirty = true;
    }

    /// The user goes to another terminal: nothing is drawn until we have the devices again.
    pub(super) fn leave_screen(&mut self) {
        let Some(drm) = self.drm() else { return };
        tracing::info!("leaving the screen");
        drm.ownership = Ownership::Away;
        drm.input.suspend();
        drm.forget_flights();
        if let Some(gpu) = &mut drm.gpu {
            gpu.device.pause();
        }
        self.picture_lost();
    }

    pub(super) fn return_to_screen(&mut self) {
        let Some(drm) = self.drm() else { return };
        if drm.ownership == Ownership::Ours {
            return;
        }
        tracing::info!("back on the screen");
        drm.ownership = Ownership::Ours;
        if drm.input.resume().is_err() {
            tracing::error!("the input devices did not come back");
        }
        input::greet_opened(&mut drm.input, &drm.events);
        if let Some(gpu) = &mut drm.gpu {
            if let Err(error) = gpu.device.activate(false) {
                tracing::error!(error = describe(&error), "graphics device");
            }
        } else if let Err(error) = drm.find_gpu() {
            self.fail(StartError::Screen(error));
            return;
        }
        let reset: Result<Vec<()>, _> = drm
            .monitors
            .iter_mut()
            .map(Monitor::forget_what_is_shown)
            .collect();
        if let Err(error) = reset {
            tracing::warn!(error = describe(&error), "lighting the outputs anew");
            drm.darken();
        }
        // What was plugged meanwhile.
        self.replan();
        self.dirty = true;
    }

    fn device_changed(&mut self, event: &UdevEvent) {
        let Some(drm) = self.drm() else { return };
        if drm.ownership == Ownership::Away {
            // Looked at when we are back.
            return;
        }
        let ours = drm.gpu.as_ref().map(Gpu::id);
        match event {
            UdevEvent::Added { path, .. } if ours.is_none() => {
                tracing::info!(device = %path.display(), "a graphics device was added");
                if let Err(error) = drm.find_gpu() {
                    tracing::error!(%error, "it is not used");
                }
            }
            UdevEvent::Changed { device_id } if ours == Some(*device_id) => {}
            UdevEvent::Removed { device_id } if ours == Some(*device_id) => {
                tracing::warn!("the graphics device is gone; the desktop goes on unseen");
                drm.lose_gpu();
                if let Err(error) = drm.find_gpu() {
                    tracing::info!(%error, "no other one yet");
                }
            }
            _ => return,
        }
        self.replan();
    }

    /// Lets the right outputs show the desktop.
    fn replan(&mut self) {
        let Some(drm) = self.drm() else { return };
        if !drm.light() {
            return;
        }
        let (screen, others) = drm.shown();
        self.picture_lost();
        if let Some(screen) = screen {
            self.screen_changed(screen, others);
        }
        self.dirty = true;
    }

    /// Goes to another terminal.
    pub(crate) fn change_terminal(&mut self, number: i32) {
        if let Some(drm) = self.drm()
            && let Err(error) = drm.seat.change_vt(number)
        {
            tracing::warn!(%error, number, "cannot go to that terminal now");
        }
    }
}
