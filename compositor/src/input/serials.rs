//! Which presses went to whom. A client that wants to move a window or open a menu names the press
//! that caused it; it is believed only when that press went to it.

use std::collections::VecDeque;

use smithay::{
    reexports::wayland_server::{Resource, Weak, protocol::wl_surface::WlSurface},
    utils::Serial,
};

/// Presses older than this many are forgotten.
const REMEMBERED: usize = 32;

#[derive(Debug)]
struct Press {
    serial: Serial,
    surface: Weak<WlSurface>,
    held: bool,
    button: Option<u32>,
}

/// The last presses of buttons, keys and fingers.
#[derive(Debug, Default)]
pub struct Serials {
    presses: VecDeque<Press>,
}

impl Serials {
    /// A press went to a surface. `button` is set for pointer buttons.
    pub fn pressed(&mut self, serial: Serial, surface: &WlSurface, button: Option<u32>) {
        if self.presses.len() >= REMEMBERED {
            self.presses.pop_front();
        }
        let surface = surface.downgrade();
        self.presses.push_back(Press {
            serial,
            surface,
            held: button.is_some(),
            button,
        });
    }

    /// A pointer button was released.
    pub fn released(&mut self, button: u32) {
        for press in self.presses.iter_mut().filter(|p| p.button == Some(button)) {
            press.held = false;
        }
    }

    /// Did this press go to the client of that surface?
    pub fn pressed_by(&self, surface: &WlSurface, serial: Serial) -> bool {
        self.find(surface, serial).is_some()
    }

    /// Is the button of this press, on that client, still held?
    pub fn held_on(&self, surface: &WlSurface, serial: Serial) -> bool {
        self.find(surface, serial)
            .and_then(|press| press.surface.upgrade().ok().map(|s| (s, press.held)))
            .is_some_and(|(pressed, held)| held && crate::shell::root_of(&pressed) == *surface)
    }

    /// The surface that a press went to, if it was of that client.
    pub fn surface_of(&self, surface: &WlSurface, serial: Serial) -> Option<WlSurface> {
        self.find(surface, serial)
            .and_then(|p| p.surface.upgrade().ok())
    }

    fn find(&self, surface: &WlSurface, serial: Serial) -> Option<&Press> {
        self.presses.iter().rev().find(|press| {
            press.serial == serial
                && press
                    .surface
                    .upgrade()
                    .is_ok_and(|pressed| pressed.id().same_client_as(&surface.id()))
        })
    }
}
