//! Where the desktop is shown: one file per way. A backend draws the scene when asked and says
//! whether anything changed; when that happens is decided in [`frame`].

pub(crate) mod frame;
mod headless;
#[cfg(feature = "winit")]
mod winit;

use smithay::backend::renderer::{element::RenderElementStates, pixman::PixmanRenderer};

use crate::{
    layout::Size,
    render::{
        build,
        picture::{self, Picture, PictureError},
        window_alone,
    },
    server::StartError,
    state::State,
};

/// A way to show the desktop.
#[derive(Debug)]
pub enum Backend {
    /// Nowhere: in memory, for tests and machines without a screen.
    Headless(Box<headless::Headless>),
    /// In a window of another desktop.
    #[cfg(feature = "winit")]
    Winit(Box<winit::Winit>),
}

/// What a drawing did.
#[derive(Debug)]
pub(crate) struct Drawn {
    /// Did any pixel change?
    pub changed: bool,
    pub states: Option<RenderElementStates>,
}

impl Backend {
    pub(crate) fn headless(size: Size) -> Result<Self, StartError> {
        Ok(Self::Headless(Box::new(headless::Headless::new(size)?)))
    }

    #[cfg(feature = "winit")]
    pub(crate) fn winit(
        size: Size,
        events: &smithay::reexports::calloop::LoopHandle<'static, State>,
    ) -> Result<(Self, Size), StartError> {
        let (backend, size) = winit::Winit::new(size, events)?;
        Ok((Self::Winit(Box::new(backend)), size))
    }

    pub(crate) fn draw(&mut self, state: &mut State) -> Drawn {
        match self {
            Self::Headless(headless) => headless.draw(state),
            #[cfg(feature = "winit")]
            Self::Winit(winit) => winit.draw(state),
        }
    }

    fn draws_cursor(&self) -> bool {
        match self {
            Self::Headless(_) => true,
            #[cfg(feature = "winit")]
            Self::Winit(_) => true,
        }
    }
}

impl State {
    /// Is our own arrow part of the picture?
    pub(crate) fn draws_cursor(&self) -> bool {
        self.backend.as_ref().is_none_or(Backend::draws_cursor)
    }

    /// The desktop as it is now.
    pub(crate) fn screenshot(&mut self) -> Result<Picture, PictureError> {
        self.redraw();
        let area = self.layout.screen();
        if let Some(Backend::Headless(headless)) = &mut self.backend {
            return headless.copy(area);
        }
        let mut renderer = PixmanRenderer::new().map_err(|e| PictureError::Draw(e.to_string()))?;
        let elements = build(self, &mut renderer);
        picture::draw(&mut renderer, &elements, area)
    }

    /// Only the client's pixels of one window or popup, also where other windows cover them.
    pub(crate) fn window_picture(
        &mut self,
        id: crate::layout::WindowId,
    ) -> Result<Picture, PictureError> {
        let mut renderer = PixmanRenderer::new().map_err(|e| PictureError::Draw(e.to_string()))?;
        let (elements, rect) =
            window_alone(self, &mut renderer, id).ok_or(PictureError::NoWindow)?;
        picture::draw(&mut renderer, &elements, rect.size())
    }
}
