//! A picture that was pasted and is drawn anew before the target has it: who waits for it, and what
//! ends it. How it is drawn, [`super::redraw`] says.

use std::sync::Arc;

use super::{
    Held, Party, Stage,
    redraw::{self, Ends, NotRedrawn, Redraw},
};
use crate::{domain::DomainId, selection::crossing::Parcel, state::State};

/// A paste that waits for its picture.
#[derive(Debug)]
pub(super) struct Redrawing {
    /// Of the paste.
    pub id: u64,
    pub held: Held,
    pub to: Party,
    work: Redraw,
}

impl State {
    /// The manager allows it, and has a disposable for it.
    pub(super) fn start_redrawing(&mut self, id: u64, held: Held, to: Party, ends: Ends) {
        let limit = self.crossing().limits.redraw;
        let picture = held.parcel.clone();
        let done = move |state: &mut Self, result| state.redrawn(id, result);
        match redraw::start(&self.events, picture, ends, limit, done) {
            Ok(work) => {
                let words = [
                    "pasting a picture from ".into(),
                    held.from.span(),
                    " into ".into(),
                    to.span(),
                    ": it is redrawn in a disposable...".into(),
                ];
                self.crossing().stage = Stage::Redrawing(Redrawing { id, held, to, work });
                self.show_notice_for(words.into(), limit);
            }
            Err(error) => {
                let why = NotRedrawn::from(error).to_string();
                self.announce_redrawn(id, Some(&why));
                self.not_pasted(held, &to, &why);
            }
        }
    }

    fn redrawn(&mut self, id: u64, result: Result<Parcel, NotRedrawn>) {
        let Some(redrawing) = self.take_redrawing(|redrawing| redrawing.id == id) else {
            return;
        };
        match result {
            Ok(parcel) => {
                let Redrawing { held, to, work, .. } = redrawing;
                work.stop(&self.events);
                self.announce_redrawn(id, None);
                let held = Held {
                    parcel: Arc::new(parcel),
                    from: held.from,
                };
                self.paste_into(&to, held);
            }
            Err(why) => self.redrawn_in_vain(redrawing, &why.to_string()),
        }
    }

    fn take_redrawing(&mut self, wanted: impl Fn(&Redrawing) -> bool) -> Option<Redrawing> {
        match std::mem::take(&mut self.crossing().stage) {
            Stage::Redrawing(redrawing) if wanted(&redrawing) => Some(redrawing),
            other => {
                self.crossing().stage = other;
                None
            }
        }
    }

    /// It can still be pasted elsewhere, or tried again.
    fn redrawn_in_vain(&mut self, redrawing: Redrawing, why: &str) {
        let Redrawing { id, held, to, work } = redrawing;
        work.stop(&self.events);
        self.announce_redrawn(id, Some(why));
        self.not_pasted(held, &to, why);
    }

    /// The manager's disposable did not do it. False if that is about no paste that waits.
    pub(super) fn redraw_failed(&mut self, id: u64, why: &str) -> bool {
        match self.take_redrawing(|redrawing| redrawing.id == id) {
            Some(redrawing) => {
                self.redrawn_in_vain(redrawing, why);
                true
            }
            None => false,
        }
    }

    /// A domain is gone: nothing is drawn for it any more.
    pub(in crate::selection) fn stop_redrawing_for(&mut self, domain: DomainId) {
        if let Some(redrawing) = self.take_redrawing(|redrawing| redrawing.to.id == domain) {
            self.redrawn_in_vain(redrawing, "it has ended");
        }
    }

    /// The user has something else in mind; what was to be pasted is given back.
    pub(super) fn give_up_redrawing(&mut self, redrawing: Redrawing) -> Held {
        let Redrawing { id, held, work, .. } = redrawing;
        work.stop(&self.events);
        self.announce_redrawn(id, Some("the user copied or pasted again"));
        held
    }
}
