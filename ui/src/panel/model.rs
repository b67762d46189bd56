//! The panel without a window: what is shown in it.

use crate::bus::{Command, Domain, Window};

/// What is unfolded below the panel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Popup {
    /// Nothing.
    #[default]
    None,
    /// The domains that run.
    Domains {
        /// The domain whose next click on `Kill` kills it.
        armed: Option<String>,
    },
    /// Switching off.
    Power {
        /// What the next click does.
        armed: Option<Power>,
    },
}

/// What is to become of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// It is switched off.
    Off,
    /// It restarts.
    Reboot,
}

/// What the user did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A click on a window of the list.
    Activate(u64),
    /// A middle click on one.
    Close(u64),
    /// A click on the number of domains.
    ToggleDomains,
    /// A click on the power button.
    TogglePower,
    /// A click elsewhere, or Escape.
    Fold,
    /// Stop a domain in order.
    Stop(String),
    /// Kill a domain: asks first.
    Kill(String),
    /// Switch off or restart: asks first.
    Power(Power),
    /// A click on the menu's button.
    Menu,
    /// Keep what the focused window's domain has copied, for another domain.
    CopyAcross,
    /// Give the focused window's domain what was kept.
    PasteAcross,
}

/// The panel's state.
#[derive(Debug, Default)]
pub struct Model {
    /// Whether the manager is there.
    pub manager: bool,
    /// All windows, as they came.
    pub windows: Vec<Window>,
    /// The one that has the keyboard.
    pub focus: Option<Window>,
    domains: Vec<Domain>,
    /// What is unfolded.
    pub popup: Popup,
    /// Something that was not done.
    pub notice: Option<String>,
}

impl Model {
    /// The windows are these now.
    pub fn set_windows(&mut self, windows: Vec<Window>) {
        self.focus = windows.iter().find(|window| window.focused).cloned();
        self.windows = windows;
    }

    /// This window has the keyboard now.
    pub fn set_focus(&mut self, focus: Option<Window>) {
        let id = focus.as_ref().map(|focus| focus.id);
        for window in &mut self.windows {
            window.focused = Some(window.id) == id;
            if let Some(focus) = focus.as_ref().filter(|focus| focus.id == window.id) {
                window.title.clone_from(&focus.title);
            }
        }
        self.focus = focus;
    }

    /// The domains are these now.
    pub fn set_domains(&mut self, domains: Vec<Domain>) {
        self.domains = domains;
        if let Popup::Domains { armed } = &mut self.popup {
            let active = |name: &String| {
                self.domains
                    .iter()
                    .any(|domain| domain.name == *name && domain.is_active())
            };
            if !armed.as_ref().is_some_and(active) {
                *armed = None;
            }
        }
    }

    /// The manager is there, or all that it said is void.
    pub fn set_manager(&mut self, present: bool) {
        if !present {
            *self = Model {
                popup: std::mem::take(&mut self.popup),
                ..Model::default()
            };
        }
        self.manager = present;
    }

    /// The domains that run, or are about to.
    pub fn active(&self) -> impl Iterator<Item = &Domain> {
        self.domains.iter().filter(|domain| domain.is_active())
    }

    /// How many domains run, and who is on the way, in words.
    pub fn summary(&self) -> String {
        let running = self
            .active()
            .filter(|domain| domain.state == "running")
            .count();
        let on_the_way = self.active().find(|domain| domain.state != "running");
        match (running, on_the_way) {
            (0, None) => "No domain runs".to_owned(),
            (running, None) => format!("{running} running"),
            (_, Some(domain)) => format!("{} {}…", domain.name, domain.state),
        }
    }

    /// Takes what the user did; gives what the manager is to be asked.
    pub fn act(&mut self, action: Action) -> Option<Command> {
        // A notice has been read when something else is done.
        self.notice = None;
        match action {
            Action::Activate(id) => {
                self.popup = Popup::None;
                Some(Command::Activate(id))
            }
            Action::Close(id) => Some(Command::Close(id)),
            Action::ToggleDomains => {
                self.popup = match self.popup {
                    Popup::Domains { .. } => Popup::None,
                    _ => Popup::Domains { armed: None },
                };
                None
            }
            Action::TogglePower => {
                self.popup = match self.popup {
                    Popup::Power { .. } => Popup::None,
                    _ => Popup::Power { armed: None },
                };
                None
            }
            Action::Fold => {
                self.popup = Popup::None;
                None
            }
            Action::Stop(name) => Some(Command::Stop(name)),
            Action::Kill(name) => self.kill(name),
            Action::Power(power) => self.power(power),
            Action::Menu => {
                self.popup = Popup::None;
                Some(Command::Menu)
            }
            Action::CopyAcross => Some(Command::CopyAcross),
            Action::PasteAcross => Some(Command::PasteAcross),
        }
    }

