//! What a question looks like.

use iced::alignment::Vertical;
use iced::widget::text::Wrapping;
use iced::widget::{Space, button, column, container, mouse_area, row, scrollable, text};
use iced::{Element, Length, mouse};

use super::model::{Model, sentence, target_name};
use crate::bus::Label;
use crate::dot::{bar, dot};
use crate::theme::{self, shorten};

/// The window's width.
pub const WIDTH: u32 = 560;
/// The window's height.
pub const HEIGHT: u32 = 430;
const ROW: f32 = 34.0;
/// Files that are named.
const FILES: usize = 5;

/// The question that is shown. `choose`, `allow` and `deny` say what was pressed.
pub fn dialog<'a, Message: Clone + 'a>(
    model: &'a Model,
    choose: impl Fn(usize) -> Message + 'a,
    allow: Message,
    deny: Message,
) -> Element<'a, Message> {
    let Some(question) = model.shown() else {
        return Space::new().into();
    };
    let (source, label) = &question.source;
    let heading = row![
        dot(label, 14.0),
        text(shorten(source, 31))
            .font(theme::BOLD)
            .size(theme::LARGE),
        text(shorten(&sentence(question), 60)).size(theme::NORMAL),
    ]
    .spacing(10)
    .align_y(Vertical::Center);
    let mut files = column![].spacing(3);
    for line in question.files.iter().take(FILES) {
        files = files.push(text(shorten(line, 70)).size(13).wrapping(Wrapping::None));
    }
    if question.files.len() > FILES {
        let more = format!("and {} more lines", question.files.len() - FILES);
        files = files.push(text(more).size(theme::SMALL).color(theme::DIM));
    }
    let targets = question.targets.iter().enumerate();
    let targets = column(targets.map(|(index, (name, label))| {
        target(name, label, model.chosen() == Some(index), choose(index))
    }));
    let body = column![
        heading,
        files,
        text("To:").size(theme::SMALL).color(theme::DIM),
        container(scrollable(targets).height(Length::Fill)).height(Length::Fill),
        buttons(model, allow, deny),
    ]
    .spacing(12);
    let content = row![bar(label, 5.0), container(body).padding([16, 18])];
    container(content)
        .width(Length::Fill)
        .height(Length::Fill)
        .style(theme::window)
        .padding(1)
        .into()
}

fn target<'a, Message: Clone + 'a>(
    name: &str,
    label: &Label,
    chosen: bool,
    choose: Message,
) -> Element<'a, Message> {
    let mark = if chosen { "●" } else { "○" };
    let content = row![
        text(mark).size(13),
        dot(label, 11.0),
        text(shorten(&target_name(name), 60)).wrapping(Wrapping::None),
    ]
    .spacing(9)
    .align_y(Vertical::Center);
    let content = container(content)
        .height(Length::Fixed(ROW))
        .width(Length::Fill)
        .padding([0, 10])
        .align_y(Vertical::Center)
        .style(move |_| {
            if chosen {
                theme::filled(theme::CHOSEN)
            } else {
                container::Style::default()
            }
        });
    mouse_area(content)
        .on_press(choose)
        .interaction(mouse::Interaction::Pointer)
        .into()
}

fn buttons<'a, Message: Clone + 'a>(
    model: &Model,
    allow: Message,
    deny: Message,
) -> Element<'a, Message> {
    let waiting = match model.waiting() {
        0 => String::new(),
        1 => "one more question waits".to_owned(),
        more => format!("{more} more questions wait"),
    };
    let yes = button(text("Allow").size(theme::NORMAL))
        .padding([8, 22])
        .style(theme::raised)
        .on_press_maybe(model.may_allow().then_some(allow));
    let no = button(text("Deny").size(theme::NORMAL))
        .padding([8, 22])
        .style(theme::raised)
        .on_press(deny);
    row![
        text(shorten(&waiting, 40))
            .size(theme::SMALL)
            .color(theme::DIM),
        Space::new().width(Length::Fill),
        no,
        yes,
    ]
    .spacing(10)
    .align_y(Vertical::Center)
    .into()
}
