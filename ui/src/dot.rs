//! The colour of a domain, as a dot or as a bar.

use iced::widget::{Container, Space, container};
use iced::{Background, Border, Color, Element, Length};

use crate::bus::Label;
use crate::theme;

/// Around every dot, so that black ones are seen on our dark ground, too.
const RIM: Color = Color::from_rgba8(0xff, 0xff, 0xff, 0.45);

/// A round dot.
pub fn dot<'a, Message: 'a>(label: &Label, diameter: f32) -> Element<'a, Message> {
    let colour = theme::colour(label);
    area(diameter, Length::Fixed(diameter))
        .style(move |_| container::Style {
            background: Some(Background::Color(colour)),
            border: Border {
                color: RIM,
                width: 1.0,
                radius: (diameter / 2.0).into(),
            },
            ..container::Style::default()
        })
        .into()
}

/// A bar as high as what stands beside it.
pub fn bar<'a, Message: 'a>(label: &Label, width: f32) -> Element<'a, Message> {
    let colour = theme::colour(label);
    // Dark ones would not be seen.
    let rim = f32::from(u8::from(label.colour.iter().all(|part| *part < 0x40)));
    area(width, Length::Fill)
        .style(move |_| container::Style {
            border: Border {
                color: RIM,
                width: rim,
                ..Border::default()
            },
            ..theme::filled(colour)
        })
        .into()
}

fn area<'a, Message: 'a>(width: f32, height: Length) -> Container<'a, Message> {
    container(Space::new())
        .width(Length::Fixed(width))
        .height(height)
}
