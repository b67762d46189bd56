//! Drag-and-drop within one domain. While a drag is over another domain, that domain sees nothing
//! at all: no enter, no motion, no types. What is dropped there is a matter of [`super::dragging`].

use std::sync::{Mutex, Weak};

use smithay::{
    reexports::wayland_server::{
        Client, Resource,
        protocol::{
            wl_data_device::WlDataDevice, wl_data_device_manager::DndAction,
            wl_data_offer::WlDataOffer, wl_data_source::WlDataSource, wl_pointer,
            wl_surface::WlSurface,
        },
    },
    utils::{Logical, Point, SERIAL_COUNTER, Serial},
    wayland::compositor::{SurfaceAttributes, give_role, with_states},
};

use super::{
    dragging::Abroad,
    protocol::{Agreement, OfferData, SourceData},
};
use crate::{
    domain::DomainId, guard::domain_of, render::MAX_CURSOR_PX, shell::root_of, state::State,
};

const DRAG_ICON_ROLE: &str = "dnd_icon";

/// A drag that goes on.
#[derive(Debug)]
pub struct Drag {
    pub(super) source: Option<WlDataSource>,
    origin: Client,
    pub(super) domain: DomainId,
    /// The picture below the pointer.
    pub icon: Option<WlSurface>,
    /// How far the picture is from the pointer; at most its own size.
    pub icon_offset: Point<i32, Logical>,
    target: Option<Target>,
    /// What is known while it is over other domains.
    pub(crate) abroad: Abroad,
}

#[derive(Debug)]
struct Target {
    surface: WlSurface,
    at: Point<f64, Logical>,
    devices: Vec<(WlDataDevice, Option<WlDataOffer>)>,
}

fn agreement(data: &OfferData) -> Option<&Mutex<Agreement>> {
    data.drag.as_ref()
}

impl State {
    pub(super) fn start_drag(
        &mut self,
        client: &Client,
        source: Option<WlDataSource>,
        origin: &WlSurface,
        icon: Option<WlSurface>,
        serial: Serial,
    ) {
        let held = self.serials.held_on(&root_of(origin), serial);
        let (Some(domain), true, None) = (domain_of(client), held, &self.drag) else {
            if let Some(source) = source {
                source.cancelled();
            }
            return;
        };
        if let Some(icon) = &icon
            && give_role(icon, DRAG_ICON_ROLE).is_err()
        {
            icon.post_error(
                wl_pointer::Error::Role,
                "the icon's surface has another role",
            );
            return;
        }
        self.drag = Some(Drag {
            source,
            origin: client.clone(),
            domain,
            icon,
            icon_offset: Point::default(),
            target: None,
            abroad: Abroad::default(),
        });
        // The button that began the drag is no longer the client's.
        if let Some(pointer) = self.seat.get_pointer() {
            pointer.unset_grab(self, SERIAL_COUNTER.next_serial(), self.now_ms());
        }
        self.dirty = true;
        self.pointer_moved_under();
    }

    /// The pointer moved during a drag.
    pub(crate) fn drag_motion(
        &mut self,
        under: Option<(WlSurface, Point<f64, Logical>)>,
        at: Point<f64, Logical>,
        time: u32,
    ) {
        self.hover(under.as_ref(), at);
        let Some(drag) = &self.drag else { return };
        let allowed = under.filter(|(surface, _)| {
            let Some(client) = surface.client() else {
                return false;
            };
            // Without a source the drag is a matter of one client alone.
            domain_of(&client) == Some(drag.domain)
                && (drag.source.is_some() || client == drag.origin)
        });
        let same = match (&drag.target, &allowed) {
            (Some(target), Some((surface, _))) => target.surface == *surface,
            (None, None) => return,
            _ => false,
        };
        if !same {
            self.leave_target();
            if let Some((surface, origin)) = allowed {
                self.enter_target(surface, at - origin);
            }
            return;
        }
        if let (Some(drag), Some((_, origin))) = (&mut self.drag, allowed)
            && let Some(target) = &mut drag.target
        {
            target.at = at - origin;
            for (device, _) in &target.devices {
                device.motion(time, target.at.x, target.at.y);
            }
        }
    }

