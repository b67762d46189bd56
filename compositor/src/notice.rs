//! One line that tells the user what just happened, for three seconds, or what goes on, above everything that a
//! domain can draw.

use std::time::Duration;

use smithay::reexports::calloop::{
    RegistrationToken,
    timer::{TimeoutAction, Timer},
};

use crate::{domain::Colour, render::NoticeArt, state::State};

/// How long a notice is shown.
const SHOWN: Duration = Duration::from_secs(3);

/// A piece of a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    /// The desktop's own words.
    Words(String),
    /// A domain's name, shown on its colour.
    Domain(String, Colour),
}

impl Span {
    pub fn text(&self) -> &str {
        match self {
            Self::Words(text) | Self::Domain(text, _) => text,
        }
    }
}

impl From<&str> for Span {
    fn from(text: &str) -> Self {
        Self::Words(text.into())
    }
}

impl From<String> for Span {
    fn from(text: String) -> Self {
        Self::Words(text)
    }
}

/// What is shown now.
#[derive(Debug)]
pub(crate) struct Notice {
    pub spans: Vec<Span>,
    pub art: NoticeArt,
    timer: RegistrationToken,
}

impl State {
    /// Shows a notice instead of the one before, and tells subscribers. It goes by itself; an idle
    /// desktop has no timer for it.
    pub(crate) fn show_notice(&mut self, spans: Vec<Span>) {
        self.show_notice_for(spans, SHOWN);
    }

    /// The same, of something that goes on for at most so long: its end is another notice.
    pub(crate) fn show_notice_for(&mut self, spans: Vec<Span>, most: Duration) {
        let text: String = spans.iter().map(Span::text).collect();
        tracing::info!(text, "notice");
        self.announce_notice(&text);
        if let Some(old) = self.notice.take() {
            self.events.remove(old.timer);
        }
        self.dirty = true;
        let timer = Timer::from_duration(most);
        let armed = self.events.insert_source(timer, |_, (), state| {
            state.notice = None;
            state.dirty = true;
            TimeoutAction::Drop
        });
        match armed {
            Ok(timer) => {
                self.notice = Some(Notice {
                    spans,
                    art: NoticeArt::default(),
                    timer,
                });
            }
            // One that never goes would be worse than none.
            Err(error) => tracing::error!(%error, "no timer for a notice"),
        }
    }
}
