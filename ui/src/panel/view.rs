//! What the panel looks like.

use iced::alignment::Vertical;
use iced::widget::text::Wrapping;
use iced::widget::{Space, button, column, container, mouse_area, row, text};
use iced::{Color, Element, Length, window};

use super::model::{Action, Model, Popup, Power};
use super::{Message, Panel};
use crate::bus::{Domain, Window};
use crate::dot::dot;
use crate::theme::{self, shorten};

/// The bar's height, with the line below it.
pub const HEIGHT: u32 = 36;
/// The line in the colour of the focused domain.
const EDGE: f32 = 3.0;
const POPUP_WIDTH: u32 = 360;
const HEADING: u32 = 44;
const ROW: u32 = 44;
/// More domains than that are not shown at a time.
const MAX_ROWS: usize = 14;
/// More windows than that have no room in the bar.
const MAX_WINDOWS: usize = 12;

/// How large what is unfolded must be.
pub fn popup_size(model: &Model) -> Option<(u32, u32)> {
    let rows = match &model.popup {
        Popup::None => return None,
        Popup::Domains { .. } => model.active().take(MAX_ROWS).count().max(1),
        Popup::Power { .. } => 2,
    };
    let rows = u32::try_from(rows).unwrap_or(1);
    Some((POPUP_WIDTH, HEADING + ROW * rows + 8))
}

impl Panel {
    pub(super) fn view(&self, id: window::Id) -> Element<'_, Message> {
        match self.popup {
            Some((popup, _)) if popup == id => match &self.model.popup {
                Popup::Domains { armed } => self.domains(armed.as_deref()),
                Popup::Power { armed } => power(*armed),
                Popup::None => Space::new().into(),
            },
            _ => self.bar(),
        }
    }

    fn bar(&self) -> Element<'_, Message> {
        let model = &self.model;
        let right = row![
            flat(
                text(shorten(&model.summary(), 40)).size(13),
                matches!(model.popup, Popup::Domains { .. }),
                Action::ToggleDomains
            ),
            text(shorten(&self.clock.1, 20)).size(13).color(theme::DIM),
            text(shorten(&self.clock.0, 10)).font(theme::BOLD),
            flat(
                text("Power").size(13),
                matches!(model.popup, Popup::Power { .. }),
                Action::TogglePower
            ),
        ]
        .spacing(12)
        .align_y(Vertical::Center);
        let content = row![
            flat(text("Applications").size(13), false, Action::Menu),
            self.focus(),
            container(self.windows()).width(Length::Fill).clip(true),
            right,
        ]
        .spacing(12)
        .padding([0, 8])
        .align_y(Vertical::Center);
        let edge = match &model.focus {
            Some(window) => theme::colour(&window.label),
            None => theme::LINE,
        };
        column![
            container(content)
                .height(Length::Fixed(HEIGHT as f32 - EDGE))
                .width(Length::Fill)
                .align_y(Vertical::Center)
                .style(|_| theme::filled(theme::GROUND)),
            container(Space::new())
                .height(Length::Fixed(EDGE))
                .width(Length::Fill)
                .style(move |_| theme::filled(edge)),
        ]
        .into()
    }

    /// Who has the keyboard: the manager's words, never hidden by anything else.
    fn focus(&self) -> Element<'_, Message> {
        let model = &self.model;
        let Some(window) = &model.focus else {
            let words = if model.manager {
                "No window has the keyboard"
            } else {
                "The manager does not run"
            };
            return text(words).size(13).color(theme::DIM).into();
        };
        let label = &window.label;
        let name = row![
            dot(label, 12.0),
            text(shorten(&window.domain, 31)).font(theme::BOLD).size(13),
            text(label.name.as_str())
                .size(theme::SMALL)
                .color(theme::DIM),
        ]
        .spacing(7)
        .align_y(Vertical::Center);
        let name = container(name).padding([3, 9]).style(|_| container::Style {
            border: iced::Border {
                color: theme::LINE,
                width: 1.0,
                radius: 5.0.into(),
            },
            ..theme::filled(theme::RAISED)
        });
        // What Ctrl+Shift+C and Ctrl+Shift+V do. The bar never has the keyboard, so the window keeps
        // it.
        let across = |words, action| {
            flat(
                text(words).size(theme::SMALL).color(theme::DIM),
                false,
                action,
            )
        };
        row![
            name,
            across("Copy out", Action::CopyAcross),
            across("Paste in", Action::PasteAcross),
        ]
        .spacing(2)
        .align_y(Vertical::Center)
        .into()
    }

    /// The focused window's title and the list of windows; or what was not done.
    fn windows(&self) -> Element<'_, Message> {
        let model = &self.model;
        if let Some(notice) = &model.notice {
            return text(shorten(notice, 110))
                .size(13)
                .color(theme::WARNING)
                .wrapping(Wrapping::None)
                .into();
        }
        let title = model.focus.as_ref().map_or("", |focus| &focus.title);
        row![
            text(shorten(title, 40)).size(13).wrapping(Wrapping::None),
            self.window_list(),
        ]
        .spacing(10)
        .align_y(Vertical::Center)
        .into()
    }

    fn window_list(&self) -> Element<'_, Message> {
        let windows = &self.model.windows;
        // Titles become shorter when there are more of them.
        let most = match windows.len() {
            0..=3 => 22,
            4..=6 => 12,
            _ => 6,
        };
        let mut list = row(windows
            .iter()
            .take(MAX_WINDOWS)
            .map(|window| window_button(window, most)))
        .spacing(2)
        .align_y(Vertical::Center);
        if windows.len() > MAX_WINDOWS {
            let more = format!("+{}", windows.len() - MAX_WINDOWS);
            list = list.push(text(more).size(theme::SMALL).color(theme::DIM));
        }
        list.into()
    }

    fn domains(&self, armed: Option<&str>) -> Element<'_, Message> {
        let mut rows = column![heading("Running domains")];
        let mut empty = true;
        for domain in self.model.active().take(MAX_ROWS) {
            empty = false;
            rows = rows.push(domain_row(domain, armed == Some(domain.name.as_str())));
        }
        if empty {
            rows = rows.push(
                container(text("None.").color(theme::DIM))
                    .padding([0, 16])
                    .height(Length::Fixed(ROW as f32))
                    .align_y(Vertical::Center),
            );
        }
        unfolded(rows)
    }
}

