//! What is seen: client pixels inside our own borders.

mod cursor;
mod frame;
mod label;
pub mod picture;
mod scene;

pub use cursor::CursorArt;
pub(crate) use cursor::MAX_CURSOR_PX;
pub use frame::FrameArt;
pub use label::Label;
#[cfg(feature = "drm")]
pub(crate) use scene::cursor_alone;
pub(crate) use scene::{GROUND, SceneElement, build, window_alone};