    fn enter_target(&mut self, surface: WlSurface, at: Point<f64, Logical>) {
        let Some(client) = surface.client() else {
            return;
        };
        let Some(drag) = &self.drag else { return };
        let source = drag.source.clone();
        let serial: u32 = SERIAL_COUNTER.next_serial().into();
        let mut devices = Vec::new();
        self.leave_given(&client);
        for device in self.selections.devices_of(&client) {
            let offer = source.as_ref().and_then(|source| {
                let data = OfferData {
                    source: Some(source.clone()),
                    pasted: Weak::new(),
                    drag: Some(Mutex::new(Agreement::default())),
                };
                let types = source.data::<SourceData>()?.types.list();
                let offer = self.announce_offer(&client, &device, types, data)?;
                if offer.version() >= 3 {
                    offer.source_actions(source_actions(source));
                }
                Some(offer)
            });
            device.enter(serial, &surface, at.x, at.y, offer.as_ref());
            devices.push((device, offer));
        }
        if let Some(drag) = &mut self.drag {
            drag.target = Some(Target {
                surface,
                at,
                devices,
            });
        }
    }

    fn leave_target(&mut self) {
        let Some(target) = self.drag.as_mut().and_then(|drag| drag.target.take()) else {
            return;
        };
        for (device, _) in target.devices.iter().filter(|(d, _)| d.is_alive()) {
            device.leave();
        }
        if let Some(source) = self.drag.as_ref().and_then(|drag| drag.source.as_ref()) {
            source.target(None);
        }
    }

    /// The button was released: the target gets the drop if it had said yes.
    pub(crate) fn drop_drag(&mut self) {
        let Some(mut drag) = self.drag.take() else {
            return;
        };
        self.dirty = true;
        if let Some(over) = drag.abroad.over.take() {
            self.drop_abroad(&drag, over);
            self.pointer_moved_under();
            return;
        }
        let mut taken = false;
        if let Some(target) = drag.target.take() {
            for (device, offer) in target.devices.iter().filter(|(d, _)| d.is_alive()) {
                let willing = match offer.as_ref().and_then(|o| o.data::<OfferData>()) {
                    // A drag without a source: the client knows itself what it drops.
                    None => drag.source.is_none(),
                    Some(data) => agreement(data).is_some_and(|a| {
                        a.lock().is_ok_and(|mut a| {
                            let old = device.version() < 3;
                            let agreed = a.action.is_some_and(|action| !action.is_empty());
                            a.dropped = a.accepted && (old || agreed);
                            a.dropped
                        })
                    }),
                };
                if willing {
                    device.drop();
                    taken = true;
                }
                device.leave();
            }
        }
        if let Some(source) = drag.source.filter(Resource::is_alive) {
            if taken && source.version() >= 3 {
                source.dnd_drop_performed();
            } else if !taken {
                source.cancelled();
            }
        }
        self.pointer_moved_under();
    }

    pub(super) fn drag_accepted(&mut self, data: &OfferData, mime: Option<String>) {
        let Some(agreement) = agreement(data) else {
            return;
        };
        if let (None, Some(given)) = (&data.source, data.pasted.upgrade()) {
            // What was dropped came from another domain, and its source hears nothing of the target.
            let known = mime.is_some_and(|mime| given.kind().types().any(|known| known == mime));
            if let Ok(mut agreement) = agreement.lock() {
                agreement.accepted = known;
            }
            return;
        }
        let Some(source) = data.source.as_ref().filter(|s| s.is_alive()) else {
            return;
        };
        let known = mime.filter(|mime| {
            source
                .data::<SourceData>()
                .is_some_and(|source| source.types.has(mime))
        });
        if let Ok(mut agreement) = agreement.lock() {
            agreement.accepted = known.is_some();
        }
        source.target(known);
    }

