//! What subscribers of the control socket are told.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use smithay::reexports::calloop::timer::{TimeoutAction, Timer};

use super::State;
use crate::{layout::WindowId, state::monotonic};

/// Between two rounds of `title` events.
const TITLE_PAUSE: Duration = Duration::from_millis(250);
/// How long a press of the power button waits for the manager.
const POWER_KEPT: Duration = Duration::from_secs(30);
/// Windows told of in one round.
const TITLES_AT_ONCE: usize = 64;

/// CLOCK_MONOTONIC in microseconds.
pub(crate) fn time_us() -> u64 {
    u64::try_from(monotonic().as_micros()).unwrap_or(u64::MAX)
}

impl State {
    fn window_event(&self, event: &str, id: WindowId) -> Value {
        let window = self.shell.windows.get(&id);
        let domain = window
            .and_then(|w| self.domains.get(w.domain))
            .map(|d| d.name.as_str());
        json!({
            "event": event,
            "domain": domain,
            "id": id.0,
            "title": window.map(|w| w.title.as_str()),
            "app_id": window.map(|w| w.app_id.as_str()),
            "time_us": time_us(),
        })
    }

    fn announce(&mut self, event: Value) {
        if self.control.connections.iter().any(|c| c.subscribed) {
            self.control.events.push(event);
        }
    }

    pub(crate) fn announce_mapped(&mut self, id: WindowId) {
        if let Some(window) = self.shell.windows.get_mut(&id) {
            window.retitled = false;
        }
        self.announce(self.window_event("window_mapped", id));
    }

    pub(crate) fn announce_closed(&mut self, id: WindowId) {
        self.announce(self.window_event("window_closed", id));
    }

    pub(crate) fn announce_focus(&mut self, id: Option<WindowId>) {
        let event = match id {
            Some(id) => self.window_event("focus", id),
            None => json!({ "event": "focus", "domain": null, "id": null, "time_us": time_us() }),
        };
        self.announce(event);
    }

    /// The user tapped Super.
    pub(crate) fn announce_menu(&mut self) {
        self.announce(json!({ "event": "menu", "time_us": time_us() }));
    }

    /// The machine's power button was pressed. While the manager is not there yet, the press is
    /// kept for it: whoever presses while the desktop starts wants the machine off too.
    pub(crate) fn announce_power(&mut self) {
        self.control.power_pressed = Some(Instant::now());
        self.announce_kept_power();
    }

    /// Tells of a press that nobody has heard of yet.
    pub(super) fn announce_kept_power(&mut self) {
        if !self.control.connections.iter().any(|c| c.subscribed) {
            return;
        }
        let pressed = self.control.power_pressed.take();
        // After a long time nobody would know why the machine goes off.
        if pressed.is_some_and(|pressed| pressed.elapsed() < POWER_KEPT) {
            self.announce(json!({ "event": "power", "time_us": time_us() }));
        }
    }

    /// Asks whoever subscribed whether something may be pasted. False when nobody has.
    pub(crate) fn announce_paste(
        &mut self,
        id: u64,
        [source, target]: [&str; 2],
        kind: &str,
        bytes: usize,
        files: &[&str],
    ) -> bool {
        if !self.is_heard() {
            return false;
        }
        self.announce(json!({
            "event": "paste",
            "id": id,
            "source": source,
            "target": target,
            "kind": kind,
            "bytes": bytes,
            "files": files,
            "time_us": time_us(),
        }));
        true
    }

    /// A picture that was to be drawn anew has been, or will not be, and why not. Its disposable is
    /// no longer needed.
    pub(crate) fn announce_redrawn(&mut self, id: u64, why_not: Option<&str>) {
        self.announce(json!({
            "event": "redrawn",
            "id": id,
            "pasted": why_not.is_none(),
            "text": why_not.unwrap_or_default(),
            "time_us": time_us(),
        }));
    }

    /// Whether anybody hears what is announced.
    pub(crate) fn is_heard(&self) -> bool {
        self.control.connections.iter().any(|c| c.subscribed)
    }

    /// Asks whoever subscribed whether a drag that is over another domain may be dropped there.
    pub(crate) fn announce_drag_over(&mut self, id: u64, [source, target]: [&str; 2], kind: &str) {
        self.announce(json!({
            "event": "drag_over",
            "id": id,
            "source": source,
            "target": target,
            "kind": kind,
            "time_us": time_us(),
        }));
    }