fn flat<'a>(
    content: impl Into<Element<'a, Message>>,
    on: bool,
    action: Action,
) -> Element<'a, Message> {
    button(content)
        .padding([4, 9])
        .style(theme::flat(on))
        .on_press(Message::Did(action))
        .into()
}

fn window_button(window: &Window, most: usize) -> Element<'_, Message> {
    let title = match window.title.as_str() {
        "" => window.domain.as_str(),
        title => title,
    };
    let colour: Color = if window.focused {
        theme::TEXT
    } else {
        theme::DIM
    };
    let content = row![
        dot(&window.label, 10.0),
        text(shorten(title, most))
            .size(theme::SMALL)
            .color(colour)
            .wrapping(Wrapping::None),
    ]
    .spacing(6)
    .align_y(Vertical::Center);
    let button = button(content)
        .padding([5, 8])
        .style(theme::flat(window.focused))
        .on_press(Message::Did(Action::Activate(window.id)));
    mouse_area(button)
        .on_middle_press(Message::Did(Action::Close(window.id)))
        .into()
}

fn heading<'a>(words: &'a str) -> Element<'a, Message> {
    container(text(words).size(13).font(theme::BOLD))
        .padding([0, 16])
        .height(Length::Fixed(HEADING as f32))
        .align_y(Vertical::Center)
        .into()
}

fn unfolded<'a>(content: impl Into<Element<'a, Message>>) -> Element<'a, Message> {
    container(content)
        .width(Length::Fill)
        .height(Length::Fill)
        .style(theme::window)
        .into()
}

fn domain_row(domain: &Domain, armed: bool) -> Element<'_, Message> {
    let kill =
        button(text(if armed { "Kill now" } else { "Kill" }).size(theme::SMALL)).padding([5, 10]);
    let kill = if armed {
        kill.style(theme::armed)
    } else {
        kill.style(theme::raised)
    };
    let name = domain.name.clone();
    let content = row![
        dot(&domain.label, 12.0),
        text(shorten(&domain.name, 18)).wrapping(Wrapping::None),
        text(shorten(&domain.state, 20))
            .size(theme::SMALL)
            .color(theme::DIM),
        Space::new().width(Length::Fill),
        button(text("Stop").size(theme::SMALL))
            .padding([5, 10])
            .style(theme::raised)
            .on_press(Message::Did(Action::Stop(name.clone()))),
        kill.on_press(Message::Did(Action::Kill(name))),
    ]
    .spacing(9)
    .align_y(Vertical::Center);
    container(content)
        .padding([0, 16])
        .height(Length::Fixed(ROW as f32))
        .align_y(Vertical::Center)
        .into()
}

fn power<'a>(armed: Option<Power>) -> Element<'a, Message> {
    let line = |power: Power, name: &'static str, sure: &'static str| {
        let is_armed = armed == Some(power);
        let words = if is_armed { sure } else { name };
        let button = button(text(words).size(13).width(Length::Fill))
            .padding([8, 12])
            .width(Length::Fill);
        let button = if is_armed {
            button.style(theme::armed)
        } else {
            button.style(theme::raised)
        };
        container(button.on_press(Message::Did(Action::Power(power))))
            .padding([0, 12])
            .height(Length::Fixed(ROW as f32))
            .align_y(Vertical::Center)
    };
    unfolded(column![
        heading("All domains are stopped first"),
        line(Power::Off, "Switch off", "Switch off: click again"),
        line(Power::Reboot, "Restart", "Restart: click again"),
    ])
}
