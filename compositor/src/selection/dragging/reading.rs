//! Reads what was dropped, through a pipe, within the limits of the clipboard.

use std::{fs::File, os::fd::AsFd, time::Instant};

use smithay::reexports::{
    calloop::{Interest, LoopHandle, PostAction, timer::TimeoutAction},
    wayland_server::{
        Resource,
        protocol::{wl_data_device_manager::DndAction, wl_data_source::WlDataSource},
    },
};

use super::{Dropped, Stage, list, types_of};
use crate::{
    selection::{
        crossing::{self, Kind, Parcel},
        pipe::{self, Turn, Watched, take_turn},
    },
    state::State,
};

/// A source that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    kind: Kind,
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

impl State {
    /// Begins to read a drop. Its source is told that it was dropped, but not where.
    pub(super) fn read_dropped(
        &mut self,
        mime: &str,
        kind: Kind,
        dropped: impl FnOnce(Reading) -> Dropped,
    ) -> std::io::Result<()> {
        let id = self.next_crossing_id();
        let (reading, write) = self.start_reading_drop(id, kind)?;
        let dropped = dropped(reading);
        let source = dropped.source.clone();
        self.dragging().drops.insert(id, dropped);
        source.target(Some(mime.to_owned()));
        if source.version() >= 3 {
            source.action(DndAction::Copy);
            source.dnd_drop_performed();
        }
        source.send(mime.to_owned(), write.as_fd());
        Ok(())
    }

    /// A list without files: the source may have said the same in another way, as browsers do.
    fn read_instead(&mut self, id: u64, source: &WlDataSource) -> bool {
        let Some((mime, kind)) = crossing::choose(&types_of(source)) else {
            return false;
        };
        let Ok((reading, write)) = self.start_reading_drop(id, kind) else {
            return false;
        };
        let Some(dropped) = self.dragging().drops.get_mut(&id) else {
            reading.stop(&self.events);
            return false;
        };
        dropped.stage = Stage::Reading(reading);
        source.send(mime.to_owned(), write.as_fd());
        true
    }

    fn start_reading_drop(
        &mut self,
        id: u64,
        kind: Kind,
    ) -> std::io::Result<(Reading, std::os::fd::OwnedFd)> {
        let (read, write) = pipe::to_read()?;
        let stalled = self.dragging().limits.stalled;
        let pipe = Watched::begin(
            &self.events,
            read,
            Interest::READ,
            move |file, state| state.read_more_of_drop(id, file),
            stalled,
            move |state| state.drop_deadline(id),
        )?;
        let now = Instant::now();
        let reading = Reading {
            kind,
            untrusted_bytes: Vec::new(),
            began: now,
            arrived: now,
            pipe,
        };
        Ok((reading, write))
    }

    fn reading_drop(&mut self, id: u64) -> Option<&mut Reading> {
        match &mut self.dragging().drops.get_mut(&id)?.stage {
            Stage::Reading(reading) => Some(reading),
            _ => None,
        }
    }

    fn read_more_of_drop(&mut self, id: u64, pipe: &File) -> PostAction {
        let limits = self.dragging().limits;
        let Some(reading) = self.reading_drop(id) else {
            return PostAction::Remove;
        };
        let limit = limits.bytes_of(reading.kind);
        let before = reading.untrusted_bytes.len();
        let turn = take_turn(pipe, &mut reading.untrusted_bytes, limit);
        if reading.untrusted_bytes.len() > before {
            reading.arrived = Instant::now();
        }
        match turn {
            Turn::More => return PostAction::Continue,
            Turn::End => self.drop_was_read(id),
            Turn::TooMuch => {
                let size = crossing::shown_size(limit);
                self.refuse_drop(id, &format!("it offers more than {size}"));
            }
            Turn::Failed(error) => {
                tracing::warn!(%error, "a drop");
                self.refuse_drop(id, "it could not be read");
            }
        }
        // The pipe may be removed already; the loop takes this as the same.
        PostAction::Remove
    }

    fn drop_was_read(&mut self, id: u64) {
        let Some(reading) = self.reading_drop(id) else {
            return;
        };
        let (kind, pipe) = (reading.kind, reading.pipe);
        let untrusted_bytes = std::mem::take(&mut reading.untrusted_bytes);
        pipe.ended(&self.events);
        let Some(dropped) = self.dragging().drops.get(&id) else {
            return;
        };
        let (from, source) = (dropped.from.id, dropped.source.clone());
        // A client that ended has closed the pipe, too: what arrived may be half of it.
        if self.domains.get(from).is_none() || !source.is_alive() {
            drop(Parcel::check(kind, untrusted_bytes));
            return self.refuse_drop(id, "its program has ended");
        }
        if kind == Kind::Files {
            match list::local_files(&untrusted_bytes) {
                Ok(files) => self.ask_about_drop(id, None, &files),
                Err(list::Wrong::NoFile) if self.read_instead(id, &source) => {}
                Err(why) => self.refuse_drop(id, &why.to_string()),
            }
            return;
        }
        match Parcel::check(kind, untrusted_bytes) {
            Ok(parcel) => self.ask_about_drop(id, Some(parcel), &[]),
            Err(why) => self.refuse_drop(id, &why.to_string()),
        }
    }

    fn drop_deadline(&mut self, id: u64) -> TimeoutAction {
        let limits = self.dragging().limits;
        let Some(reading) = self.reading_drop(id) else {
            return TimeoutAction::Drop;
        };
        let deadline = (reading.arrived + limits.stalled).min(reading.began + limits.whole);
        if Instant::now() < deadline {
            return TimeoutAction::ToInstant(deadline);
        }
        self.refuse_drop(id, "it does not give what it drags");
        TimeoutAction::Drop
    }
}
