//! The application menu. Its process stays, with fonts and icons loaded and a surface of one
//! transparent pixel, so that a tap on Super has to make one more surface and nothing else.

mod matching;
pub mod model;
mod view;

use std::collections::HashMap;
use std::time::Duration;

use iced::keyboard::key::Named;
use iced::keyboard::{self, Key, Modifiers};
use iced::widget::image;
use iced::{Subscription, Task, window};
use iced_layershell::actions::LayerShellCustomActionWithId;
use iced_layershell::reexport::{Anchor, KeyboardInteractivity, Layer, NewLayerShellSettings};
use iced_layershell::settings::{LayerShellSettings, Settings, StartMode};
use iced_layershell::to_layer_message;

use crate::ask::{self, model::Decision};
use crate::bus::{self, Application, Bus, Command, Event, Interest};
use crate::{Error, theme};
use model::{Model, Row, Step};

/// How long a notice stays.
const NOTICE: Duration = Duration::from_secs(8);
/// Icons that are kept as pixels: 9 KiB each.
const MAX_ICONS: usize = 1024;

/// Everything that the menu's process knows.
pub struct Menu {
    bus: Bus,
    model: Model,
    icons: HashMap<String, Option<image::Handle>>,
    /// The surface, while it is shown.
    open: Option<window::Id>,
    /// Something that was not done, and the surface that says so.
    notice: Option<(window::Id, String)>,
    /// Questions to the user, and the surface of the one that is shown.
    asks: ask::model::Model,
    asking: Option<window::Id>,
    manager: bool,
}

#[to_layer_message(multi)]
#[derive(Debug, Clone)]
enum Message {
    Bus(Event),
    Key(Key, Modifiers, Option<String>),
    Scroll(f32),
    Point(usize),
    Launch { row: usize, disposable: bool },
    LaunchChosen { disposable: bool },
    CloseNotice,
    ChooseTarget(usize),
    Allow,
    Deny,
    Closed(window::Id),
    Unfocused(window::Id),
    OpenNow,
}

/// Shows the menu whenever it is wanted, until the session ends.
pub fn run(open: bool) -> Result<(), Error> {
    let bus = bus::start(Interest::Menu).map_err(Error::Bus)?;
    iced_layershell::disable_clipboard();
    let boot = move || {
        let menu = Menu {
            bus: bus.clone(),
            model: Model::new(view::ROWS),
            icons: HashMap::new(),
            open: None,
            notice: None,
            asks: ask::model::Model::default(),
            asking: None,
            manager: false,
        };
        let first = if open {
            Task::done(Message::OpenNow)
        } else {
            Task::none()
        };
        (menu, first)
    };
    iced_layershell::daemon(
        boot,
        || "bulkhead-menu".to_owned(),
        Menu::update,
        Menu::view,
    )
    .subscription(Menu::subscription)
    .theme(|_: &Menu, _: window::Id| Some(theme::theme()))
    .style(|_, _| iced::theme::Style {
        background_color: iced::Color::TRANSPARENT,
        text_color: theme::TEXT,
    })
    .settings(Settings {
        layer_settings: parked(),
        default_font: theme::FONT,
        default_text_size: theme::NORMAL.into(),
        ..Settings::default()
    })
    .run()?;
    Ok(())
}

/// The surface that keeps the process ready: one pixel that nobody sees.
fn parked() -> LayerShellSettings {
    LayerShellSettings {
        anchor: Anchor::Top | Anchor::Left,
        layer: Layer::Background,
        exclusive_zone: -1,
        size: Some((1, 1)),
        keyboard_interactivity: KeyboardInteractivity::None,
        start_mode: StartMode::Active,
        events_transparent: true,
        ..LayerShellSettings::default()
    }
}

impl Menu {
    fn subscription(&self) -> Subscription<Message> {
        let input = iced::event::listen_with(|event, _, id| match event {
            iced::Event::Keyboard(keyboard::Event::KeyPressed {
                key,
                modifiers,
                text,
                ..
            }) => Some(Message::Key(
                key,
                modifiers,
                text.map(|text| text.to_string()),
            )),
            iced::Event::Window(window::Event::Unfocused) => Some(Message::Unfocused(id)),
            _ => None,
        });
        Subscription::batch([
            Subscription::run(bus::events).map(Message::Bus),
            input,
            window::close_events().map(Message::Closed),
        ])
    }

