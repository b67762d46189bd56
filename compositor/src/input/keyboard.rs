//! Keys: Super+Q closes, Alt+Tab goes through windows, Super+F maximises; all others go to the
//! window with the focus.

use std::collections::HashSet;

use smithay::{
    backend::input::{KeyState, Keycode},
    input::keyboard::{FilterResult, Keysym, ModifiersState, keysyms},
    utils::SERIAL_COUNTER,
};

use crate::{layout::Mode, state::State};

/// evdev codes start at 8 in xkb.
const XKB_OFFSET: u32 = 8;

/// Keys that the desktop took for itself.
#[derive(Debug, Default)]
pub struct Keys {
    taken: HashSet<u32>,
    /// Which modifiers are held.
    pub(super) modifiers: ModifiersState,
}

enum Shortcut {
    Close,
    NextWindow,
    Maximise,
    Fullscreen,
    Dismiss,
}

fn shortcut(modifiers: &ModifiersState, key: Keysym, menu_open: bool) -> Option<Shortcut> {
    let only_logo = modifiers.logo && !modifiers.ctrl && !modifiers.alt && !modifiers.shift;
    let only_alt = modifiers.alt && !modifiers.ctrl && !modifiers.logo;
    match key.raw() {
        keysyms::KEY_q if only_logo => Some(Shortcut::Close),
        keysyms::KEY_m if only_logo => Some(Shortcut::Maximise),
        keysyms::KEY_f if only_logo => Some(Shortcut::Fullscreen),
        keysyms::KEY_Tab if only_alt => Some(Shortcut::NextWindow),
        keysyms::KEY_Escape if only_logo && menu_open => Some(Shortcut::Dismiss),
        _ => None,
    }
}

impl State {
    /// A key by its evdev code.
    pub(crate) fn key(&mut self, code: u32, pressed: bool, time: u32) {
        let Some(keyboard) = self.seat.get_keyboard() else {
            return;
        };
        let Some(xkb_code) = code.checked_add(XKB_OFFSET).filter(|c| *c < 768) else {
            return;
        };
        let state = if pressed {
            KeyState::Pressed
        } else {
            KeyState::Released
        };
        let serial = SERIAL_COUNTER.next_serial();
        let menu_open = self.shell.grabbing_popup().is_some();
        let taken = keyboard.input(
            self,
            Keycode::new(xkb_code),
            state,
            serial,
            time,
            |state, modifiers, handle| {
                state.keys.modifiers = *modifiers;
                if !pressed {
                    return if state.keys.taken.remove(&code) {
                        FilterResult::Intercept(None)
                    } else {
                        FilterResult::Forward
                    };
                }
                let symbol = handle.raw_latin_sym_or_raw_current_sym();
                match symbol.and_then(|symbol| shortcut(modifiers, symbol, menu_open)) {
                    Some(shortcut) => {
                        state.keys.taken.insert(code);
                        FilterResult::Intercept(Some(shortcut))
                    }
                    None => FilterResult::Forward,
                }
            },
        );
        if !self.keys.modifiers.alt {
            self.layout.end_cycle();
        }
        match taken {
            Some(Some(shortcut)) => self.run_shortcut(shortcut),
            Some(None) => {}
            None if pressed => {
                if let Some(surface) = keyboard.current_focus() {
                    self.serials.pressed(serial, &surface, None);
                }
            }
            None => {}
        }
    }

    fn run_shortcut(&mut self, shortcut: Shortcut) {
        match shortcut {
            Shortcut::Close => {
                if let Some(id) = self.layout.focused() {
                    self.close(id);
                }
            }
            Shortcut::NextWindow => {
                self.dismiss_grabs();
                if self.layout.cycle().is_some() {
                    self.dirty = true;
                    self.refresh_focus();
                }
            }
            Shortcut::Maximise => self.toggle(Mode::Maximised),
            Shortcut::Fullscreen => self.toggle(Mode::Fullscreen),
            Shortcut::Dismiss => self.dismiss_grabs(),
        }
    }

    fn toggle(&mut self, mode: Mode) {
        let Some(id) = self.layout.focused() else {
            return;
        };
        let now = self.layout.get(id).map(|w| w.mode);
        self.change_mode(
            id,
            if now == Some(mode) {
                Mode::Floating
            } else {
                mode
            },
        );
    }

    /// Asks a window to close.
    pub(crate) fn close(&mut self, id: crate::layout::WindowId) -> bool {
        let Some(window) = self.shell.windows.get(&id) else {
            return false;
        };
        window.toplevel.send_close();
        true
    }

    /// Dismisses the menus that hold keyboard and pointer.
    pub(crate) fn dismiss_grabs(&mut self) {
        if let Some(root) = self.shell.grabbing_popup().map(|popup| popup.root) {
            self.dismiss_popups(root);
        }
    }
}
