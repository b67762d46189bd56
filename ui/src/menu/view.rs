//! What the menu looks like.

use iced::alignment::Vertical;
use iced::widget::text::Wrapping;
use iced::widget::{Space, button, column, container, image, mouse_area, row, text};
use iced::{Element, Length, mouse, window};

use super::model::Row;
use super::{Menu, Message};
use crate::bus::{Application, Label};
use crate::dot::{bar, dot};
use crate::theme::{self, shorten};

/// Rows that are seen at a time.
pub const ROWS: usize = 11;
const ROW: f32 = 40.0;
const FIELD: f32 = 58.0;
const FOOTER: f32 = 42.0;
/// The window's width.
pub const WIDTH: u32 = 640;
/// The window's height.
pub const HEIGHT: u32 = (FIELD + ROW * ROWS as f32 + FOOTER) as u32 + 10;
/// A notice's width.
pub const NOTICE_WIDTH: u32 = 560;
/// A notice's height.
pub const NOTICE_HEIGHT: u32 = 76;
const ICON: f32 = 24.0;

impl Menu {
    pub(super) fn view(&self, id: window::Id) -> Element<'_, Message> {
        if self.open == Some(id) {
            return self.menu();
        }
        if self.asking == Some(id) {
            return crate::ask::dialog(
                &self.asks,
                Message::ChooseTarget,
                Message::Allow,
                Message::Deny,
            );
        }
        match &self.notice {
            Some((notice, text)) if *notice == id => notice_view(text),
            // The pixel that keeps the process ready.
            _ => Space::new().into(),
        }
    }

    fn menu(&self) -> Element<'_, Message> {
        let rows = self.model.visible().map(|(number, row)| match row {
            Row::Domain(index) => match self.model.app(index) {
                Some(app) => domain_row(app),
                None => Space::new().into(),
            },
            Row::Application(index) => match self.model.app(index) {
                Some(app) => self.app_row(number, app),
                None => Space::new().into(),
            },
        });
        let list = column(rows).width(Length::Fill);
        let (found, all) = self.model.counts();
        let list: Element<'_, Message> = if found == 0 {
            let why = if !self.manager {
                "The manager does not run."
            } else if all == 0 {
                "No domain has an application yet; make one with `bulkhead create`."
            } else {
                "Nothing is called that."
            };
            container(text(why).color(theme::DIM))
                .center(Length::Fill)
                .into()
        } else {
            list.into()
        };
        let body = row![list, self.scrollbar()].height(Length::Fixed(ROW * ROWS as f32));
        let body = mouse_area(body).on_scroll(|delta| match delta {
            mouse::ScrollDelta::Lines { y, .. } => Message::Scroll(y * 2.0),
            mouse::ScrollDelta::Pixels { y, .. } => Message::Scroll(y / ROW),
        });
        container(column![
            self.field(),
            line(),
            container(body).padding([4, 0]),
            line(),
            self.footer(found, all)
        ])
        .style(theme::window)
        .padding(1)
        .into()
    }

    fn field(&self) -> Element<'_, Message> {
        let query = self.model.query();
        let caret = container(Space::new())
            .width(Length::Fixed(2.0))
            .height(Length::Fixed(24.0))
            .style(|_| theme::filled(theme::TEXT));
        let content = if query.is_empty() {
            row![
                caret,
                text("Search applications")
                    .size(theme::LARGE)
                    .color(theme::DIM)
            ]
        } else {
            let shown = format!("{}\u{202f}", tail(query, 48));
            row![
                text(shown).size(theme::LARGE).wrapping(Wrapping::None),
                caret
            ]
        };
        container(content.align_y(Vertical::Center))
            .padding([0, 18])
            .height(Length::Fixed(FIELD))
            .width(Length::Fill)
            .align_y(Vertical::Center)
            .into()
    }

    fn app_row<'a>(&'a self, number: usize, app: &'a Application) -> Element<'a, Message> {
        let chosen = self.model.chosen() == Some(number);
        let icon: Element<'_, Message> = match self.icons.get(&app.icon) {
            Some(Some(handle)) => image(handle.clone()).width(ICON).height(ICON).into(),
            _ => placeholder(&app.name),
        };
        let what = match app.generic_name.as_str() {
            "" => app.comment.as_str(),
            generic_name => generic_name,
        };
        let content = row![
            bar(&app.label, 4.0),
            icon,
            text(shorten(&app.name, 36)).wrapping(Wrapping::None),
            Space::new().width(Length::Fill),
            text(shorten(what, 34))
                .size(theme::SMALL)
                .color(theme::DIM)
                .wrapping(Wrapping::None),
        ]
        .spacing(12)
        .align_y(Vertical::Center);
        let content = container(content)
            .height(Length::Fixed(ROW))
            .width(Length::Fill)
            .padding(iced::Padding {
                left: 18.0,
                right: 14.0,
                ..iced::Padding::ZERO
            })
            .align_y(Vertical::Center)
            .clip(true)
            .style(move |_| {
                if chosen {
                    theme::filled(theme::CHOSEN)
                } else {
                    container::Style::default()
                }
            });
        mouse_area(content)
            .on_move(move |_| Message::Point(number))
            .on_press(Message::Launch {
                row: number,
                disposable: false,
            })
            .interaction(mouse::Interaction::Pointer)
            .into()
    }

    /// Where in the list what is seen lies.
    fn scrollbar(&self) -> Element<'_, Message> {
        let (from, to) = self.model.view();
        let height = ROW * ROWS as f32;
        if to - from >= 1.0 {
            return Space::new().width(Length::Fixed(6.0)).into();
        }
        let thumb = container(Space::new())
            .width(Length::Fixed(4.0))
            .height(Length::Fixed(((to - from) * height).max(16.0)))
            .style(|_| theme::filled(theme::LINE));
        column![Space::new().height(Length::Fixed(from * height)), thumb]
            .width(Length::Fixed(6.0))
            .into()
    }

    fn footer(&self, found: usize, all: usize) -> Element<'_, Message> {
        let hint = |key: &'static str, what: &'static str| {
            row![
                text(key).size(theme::SMALL).color(theme::TEXT),
                text(what).size(theme::SMALL).color(theme::DIM)
            ]
            .spacing(5)
        };
        let mut line = row![hint("Enter", "launch"), hint("Esc", "close")]
            .spacing(16)
            .align_y(Vertical::Center);
        if self.model.chosen_app().is_some_and(|app| app.disposable) {
            let action = row![
                text("In a new disposable").size(theme::SMALL),
                text("Ctrl+Enter").size(theme::SMALL).color(theme::DIM)
            ]
            .spacing(7);
            line = line.push(
                button(action)
                    .padding([5, 10])
                    .style(theme::raised)
                    .on_press(Message::LaunchChosen { disposable: true }),
            );
        }
        let count = if found == all {
            format!("{all} applications")
        } else {
            format!("{found} of {all}")
        };
        container(
            line.push(Space::new().width(Length::Fill)).push(
                text(shorten(&count, 30))
                    .size(theme::SMALL)
                    .color(theme::DIM),
            ),
        )
        .padding([0, 18])
        .height(Length::Fixed(FOOTER))
        .align_y(Vertical::Center)
        .into()
    }
}

