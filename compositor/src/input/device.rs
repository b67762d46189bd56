//! Events of a backend's devices, handed on to the desktop.

use smithay::{
    backend::input::{
        AbsolutePositionEvent, Axis, ButtonState, Event, InputBackend, InputEvent, KeyState,
        KeyboardKeyEvent, PointerAxisEvent, PointerButtonEvent, PointerMotionEvent, ProximityState,
        TabletToolProximityEvent, TabletToolTipEvent, TabletToolTipState, TouchEvent, TouchSlot,
    },
    utils::{Logical, Size as SmithaySize},
};

use super::pointer::BTN_LEFT;
use crate::state::State;

/// Backends count keys as xkb does: evdev codes and 8.
const XKB_OFFSET: u32 = 8;

impl State {
    /// What a keyboard, pointer, touch screen or pen did.
    pub(crate) fn device_event<B: InputBackend>(&mut self, event: InputEvent<B>) {
        let (screen, main) = (self.layout.screen(), self.layout.main());
        let desktop = SmithaySize::<i32, Logical>::from((screen.w, screen.h));
        // A touch screen or pen is most likely that of the machine itself.
        let main = SmithaySize::<i32, Logical>::from((main.w, main.h));
        match event {
            InputEvent::Keyboard { event } => {
                let code = event.key_code().raw().saturating_sub(XKB_OFFSET);
                self.key(code, event.state() == KeyState::Pressed, event.time_msec());
            }
            InputEvent::PointerMotion { event } => {
                let at = self.pointing.at + event.delta();
                self.pointer_motion(at.x, at.y, event.time_msec());
            }
            InputEvent::PointerMotionAbsolute { event } => {
                let at = event.position_transformed(desktop);
                self.pointer_motion(at.x, at.y, event.time_msec());
            }
            InputEvent::PointerButton { event } => {
                let pressed = event.state() == ButtonState::Pressed;
                self.pointer_button(event.button_code(), pressed, event.time_msec());
            }
            InputEvent::PointerAxis { event } => {
                let amount = |axis| {
                    event
                        .amount(axis)
                        .or_else(|| event.amount_v120(axis).map(|v| v * 15.0 / 120.0))
                        .unwrap_or(0.0)
                };
                let (h, v) = (amount(Axis::Horizontal), amount(Axis::Vertical));
                self.pointer_axis(h, v, event.time_msec());
            }
            InputEvent::TouchDown { event } => {
                let at = event.position_transformed(main);
                self.touch_down(slot(event.slot()), at.x, at.y, event.time_msec());
            }
            InputEvent::TouchMotion { event } => {
                let at = event.position_transformed(main);
                self.touch_motion(slot(event.slot()), at.x, at.y, event.time_msec());
            }
            InputEvent::TouchUp { event } => {
                self.touch_up(slot(event.slot()), event.time_msec());
            }
            InputEvent::TouchCancel { .. } => self.touch_cancel(),
            // A pen is a pointer with one button.
            InputEvent::TabletToolAxis { event } => {
                let at = event.position_transformed(main);
                self.pointer_motion(at.x, at.y, event.time_msec());
            }
            InputEvent::TabletToolProximity { event } if event.state() == ProximityState::In => {
                let at = event.position_transformed(main);
                self.pointer_motion(at.x, at.y, event.time_msec());
            }
            InputEvent::TabletToolTip { event } => {
                let at = event.position_transformed(main);
                self.pointer_motion(at.x, at.y, event.time_msec());
                let pressed = event.tip_state() == TabletToolTipState::Down;
                self.pointer_button(BTN_LEFT, pressed, event.time_msec());
            }
            _ => {}
        }
    }
}

fn slot(slot: TouchSlot) -> u32 {
    u32::try_from(i32::from(slot)).unwrap_or_default()
}
