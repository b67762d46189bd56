//! A toplevel window.

use smithay::{
    reexports::wayland_server::protocol::wl_surface::WlSurface,
    wayland::shell::xdg::ToplevelSurface,
};

use crate::{
    domain::DomainId,
    layout::{Mode, WindowId},
    render::FrameArt,
};

/// How far a window has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The client has the role and has shown nothing; it waits for its first configure, or has it.
    Waiting,
    /// On the desktop.
    Mapped,
}

/// A toplevel window.
#[derive(Debug)]
pub struct Window {
    /// Its name on the desktop.
    pub id: WindowId,
    /// Whose it is.
    pub domain: DomainId,
    /// smithay's handle.
    pub toplevel: ToplevelSurface,
    /// Cleaned title, shown after the domain's name.
    pub title: String,
    /// Cleaned application name; never used as identity.
    pub app_id: String,
    /// How far it has come.
    pub stage: Stage,
    /// What the client asked for before it was shown.
    pub wanted_mode: Mode,
    /// Commits of its surface tree.
    pub commits: u64,
    /// Pictures of the desktop that showed something new of it.
    pub frames: u64,
    /// Something was committed since the last picture.
    pub fresh: bool,
    /// Subscribers were told that it is shown.
    pub announced: bool,
    /// Its title or application name changed since subscribers were told.
    pub retitled: bool,
    /// Border and title bar.
    pub art: FrameArt,
}

impl Window {
    /// Its own surface.
    pub fn surface(&self) -> &WlSurface {
        self.toplevel.wl_surface()
    }

    /// On the desktop?
    pub fn mapped(&self) -> bool {
        self.stage == Stage::Mapped
    }
}
