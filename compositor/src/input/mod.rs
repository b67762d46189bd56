//! What the user does: keys, pointer, fingers. The desktop's own gestures come first and are never
//! shown to a client; the rest goes to the surface below the pointer or with the focus.

#[cfg(any(feature = "drm", feature = "winit"))]
mod device;
mod keyboard;
mod pointer;
mod serials;
mod touch;
pub mod typing;

pub use keyboard::Keys;
pub use pointer::Pointing;
pub(crate) use pointer::cell_at;
pub use serials::Serials;