    /// Asks whoever subscribed to decide about a drop, and to copy its files.
    pub(crate) fn announce_drop(
        &mut self,
        id: u64,
        [source, target]: [&str; 2],
        kind: &str,
        bytes: usize,
        files: &[String],
    ) {
        self.announce(json!({
            "event": "drop",
            "id": id,
            "source": source,
            "target": target,
            "kind": kind,
            "bytes": bytes,
            "files": files,
            "time_us": time_us(),
        }));
    }

    /// The user is told something.
    pub(crate) fn announce_notice(&mut self, text: &str) {
        self.announce(json!({ "event": "notice", "text": text, "time_us": time_us() }));
    }

    /// Titles come from guests, as often as they like: subscribers are told at most four times a
    /// second, and of so many windows at a time.
    pub(crate) fn announce_titles_soon(&mut self) {
        if self.control.title_timer || !self.control.connections.iter().any(|c| c.subscribed) {
            return;
        }
        let since = self.control.titles_told.map(|told| told.elapsed());
        let wait = since.map_or(Duration::ZERO, |since| TITLE_PAUSE.saturating_sub(since));
        let timer = Timer::from_duration(wait);
        let armed = self.events.insert_source(timer, |_, (), state| {
            state.control.title_timer = false;
            state.announce_titles();
            TimeoutAction::Drop
        });
        self.control.title_timer = armed.is_ok();
    }

    fn announce_titles(&mut self) {
        let mut changed: Vec<WindowId> = self
            .shell
            .windows
            .values()
            .filter(|w| w.retitled && w.announced)
            .map(|w| w.id)
            .collect();
        let more = changed.len() > TITLES_AT_ONCE;
        changed.truncate(TITLES_AT_ONCE);
        for id in changed {
            if let Some(window) = self.shell.windows.get_mut(&id) {
                window.retitled = false;
            }
            self.announce(self.window_event("title", id));
        }
        self.control.titles_told = Some(Instant::now());
        if more {
            self.announce_titles_soon();
        }
    }

    /// The host's panels and menus, the oldest first.
    pub(super) fn layer_list(&self) -> Value {
        let focus = self.seat.get_keyboard().and_then(|k| k.current_focus());
        let list: Vec<_> = self
            .shell
            .layers
            .iter()
            .map(|layer| {
                json!({
                    "namespace": layer.namespace,
                    "layer": format!("{:?}", layer.layer()).to_lowercase(),
                    "x": layer.rect.x, "y": layer.rect.y,
                    "width": layer.rect.w, "height": layer.rect.h,
                    "mapped": layer.mapped,
                    "focused": focus.as_ref() == Some(layer.surface.wl_surface()),
                    "commits": layer.commits,
                    "frames": layer.frames,
                    "shown_us": layer.shown_us,
                })
            })
            .collect();
        json!({ "ok": true, "layers": list })
    }

    /// All windows and popups, from the lowest to the highest.
    pub(super) fn window_list(&self) -> Value {
        let mut list = Vec::new();
        for window in self.shell.windows.values() {
            let placed = self.layout.get(window.id);
            let rect = placed.map(|p| p.client).unwrap_or_default();
            let domain = self.domains.get(window.domain);
            list.push(json!({
                "id": window.id.0,
                "domain": domain.map(|d| d.name.as_str()),
                "label": domain.map(|d| d.label.as_str()),
                "title": window.title,
                "app_id": window.app_id,
                "kind": "toplevel",
                "x": rect.x, "y": rect.y, "width": rect.w, "height": rect.h,
                "focused": self.layout.focused() == Some(window.id),
                "mapped": window.mapped(),
                "mode": placed.map(|p| format!("{:?}", p.mode).to_lowercase()),
                "commits": window.commits,
                "frames": window.frames,
                "stacking": self.layout.stack().position(|p| p.id == window.id),
            }));
        }
        for popup in &self.shell.popups {
            let rect = self
                .shell
                .popup_rect(&self.layout, popup.id)
                .unwrap_or_default();
            let domain = self.domains.get(popup.domain);
            list.push(json!({
                "id": popup.id.0,
                "domain": domain.map(|d| d.name.as_str()),
                "label": domain.map(|d| d.label.as_str()),
                "title": "",
                "app_id": "",
                "kind": "popup",
                "parent": popup.root.0,
                "x": rect.x, "y": rect.y, "width": rect.w, "height": rect.h,
                "focused": popup.grab,
                "mapped": popup.mapped,
                "commits": popup.commits,
                "frames": popup.frames,
            }));
        }
        json!({ "ok": true, "windows": list })
    }
}
