//! Fingers: a touch focuses the window below it and goes to its client.

use smithay::{
    backend::input::TouchSlot,
    input::touch::{DownEvent, MotionEvent, UpEvent},
    utils::SERIAL_COUNTER,
};

use super::pointer::cell_at;
use crate::state::State;

impl State {
    /// A finger came down.
    pub(crate) fn touch_down(&mut self, id: u32, x: f64, y: f64, time: u32) {
        let Some(touch) = self.seat.get_touch() else {
            return;
        };
        let at = (x, y).into();
        let cell = cell_at(at);
        let under = self.surface_under(at);
        self.keys.not_a_tap();
        let layer = self
            .layer_under(at, true)
            .map(|(layer, ..)| layer.surface.wl_surface().clone());
        if let Some(root) = layer {
            self.press_on_layer(&root);
        } else if let Some((window, _)) = self.layout.hit(cell)
            && (self.layer_focus.take().is_some() || self.layout.focused() != Some(window))
        {
            self.dismiss_grabs();
            self.layout.focus(window);
            self.dirty = true;
            self.refresh_focus();
        }
        self.keyboard_is_meant();
        let serial = SERIAL_COUNTER.next_serial();
        if let Some((surface, _)) = &under {
            self.serials.pressed(serial, surface, None);
        }
        let slot = TouchSlot::from(Some(id));
        touch.down(
            self,
            under,
            &DownEvent {
                slot,
                location: at,
                serial,
                time,
            },
        );
        touch.frame(self);
    }

    /// A finger moved.
    pub(crate) fn touch_motion(&mut self, id: u32, x: f64, y: f64, time: u32) {
        let Some(touch) = self.seat.get_touch() else {
            return;
        };
        let location = (x, y).into();
        let under = self.surface_under(location);
        let slot = TouchSlot::from(Some(id));
        touch.motion(
            self,
            under,
            &MotionEvent {
                slot,
                location,
                time,
            },
        );
        touch.frame(self);
    }

    /// The fingers meant something else, for example the palm of a hand.
    #[cfg(any(feature = "drm", feature = "winit"))]
    pub(crate) fn touch_cancel(&mut self) {
        if let Some(touch) = self.seat.get_touch() {
            touch.cancel(self);
            touch.frame(self);
        }
    }

    /// A finger was lifted.
    pub(crate) fn touch_up(&mut self, id: u32, time: u32) {
        let Some(touch) = self.seat.get_touch() else {
            return;
        };
        let slot = TouchSlot::from(Some(id));
        let serial = SERIAL_COUNTER.next_serial();
        touch.up(self, &UpEvent { slot, serial, time });
        touch.frame(self);
    }
}
