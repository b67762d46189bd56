//! Reads what a domain has copied, through a pipe, when and while something is in it.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Instant,
};

use smithay::reexports::{
    calloop::{Interest, LoopHandle, PostAction, timer::TimeoutAction},
    wayland_server::{Resource, protocol::wl_data_source::WlDataSource},
};

use super::{Held, Parcel, Party, Stage, parcel};
use crate::{
    selection::{
        dragging::list,
        pipe::{self, Turn, Watched, take_turn},
        protocol::SourceData,
    },
    state::State,
};

/// A copy that goes on.
#[derive(Debug)]
pub(super) struct Reading {
    id: u64,
    from: Party,
    kind: parcel::Kind,
    /// Asked for another type where a list of files turns out to be none.
    source: WlDataSource,
    untrusted_bytes: Vec<u8>,
    began: Instant,
    /// When something last arrived.
    arrived: Instant,
    pipe: Watched,
}

impl Reading {
    /// Closes the pipe. What arrived is overwritten as a parcel is.
    pub(super) fn stop(self, events: &LoopHandle<'static, State>) {
        self.pipe.stop(events);
        drop(Parcel::check(self.kind, self.untrusted_bytes));
    }
}

fn types_of(source: &WlDataSource) -> Vec<String> {
    let data = source.data::<SourceData>();
    data.map(|data| data.types.list()).unwrap_or_default()
}

impl State {
    /// Asks a source for the best of its types.
    pub(super) fn read_from(&mut self, from: Party, source: &WlDataSource) {
        let chosen = parcel::choose_copied(&types_of(source));
        self.read_as(from, source, chosen);
    }

    fn read_as(
        &mut self,
        from: Party,
        source: &WlDataSource,
        chosen: Option<(&'static str, parcel::Kind)>,
    ) {
        let Some((mime, kind)) = chosen else {
            let name = from.span();
            let what = " has copied neither text nor files nor a PNG picture";
            return self.say(["not copied: ".into(), name, what.into()]);
        };
        match self.start_reading(from, kind, source) {
            Ok(write) => source.send(mime.to_owned(), write.as_fd()),
            Err(error) => {
                tracing::error!(%error, "nothing can be read");
                self.say([format!("not copied: {error}").into()]);
            }
        }
    }

    /// Begins to read and gives the end to write to.
    fn start_reading(
        &mut self,
        from: Party,
        kind: parcel::Kind,
        source: &WlDataSource,
    ) -> std::io::Result<OwnedFd> {
        let (read, write) = pipe::to_read()?;
        let id = self.crossing().next_id();
        let stalled = self.crossing().limits.stalled;
        let pipe = Watched::begin(
            &self.events,
            read,
            Interest::READ,
            move |file, state| state.read_more(id, file),
            stalled,
            move |state| state.read_deadline(id),
        )?;
        let now = Instant::now();
        self.crossing().stage = Stage::Reading(Reading {
            id,
            from,
            kind,
            source: source.clone(),
            untrusted_bytes: Vec::new(),
            began: now,
            arrived: now,
            pipe,
        });
        Ok(write)
    }

    fn read_more(&mut self, id: u64, pipe: &File) -> PostAction {
        let limits = self.crossing().limits;
        let Stage::Reading(reading) = &mut self.crossing().stage else {
            return PostAction::Remove;
        };
        if reading.id != id {
            return PostAction::Remove;
        }
        let limit = limits.bytes_of(reading.kind);
        let before = reading.untrusted_bytes.len();
        let turn = take_turn(pipe, &mut reading.untrusted_bytes, limit);
        if reading.untrusted_bytes.len() > before {
            reading.arrived = Instant::now();
        }
        match turn {
            Turn::More => return PostAction::Continue,
            Turn::End => self.read_whole(),
            Turn::TooMuch => {
                let size = parcel::shown_size(limit);
                self.read_in_vain(&format!(" offers more than {size}"));
            }
            Turn::Failed(error) => {
                tracing::warn!(%error, "a copy across domains");
                self.read_in_vain(" could not be read");
            }
        }
        // The pipe is removed already; the loop takes this as the same.
        PostAction::Remove
    }

    fn read_whole(&mut self) {
        let Stage::Reading(reading) = std::mem::take(&mut self.crossing().stage) else {
            return;
        };
        reading.pipe.ended(&self.events);
        let from = reading.from;
        // A domain that ended has closed the pipe, too: what arrived may be half of it.
        if self.domains.get(from.id).is_none() {
            let name = from.span();
            drop(Parcel::check(reading.kind, reading.untrusted_bytes));
            return self.say(["not copied: ".into(), name, " has ended".into()]);
        }
        match Parcel::check(reading.kind, reading.untrusted_bytes) {
            Ok(parcel) => self.copied(Held {
                parcel: Arc::new(parcel),
                from,
            }),
            Err(parcel::Unfit::Files(list::Wrong::NoFile)) if reading.source.is_alive() => {
                let chosen = parcel::choose(&types_of(&reading.source));
                self.read_as(from, &reading.source, chosen);
            }
            Err(why) => {
                tracing::warn!(domain = from.name, %why, "not copied across domains");
                self.say([
                    "not copied from ".into(),
                    from.span(),
                    format!(": {why}").into(),
                ]);
            }
        }
    }

    /// Closes the pipe and keeps nothing.
    fn read_in_vain(&mut self, why: &str) {
        let Stage::Reading(reading) = std::mem::take(&mut self.crossing().stage) else {
            return;
        };
        tracing::warn!(domain = reading.from.name, why, "not copied across domains");
        let name = reading.from.span();
        reading.stop(&self.events);
        self.say(["not copied: ".into(), name, why.into()]);
    }

    fn read_deadline(&mut self, id: u64) -> TimeoutAction {
        let limits = self.crossing().limits;
        let reading = match &self.crossing().stage {
            Stage::Reading(reading) if reading.id == id => reading,
            _ => return TimeoutAction::Drop,
        };
        let now = Instant::now();
        let deadline = (reading.arrived + limits.stalled).min(reading.began + limits.whole);
        if now < deadline {
            return TimeoutAction::ToInstant(deadline);
        }
        self.read_in_vain(" does not give what it has copied");
        TimeoutAction::Drop
    }
}
