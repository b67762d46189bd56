//! `bulkhead-ui`: the desktop's own windows. The panel at the top, and the application menu.
//!
//! Both are clients of the compositor's socket for the host, and of the manager's D-Bus interface,
//! and of nothing else. They hold no policy: what may be launched where, and what a domain is
//! called and coloured, the manager says. They trust manager and compositor. Names and titles in
//! what they show come from templates and guests: the manager has cleaned and capped them, and they
//! are drawn as plain text, each beside the colour of its domain, never alone.
//!
//! They must never open a file that a domain named, nor take a colour or a label from anything but
//! the manager's word on a domain.
//!
//! Start reading at [`bus`] (what is known, and how), then [`menu`] and [`panel`]; each has a
//! `model` without windows, which is where the tests are.

pub mod ask;
pub mod bus;
pub mod dot;
pub mod menu;
pub mod panel;
pub mod theme;

/// Why a window could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The compositor.
    #[error("{0}; is WAYLAND_DISPLAY ({display}) the compositor's socket for the host?", display = display())]
    Window(#[from] iced_layershell::Error),
    /// No thread could be started.
    #[error("the connection to the session bus: {0}")]
    Bus(std::io::Error),
}

fn display() -> String {
    match std::env::var_os("WAYLAND_DISPLAY") {
        Some(display) => display.to_string_lossy().into_owned(),
        None => "not set".to_owned(),
    }
}
