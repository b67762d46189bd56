//! What subscribers of the control socket are told.

use serde_json::{Value, json};

use super::State;
use crate::{layout::WindowId, state::monotonic};

/// CLOCK_MONOTONIC in microseconds.
fn time_us() -> u64 {
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
