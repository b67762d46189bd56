//! `wl_seat`: who has the keyboard, and what the pointer looks like.

use smithay::{
    delegate_seat,
    input::{Seat, SeatHandler, SeatState, pointer::CursorImageStatus},
    reexports::wayland_server::{Resource, protocol::wl_surface::WlSurface},
};

use crate::{guard::domain_of, state::State};

impl SeatHandler for State {
    type KeyboardFocus = WlSurface;
    type PointerFocus = WlSurface;
    type TouchFocus = WlSurface;

    fn seat_state(&mut self) -> &mut SeatState<Self> {
        &mut self.seat_state
    }

    fn focus_changed(&mut self, _: &Seat<Self>, focused: Option<&WlSurface>) {
        let client = focused.and_then(Resource::client);
        self.keyboard_came_to(client.as_ref().and_then(domain_of));
        self.offer_selections_to(client);
    }

    #[cfg(feature = "drm")]
    fn led_state_changed(&mut self, _: &Seat<Self>, leds: smithay::input::keyboard::LedState) {
        self.show_leds(leds);
    }

    fn cursor_image(&mut self, _: &Seat<Self>, image: CursorImageStatus) {
        self.cursor = image;
        self.dirty = true;
    }
}

delegate_seat!(State);
