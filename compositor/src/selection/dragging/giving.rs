//! Gives the target what was dropped on it, when everything is decided: a whole drag in a moment, at
//! the place where the user let go, with the desktop as its source.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use smithay::{
    reexports::{
        calloop::timer::{TimeoutAction, Timer},
        wayland_server::{
            Client, Resource,
            protocol::{
                wl_data_device::WlDataDevice, wl_data_device_manager::DndAction,
                wl_data_offer::WlDataOffer,
            },
        },
    },
    utils::SERIAL_COUNTER,
};

use super::{Dropped, Stage};
use crate::{
    selection::{
        crossing::{Kind, Parcel},
        protocol::{Agreement, OfferData},
    },
    state::State,
};

/// Between two motions. Some clients look at what is dragged first and agree to a later motion.
const STEP: Duration = Duration::from_millis(100);
/// A drag of the user's that goes on is waited for so long.
const BUSY: Duration = Duration::from_secs(60);

/// A drop that the target sees.
#[derive(Debug)]
pub(super) struct Giving {
    parcel: Arc<Parcel>,
    began: Instant,
    step: Step,
    devices: Vec<(WlDataDevice, WlDataOffer)>,
}

#[derive(Debug)]
enum Step {
    /// Another drag goes on.
    Waiting,
    Entered(Instant),
    /// Another drag came in between.
    Left,
    Dropped(Instant),
}

fn agreement(offer: &WlDataOffer) -> Option<&Mutex<Agreement>> {
    offer.data::<OfferData>()?.drag.as_ref()
}

impl Giving {
    fn leave(&self) {
        for (device, _) in self.devices.iter().filter(|(d, _)| d.is_alive()) {
            device.leave();
        }
    }

    /// Drops where the target agrees. False when it does not (yet).
    fn try_drop(&mut self) -> bool {
        let mut taken = false;
        for (device, offer) in &self.devices {
            if !device.is_alive() || !offer.is_alive() {
                continue;
            }
            let Some(Ok(mut agreement)) = agreement(offer).map(Mutex::lock) else {
                continue;
            };
            let agreed = agreement.action.is_some_and(|action| !action.is_empty());
            if agreement.accepted && (agreed || device.version() < 3) {
                agreement.dropped = true;
                device.drop();
                taken = true;
            }
        }
        if taken {
            self.leave();
            self.step = Step::Dropped(Instant::now());
        }
        taken
    }

    /// Whether nobody reads it any more. Old clients do not say so; they throw the offer away.
    fn is_taken(&self) -> bool {
        self.devices.iter().all(|(_, offer)| {
            let open = agreement(offer).is_some_and(|a| a.lock().is_ok_and(|a| a.dropped));
            !offer.is_alive() || !open
        })
    }
}

impl State {
    /// The target may have it.
    pub(super) fn give_dropped(&mut self, id: u64, parcel: Parcel) {
        let Some(dropped) = self.dragging().drops.get_mut(&id) else {
            return;
        };
        dropped.stage = Stage::Giving(Giving {
            parcel: Arc::new(parcel),
            began: Instant::now(),
            step: Step::Waiting,
            devices: Vec::new(),
        });
        let armed = self
            .events
            .insert_source(Timer::immediate(), move |_, (), state| state.give_more(id));
        if let Err(error) = armed {
            tracing::error!(%error, "no timer for a drop");
            self.not_given(id, "but cannot be handed to its window");
        }
    }

    fn giving(&mut self, id: u64) -> Option<&mut Giving> {
        match &mut self.dragging().drops.get_mut(&id)?.stage {
            Stage::Giving(giving) => Some(giving),
            _ => None,
        }
    }

    fn give_more(&mut self, id: u64) -> TimeoutAction {
        let time = self.now_ms();
        // A target that has not agreed after so long does not want it, and it may not read for longer.
        let (agree, take) = (self.dragging().limits.stalled, self.dragging().limits.whole);
        let busy = self.drag.is_some() || self.is_giving_else(id);
        let Some(dropped) = self.selections.dragging.drops.get_mut(&id) else {
            return TimeoutAction::Drop;
        };
        let (at, shown) = (dropped.at, dropped.surface.is_alive());
        let Stage::Giving(giving) = &mut dropped.stage else {
            return TimeoutAction::Drop;
        };
        match giving.step {
            Step::Waiting if !shown => {
                self.not_given(id, "but its window is gone");
                return TimeoutAction::Drop;
            }
            Step::Waiting if busy && giving.began.elapsed() < BUSY => {}
            Step::Waiting if busy => {
                self.not_given(id, "but another drag goes on");
                return TimeoutAction::Drop;
            }
            Step::Waiting => self.enter_given(id),
            Step::Left => {
                self.not_given(id, "but another drag came in between");
                return TimeoutAction::Drop;
            }
            Step::Entered(since) => {
                if giving.try_drop() {
                    self.given(id);
                } else if !shown || since.elapsed() > agree {
                    giving.leave();
                    self.not_given(id, "but its window does not take it");
                    return TimeoutAction::Drop;
                } else {
                    for (device, _) in giving.devices.iter().filter(|(d, _)| d.is_alive()) {
                        device.motion(time, at.x, at.y);
                    }
                }
            }
            Step::Dropped(since) => {
                if giving.is_taken() || since.elapsed() > take {
                    self.dragging().drops.remove(&id);
                    return TimeoutAction::Drop;
                }
            }
        }
        TimeoutAction::ToDuration(STEP)
    }

