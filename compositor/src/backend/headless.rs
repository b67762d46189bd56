//! The desktop in memory.

use smithay::{
    backend::{
        allocator::Fourcc,
        renderer::{Bind, Offscreen, damage::OutputDamageTracker, pixman::PixmanRenderer},
    },
    reexports::pixman,
    utils::{Buffer, Size as SmithaySize, Transform},
};

use super::Drawn;
use crate::{
    layout::Size,
    render::{
        GROUND, build,
        picture::{self, Picture, PictureError},
    },
    server::StartError,
    state::State,
};

/// A picture in memory and what was last drawn on it.
pub struct Headless {
    renderer: PixmanRenderer,
    image: pixman::Image<'static, 'static>,
    damage: OutputDamageTracker,
    /// The picture holds the last drawing.
    drawn: bool,
}

impl std::fmt::Debug for Headless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Headless").finish_non_exhaustive()
    }
}

impl Headless {
    pub(super) fn new(size: Size, scale: i32) -> Result<Self, StartError> {
        let fail = |error: smithay::backend::renderer::pixman::PixmanError| {
            StartError::Renderer(error.to_string())
        };
        let mut renderer = PixmanRenderer::new().map_err(fail)?;
        let pixels = SmithaySize::<i32, Buffer>::from((size.w * scale, size.h * scale));
        let image = renderer
            .create_buffer(Fourcc::Xrgb8888, pixels)
            .map_err(fail)?;
        let damage = OutputDamageTracker::new(
            (size.w * scale, size.h * scale),
            f64::from(scale),
            Transform::Normal,
        );
        Ok(Self {
            renderer,
            image,
            damage,
            drawn: false,
        })
    }

    pub(super) fn draw(&mut self, state: &mut State) -> Drawn {
        let elements = build(state, &mut self.renderer, true);
        let age = usize::from(self.drawn);
        let result = self
            .renderer
            .bind(&mut self.image)
            .map_err(|e| e.to_string())
            .and_then(|mut target| {
                self.damage
                    .render_output(&mut self.renderer, &mut target, age, &elements, GROUND)
                    .map(|result| Drawn {
                        changed: result.damage.is_some_and(|damage| !damage.is_empty()),
                        states: Some(result.states),
                        later: false,
                    })
                    .map_err(|e| e.to_string())
            });
        match result {
            Ok(drawn) => {
                self.drawn = true;
                drawn
            }
            Err(error) => {
                // A client cut its memory off while it was drawn; smithay has ended it, and the
                // next picture is drawn whole, without it.
                tracing::warn!(error, "a picture could not be drawn");
                self.drawn = false;
                state.dirty = true;
                Drawn::nothing()
            }
        }
    }

    pub(super) fn copy(&mut self, area: Size) -> Result<Picture, PictureError> {
        picture::copy(&mut self.renderer, &mut self.image, area)
    }
}
