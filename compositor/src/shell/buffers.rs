//! When clients get their buffers back: together with the answer to their next frame.
//!
//! A buffer that another one replaces could go back at once. But a client that waits for its frame
//! has no use for it before, and a message of its own costs each client a wake-up, and one in a
//! guest a command and an interrupt besides. So the last buffer of a surface that is shown goes back
//! with the frame's callback. A surface that is faster than frames gets the earlier ones at once: one
//! buffer is kept of each, and none for longer than a frame.

use smithay::{
    backend::renderer::utils::{Buffer, with_renderer_surface_state},
    reexports::wayland_server::{Resource, backend::ObjectId, protocol::wl_surface::WlSurface},
};

/// Buffers that go back with the next frame, at most one a surface.
#[derive(Debug, Default)]
pub(crate) struct Replaced(Vec<(ObjectId, Buffer)>);

impl Replaced {
    /// The buffer that a surface shows now, before a commit may replace it.
    pub(crate) fn shown(surface: &WlSurface) -> Option<Buffer> {
        with_renderer_surface_state(surface, |state| state.buffer().cloned()).flatten()
    }

    /// After the commit: keeps `before` if it was replaced.
    pub(crate) fn keep(&mut self, surface: &WlSurface, before: Option<Buffer>) {
        let now = Self::shown(surface);
        let id = surface.id();
        let Some(before) = before.filter(|before| now.is_some_and(|now| *now != **before)) else {
            return;
        };
        // What was kept until now goes back here.
        match self.0.iter_mut().find(|(of, _)| *of == id) {
            Some((_, kept)) => *kept = before,
            None => self.0.push((id, before)),
        }
    }

    /// Gives all of them back.
    pub(crate) fn give_back(&mut self) {
        self.0.clear();
    }
}