    pub(super) fn drag_actions(
        &mut self,
        offer: &WlDataOffer,
        data: &OfferData,
        actions: DndAction,
        preferred: DndAction,
    ) {
        let Some(agreement) = agreement(data) else {
            return;
        };
        let source = data.source.as_ref().filter(|s| s.is_alive());
        let offered = match source {
            Some(source) => source_actions(source),
            None if data.source.is_none() => DndAction::Copy,
            None => return,
        };
        let common = offered & actions;
        let action = if common.contains(preferred) && !preferred.is_empty() {
            preferred
        } else {
            [DndAction::Copy, DndAction::Move, DndAction::Ask]
                .into_iter()
                .find(|action| common.contains(*action))
                .unwrap_or(DndAction::empty())
        };
        let Ok(mut agreement) = agreement.lock() else {
            return;
        };
        if agreement.action != Some(action) {
            agreement.action = Some(action);
            if offer.version() >= 3 {
                offer.action(action);
            }
            if let Some(source) = source.filter(|s| s.version() >= 3) {
                source.action(action);
            }
        }
    }

    pub(super) fn drag_finished(&mut self, offer: &WlDataOffer, data: &OfferData) {
        let dropped = agreement(data)
            .is_some_and(|a| a.lock().is_ok_and(|mut a| std::mem::take(&mut a.dropped)));
        if !dropped {
            offer.post_error(
                smithay::reexports::wayland_server::protocol::wl_data_offer::Error::InvalidFinish,
                "nothing was dropped here",
            );
            return;
        }
        if let Some(source) = data
            .source
            .as_ref()
            .filter(|s| s.is_alive() && s.version() >= 3)
        {
            source.dnd_finished();
        }
    }

    /// A target that throws its offer away after the drop did not want it after all.
    pub(super) fn drag_offer_gone(&mut self, data: &OfferData) {
        let dropped = agreement(data)
            .is_some_and(|a| a.lock().is_ok_and(|mut a| std::mem::take(&mut a.dropped)));
        if dropped
            && let Some(source) = data.source.as_ref().filter(|s| s.is_alive())
            && source.version() >= 3
        {
            source.cancelled();
        }
    }

    /// The user gives the drag up.
    pub(crate) fn cancel_drag(&mut self) {
        self.leave_target();
        let Some(drag) = self.drag.take() else {
            return;
        };
        self.dirty = true;
        self.take_buttons();
        if let Some(source) = drag.source.filter(Resource::is_alive) {
            source.cancelled();
        }
        self.pointer_moved_under();
    }

    pub(super) fn drag_source_gone(&mut self, source: &WlDataSource) {
        if self
            .drag
            .as_ref()
            .is_some_and(|drag| drag.source.as_ref() == Some(source))
        {
            self.leave_target();
            self.drag = None;
            self.dirty = true;
            self.pointer_moved_under();
        }
    }

    /// The picture below the pointer was committed, perhaps with another distance to the pointer.
    pub(crate) fn drag_icon_committed(&mut self, surface: &WlSurface) {
        let Some(drag) = self
            .drag
            .as_mut()
            .filter(|d| d.icon.as_ref() == Some(surface))
        else {
            return;
        };
        let delta = with_states(surface, |states| {
            states
                .cached_state
                .get::<SurfaceAttributes>()
                .current()
                .buffer_delta
                .take()
        });
        let untrusted = drag.icon_offset + delta.unwrap_or_default();
        let limit = |v: i32| v.clamp(-MAX_CURSOR_PX, MAX_CURSOR_PX);
        drag.icon_offset = (limit(untrusted.x), limit(untrusted.y)).into();
        self.dirty = true;
    }

    /// Ends a drag of a domain that goes away, and one that hangs over a surface that went away.
    pub(crate) fn drag_surface_gone(&mut self, surface: &WlSurface) {
        let Some(drag) = &mut self.drag else { return };
        if drag.icon.as_ref() == Some(surface) {
            drag.icon = None;
        }
        if drag
            .abroad
            .over
            .as_ref()
            .is_some_and(|o| o.surface == *surface)
        {
            drag.abroad.over = None;
        }
        if drag.target.as_ref().is_some_and(|t| t.surface == *surface) {
            self.leave_target();
        }
    }
}

pub(super) fn source_actions(source: &WlDataSource) -> DndAction {
    source
        .data::<SourceData>()
        .and_then(|data| data.actions.lock().ok().and_then(|actions| *actions))
        // Sources from before version 3 mean "copy".
        .unwrap_or(DndAction::Copy)
}
