//! When pictures are drawn: at most 60 a second (or as many as the screen refreshes), and none when
//! nothing changed. An idle desktop has no timer.

#[cfg(feature = "drm")]
use std::time::Duration;
use std::time::Instant;

use smithay::{
    backend::renderer::element::RenderElementStates,
    desktop::utils::{OutputPresentationFeedback, take_presentation_feedback_surface_tree},
    input::pointer::CursorImageStatus,
    reexports::{
        calloop::timer::{TimeoutAction, Timer},
        wayland_protocols::wp::presentation_time::server::wp_presentation_feedback,
        wayland_server::{Resource, protocol::wl_surface::WlSurface},
    },
    utils::{Monotonic, Time},
    wayland::{
        compositor::{SurfaceAttributes, TraversalAction, with_surface_tree_downward},
        presentation::Refresh,
    },
};

use crate::{
    control::now_us,
    state::{State, monotonic},
};

/// When a picture was seen.
#[cfg(feature = "drm")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// CLOCK_MONOTONIC.
    pub at: Duration,
    /// The refresh of the screen, counted.
    pub sequence: u64,
    /// How exact this is (`wp_presentation_feedback.kind`).
    pub kind: wp_presentation_feedback::Kind,
}

impl State {
    /// Draws now, or arms the timer for the next picture.
    pub(crate) fn draw_if_due(&mut self) {
        if !self.backend_ready() {
            // Nobody knows when the next frame is.
            self.replaced.give_back();
        }
        if !self.dirty || self.frame_timer_armed || !self.backend_ready() {
            return;
        }
        let since = self.last_frame.elapsed();
        if since >= self.frame_time {
            self.redraw();
            return;
        }
        let timer = Timer::from_duration(self.frame_time.saturating_sub(since));
        let armed = self.events.insert_source(timer, |_, (), state| {
            state.frame_timer_armed = false;
            state.redraw();
            TimeoutAction::Drop
        });
        match armed {
            Ok(_) => self.frame_timer_armed = true,
            Err(error) => {
                tracing::error!(%error, "no timer for the next picture; drawing at once");
                self.redraw();
            }
        }
    }

    /// Draws, and tells clients that their commits are shown.
    pub(crate) fn redraw(&mut self) {
        if !self.dirty || !self.backend_ready() {
            return;
        }
        let Some(mut backend) = self.backend.take() else {
            return;
        };
        self.dirty = false;
        // In step with a clock, as long as pictures follow each other.
        let (now, step) = (Instant::now(), self.last_frame + self.frame_time);
        let late = now.saturating_duration_since(step);
        self.last_frame = if late < self.frame_time && step <= now {
            step
        } else {
            now
        };
        let drawn = backend.draw(self);
        self.backend = Some(backend);
        if drawn.changed {
            self.pictures += 1;
        }
        let mut first_shown = Vec::new();
        for window in self.shell.windows.values_mut().filter(|w| w.mapped()) {
            window.frames += u64::from(std::mem::take(&mut window.fresh));
            if !std::mem::replace(&mut window.announced, true) {
                first_shown.push(window.id);
            }
        }
        for layer in self.shell.layers.iter_mut().filter(|l| l.mapped) {
            if std::mem::take(&mut layer.fresh) {
                layer.frames += 1;
                layer.shown_us = now_us();
            }
        }
        for id in first_shown {
            self.announce_mapped(id);
        }
        for popup in self.shell.popups.iter_mut().filter(|p| p.mapped) {
            popup.frames += u64::from(std::mem::take(&mut popup.fresh));
        }
        self.replaced.give_back();
        self.answer_frames(drawn.states.as_ref(), drawn.later);
    }

    fn shown_surfaces(&self) -> Vec<WlSurface> {
        let windows = self
            .shell
            .windows
            .values()
            .filter(|w| w.mapped())
            .map(|w| w.surface().clone());
        let popups = self
            .shell
            .popups
            .iter()
            .filter(|p| p.mapped)
            .map(|p| p.surface.wl_surface().clone());
        let cursor = match &self.cursor {
            CursorImageStatus::Surface(surface) => Some(surface.clone()),
            _ => None,
        };
        let icon = self.drag.as_ref().and_then(|drag| drag.icon.clone());
        let layers = self
            .shell
            .layers
            .iter()
            .filter(|l| l.mapped)
            .map(|l| l.surface.wl_surface().clone());
        windows
            .chain(popups)
            .chain(layers)
            .chain(cursor)
            .chain(icon)
            .filter(Resource::is_alive)
            .collect()
    }

    fn answer_frames(&mut self, states: Option<&RenderElementStates>, later: bool) {
        let time = self.now_ms();
        let mut feedback = OutputPresentationFeedback::new(&self.output);
        for surface in self.shown_surfaces() {
            with_surface_tree_downward(
                &surface,
                (),
                |_, _, ()| TraversalAction::DoChildren(()),
                |_, states, ()| {
                    let mut attributes = states.cached_state.get::<SurfaceAttributes>();
                    for callback in attributes.current().frame_callbacks.drain(..) {
                        callback.done(time);
                    }
                },
                |_, _, ()| true,
            );
            if states.is_some() {
                take_presentation_feedback_surface_tree(
                    &surface,
                    &mut feedback,
                    |_, _| Some(self.output.clone()),
                    |_, _| wp_presentation_feedback::Kind::empty(),
                );
            }
        }
        if later {
            self.waiting_feedback = Some(feedback);
            return;
        }
        feedback.presented(
            Time::<Monotonic>::from(monotonic()),
            Refresh::fixed(self.frame_time),
            self.pictures,
            wp_presentation_feedback::Kind::empty(),
        );
    }

    /// The picture that was on its way is seen, since a time that the screen's own clock gave.
    #[cfg(feature = "drm")]
    pub(crate) fn picture_seen(&mut self, seen: Seen) {
        let Some(mut feedback) = self.waiting_feedback.take() else {
            return;
        };
        feedback.presented(
            Time::<Monotonic>::from(seen.at),
            Refresh::fixed(self.frame_time),
            seen.sequence,
            seen.kind,
        );
    }

    /// The picture that was on its way will not be seen.
    #[cfg(feature = "drm")]
    pub(crate) fn picture_lost(&mut self) {
        if let Some(mut feedback) = self.waiting_feedback.take() {
            feedback.discarded();
        }
    }
}
