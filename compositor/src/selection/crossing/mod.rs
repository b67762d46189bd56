//! The clipboard across domains, in two steps that the user takes, as in Qubes.
//!
//! *Copy* (Ctrl+Shift+C) reads what the focused domain has copied and keeps it here. *Paste*
//! (Ctrl+Shift+V) asks the manager whether it may go to the focused domain; if so, it becomes that
//! domain's clipboard, a picture after it was drawn anew ([`redraw`]), and nothing is kept here. No domain is told of either before it is its turn:
//! a source hears that somebody pastes from it, a target that its clipboard changed, others nothing.
//!
//! Nothing here waits for a guest: pipes are read and written when they are ready, up to limits of
//! size and time.

mod parcel;
mod png;
mod reading;
pub(super) mod redraw;
mod redrawing;
mod serving;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) use parcel::{Kind, Parcel, choose, shown_size};
pub(crate) use redraw::Ends;
use smithay::reexports::{
    calloop::{
        RegistrationToken,
        timer::{TimeoutAction, Timer},
    },
    wayland_server::Resource,
};

use self::{reading::Reading, redrawing::Redrawing, serving::Serving};
use super::{Clip, dragging::Decision};
use crate::{
    domain::{Colour, DomainId},
    guard::domain_of,
    notice::Span,
    state::State,
};

/// How long copying files may take, the user's answer included.
const FILES_ANSWER: Duration = Duration::from_secs(60 * 60);

/// How much may cross at a time, and how long anyone is waited for.
#[derive(Clone, Copy, Debug)]
pub struct CrossingLimits {
    /// Bytes of text.
    pub text_bytes: usize,
    /// Bytes of a picture.
    pub image_bytes: usize,
    /// A domain that gives or takes nothing for so long is cut off.
    pub stalled: Duration,
    /// A domain that has not given or taken everything after so long is cut off.
    pub whole: Duration,
    /// A manager that has not answered after so long has said no.
    pub answer: Duration,
    /// A picture that a disposable has not decoded after so long is given up. The disposable has to
    /// be started for it.
    pub redraw: Duration,
    /// A domain that took the keyboard by itself takes part only after so long: a window that opens
    /// just when the user presses the keys was not meant.
    pub taken_keyboard: Duration,
}

impl Default for CrossingLimits {
    fn default() -> Self {
        Self {
            text_bytes: 16 << 20,
            image_bytes: 32 << 20,
            stalled: Duration::from_secs(5),
            whole: Duration::from_secs(30),
            answer: Duration::from_secs(5),
            redraw: Duration::from_secs(90),
            taken_keyboard: Duration::from_secs(1),
        }
    }
}

impl CrossingLimits {
    pub(super) fn bytes_of(&self, kind: parcel::Kind) -> usize {
        match kind {
            parcel::Kind::Text => self.text_bytes,
            parcel::Kind::Image => self.image_bytes,
            parcel::Kind::Files => super::dragging::list::MAX_BYTES,
        }
    }
}

/// A domain that takes part, as it was when the user pressed the keys.
#[derive(Clone, Debug)]
pub(super) struct Party {
    pub(super) id: DomainId,
    pub(super) name: String,
    pub(super) colour: Colour,
}

impl Party {
    pub(super) fn span(&self) -> Span {
        Span::Domain(self.name.clone(), self.colour)
    }
}

/// What was copied, and where. It stays when its domain ends, until it is pasted or something else
/// is copied.
#[derive(Debug)]
struct Held {
    parcel: Arc<Parcel>,
    from: Party,
}

/// A paste that the manager was asked about.
#[derive(Debug)]
struct Asking {
    id: u64,
    held: Held,
    to: Party,
    timer: RegistrationToken,
}

/// The one clipboard between domains.
#[derive(Debug, Default)]
enum Stage {
    /// Nothing is there.
    #[default]
    Empty,
    /// A domain is being read.
    Reading(Reading),
    /// Something can be pasted.
    Held(Held),
    /// The manager is asked.
    Asking(Asking),
    /// A picture is drawn anew for the domain that it goes to.
    Redrawing(Redrawing),
}

/// The clipboard between domains, and what is being given to those that pasted.
#[derive(Debug, Default)]
pub struct Crossing {
    limits: CrossingLimits,
    stage: Stage,
    serving: BTreeMap<u64, Serving>,
    last_id: u64,
    /// The domain that had the keyboard last, the host's programs left out.
    keyboard: Option<DomainId>,
    /// When it came to it, if not by the user's hand.
    taken_at: Option<Instant>,
}