    fn update(&mut self, message: Message) -> Task<Message> {
        match message {
            Message::Bus(event) => self.take(event),
            Message::Key(key, modifiers, text) => self.key(&key, modifiers, text.as_deref()),
            Message::Scroll(rows) => {
                self.model.scroll(-(rows.round() as isize));
                self.want_icons();
                Task::none()
            }
            Message::Point(row) => {
                self.model.choose(row);
                Task::none()
            }
            Message::Launch { row, disposable } => {
                self.model.choose(row);
                self.launch(disposable)
            }
            Message::LaunchChosen { disposable } => self.launch(disposable),
            Message::CloseNotice => self.close_notice(),
            Message::ChooseTarget(index) => {
                self.asks.choose(index);
                Task::none()
            }
            Message::Allow => self.decide(self.asks.allow()),
            Message::Deny => self.decide(self.asks.deny()),
            Message::Closed(id) => {
                if self.open == Some(id) {
                    self.open = None;
                }
                if self.asking == Some(id) {
                    self.asking = None;
                }
                if self
                    .notice
                    .as_ref()
                    .is_some_and(|(notice, _)| *notice == id)
                {
                    self.notice = None;
                }
                Task::none()
            }
            Message::Unfocused(id) if self.open == Some(id) => self.close(),
            Message::OpenNow if self.open.is_none() => self.show(),
            // Actions of the layer shell are taken before they come here.
            _ => Task::none(),
        }
    }

    fn take(&mut self, event: Event) -> Task<Message> {
        match event {
            Event::Manager(present) => self.manager = present,
            Event::Applications(apps) => self.set_applications(apps),
            Event::Icon(name, rgba) => {
                let handle = image::Handle::from_rgba(48, 48, rgba);
                self.icons.insert(name, Some(handle));
            }
            // A question has the keyboard until it is answered.
            Event::Menu { .. } if self.asking.is_some() => {}
            Event::Menu { .. } if self.open.is_some() => return self.close(),
            Event::Menu { time_us } => {
                tracing::debug!(asked_for_us = now_us().saturating_sub(time_us), "open");
                return self.show();
            }
            Event::Asks(open) => {
                if self.asks.set(open) {
                    return self.show_question();
                }
            }
            Event::Armed(alarm) => self.asks.rang(alarm),
            Event::Failed(text) | Event::Crossed(text) => return self.show_notice(text),
            Event::Elapsed => return self.close_notice(),
            Event::Domains(_) | Event::Windows(_) | Event::Focus(_) | Event::Minute => {}
        }
        Task::none()
    }

    fn set_applications(&mut self, apps: Vec<Application>) {
        if self.icons.len() > MAX_ICONS {
            self.icons.clear();
        }
        self.model.set_applications(apps);
        self.want_icons();
    }

    /// Asks for the icons that are to be seen and have not been asked for.
    fn want_icons(&mut self) {
        let wanted: Vec<String> = self
            .model
            .visible()
            .filter_map(|(_, row)| match row {
                Row::Application(index) => self.model.app(index),
                Row::Domain(_) => None,
            })
            .map(|app| app.icon.clone())
            .filter(|icon| !icon.is_empty() && !self.icons.contains_key(icon))
            .collect();
        if wanted.is_empty() {
            return;
        }
        for icon in &wanted {
            self.icons.insert(icon.clone(), None);
        }
        self.bus.send(Command::Icons(wanted));
    }

    fn key(&mut self, key: &Key, modifiers: Modifiers, text: Option<&str>) -> Task<Message> {
        if self.asking.is_some() {
            return self.key_to_question(key);
        }
        if self.open.is_none() {
            return Task::none();
        }
        let step = match key {
            Key::Named(Named::Escape) => return self.close(),
            Key::Named(Named::Enter) => return self.launch(modifiers.control()),
            Key::Named(Named::ArrowUp) => Some(Step::Up),
            Key::Named(Named::ArrowDown) => Some(Step::Down),
            Key::Named(Named::Tab) if modifiers.shift() => Some(Step::Up),
            Key::Named(Named::Tab) => Some(Step::Down),
            Key::Named(Named::PageUp) => Some(Step::PageUp),
            Key::Named(Named::PageDown) => Some(Step::PageDown),
            Key::Named(Named::Home) => Some(Step::First),
            Key::Named(Named::End) => Some(Step::Last),
            _ => None,
        };
        match (step, key, text) {
            (Some(step), ..) => self.model.step(step),
            (_, Key::Named(Named::Backspace), _) if modifiers.control() => self.model.erase_word(),
            (_, Key::Named(Named::Backspace), _) => self.model.erase(),
            (_, _, Some(text)) if !modifiers.control() && !modifiers.alt() && !modifiers.logo() => {
                self.model.type_text(text);
            }
            _ => {}
        }
        self.want_icons();
        Task::none()
    }

