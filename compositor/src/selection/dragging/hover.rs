//! A drag over windows of other domains: may it be dropped there? The windows learn nothing.

use std::collections::HashMap;

use smithay::{
    reexports::wayland_server::{
        Resource,
        protocol::{wl_data_device_manager::DndAction, wl_surface::WlSurface},
    },
    utils::{Logical, Point},
};

use super::{choose, source_actions, types_of};
use crate::{
    domain::DomainId, guard::domain_of, layout::WindowId, render::DropArt, shell::root_of,
    state::State,
};

pub(super) const NOTHING_KNOWN: &str = "it drags neither files nor text nor a PNG picture";
pub(super) const NO_COPY: &str = "it does not let it be copied";

/// What the manager said of a target.
#[derive(Debug)]
enum Verdict {
    /// Nothing yet, to this question.
    Asked(u64),
    /// It may, or the user would be asked.
    Maybe,
    /// It may not, and why.
    Never(String),
}

/// Where a drag is that has left its domain.
#[derive(Debug)]
pub(crate) struct Over {
    pub domain: DomainId,
    pub window: WindowId,
    pub surface: WlSurface,
    pub at: Point<f64, Logical>,
}

/// What is known of a drag outside of its domain. Each target is asked about once.
#[derive(Debug, Default)]
pub(crate) struct Abroad {
    verdicts: HashMap<DomainId, Verdict>,
    pub over: Option<Over>,
    /// How the target is shown.
    pub art: DropArt,
}

/// How the window below a drag is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Light {
    /// It may be dropped there, perhaps after a question.
    Lit,
    /// It may not.
    Forbidden,
}

impl Abroad {
    /// Why nothing may be dropped there, if that is known.
    pub fn refusal(&self, domain: DomainId) -> Option<&str> {
        match self.verdicts.get(&domain) {
            Some(Verdict::Never(why)) => Some(why),
            _ => None,
        }
    }

    /// The window of another domain below the drag, and how to show it.
    pub fn light(&self) -> Option<(WindowId, Light)> {
        let over = self.over.as_ref()?;
        let light = match self.verdicts.get(&over.domain)? {
            Verdict::Asked(_) => return None,
            Verdict::Maybe => Light::Lit,
            Verdict::Never(_) => Light::Forbidden,
        };
        Some((over.window, light))
    }
}

impl State {
    /// The window of another domain that a drag is over. The host's own programs are none.
    fn foreign(&self, from: DomainId, surface: &WlSurface) -> Option<(DomainId, WindowId)> {
        let domain = domain_of(&surface.client()?)?;
        if domain == from || domain == DomainId::HOST {
            return None;
        }
        let mut root = root_of(surface);
        if let Some(popup) = self
            .shell
            .popups
            .iter()
            .find(|p| *p.surface.wl_surface() == root)
        {
            root = self.shell.windows.get(&popup.root)?.surface().clone();
        }
        let window = self.shell.windows.values().find(|w| *w.surface() == root)?;
        Some((domain, window.id))
    }

    /// The pointer moved during a drag.
    pub(in crate::selection) fn hover(
        &mut self,
        under: Option<&(WlSurface, Point<f64, Logical>)>,
        at: Point<f64, Logical>,
    ) {
        let Some(drag) = &self.drag else { return };
        let Some(source) = drag.source.clone().filter(Resource::is_alive) else {
            return;
        };
        let from = drag.domain;
        let over = under.and_then(|(surface, corner)| {
            let (domain, window) = self.foreign(from, surface)?;
            Some(Over {
                domain,
                window,
                surface: surface.clone(),
                at: at - *corner,
            })
        });
        let domain = over.as_ref().map(|over| over.domain);
        let Some(drag) = &mut self.drag else { return };
        drag.abroad.over = over;
        let unknown = domain.filter(|domain| !drag.abroad.verdicts.contains_key(domain));
        let Some(domain) = unknown else { return };
        let names = (self.party(from), self.party(domain));
        let (Some(from), Some(to)) = names else {
            return;
        };
        let verdict = match choose(&types_of(&source)) {
            None => Verdict::Never(NOTHING_KNOWN.into()),
            Some(_) if !source_actions(&source).contains(DndAction::Copy) => {
                Verdict::Never(NO_COPY.into())
            }
            Some(_) if !self.is_heard() => {
                Verdict::Never("the manager is not there to decide".into())
            }
            Some((_, kind)) => {
                let id = self.next_crossing_id();
                self.announce_drag_over(id, [&from.name, &to.name], kind.name());
                Verdict::Asked(id)
            }
        };
        if let Some(drag) = &mut self.drag {
            drag.abroad.verdicts.insert(domain, verdict);
        }
        self.dirty = true;
    }

    /// The manager says whether a drag may be dropped on a domain. False when no such question waits.
    pub(crate) fn decide_drag_over(&mut self, id: u64, decision: Result<(), String>) -> bool {
        let Some(drag) = &mut self.drag else {
            return false;
        };
        let mut verdicts = drag.abroad.verdicts.values_mut();
        let asked = verdicts.find(|v| matches!(v, Verdict::Asked(asked) if *asked == id));
        let Some(verdict) = asked else { return false };
        *verdict = decision.map_or_else(Verdict::Never, |()| Verdict::Maybe);
        self.dirty = true;
        true
    }
}
