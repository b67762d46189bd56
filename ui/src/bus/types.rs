//! What is known, as plain values.

use std::collections::HashMap;

use zbus::OwnedVariant;

/// `a{sv}`.
pub type Dict = HashMap<String, OwnedVariant>;

/// A domain's label and its colour, from the manager.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Label {
    /// `red`, `orange`, …
    pub name: String,
    /// Red, green, blue.
    pub colour: [u8; 3],
}

/// A domain that exists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its label.
    pub label: Label,
    /// `halted`, `starting`, `running`, `stopping`, `failed`.
    pub state: String,
}

impl Domain {
    /// Whether there is something to stop.
    pub fn is_active(&self) -> bool {
        matches!(self.state.as_str(), "starting" | "running" | "stopping")
    }
}

/// A window on the desktop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    /// The compositor's number for it.
    pub id: u64,
    /// Whose it is.
    pub domain: String,
    /// The domain's label.
    pub label: Label,
    /// The guest's word.
    pub title: String,
    /// It has the keyboard.
    pub focused: bool,
}

/// An application of a domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Application {
    /// Where it runs.
    pub domain: String,
    /// Its name to the manager.
    pub app: String,
    /// What people call it.
    pub name: String,
    /// What it is.
    pub generic_name: String,
    /// What it does.
    pub comment: String,
    /// Words by which it is found.
    pub keywords: Vec<String>,
    /// The domain's label.
    pub label: Label,
    /// The name of its icon, or nothing.
    pub icon: String,
    /// It may be launched in a new disposable.
    pub disposable: bool,
}

/// A domain wants something of another, and the user decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Its number.
    pub id: u64,
    /// Who wants it, with its colour.
    pub source: (String, Label),
    /// Which service.
    pub service: String,
    /// Its argument, or nothing.
    pub argument: String,
    /// What may be chosen.
    pub targets: Vec<(String, Label)>,
    /// What the policy suggests, or nothing.
    pub default: String,
    /// What would be sent, a line each.
    pub files: Vec<String>,
    /// How much that is, in bytes.
    pub bytes: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The manager is there, or not.
    Manager(bool),
    /// All domains.
    Domains(Vec<Domain>),
    /// All windows.
    Windows(Vec<Window>),
    /// Which window has the keyboard, if one has.
    Focus(Option<Window>),
    /// All applications.
    Applications(Vec<Application>),
    /// An icon's pixels.
    Icon(String, Vec<u8>),
    /// The menu is wanted, since this CLOCK_MONOTONIC time.
    Menu {
        /// Microseconds.
        time_us: u64,
    },
    /// All open questions, oldest first.
    Asks(Vec<Question>),
    /// Something crossed between domains, or did not; the text is for a person.
    Crossed(String),
    /// The time of [`Command::Arm`] has gone by.
    Armed(u64),
    /// Something was not done; the text is for a person.
    Failed(String),
    /// Another minute has begun.
    Minute,
    /// The time of [`Command::Wake`] has gone by.
    Elapsed,
}

/// What the manager is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Launch an application.
    Launch {
        /// Where.
        domain: String,
        /// Which.
        app: String,
        /// In a new domain of its own.
        disposable: bool,
    },
    /// Icons by their names, as many as are to be seen.
    Icons(Vec<String>),
    /// Raise a window.
    Activate(u64),
    /// Close a window.
    Close(u64),
    /// Stop a domain in order.
    Stop(String),
    /// End a domain at once.
    Kill(String),
    /// Switch the machine off.
    PowerOff,
    /// Restart the machine.
    Reboot,
    /// Show the menu.
    Menu,
    /// Keep what the focused window's domain has copied, for another domain.
    CopyAcross,
    /// Give the focused window's domain what was kept.
    PasteAcross,
    /// The user says yes to a question, with this target.
    Allow(u64, String),
    /// The user says no.
    Deny(u64),
    /// Say [`Event::Armed`] with this number after this time.
    Arm(u64, std::time::Duration),
    /// Say [`Event::Elapsed`] after this time.
    Wake(std::time::Duration),
}

fn text(dict: &Dict, key: &str) -> String {
    dict.get(key)
        .and_then(|value| <&str>::try_from(value).ok())
        .unwrap_or_default()
        .to_owned()
}

fn texts(dict: &Dict, key: &str) -> Vec<String> {
    dict.get(key)
        .and_then(|value| Vec::<String>::try_from(value.clone()).ok())
        .unwrap_or_default()
}

fn number(dict: &Dict, key: &str) -> u64 {
    dict.get(key)
        .and_then(|value| u64::try_from(value).ok())
        .unwrap_or(0)
}

fn flag(dict: &Dict, key: &str) -> bool {
    dict.get(key)
        .and_then(|value| bool::try_from(value).ok())
        .unwrap_or(false)
}

impl Label {
    /// From its name and `#rrggbb`.
    pub fn new(name: &str, colour: &str) -> Self {
        let part = |at: usize| {
            let digits = colour.get(at..at + 2)?;
            u8::from_str_radix(digits, 16).ok()
        };
        Label {
            name: name.to_owned(),
            colour: [1, 3, 5].map(|at| part(at).unwrap_or(0x80)),
        }
    }

    fn of(dict: &Dict) -> Self {
        Label::new(&text(dict, "label"), &text(dict, "colour"))
    }
}

impl From<&Dict> for Domain {
    fn from(dict: &Dict) -> Self {
        Domain {
            name: text(dict, "name"),
            label: Label::of(dict),
            state: text(dict, "state"),
        }
    }
}

impl From<&Dict> for Window {
    fn from(dict: &Dict) -> Self {
        Window {
            id: number(dict, "id"),
            domain: text(dict, "domain"),
            label: Label::of(dict),
            title: text(dict, "title"),
            focused: flag(dict, "focused"),
        }
    }
}

impl From<&Dict> for Application {
    fn from(dict: &Dict) -> Self {
        Application {
            domain: text(dict, "domain"),
            app: text(dict, "app"),
            name: text(dict, "name"),
            generic_name: text(dict, "generic_name"),
            comment: text(dict, "comment"),
            keywords: texts(dict, "keywords"),
            label: Label::of(dict),
            icon: text(dict, "icon"),
            disposable: flag(dict, "disposable"),
        }
    }
}

impl From<&Dict> for Question {
    fn from(dict: &Dict) -> Self {
        let mut colours = texts(dict, "target_colours").into_iter();
        let mut label = || Label::new("", &colours.next().unwrap_or_default());
        Question {
            id: number(dict, "id"),
            source: (text(dict, "source"), Label::new("", &text(dict, "colour"))),
            service: text(dict, "service"),
            argument: text(dict, "argument"),
            targets: texts(dict, "targets")
                .into_iter()
                .map(|target| (target, label()))
                .collect(),
            default: text(dict, "default"),
            files: texts(dict, "files"),
            bytes: number(dict, "bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use zbus::Str;

    use super::*;

    #[test]
    fn what_is_missing_or_of_another_type_is_empty() {
        let dict = Dict::from([
            ("domain".into(), OwnedVariant::from(Str::from("work"))),
            ("title".into(), OwnedVariant::from(5_u32)),
            ("colour".into(), OwnedVariant::from(Str::from("#3465a4"))),
        ]);
        let window = Window::from(&dict);
        assert_eq!(
            (window.domain.as_str(), window.title.as_str()),
            ("work", "")
        );
        assert_eq!(window.label.colour, [0x34, 0x65, 0xa4]);
        assert_eq!(Application::from(&dict).keywords, Vec::<String>::new());
        assert_eq!(Label::new("x", "#é").colour, [0x80; 3]);
    }
}
