//! Where the desktop is shown: one file per way. A backend draws the scene when asked and says
//! whether anything changed; when that happens is decided in [`frame`].

#[cfg(feature = "drm")]
pub(crate) mod drm;
pub(crate) mod frame;
mod headless;
#[cfg(feature = "winit")]
mod winit;
pub mod wish;

use std::time::Duration;

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
    /// On a screen of our own.
    #[cfg(feature = "drm")]
    Drm(Box<drm::Drm>),
}

/// What the desktop is shown on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Screen {
    /// In pixels of the desktop.
    pub size: Size,
    /// Pixels of its own in each direction to one of the desktop.
    pub scale: i32,
    /// Refreshes in a thousand seconds.
    pub refresh_mhz: i32,
}

impl Screen {
    /// Its size in its own pixels.
    pub fn pixels(&self) -> Size {
        Size::new(
            self.size.w.saturating_mul(self.scale),
            self.size.h.saturating_mul(self.scale),
        )
    }

    /// The time of one refresh, between 24 and 240 a second: no screen makes the desktop draw
    /// without end.
    pub fn frame_time(&self) -> Duration {
        let refresh_mhz = self.refresh_mhz.clamp(24_000, 240_000).unsigned_abs();
        Duration::from_micros(1_000_000_000 / u64::from(refresh_mhz))
    }
}

/// What a drawing did.
#[derive(Debug)]
pub(crate) struct Drawn {
    /// Did any pixel change?
    pub changed: bool,
    pub states: Option<RenderElementStates>,
    /// The screen says later when the picture is seen.
    pub later: bool,
}

impl Drawn {
    fn nothing() -> Self {
        Self {
            changed: false,
            states: None,
            later: false,
        }
    }
}

impl Backend {
    pub(crate) fn headless(size: Size, scale: i32) -> Result<Self, StartError> {
        Ok(Self::Headless(Box::new(headless::Headless::new(
            size, scale,
        )?)))
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
            #[cfg(feature = "drm")]
            Self::Drm(drm) => drm.draw(state),
        }
    }

    /// Can a picture be drawn now?
    fn ready(&self) -> bool {
        match self {
            Self::Headless(_) => true,
            #[cfg(feature = "winit")]
            Self::Winit(_) => true,
            #[cfg(feature = "drm")]
            Self::Drm(drm) => drm.ready(),
        }
    }
}

impl State {
    /// The desktop is shown on another screen with others beside it, or the screen has another mode.
    #[cfg(any(feature = "drm", feature = "winit"))]
    pub(crate) fn screen_changed(&mut self, screen: Screen, others: Vec<crate::layout::Rect>) {
        self.scale = screen.scale;
        self.frame_time = screen.frame_time();
        crate::protocols::set_mode(&self.output, screen);
        self.outputs_changed(screen.size, others);
    }

    /// Is the desktop on a screen of its own, beside the machine's terminals?
    pub(crate) fn has_terminals(&self) -> bool {
        #[cfg(feature = "drm")]
        return matches!(self.backend, Some(Backend::Drm(_)));
        #[cfg(not(feature = "drm"))]
        false
    }

    #[cfg(not(feature = "drm"))]
    pub(crate) fn change_terminal(&mut self, _: i32) {}

    /// Can a picture be drawn now? While the last one is on its way to the screen, or the screen
    /// is somebody else's, it cannot.
    pub(crate) fn backend_ready(&self) -> bool {
        self.backend.as_ref().is_some_and(Backend::ready)
    }

    /// The desktop as it is now.
    pub(crate) fn screenshot(&mut self) -> Result<Picture, PictureError> {
        self.redraw();
        let area = self.picture_size();
        if let Some(Backend::Headless(headless)) = &mut self.backend {
            return headless.copy(area);
        }
        let mut renderer = PixmanRenderer::new().map_err(|e| PictureError::Draw(e.to_string()))?;
        // Also what the screen shows on a plane of its own.
        let elements = build(self, &mut renderer, true);
        picture::draw(&mut renderer, &elements, area, self.scale)
    }

    /// Only the client's pixels of one window or popup, also where other windows cover them.
    pub(crate) fn window_picture(
        &mut self,
        id: crate::layout::WindowId,
    ) -> Result<Picture, PictureError> {
        let mut renderer = PixmanRenderer::new().map_err(|e| PictureError::Draw(e.to_string()))?;
        let (elements, rect) =
            window_alone(self, &mut renderer, id).ok_or(PictureError::NoWindow)?;
        picture::draw(&mut renderer, &elements, rect.size(), 1)
    }
}
