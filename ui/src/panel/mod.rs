//! The panel: a bar at the top that says who has the keyboard, and what is unfolded below it.

mod clock;
pub mod model;
mod view;

use iced::keyboard::key::Named;
use iced::keyboard::{self, Key};
use iced::{Subscription, Task, window};
use iced_layershell::reexport::{Anchor, KeyboardInteractivity, Layer, NewLayerShellSettings};
use iced_layershell::settings::{LayerShellSettings, Settings, StartMode};
use iced_layershell::to_layer_message;

use crate::bus::{self, Bus, Event, Interest};
use crate::{Error, theme};
use model::{Action, Model, Popup};

/// Everything that the panel's process knows.
pub struct Panel {
    bus: Bus,
    model: Model,
    clock: (String, String),
    /// The surface of what is unfolded, and its size.
    popup: Option<(window::Id, (u32, u32))>,
}

#[to_layer_message(multi)]
#[derive(Debug, Clone)]
enum Message {
    Bus(Event),
    Did(Action),
    Closed(window::Id),
}

/// Shows the panel until the session ends.
pub fn run() -> Result<(), Error> {
    let bus = bus::start(Interest::Panel).map_err(Error::Bus)?;
    iced_layershell::disable_clipboard();
    let boot = move || Panel {
        bus: bus.clone(),
        model: Model::default(),
        clock: clock::now(),
        popup: None,
    };
    iced_layershell::daemon(
        boot,
        || "bulkhead-panel".to_owned(),
        Panel::update,
        Panel::view,
    )
    .subscription(Panel::subscription)
    .theme(|_: &Panel, _: window::Id| Some(theme::theme()))
    .style(|_, _| iced::theme::Style {
        background_color: theme::GROUND,
        text_color: theme::TEXT,
    })
    .settings(Settings {
        layer_settings: LayerShellSettings {
            anchor: Anchor::Top | Anchor::Left | Anchor::Right,
            layer: Layer::Top,
            exclusive_zone: i32::try_from(view::HEIGHT).unwrap_or(0),
            size: Some((0, view::HEIGHT)),
            keyboard_interactivity: KeyboardInteractivity::None,
            start_mode: StartMode::AllScreens,
            ..LayerShellSettings::default()
        },
        default_font: theme::FONT,
        default_text_size: theme::NORMAL.into(),
        ..Settings::default()
    })
    .run()?;
    Ok(())
}

impl Panel {
    fn subscription(&self) -> Subscription<Message> {
        let input = iced::event::listen_with(|event, _, _| match event {
            iced::Event::Keyboard(keyboard::Event::KeyPressed {
                key: Key::Named(Named::Escape),
                ..
            }) => Some(Message::Did(Action::Fold)),
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
            Message::Bus(event) => {
                self.take(event);
                self.fold_or_unfold()
            }
            Message::Did(action) => {
                if let Some(command) = self.model.act(action) {
                    self.bus.send(command);
                }
                self.fold_or_unfold()
            }
            Message::Closed(id) => {
                if self.popup.is_some_and(|(popup, _)| popup == id) {
                    self.popup = None;
                    self.model.popup = Popup::None;
                }
                Task::none()
            }
            // Actions of the layer shell are taken before they come here.
            _ => Task::none(),
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Manager(present) => self.model.set_manager(present),
            Event::Domains(domains) => self.model.set_domains(domains),
            Event::Windows(windows) => self.model.set_windows(windows),
            Event::Focus(focus) => {
                // The user went on to something else.
                if focus.is_some() && focus.as_ref().map(|w| w.id) != self.focus_id() {
                    self.model.popup = Popup::None;
                }
                self.model.set_focus(focus);
            }
            Event::Failed(text) => self.model.notice = Some(text),
            Event::Minute => {
                self.clock = clock::now();
                // Whoever is there has read it.
                self.model.notice = None;
            }
            // The menu's.
            Event::Applications(_)
            | Event::Icon(..)
            | Event::Menu { .. }
            | Event::Asks(_)
            | Event::Crossed(_)
            | Event::Armed(_)
            | Event::Elapsed => {}
        }
    }

    fn focus_id(&self) -> Option<u64> {
        self.model.focus.as_ref().map(|window| window.id)
    }

    /// Makes the popup's surface what the model says: there or not, and as large as it must be.
    fn fold_or_unfold(&mut self) -> Task<Message> {
        let wanted = view::popup_size(&self.model);
        match (self.popup, wanted) {
            (Some((_, is)), Some(size)) if is == size => Task::none(),
            (Some((id, _)), Some(size)) => {
                self.popup = Some((id, size));
                Task::done(Message::SizeChange { id, size })
            }
            (Some((id, _)), None) => {
                self.popup = None;
                window::close(id)
            }
            (None, Some(size)) => {
                let (id, open) = Message::layershell_open(NewLayerShellSettings {
                    size: Some(size),
                    layer: Layer::Overlay,
                    anchor: Anchor::Top | Anchor::Right,
                    exclusive_zone: None,
                    margin: Some((4, 4, 0, 0)),
                    keyboard_interactivity: KeyboardInteractivity::OnDemand,
                    namespace: Some("bulkhead-panel-popup".to_owned()),
                    ..NewLayerShellSettings::default()
                });
                self.popup = Some((id, size));
                open
            }
            (None, None) => Task::none(),
        }
    }
}
