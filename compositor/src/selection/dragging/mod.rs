//! Drags from one domain to another.
//!
//! While a drag is over a window of another domain, that domain is told nothing. The manager is asked
//! once whether it may be dropped there at all, and the window's border lights up, or a mark at the
//! pointer says no ([`hover`]). When it is dropped, the source is read ([`reading`]): text, a picture,
//! or a list of its own files ([`list`]). The manager decides, asks the user, and has files copied.
//! Only then does the target see anything: enter, motion and drop in one go ([`giving`]), of what was
//! read here, or of files that are its own by then.

mod giving;
mod hover;
pub(super) mod list;
mod reading;
mod redrawing;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use smithay::{
    reexports::{
        calloop::timer::{TimeoutAction, Timer},
        wayland_server::{
            Resource,
            protocol::{
                wl_data_device_manager::DndAction, wl_data_source::WlDataSource,
                wl_surface::WlSurface,
            },
        },
    },
    utils::{Logical, Point},
};

pub(crate) use self::hover::{Abroad, Light};
pub(crate) use self::redrawing::Decision;
use self::{giving::Giving, hover::Over, reading::Reading};
use super::{
    crossing::{CrossingLimits, Kind, Parcel, Party, redraw::Redraw},
    drag::{Drag, source_actions},
    protocol::SourceData,
};
use crate::{domain::DomainId, state::State};

/// Drops that wait at a time, of one domain…
const MAX_OF_ONE: usize = 2;
/// … and of all.
const MAX_OF_ALL: usize = 8;
/// Between two looks whether the manager is still there.
const LOOK: Duration = Duration::from_secs(5);
/// Nobody is waited for any longer.
const MOST: Duration = Duration::from_secs(60 * 60);

/// The type of a list of files.
const FILES_TYPE: &str = "text/uri-list";

/// All drops into other domains that go on.
#[derive(Debug, Default)]
pub struct Dragging {
    limits: CrossingLimits,
    drops: BTreeMap<u64, Dropped>,
}

impl Dragging {
    /// With the limits of the clipboard.
    pub(super) fn with_limits(limits: CrossingLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }
}

/// Something that was dropped on a window of another domain.
#[derive(Debug)]
struct Dropped {
    from: Party,
    to: Party,
    source: WlDataSource,
    /// Where: a surface of the target, and the place on it.
    surface: WlSurface,
    at: Point<f64, Logical>,
    stage: Stage,
}

/// How far it has come.
#[derive(Debug)]
enum Stage {
    /// The source is being read.
    Reading(Reading),
    /// The manager decides, asks the user, copies files. Text and pictures wait here meanwhile.
    Asking {
        parcel: Option<Parcel>,
        since: Instant,
    },
    /// A picture that is allowed is drawn anew.
    Redrawing(Redraw),
    /// It is given to the target.
    Giving(Giving),
}

impl Dropped {
    /// The source is told how it ended.
    fn tell_source(&self, taken: bool) {
        if !self.source.is_alive() {
            return;
        }
        if !taken {
            self.source.cancelled();
        } else if self.source.version() >= 3 {
            self.source.dnd_finished();
        }
    }
}

/// What of a source's types may be dropped elsewhere: files before text before a picture.
fn choose(untrusted_types: &[String]) -> Option<(&'static str, Kind)> {
    if untrusted_types.iter().any(|offered| offered == FILES_TYPE) {
        return Some((FILES_TYPE, Kind::Files));
    }
    super::crossing::choose(untrusted_types)
}

fn types_of(source: &WlDataSource) -> Vec<String> {
    let data = source.data::<SourceData>();
    data.map(|data| data.types.list()).unwrap_or_default()
}

impl State {
    fn dragging(&mut self) -> &mut Dragging {
        &mut self.selections.dragging
    }

    fn party(&self, id: DomainId) -> Option<Party> {
        let domain = self.domains.get(id)?;
        Some(Party {
            id,
            name: domain.name.clone(),
            colour: domain.colour,
        })
    }

    /// The button was released over another domain's window.
    pub(super) fn drop_abroad(&mut self, drag: &Drag, over: Over) {
        let Some(source) = drag.source.clone().filter(Resource::is_alive) else {
            return;
        };
        let parties = (self.party(drag.domain), self.party(over.domain));
        let (Some(from), Some(to)) = parties else {
            return source.cancelled();
        };
        let types = choose(&types_of(&source));
        let copies = source_actions(&source).contains(DndAction::Copy);
        let drops = &self.selections.dragging.drops;
        let own = drops.values().filter(|d| d.from.id == from.id).count();
        let why = match (drag.abroad.refusal(over.domain), types) {
            (Some(why), _) => why.to_owned(),
            (None, None) => hover::NOTHING_KNOWN.to_owned(),
            _ if !copies => hover::NO_COPY.to_owned(),
            _ if own >= MAX_OF_ONE || drops.len() >= MAX_OF_ALL => {
                "the drops before this one still wait".to_owned()
            }
            (None, Some((mime, kind))) => {
                let dropped = |reading| Dropped {
                    from: from.clone(),
                    to: to.clone(),
                    source: source.clone(),
                    surface: over.surface.clone(),
                    at: over.at,
                    stage: Stage::Reading(reading),
                };
                match self.read_dropped(mime, kind, dropped) {
                    Ok(()) => return,
                    Err(error) => error.to_string(),
                }
            }
        };
        source.cancelled();
        self.not_dropped(&from, &to, &why);
    }

