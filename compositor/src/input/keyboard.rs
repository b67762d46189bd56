//! Keys: Super+Q closes, Alt+Tab goes through windows, Super+F maximises, Ctrl+Shift+C and
//! Ctrl+Shift+V copy and paste across domains, Escape ends a drag; all others go to the window with
//! the focus.

use std::collections::HashSet;

use smithay::{
    backend::input::{KeyState, Keycode},
    input::keyboard::{FilterResult, Keysym, ModifiersState, keysyms},
    utils::SERIAL_COUNTER,
};

use crate::{layout::Mode, state::State};

/// evdev codes start at 8 in xkb.
const XKB_OFFSET: u32 = 8;
/// evdev codes of the left and the right Super key.
const SUPER: [u32; 2] = [125, 126];
/// evdev's code of the machine's power button (ACPI's comes through the kernel's `button` driver).
const POWER: u32 = 116;
/// No hand holds more keys down.
const MAX_DOWN: usize = 64;

/// Keys that the desktop took for itself.
#[derive(Debug, Default)]
pub struct Keys {
    taken: HashSet<u32>,
    /// Super is down, and nothing else was pressed since.
    tapping: Option<u32>,
    /// Keys that are down.
    down: HashSet<u32>,
    /// Which modifiers are held.
    pub(super) modifiers: ModifiersState,
}

impl Keys {
    /// Something else was pressed while Super was down.
    pub(super) fn not_a_tap(&mut self) {
        self.tapping = None;
    }

    /// Follows a key. Answers whether Super was tapped: pressed and released with nothing else in
    /// between.
    fn tapped(&mut self, code: u32, pressed: bool) -> bool {
        let before = std::mem::take(&mut self.tapping);
        if pressed {
            let alone = self.down.is_empty() && SUPER.contains(&code);
            self.tapping = alone.then_some(code);
            if self.down.len() < MAX_DOWN {
                self.down.insert(code);
            }
            return false;
        }
        self.down.remove(&code);
        before == Some(code)
    }
}

enum Shortcut {
    Close,
    NextWindow,
    Maximise,
    Fullscreen,
    Dismiss,
    /// Keeps what the focused domain has copied for another one.
    CopyAcross,
    /// Gives it to the focused domain.
    PasteAcross,
    /// Gives up what is dragged.
    CancelDrag,
    /// Another terminal of the machine.
    Terminal(i32),
}

/// Ctrl+Alt+F1 to F12, on a screen of our own.
fn terminal(key: Keysym) -> Option<i32> {
    let keys = keysyms::KEY_XF86Switch_VT_1..=keysyms::KEY_XF86Switch_VT_12;
    let number = key.raw().checked_sub(*keys.start())?;
    keys.contains(&key.raw())
        .then(|| i32::try_from(number + 1).ok())?
}

impl Shortcut {
    /// Whether it is the desktop's also while one of the host's programs has the keyboard.
    fn always(&self) -> bool {
        matches!(self, Self::CopyAcross | Self::PasteAcross)
    }
}

/// The desktop's own keys. While one of the host's programs has the keyboard most are that
/// program's.
fn shortcut(modifiers: &ModifiersState, key: Keysym, menu_open: bool) -> Option<Shortcut> {
    let only_logo = modifiers.logo && !modifiers.ctrl && !modifiers.alt && !modifiers.shift;
    let only_alt = modifiers.alt && !modifiers.ctrl && !modifiers.logo;
    let ctrl_shift = modifiers.ctrl && modifiers.shift && !modifiers.alt && !modifiers.logo;
    match key.raw() {
        keysyms::KEY_q if only_logo => Some(Shortcut::Close),
        keysyms::KEY_m if only_logo => Some(Shortcut::Maximise),
        keysyms::KEY_f if only_logo => Some(Shortcut::Fullscreen),
        // With Caps Lock they are capital letters.
        keysyms::KEY_c | keysyms::KEY_C if ctrl_shift => Some(Shortcut::CopyAcross),
        keysyms::KEY_v | keysyms::KEY_V if ctrl_shift => Some(Shortcut::PasteAcross),
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
        if code == POWER {
            // No window ever learns of it, and no program of the host can keep it.
            if pressed {
                self.announce_power();
            }
            return;
        }
        let state = if pressed {
            KeyState::Pressed
        } else {
            KeyState::Released
        };
        let tapped = self.keys.tapped(code, pressed);
        let on_a_screen = self.has_terminals();
        let host_has_keyboard = self.keyboard_layer().is_some();
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
                if on_a_screen && let Some(number) = terminal(handle.modified_sym()) {
                    state.keys.taken.insert(code);
                    return FilterResult::Intercept(Some(Shortcut::Terminal(number)));
                }
                let symbol = handle.raw_latin_sym_or_raw_current_sym();
                if state.drag.is_some() && symbol == Some(Keysym::Escape) {
                    state.keys.taken.insert(code);
                    return FilterResult::Intercept(Some(Shortcut::CancelDrag));
                }
                let shortcut = symbol
                    .and_then(|symbol| shortcut(modifiers, symbol, menu_open))
                    .filter(|shortcut| !host_has_keyboard || shortcut.always());
                match shortcut {
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
        if tapped {
            self.announce_menu();
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
                    self.keyboard_is_meant();
                }
            }
            Shortcut::Maximise => self.toggle(Mode::Maximised),
            Shortcut::Fullscreen => self.toggle(Mode::Fullscreen),
            Shortcut::Dismiss => self.dismiss_grabs(),
            Shortcut::CopyAcross => self.copy_across(),
            Shortcut::PasteAcross => self.paste_across(),
            Shortcut::CancelDrag => self.cancel_drag(),
            Shortcut::Terminal(number) => self.change_terminal(number),
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

    /// Raises a window and gives it the focus, for the user's own window list. False when no such
    /// window is shown.
    pub(crate) fn activate(&mut self, id: crate::layout::WindowId) -> bool {
        if self.layout.get(id).is_none() {
            return false;
        }
        if self.layout.focused() != Some(id) {
            self.dismiss_grabs();
        }
        self.layer_focus = None;
        self.layout.focus(id);
        self.dirty = true;
        self.refresh_focus();
        self.keyboard_is_meant();
        self.pointer_moved_under();
        true
    }

    /// Dismisses the menus that hold keyboard and pointer.
    pub(crate) fn dismiss_grabs(&mut self) {
        if let Some(root) = self.shell.grabbing_popup().map(|popup| popup.root) {
            self.dismiss_popups(root);
        }
    }
}