    /// Two drags at once would mix in a target.
    fn is_giving_else(&self, id: u64) -> bool {
        let mut others = self.selections.dragging.drops.iter();
        others.any(|(other, dropped)| {
            *other != id
                && matches!(
                    &dropped.stage,
                    Stage::Giving(Giving {
                        step: Step::Entered(_),
                        ..
                    })
                )
        })
    }

    fn enter_given(&mut self, id: u64) {
        let Some(dropped) = self.selections.dragging.drops.get(&id) else {
            return;
        };
        let Stage::Giving(giving) = &dropped.stage else {
            return;
        };
        let (surface, at) = (dropped.surface.clone(), dropped.at);
        let parcel = giving.parcel.clone();
        let Some(client) = surface.client() else {
            return;
        };
        let serial: u32 = SERIAL_COUNTER.next_serial().into();
        let time = self.now_ms();
        let mut devices = Vec::new();
        for device in self.selections.devices_of(&client) {
            let data = OfferData {
                source: None,
                pasted: Arc::downgrade(&parcel),
                drag: Some(Mutex::new(Agreement::default())),
            };
            let types = parcel.kind().dragged_types().map(str::to_owned).collect();
            let Some(offer) = self.announce_offer(&client, &device, types, data) else {
                continue;
            };
            if offer.version() >= 3 {
                offer.source_actions(DndAction::Copy);
            }
            device.enter(serial, &surface, at.x, at.y, Some(&offer));
            device.motion(time, at.x, at.y);
            devices.push((device, offer));
        }
        if let Some(giving) = self.giving(id) {
            giving.devices = devices;
            giving.step = Step::Entered(Instant::now());
        }
    }

    /// A drag of the user's is about to enter this client.
    pub(in crate::selection) fn leave_given(&mut self, client: &Client) {
        for dropped in self.selections.dragging.drops.values_mut() {
            if dropped.surface.client().as_ref() == Some(client)
                && let Stage::Giving(giving) = &mut dropped.stage
                && matches!(giving.step, Step::Entered(_))
            {
                giving.leave();
                giving.step = Step::Left;
            }
        }
    }

    /// The target has it.
    fn given(&mut self, id: u64) {
        let Some(dropped) = self.selections.dragging.drops.get(&id) else {
            return;
        };
        dropped.tell_source(true);
        let Stage::Giving(giving) = &dropped.stage else {
            return;
        };
        let what = format!("dropped {} from ", giving.parcel.shown());
        let (from, to) = (dropped.from.clone(), dropped.to.clone());
        tracing::info!(source = from.name, target = to.name, what = ?giving.parcel, "dropped");
        self.say([what.into(), from.span(), " into ".into(), to.span()]);
    }

    /// It was allowed, and the target's window does not get it. Files are in its domain all the same.
    pub(super) fn not_given(&mut self, id: u64, why: &str) {
        let Some(dropped) = self.dragging().drops.remove(&id) else {
            return;
        };
        let files = match &dropped.stage {
            Stage::Asking { parcel: None, .. } => true,
            Stage::Giving(giving) => giving.parcel.kind() == Kind::Files,
            _ => false,
        };
        dropped.tell_source(files);
        let Dropped { from, to, .. } = dropped;
        tracing::info!(source = from.name, target = to.name, why, "not given");
        if files {
            let place = format!(" are in ~/Incoming/{} of ", from.name);
            let why = format!(", {why}");
            self.say([
                "the files from ".into(),
                from.span(),
                place.into(),
                to.span(),
                why.into(),
            ]);
        } else {
            self.not_dropped(&from, &to, why.strip_prefix("but ").unwrap_or(why));
        }
    }
}