    /// It was read: the manager decides.
    fn ask_about_drop(&mut self, id: u64, parcel: Option<Parcel>, files: &[String]) {
        if !self.is_heard() {
            return self.refuse_drop(id, "the manager is not there to decide");
        }
        let Some(dropped) = self.selections.dragging.drops.get_mut(&id) else {
            return;
        };
        let (kind, bytes) = match &parcel {
            Some(parcel) => (parcel.kind(), parcel.bytes().len()),
            None => (Kind::Files, 0),
        };
        let names = [dropped.from.name.clone(), dropped.to.name.clone()];
        dropped.stage = Stage::Asking {
            parcel,
            since: Instant::now(),
        };
        self.announce_drop(
            id,
            [names[0].as_str(), names[1].as_str()],
            kind.name(),
            bytes,
            files,
        );
        let armed = self
            .events
            .insert_source(Timer::from_duration(LOOK), move |_, (), state| {
                state.look_after_drop(id)
            });
        if let Err(error) = armed {
            tracing::error!(%error, "no timer for a drop");
            self.refuse_drop(id, "the compositor is out of timers");
        }
    }

    fn look_after_drop(&mut self, id: u64) -> TimeoutAction {
        let since = match self.dragging().drops.get(&id).map(|d| &d.stage) {
            Some(Stage::Asking { since, .. }) => *since,
            _ => return TimeoutAction::Drop,
        };
        if !self.is_heard() {
            self.refuse_drop(id, "the manager has gone");
        } else if since.elapsed() > MOST {
            self.refuse_drop(id, "the manager does not answer");
        } else {
            return TimeoutAction::ToDuration(LOOK);
        }
        TimeoutAction::Drop
    }

    /// The manager has decided, and knows under which addresses the target has the files. False when
    /// no such drop waits.
    pub(crate) fn decide_drop(&mut self, id: u64, decision: Decision) -> bool {
        if let Decision::Refuse(why) = &decision
            && self.drop_redraw_failed(id, why)
        {
            return true;
        }
        let parcel = match self.dragging().drops.get_mut(&id).map(|d| &mut d.stage) {
            Some(Stage::Asking { parcel, .. }) => parcel.take(),
            _ => return false,
        };
        match (decision, parcel) {
            (Decision::Refuse(why), _) => self.refuse_drop(id, &why),
            (Decision::Redraw(ends), Some(parcel)) if parcel.kind() == Kind::Image => {
                self.redraw_dropped(id, parcel, ends);
            }
            (Decision::Redraw(_), _) => self.refuse_drop(id, "only pictures are drawn anew"),
            // No picture goes on as it came, whoever asks for it.
            (Decision::Give(_), Some(parcel)) if parcel.kind() == Kind::Image => {
                self.refuse_drop(id, "it was not redrawn in a disposable");
            }
            (Decision::Give(_), Some(parcel)) => self.give_dropped(id, parcel),
            (Decision::Give(uris), None) if uris.is_empty() => {
                self.not_given(id, "but cannot be handed to its window");
            }
            (Decision::Give(uris), None) => self.give_dropped(id, Parcel::files(&uris)),
        }
        true
    }

    /// It is over before the target has seen anything.
    fn refuse_drop(&mut self, id: u64, why: &str) {
        let Some(dropped) = self.dragging().drops.remove(&id) else {
            return;
        };
        dropped.tell_source(false);
        let Dropped {
            from, to, stage, ..
        } = dropped;
        match stage {
            Stage::Reading(reading) => reading.stop(&self.events),
            Stage::Redrawing(work) => {
                work.stop(&self.events);
                self.announce_redrawn(id, Some(why));
            }
            Stage::Asking { .. } | Stage::Giving(_) => {}
        }
        self.not_dropped(&from, &to, why);
    }

    fn not_dropped(&mut self, from: &Party, to: &Party, why: &str) {
        tracing::info!(source = from.name, target = to.name, why, "not dropped");
        self.say([
            "not dropped from ".into(),
            from.span(),
            " into ".into(),
            to.span(),
            format!(": {why}").into(),
        ]);
    }

    /// A domain is gone: what was to be read from it, or for it, ends. What is being given ends by
    /// itself, and what waits for an answer has its window looked for then.
    pub(super) fn end_drops_of(&mut self, domain: DomainId) {
        let drops = self.dragging().drops.iter();
        let ends: Vec<u64> = drops
            .filter(|(_, dropped)| match dropped.stage {
                Stage::Reading(_) => dropped.from.id == domain || dropped.to.id == domain,
                Stage::Redrawing(_) => dropped.to.id == domain,
                Stage::Asking { .. } | Stage::Giving(_) => false,
            })
            .map(|(id, _)| *id)
            .collect();
        for id in ends {
            self.refuse_drop(id, "a domain has ended");
        }
    }
}