    fn kill(&mut self, name: String) -> Option<Command> {
        let Popup::Domains { armed } = &mut self.popup else {
            return None;
        };
        if armed.as_ref() == Some(&name) {
            *armed = None;
            return Some(Command::Kill(name));
        }
        *armed = Some(name);
        None
    }

    fn power(&mut self, power: Power) -> Option<Command> {
        let Popup::Power { armed } = &mut self.popup else {
            return None;
        };
        if *armed != Some(power) {
            *armed = Some(power);
            return None;
        }
        self.popup = Popup::None;
        Some(match power {
            Power::Off => Command::PowerOff,
            Power::Reboot => Command::Reboot,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(id: u64, focused: bool) -> Window {
        Window {
            id,
            title: format!("title {id}"),
            focused,
            ..Window::default()
        }
    }

    fn domain(name: &str, state: &str) -> Domain {
        Domain {
            name: name.into(),
            state: state.into(),
            ..Domain::default()
        }
    }

    #[test]
    fn focus_and_titles() {
        let mut model = Model::default();
        model.set_windows(vec![window(1, true), window(2, false)]);
        assert_eq!(model.focus.as_ref().unwrap().id, 1);
        let renamed = Window {
            title: "new".into(),
            ..window(2, true)
        };
        model.set_focus(Some(renamed));
        assert!(!model.windows[0].focused && model.windows[1].focused);
        assert_eq!(model.windows[1].title, "new");
        model.set_focus(None);
        assert!(model.windows.iter().all(|window| !window.focused));
        model.set_manager(false);
        assert!(model.windows.is_empty());
    }

    #[test]
    fn killing_and_switching_off_ask_first() {
        let mut model = Model::default();
        model.set_domains(vec![domain("work", "running"), domain("bank", "running")]);
        let kill = |name: &str| Action::Kill(name.into());
        // Nothing is killed that was not unfolded.
        assert_eq!(model.act(kill("work")), None);
        assert_eq!(model.act(Action::ToggleDomains), None);
        assert_eq!(model.act(kill("work")), None);
        assert_eq!(model.act(kill("bank")), None);
        assert_eq!(model.act(kill("work")), None);
        assert_eq!(model.act(kill("work")), Some(Command::Kill("work".into())));
        // A domain that has ended is not killed when it is back.
        model.act(kill("work"));
        model.set_domains(vec![domain("work", "halted")]);
        model.set_domains(vec![domain("work", "running")]);
        assert_eq!(model.act(kill("work")), None);
        assert_eq!(
            model.act(Action::Stop("work".into())),
            Some(Command::Stop("work".into()))
        );

        assert_eq!(model.act(Action::TogglePower), None);
        assert_eq!(model.act(Action::Power(Power::Off)), None);
        assert_eq!(model.act(Action::Power(Power::Reboot)), None);
        assert_eq!(
            model.act(Action::Power(Power::Reboot)),
            Some(Command::Reboot)
        );
        assert_eq!(model.popup, Popup::None);
        assert_eq!(model.act(Action::Power(Power::Reboot)), None);
    }

    #[test]
    fn popups_fold() {
        let mut model = Model::default();
        model.act(Action::ToggleDomains);
        model.act(Action::TogglePower);
        assert_eq!(model.popup, Popup::Power { armed: None });
        model.act(Action::TogglePower);
        assert_eq!(model.popup, Popup::None);
        model.act(Action::ToggleDomains);
        model.act(Action::Fold);
        assert_eq!(model.popup, Popup::None);
        model.act(Action::TogglePower);
        assert_eq!(model.act(Action::Activate(3)), Some(Command::Activate(3)));
        assert_eq!(model.popup, Popup::None);
    }

    #[test]
    fn the_summary_says_who_is_on_the_way() {
        let mut model = Model::default();
        assert_eq!(model.summary(), "No domain runs");
        model.set_domains(vec![domain("a", "running"), domain("b", "halted")]);
        assert_eq!(model.summary(), "1 running");
        model.set_domains(vec![domain("a", "running"), domain("b", "starting")]);
        assert_eq!(model.summary(), "b starting…");
    }
}