    fn launch(&mut self, disposable: bool) -> Task<Message> {
        let Some(launch) = self.model.launch(disposable) else {
            return Task::none();
        };
        self.bus.send(Command::Launch {
            domain: launch.domain,
            app: launch.app,
            disposable: launch.disposable,
        });
        self.close()
    }

    fn show(&mut self) -> Task<Message> {
        self.model.reset();
        self.want_icons();
        let (id, open) = Message::layershell_open(NewLayerShellSettings {
            size: Some((view::WIDTH, view::HEIGHT)),
            layer: Layer::Overlay,
            // In the middle.
            anchor: Anchor::empty(),
            exclusive_zone: None,
            keyboard_interactivity: KeyboardInteractivity::Exclusive,
            namespace: Some("bulkhead-menu".to_owned()),
            ..NewLayerShellSettings::default()
        });
        self.open = Some(id);
        open
    }

    fn close(&mut self) -> Task<Message> {
        match self.open.take() {
            Some(id) => window::close(id),
            None => Task::none(),
        }
    }

    /// Another question is to be shown, or none. The menu makes room for it.
    fn show_question(&mut self) -> Task<Message> {
        let close = match self.asking.take() {
            Some(id) => window::close(id),
            None => Task::none(),
        };
        if self.asks.shown().is_none() {
            return close;
        }
        let (id, open) = Message::layershell_open(NewLayerShellSettings {
            size: Some((ask::WIDTH, ask::HEIGHT)),
            layer: Layer::Overlay,
            anchor: Anchor::empty(),
            exclusive_zone: None,
            keyboard_interactivity: KeyboardInteractivity::Exclusive,
            namespace: Some("bulkhead-ask".to_owned()),
            ..NewLayerShellSettings::default()
        });
        self.asking = Some(id);
        self.set_alarm();
        Task::batch([self.close(), close, open])
    }

    fn set_alarm(&mut self) {
        if let Some(alarm) = self.asks.start_alarm() {
            self.bus.send(Command::Arm(alarm, ask::MOMENT));
        }
    }

    fn key_to_question(&mut self, key: &Key) -> Task<Message> {
        self.set_alarm();
        match key {
            Key::Named(Named::Escape) => return self.decide(self.asks.deny()),
            Key::Named(Named::Enter) => return self.decide(self.asks.allow()),
            Key::Named(Named::ArrowUp) => self.asks.step(false),
            Key::Named(Named::ArrowDown | Named::Tab) => self.asks.step(true),
            _ => {}
        }
        Task::none()
    }

    /// The manager then says that the question is closed.
    fn decide(&mut self, decision: Option<Decision>) -> Task<Message> {
        match decision {
            Some(Decision::Yes(id, target)) => self.bus.send(Command::Allow(id, target)),
            Some(Decision::No(id)) => self.bus.send(Command::Deny(id)),
            None => {}
        }
        Task::none()
    }

    fn show_notice(&mut self, text: String) -> Task<Message> {
        self.bus.send(Command::Wake(NOTICE));
        if let Some((_, notice)) = &mut self.notice {
            *notice = text;
            return Task::none();
        }
        let (id, open) = Message::layershell_open(NewLayerShellSettings {
            size: Some((view::NOTICE_WIDTH, view::NOTICE_HEIGHT)),
            layer: Layer::Overlay,
            anchor: Anchor::Top,
            exclusive_zone: None,
            margin: Some((12, 0, 0, 0)),
            // Nobody types into it: the keyboard stays where it is.
            keyboard_interactivity: KeyboardInteractivity::None,
            namespace: Some("bulkhead-notice".to_owned()),
            ..NewLayerShellSettings::default()
        });
        self.notice = Some((id, text));
        open
    }

    fn close_notice(&mut self) -> Task<Message> {
        match self.notice.take() {
            Some((id, _)) => window::close(id),
            None => Task::none(),
        }
    }
}

/// Microseconds of CLOCK_MONOTONIC.
fn now_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(time.tv_sec) * 1_000_000 + part(time.tv_nsec) / 1000
}

/// Only so that the macro's conversion is seen to be there.
const _: fn(Message) -> Result<LayerShellCustomActionWithId, Message> = TryInto::try_into;
