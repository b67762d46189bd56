//! The desktop in a window of the desktop that runs already, drawn with GLES.

use smithay::{
    backend::{
        renderer::{damage::OutputDamageTracker, gles::GlesRenderer},
        winit::{self, WinitEvent, WinitGraphicsBackend},
    },
    reexports::{
        calloop::LoopHandle,
        winit::{dpi::PhysicalSize, window::Window},
    },
    utils::Transform,
};

use super::{Drawn, Screen};
use crate::{
    layout::Size,
    render::{GROUND, build},
    server::StartError,
    state::State,
};

/// The window and what was last drawn in it.
pub struct Winit {
    graphics: WinitGraphicsBackend<GlesRenderer>,
    damage: OutputDamageTracker,
    size: Size,
}

impl std::fmt::Debug for Winit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Winit")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

fn tracker(size: Size) -> OutputDamageTracker {
    // GL's rows go from the bottom to the top.
    OutputDamageTracker::new((size.w, size.h), 1.0, Transform::Flipped180)
}

impl Winit {
    pub(super) fn new(
        size: Size,
        events: &LoopHandle<'static, State>,
    ) -> Result<(Self, Size), StartError> {
        let attributes = Window::default_attributes()
            .with_inner_size(PhysicalSize::new(
                size.w.unsigned_abs(),
                size.h.unsigned_abs(),
            ))
            .with_title("Bulkhead")
            .with_visible(true);
        let (graphics, source) = winit::init_from_attributes::<GlesRenderer>(attributes)
            .map_err(|error| StartError::Window(error.to_string()))?;
        graphics.window().set_cursor_visible(false);
        let real = graphics.window_size();
        let size = Size::new(real.w.max(1), real.h.max(1));
        events
            .insert_source(source, |event, (), state| state.winit_event(event))
            .map_err(|error| StartError::EventLoop(error.to_string()))?;
        Ok((
            Self {
                graphics,
                damage: tracker(size),
                size,
            },
            size,
        ))
    }

    pub(super) fn draw(&mut self, state: &mut State) -> Drawn {
        let nothing = Drawn::nothing();
        let age = self.graphics.buffer_age().unwrap_or(0);
        let (damage, states) = {
            let (renderer, mut target) = match self.graphics.bind() {
                Ok(bound) => bound,
                Err(error) => {
                    tracing::error!(%error, "the window cannot be drawn on");
                    return nothing;
                }
            };
            let elements = build(state, renderer, true);
            match self
                .damage
                .render_output(renderer, &mut target, age, &elements, GROUND)
            {
                Ok(result) => (result.damage.cloned(), result.states),
                Err(error) => {
                    tracing::warn!(%error, "a picture could not be drawn");
                    self.damage = tracker(self.size);
                    return nothing;
                }
            }
        };
        let changed = damage.as_ref().is_some_and(|damage| !damage.is_empty());
        if changed && let Err(error) = self.graphics.submit(damage.as_deref()) {
            tracing::error!(%error, "a picture could not be shown");
        }
        Drawn {
            changed,
            states: Some(states),
            later: false,
        }
    }

    fn resize(&mut self, size: Size) {
        self.size = size;
        self.damage = tracker(size);
    }
}

impl State {
    fn winit_event(&mut self, event: WinitEvent) {
        match event {
            WinitEvent::Resized { size, .. } => self.winit_resized(Size::new(size.w, size.h)),
            WinitEvent::Input(event) => self.device_event(event),
            WinitEvent::Redraw => self.dirty = true,
            WinitEvent::CloseRequested => self.stop.stop(),
            WinitEvent::Focus(_) => {}
        }
    }

    fn winit_resized(&mut self, size: Size) {
        let size = Size::new(size.w.max(1), size.h.max(1));
        if let Some(super::Backend::Winit(winit)) = &mut self.backend {
            winit.resize(size);
        }
        self.screen_changed(
            Screen {
                size,
                scale: 1,
                refresh_mhz: 60_000,
            },
            Vec::new(),
        );
    }
}