fn domain_row(app: &Application) -> Element<'_, Message> {
    container(
        row![
            dot(&app.label, 12.0),
            text(shorten(&app.domain, 31)).font(theme::BOLD).size(13),
            text(app.label.name.as_str())
                .size(theme::SMALL)
                .color(theme::DIM),
        ]
        .spacing(9)
        .align_y(Vertical::Center),
    )
    .height(Length::Fixed(ROW))
    .padding(iced::Padding {
        left: 14.0,
        top: 8.0,
        ..iced::Padding::ZERO
    })
    .align_y(Vertical::Center)
    .into()
}

/// Where there is no icon: the name's first letter.
fn placeholder<'a>(name: &str) -> Element<'a, Message> {
    let letter: String = name.chars().take(1).flat_map(char::to_uppercase).collect();
    container(text(letter).size(13).color(theme::DIM))
        .center_x(Length::Fixed(ICON))
        .center_y(Length::Fixed(ICON))
        .style(|_| container::Style {
            border: iced::Border {
                radius: 5.0.into(),
                ..iced::Border::default()
            },
            ..theme::filled(theme::RAISED)
        })
        .into()
}

fn line<'a>() -> Element<'a, Message> {
    container(Space::new())
        .width(Length::Fill)
        .height(Length::Fixed(1.0))
        .style(|_| theme::filled(theme::LINE))
        .into()
}

/// The end of a text, where the caret is.
fn tail(text: &str, most: usize) -> String {
    let surplus = text.chars().count().saturating_sub(most);
    text.chars().skip(surplus).collect()
}

fn notice_view(notice: &str) -> Element<'_, Message> {
    let content = row![
        bar(&Label::new("", "#f0b44c"), 4.0),
        text(shorten(notice, 150)).size(13),
    ]
    .spacing(12)
    .align_y(Vertical::Center);
    let window = container(content)
        .padding([10, 14])
        .width(Length::Fill)
        .height(Length::Fill)
        .align_y(Vertical::Center)
        .style(theme::window);
    mouse_area(window).on_press(Message::CloseNotice).into()
}