impl Crossing {
    /// With limits other than the usual ones.
    pub fn with_limits(limits: CrossingLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

/// Why the keys did nothing.
#[derive(Debug, thiserror::Error)]
enum NoParty {
    #[error("no window has the keyboard")]
    Nobody,
    #[error("the desktop's own programs take no part")]
    Host,
    #[error("{0} has just taken the keyboard; press the keys again if it is the one you mean")]
    Taken(String),
}

impl State {
    /// A number for something that crosses: pastes and drops have none in common.
    pub(super) fn next_crossing_id(&mut self) -> u64 {
        self.crossing().next_id()
    }

    fn crossing(&mut self) -> &mut Crossing {
        &mut self.selections.crossing
    }

    /// The domain whose window has the keyboard.
    fn focused_party(&self) -> Result<Party, NoParty> {
        let client = self.keyboard_client().ok_or(NoParty::Nobody)?;
        match domain_of(&client) {
            Some(DomainId::HOST) => Err(NoParty::Host),
            Some(id) => {
                let domain = self.domains.get(id).ok_or(NoParty::Nobody)?;
                let crossing = &self.selections.crossing;
                let long_enough = crossing.limits.taken_keyboard;
                if crossing
                    .taken_at
                    .is_some_and(|at| at.elapsed() < long_enough)
                {
                    return Err(NoParty::Taken(domain.name.clone()));
                }
                Ok(Party {
                    id,
                    name: domain.name.clone(),
                    colour: domain.colour,
                })
            }
            None => Err(NoParty::Nobody),
        }
    }

    /// The keyboard is with a client of this domain now.
    pub(crate) fn keyboard_came_to(&mut self, domain: Option<DomainId>) {
        let domain = domain.filter(|id| *id != DomainId::HOST);
        let crossing = self.crossing();
        if domain.is_some() && domain != crossing.keyboard {
            crossing.keyboard = domain;
            crossing.taken_at = Some(Instant::now());
        }
    }

    /// The user has just pointed at something, or chosen a window: who has the keyboard now, has it
    /// by the user's hand.
    pub(crate) fn keyboard_is_meant(&mut self) {
        self.crossing().taken_at = None;
    }

    pub(super) fn say(&mut self, spans: impl IntoIterator<Item = Span>) {
        self.show_notice(spans.into_iter().collect());
    }

    /// The user copies across domains: what the focused domain has copied is read. What was held
    /// before is gone even if this fails, or it would be pasted in place of what the user meant.
    pub(crate) fn copy_across(&mut self) {
        let from = match self.focused_party() {
            Ok(from) => from,
            Err(why) => return self.say(["not copied: ".into(), why.to_string().into()]),
        };
        self.wipe_crossing();
        let clip = self.board(from.id).clipboard.clone();
        match clip {
            Some(Clip::Own(source)) if source.is_alive() => self.read_from(from, &source),
            // What came from elsewhere goes on from here as this domain's own.
            Some(Clip::Pasted(parcel)) => self.copied(Held { parcel, from }),
            _ => {
                let name = from.span();
                self.say(["not copied: ".into(), name, " has copied nothing".into()]);
            }
        }
    }

    fn copied(&mut self, held: Held) {
        tracing::info!(domain = held.from.name, what = ?held.parcel, "copied across domains");
        self.say([
            format!("copied {} from ", held.parcel.shown()).into(),
            held.from.span(),
        ]);
        self.crossing().stage = Stage::Held(held);
    }

    /// Nothing is copied, nothing is read, nobody is asked.
    fn wipe_crossing(&mut self) {
        match std::mem::take(&mut self.crossing().stage) {
            Stage::Reading(reading) => reading.stop(&self.events),
            Stage::Asking(asking) => self.events.remove(asking.timer),
            Stage::Redrawing(redrawing) => drop(self.give_up_redrawing(redrawing)),
            Stage::Empty | Stage::Held(_) => {}
        }
    }

    /// The user pastes across domains.
    pub(crate) fn paste_across(&mut self) {
        let to = match self.focused_party() {
            Ok(to) => to,
            Err(why) => return self.say(["not pasted: ".into(), why.to_string().into()]),
        };
        match std::mem::take(&mut self.crossing().stage) {
            Stage::Held(held) if held.from.id == to.id => {
                // It never left its domain: there is nothing to decide.
                self.paste_into(&to, held);
            }
            Stage::Held(held) => self.ask_to_paste(held, to),
            Stage::Redrawing(redrawing) if redrawing.to.id == to.id => {
                self.crossing().stage = Stage::Redrawing(redrawing);
                self.say(["not pasted yet: the picture is still redrawn".into()]);
            }
            // Into another window than the first time: that one is meant now.
            Stage::Redrawing(redrawing) => {
                self.crossing().stage = Stage::Held(self.give_up_redrawing(redrawing));
                self.paste_across();
            }
            Stage::Empty => self.say(["not pasted: nothing was copied with Ctrl+Shift+C".into()]),
            Stage::Asking(asking) if !self.is_heard() => {
                self.events.remove(asking.timer);
                self.not_pasted(asking.held, &asking.to, "the manager has gone");
            }
            busy @ (Stage::Reading(_) | Stage::Asking(_)) => {
                let what = match busy {
                    Stage::Reading(_) => "not pasted: it is still being copied",
                    _ => "not pasted: the paste before this one waits for an answer",
                };
                self.crossing().stage = busy;
                self.say([what.into()]);
            }
        }
    }

    fn ask_to_paste(&mut self, held: Held, to: Party) {
        let id = self.crossing().next_id();
        let asked = self.announce_paste(
            id,
            [held.from.name.as_str(), to.name.as_str()],
            held.parcel.kind().name(),
            held.parcel.bytes().len(),
            &held.parcel.files_named(),
        );
        if !asked {
            return self.not_pasted(held, &to, "the manager is not there to decide");
        }
        let limit = match held.parcel.kind() {
            // The user is asked, and they are copied.
            Kind::Files => FILES_ANSWER,
            Kind::Text | Kind::Image => self.crossing().limits.answer,
        };
        let timer = Timer::from_duration(limit);
        let armed = self.events.insert_source(timer, move |_, (), state| {
            let why = "the manager does not answer".to_owned();
            let _ = state.decide_paste(id, Decision::Refuse(why));
            TimeoutAction::Drop
        });
        match armed {
            Ok(timer) => {
                self.crossing().stage = Stage::Asking(Asking {
                    id,
                    held,
                    to,
                    timer,
                });
            }
            Err(error) => {
                tracing::error!(%error, "no timer for the manager's answer");
                self.not_pasted(held, &to, "the compositor is out of timers");
            }
        }
    }

    /// The manager has decided, or has not in time, or its disposable did not draw the picture. A yes
    /// to a picture comes with a disposable's pipes. False when no such paste waits.
    pub(crate) fn decide_paste(&mut self, id: u64, decision: Decision) -> bool {
        if let Decision::Refuse(why) = &decision
            && self.redraw_failed(id, why)
        {
            return true;
        }
        let asking = match std::mem::take(&mut self.crossing().stage) {
            Stage::Asking(asking) if asking.id == id => asking,
            other => {
                self.crossing().stage = other;
                return false;
            }
        };
        self.events.remove(asking.timer);
        let Asking { held, to, .. } = asking;
        let ended = self.domains.get(to.id).is_none();
        let why = match (decision, held.parcel.kind()) {
            (Decision::Refuse(why), _) => why,
            (Decision::Redraw(_), _) if ended => {
                self.announce_redrawn(id, Some("the target has ended"));
                "it has ended".into()
            }
            (Decision::Give(_), _) if ended => "it has ended".into(),
            (Decision::Redraw(ends), Kind::Image) => {
                self.start_redrawing(id, held, to, ends);
                return true;
            }
            (Decision::Redraw(_), Kind::Text | Kind::Files) => {
                self.announce_redrawn(id, Some("it is no picture"));
                "only pictures are drawn anew".into()
            }
            (Decision::Give(_), Kind::Text) => {
                self.paste_into(&to, held);
                return true;
            }
            // Never as it is.
            (Decision::Give(_), Kind::Image) => "there is no disposable to redraw it in".into(),
            (Decision::Give(files), Kind::Files) => {
                self.files_came(&to, held, &files);
                return true;
            }
        };
        self.not_pasted(held, &to, &why);
        true
    }

    /// The files are in the target's domain now, under these addresses. They become its clipboard, for
    /// its file manager to paste where the user wants them.
    fn files_came(&mut self, to: &Party, held: Held, files: &[String]) {
        if files.is_empty() {
            let place = format!(" are in ~/Incoming/{} of ", held.from.name);
            let from = held.from.span();
            return self.say(["the files from ".into(), from, place.into(), to.span()]);
        }
        let parcel = Arc::new(Parcel::files(files));
        let from = held.from;
        self.paste_into(to, Held { parcel, from });
    }

    /// A paste that is not allowed changes nothing: it may be allowed elsewhere.
    fn not_pasted(&mut self, held: Held, to: &Party, why: &str) {
        let from = held.from.span();
        tracing::info!(
            source = held.from.name,
            target = to.name,
            why,
            "not pasted across domains"
        );
        self.crossing().stage = Stage::Held(held);
        self.say([
            "not pasted from ".into(),
            from,
            " into ".into(),
            to.span(),
            format!(": {why}").into(),
        ]);
    }

    /// It becomes the clipboard of the domain, as if somebody had copied it there, and is kept
    /// nowhere else.
    fn paste_into(&mut self, to: &Party, held: Held) {
        let Held { parcel, from } = held;
        tracing::info!(source = from.name, target = to.name, what = ?parcel, "pasted across domains");
        let what = format!("pasted {} from ", parcel.shown());
        let old = self.board(to.id).clipboard.replace(Clip::Pasted(parcel));
        if let Some(Clip::Own(old)) = old.filter(Clip::is_alive) {
            old.cancelled();
        }
        self.clipboard_changed(to.id);
        self.say([what.into(), from.span(), " into ".into(), to.span()]);
    }
}
