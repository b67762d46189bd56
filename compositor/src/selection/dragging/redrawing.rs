//! A picture that was dropped is drawn anew before the target has it, as one that is pasted is
//! (`crossing/redraw.rs`).

use std::{sync::Arc, time::Instant};

use super::{Dragging, Stage};
use crate::{
    selection::crossing::{
        Ends, Parcel,
        redraw::{self, NotRedrawn},
    },
    state::State,
};

/// What the manager has decided about a drop.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It may be given, or its files are in the target under these addresses.
    Give(Vec<String>),
    /// It may be given when it was drawn anew.
    Redraw(Ends),
    /// No, and why.
    Refuse(String),
}

impl Dragging {
    /// Where a picture waits that is being drawn anew.
    fn is_redrawing(&self, id: u64) -> bool {
        let stage = self.drops.get(&id).map(|dropped| &dropped.stage);
        matches!(stage, Some(Stage::Redrawing(_)))
    }
}

impl State {
    /// The manager has a disposable for it.
    pub(super) fn redraw_dropped(&mut self, id: u64, picture: Parcel, ends: Ends) {
        let limit = self.dragging().limits.redraw;
        let done = move |state: &mut Self, result| state.dropped_was_redrawn(id, result);
        match redraw::start(&self.events, Arc::new(picture), ends, limit, done) {
            Ok(work) => {
                let Some(dropped) = self.dragging().drops.get_mut(&id) else {
                    return work.stop(&self.events);
                };
                dropped.stage = Stage::Redrawing(work);
                let (from, to) = (dropped.from.span(), dropped.to.span());
                let words = [
                    "dropping a picture from ".into(),
                    from,
                    " into ".into(),
                    to,
                    ": it is redrawn in a disposable...".into(),
                ];
                self.show_notice_for(words.into(), limit);
            }
            Err(error) => {
                let why = NotRedrawn::from(error).to_string();
                self.announce_redrawn(id, Some(&why));
                self.refuse_drop(id, &why);
            }
        }
    }

    fn dropped_was_redrawn(&mut self, id: u64, result: Result<Parcel, NotRedrawn>) {
        if !self.dragging().is_redrawing(id) {
            return;
        }
        match result {
            Ok(parcel) => {
                let asking = Stage::Asking {
                    parcel: None,
                    since: Instant::now(),
                };
                let dropped = self.selections.dragging.drops.get_mut(&id);
                let stage = dropped.map(|dropped| std::mem::replace(&mut dropped.stage, asking));
                if let Some(Stage::Redrawing(work)) = stage {
                    work.stop(&self.events);
                }
                self.announce_redrawn(id, None);
                self.give_dropped(id, parcel);
            }
            // It says so to the manager, too.
            Err(why) => self.refuse_drop(id, &why.to_string()),
        }
    }

    /// The manager's disposable did not do it. False if that is about no drop that waits for one.
    pub(super) fn drop_redraw_failed(&mut self, id: u64, why: &str) -> bool {
        let waits = self.dragging().is_redrawing(id);
        if waits {
            self.refuse_drop(id, why);
        }
        waits
    }
}
