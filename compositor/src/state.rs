//! Everything that the event loop works on.

use std::time::{Duration, Instant};

use smithay::{
    desktop::utils::OutputPresentationFeedback,
    input::{Seat, SeatState, pointer::CursorImageStatus},
    output::Output,
    reexports::{
        calloop::{LoopHandle, LoopSignal},
        wayland_server::{DisplayHandle, Resource, Weak, protocol::wl_surface::WlSurface},
    },
};

use crate::{
    backend::Backend,
    control::Control,
    domain::{DomainId, Domains, Quota},
    guard::Accounts,
    input::{Keys, Pointing, Serials},
    layout::{Layout, Size, WindowId},
    notice::Notice,
    protocols::Protocols,
    render::CursorArt,
    selection::{Drag, Selections},
    server::StartError,
    shell::{Shell, buffers::Replaced},
};

/// The whole compositor.
pub struct State {
    pub(crate) display: DisplayHandle,
    pub(crate) events: LoopHandle<'static, Self>,
    pub(crate) stop: LoopSignal,
    pub(crate) protocols: Protocols,
    pub(crate) seat_state: SeatState<Self>,
    pub(crate) seat: Seat<Self>,
    pub(crate) output: Output,
    /// Pixels of the output in each direction to one of the desktop.
    pub(crate) scale: i32,
    pub(crate) domains: Domains,
    pub(crate) default_quota: Quota,
    pub(crate) accounts: Accounts,
    pub(crate) shell: Shell,
    pub(crate) layout: Layout,
    /// The window that was last told that it is active.
    pub(crate) activated: Option<WindowId>,
    /// The panel that the user clicked last, if nothing else since.
    pub(crate) layer_focus: Option<Weak<WlSurface>>,
    pub(crate) selections: Selections,
    pub(crate) drag: Option<Drag>,
    /// What the user is being told.
    pub(crate) notice: Option<Notice>,
    pub(crate) serials: Serials,
    pub(crate) keys: Keys,
    pub(crate) pointing: Pointing,
    pub(crate) cursor: CursorImageStatus,
    pub(crate) cursor_art: CursorArt,
    pub(crate) backend: Option<Backend>,
    /// Clients that wait to hear when the picture that is on its way is seen.
    /// Buffers that clients get back with the next frame.
    pub(crate) replaced: Replaced,
    pub(crate) waiting_feedback: Option<OutputPresentationFeedback>,
    /// Why the event loop was stopped, if not because somebody wanted it.
    pub(crate) failure: Option<StartError>,
    /// Something changed since the last picture.
    pub(crate) dirty: bool,
    pub(crate) frame_timer_armed: bool,
    /// Between two pictures.
    pub(crate) frame_time: Duration,
    pub(crate) last_frame: Instant,
    pub(crate) pictures: u64,
    pub(crate) last_commit: Instant,
    pub(crate) watchdog: crate::listen::Watchdog,
    pub(crate) control: Control,
    pub(crate) activation_tokens: u64,
}

impl State {
    /// The desktop's size in the output's pixels.
    pub(crate) fn picture_size(&self) -> Size {
        let screen = self.layout.screen();
        Size::new(
            screen.w.saturating_mul(self.scale),
            screen.h.saturating_mul(self.scale),
        )
    }

    /// Ends the event loop with an error.
    #[cfg(feature = "drm")]
    pub(crate) fn fail(&mut self, error: StartError) {
        tracing::error!(%error, "the desktop cannot go on");
        self.failure.get_or_insert(error);
        self.stop.stop();
    }

    /// CLOCK_MONOTONIC in milliseconds, the time of input events.
    pub(crate) fn now_ms(&self) -> u32 {
        // The protocol's clock wraps around too.
        u32::try_from(monotonic().as_millis() & u128::from(u32::MAX)).unwrap_or_default()
    }

    /// The domain that a surface belongs to.
    pub(crate) fn domain_of_surface(&self, surface: &WlSurface) -> Option<DomainId> {
        self.accounts.domain_of_surface(&surface.id())
    }
}

/// CLOCK_MONOTONIC.
pub(crate) fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}
