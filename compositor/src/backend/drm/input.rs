//! Keyboards, pointers, touch screens and pens.

use smithay::{
    backend::{
        input::InputEvent,
        libinput::{LibinputInputBackend, LibinputSessionInterface},
        session::Session,
    },
    input::keyboard::LedState,
    reexports::{
        calloop::LoopHandle,
        input::{
            Device, DeviceCapability, Event, Libinput,
            event::{DeviceEvent, EventTrait},
        },
    },
};

use super::{
    error::{ScreenError, event_loop},
    seat::Seat,
};
use crate::{backend::Backend, state::State};

/// Opens the seat's input devices, now and whenever one is plugged in.
pub(super) fn start(
    seat: &Seat,
    events: &LoopHandle<'static, State>,
) -> Result<Libinput, ScreenError> {
    let interface = LibinputSessionInterface::from(seat.clone());
    let mut context = Libinput::new_with_udev(interface);
    let name = seat.seat();
    context
        .udev_assign_seat(&name)
        .map_err(|()| ScreenError::Input(name))?;
    events
        .insert_source(
            LibinputInputBackend::new(context.clone()),
            |event, (), state| match event {
                InputEvent::DeviceAdded { device } => state.input_device_added(device),
                InputEvent::DeviceRemoved { device } => state.input_device_removed(&device),
                event => state.device_event(event),
            },
        )
        .map_err(event_loop)?;
    greet_opened(&mut context, events);
    Ok(context)
}

/// Makes known what libinput has just opened or closed. It tells of that the next time that a device has
/// something to say: without this, the first tap on a touch pad would be none, and lights would stay as
/// they were before.
pub(super) fn greet_opened(context: &mut Libinput, events: &LoopHandle<'static, State>) {
    let changes: Vec<DeviceEvent> = context
        .filter_map(|event| match event {
            Event::Device(change) => Some(change),
            // Nothing else is there before the devices are read.
            _ => None,
        })
        .collect();
    events.insert_idle(move |state| {
        for change in changes {
            match change {
                DeviceEvent::Added(added) => state.input_device_added(added.device()),
                DeviceEvent::Removed(removed) => state.input_device_removed(&removed.device()),
                _ => {}
            }
        }
    });
}

impl State {
    fn input_device_added(&mut self, mut device: Device) {
        tracing::info!(name = %device.name(), "input device");
        // A tap on a touch pad is a click.
        if device.config_tap_finger_count() > 0
            && let Err(error) = device.config_tap_set_enabled(true)
        {
            tracing::debug!(?error, "a touch pad does not take taps");
        }
        if device.has_capability(DeviceCapability::Keyboard) {
            if let Some(keyboard) = self.seat.get_keyboard() {
                device.led_update(keyboard.led_state().into());
            }
            if let Some(Backend::Drm(drm)) = &mut self.backend {
                drm.keyboards.push(device);
            }
        }
    }

    fn input_device_removed(&mut self, device: &Device) {
        if let Some(Backend::Drm(drm)) = &mut self.backend {
            drm.keyboards.retain(|keyboard| keyboard != device);
        }
    }

    /// Caps lock and the like changed: the lights follow.
    pub(crate) fn show_leds(&mut self, leds: LedState) {
        if let Some(Backend::Drm(drm)) = &mut self.backend {
            for keyboard in &mut drm.keyboards {
                keyboard.led_update(leds.into());
            }
        }
    }
}
