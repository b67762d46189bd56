//! Which windows there are, as the compositor tells it. Whose they are is known from the socket
//! that their domain was introduced with; their titles are guests' words, cleaned.

use std::collections::BTreeMap;

use bulkhead_protocol::{DomainName, Label};

use crate::compositor::WindowEvent;
use crate::text::clean;

/// The longest title that is kept.
const MAX_TITLE: usize = 200;
/// More windows than that are not listed. The compositor's quotas are below it.
const MAX_WINDOWS: usize = 4096;

/// A window as callers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowInfo {
    /// The compositor's number for it.
    pub id: u64,
    /// Whose it is.
    pub domain: DomainName,
    /// The domain's label.
    pub label: Label,
    /// The guest's word.
    pub title: String,
    /// The guest's word.
    pub app_id: String,
    /// It has the keyboard.
    pub focused: bool,
}

#[derive(Debug, Clone)]
struct Window {
    domain: DomainName,
    title: String,
    app_id: String,
}

/// All windows.
#[derive(Debug, Default)]
pub struct Windows {
    list: BTreeMap<u64, Window>,
    focused: Option<u64>,
}

/// What an event changed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// The list.
    pub windows: bool,
    /// Who has the keyboard, or that one's title.
    pub focus: bool,
}

impl Windows {
    /// The windows that a compositor had when we came to it.
    pub fn replace(&mut self, windows: &[WindowEvent]) -> Changed {
        *self = Windows::default();
        for window in windows.iter().filter(|window| window.mapped) {
            self.insert(window);
            if window.focused {
                self.focused = window.id;
            }
        }
        Changed {
            windows: true,
            focus: true,
        }
    }

    /// Takes an event.
    pub fn apply(&mut self, event: &WindowEvent) -> Changed {
        match (event.event.as_str(), event.id) {
            ("window_mapped", Some(_)) => Changed {
                windows: self.insert(event),
                focus: false,
            },
            ("window_closed", Some(id)) => {
                let focus = self.focused == Some(id);
                if focus {
                    self.focused = None;
                }
                Changed {
                    windows: self.list.remove(&id).is_some(),
                    focus,
                }
            }
            ("title", Some(id)) => {
                let Some(window) = self.list.get_mut(&id) else {
                    return Changed::default();
                };
                window.title = clean(event.title.as_deref().unwrap_or_default(), MAX_TITLE);
                window.app_id = clean(event.app_id.as_deref().unwrap_or_default(), MAX_TITLE);
                Changed {
                    windows: true,
                    focus: self.focused == Some(id),
                }
            }
            ("focus", id) => {
                let changed = self.focused != id;
                self.focused = id;
                Changed {
                    windows: changed,
                    focus: changed,
                }
            }
            _ => Changed::default(),
        }
    }

    fn insert(&mut self, event: &WindowEvent) -> bool {
        let domain = event.domain.as_deref().and_then(|name| name.parse().ok());
        let (Some(id), Some(domain)) = (event.id, domain) else {
            return false;
        };
        if self.list.len() >= MAX_WINDOWS {
            return false;
        }
        let window = Window {
            domain,
            title: clean(event.title.as_deref().unwrap_or_default(), MAX_TITLE),
            app_id: clean(event.app_id.as_deref().unwrap_or_default(), MAX_TITLE),
        };
        self.list.insert(id, window);
        true
    }

    /// All windows in the order in which they came, with their domains' labels; windows of domains
    /// that have none are left out.
    pub fn list(&self, label: impl Fn(&DomainName) -> Option<Label>) -> Vec<WindowInfo> {
        self.list
            .iter()
            .filter_map(|(id, window)| self.info(*id, window, &label))
            .collect()
    }

    /// The window that has the keyboard.
    pub fn focused(&self, label: impl Fn(&DomainName) -> Option<Label>) -> Option<WindowInfo> {
        let id = self.focused?;
        self.info(id, self.list.get(&id)?, &label)
    }

    fn info(
        &self,
        id: u64,
        window: &Window,
        label: impl Fn(&DomainName) -> Option<Label>,
    ) -> Option<WindowInfo> {
        Some(WindowInfo {
            id,
            label: label(&window.domain)?,
            domain: window.domain.clone(),
            title: window.title.clone(),
            app_id: window.app_id.clone(),
            focused: self.focused == Some(id),
        })
    }

    /// Whether a domain has any.
    pub fn has(&self, domain: &DomainName) -> bool {
        self.list.values().any(|window| window.domain == *domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> WindowEvent {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn windows_come_change_and_go() {
        let mut windows = Windows::default();
        let label = |_: &DomainName| Some(Label::Red);
        let both = Changed {
            windows: true,
            focus: true,
        };
        assert!(
            windows
                .apply(&event(
                    r#"{"event":"window_mapped","domain":"work","id":3,"title":"a\u202eb"}"#
                ))
                .windows
        );
        assert_eq!(
            windows.apply(&event(r#"{"event":"focus","domain":"work","id":3}"#)),
            both
        );
        let changed = windows.apply(&event(r#"{"event":"focus","domain":"work","id":3}"#));
        assert_eq!(changed, Changed::default());
        assert_eq!(windows.focused(label).unwrap().title, "a b");
        let title = r#"{"event":"title","domain":"work","id":3,"title":"new","app_id":"foot"}"#;
        assert_eq!(windows.apply(&event(title)), both);
        let window = windows.list(label).remove(0);
        assert_eq!(
            (window.title.as_str(), window.app_id.as_str()),
            ("new", "foot")
        );
        assert!(window.focused && windows.has(&window.domain));
        // A domain that is not ours has no windows that we show.
        assert!(windows.list(|_| None).is_empty());
        let none = r#"{"event":"focus","domain":null,"id":null,"time_us":1}"#;
        assert_eq!(windows.apply(&event(none)), both);
        assert_eq!(windows.focused(label), None);
        assert!(
            windows
                .apply(&event(
                    r#"{"event":"window_closed","domain":"work","id":3}"#
                ))
                .windows
        );
        assert!(
            !windows
                .apply(&event(
                    r#"{"event":"window_closed","domain":"work","id":3}"#
                ))
                .windows
        );
        assert!(!windows.apply(&event(r#"{"event":"title","id":9}"#)).windows);
        assert!(
            !windows
                .apply(&event(
                    r#"{"event":"window_mapped","domain":"../x","id":9}"#
                ))
                .windows
        );
    }

    #[test]
    fn a_list_replaces_all() {
        let mut windows = Windows::default();
        windows.apply(&event(r#"{"event":"window_mapped","domain":"old","id":1}"#));
        windows.replace(&[
            event(r#"{"domain":"work","id":5,"mapped":true,"focused":true,"title":"t"}"#),
            event(r#"{"domain":"work","id":6,"mapped":false}"#),
        ]);
        let list = windows.list(|_| Some(Label::Blue));
        assert_eq!(list.len(), 1);
        assert!(list[0].focused);
    }
}
