//! Colours and sizes. Everything of ours is neutral, so that the only colours on the desktop are
//! those of the domains.

use iced::widget::{button, container};
use iced::{Background, Border, Color, Font, Theme};

use crate::bus::Label;

/// Behind everything.
pub const GROUND: Color = Color::from_rgb8(0x1a, 0x1c, 0x1f);
/// Raised parts: popups, fields.
pub const RAISED: Color = Color::from_rgb8(0x24, 0x27, 0x2b);
/// What is chosen or pointed at.
pub const CHOSEN: Color = Color::from_rgb8(0x35, 0x3a, 0x40);
/// Lines between parts.
pub const LINE: Color = Color::from_rgb8(0x3c, 0x41, 0x47);
/// Text: 13:1 on [`GROUND`].
pub const TEXT: Color = Color::from_rgb8(0xe8, 0xea, 0xed);
/// Text that explains: 6:1 on [`GROUND`].
pub const DIM: Color = Color::from_rgb8(0x9d, 0xa3, 0xaa);
/// Something went wrong.
pub const WARNING: Color = Color::from_rgb8(0xf0, 0xb4, 0x4c);

/// Sizes of text.
pub const SMALL: f32 = 12.0;
/// Sizes of text.
pub const NORMAL: f32 = 14.0;
/// Sizes of text.
pub const LARGE: f32 = 18.0;

/// The typeface, which the host has.
pub const FONT: Font = Font::with_name("DejaVu Sans");
/// The same, heavier.
pub const BOLD: Font = Font {
    weight: iced::font::Weight::Bold,
    ..FONT
};

/// The theme that widgets start from.
pub fn theme() -> Theme {
    let palette = iced::theme::Palette {
        background: GROUND,
        text: TEXT,
        primary: CHOSEN,
        success: TEXT,
        warning: WARNING,
        danger: WARNING,
    };
    Theme::custom("Bulkhead", palette)
}

/// A label's colour.
pub fn colour(label: &Label) -> Color {
    let [red, green, blue] = label.colour;
    Color::from_rgb8(red, green, blue)
}

/// A filled area.
pub fn filled(colour: Color) -> container::Style {
    container::Style {
        background: Some(Background::Color(colour)),
        ..container::Style::default()
    }
}

/// A window of ours that stands over others. Its corners are square: the software renderer's
/// surfaces are opaque.
pub fn window(_theme: &Theme) -> container::Style {
    container::Style {
        background: Some(Background::Color(GROUND)),
        text_color: Some(TEXT),
        border: Border {
            color: LINE,
            width: 1.0,
            ..Border::default()
        },
        ..container::Style::default()
    }
}

/// A button that is seen only under the pointer, or when it is `on`.
pub fn flat(on: bool) -> impl Fn(&Theme, button::Status) -> button::Style {
    move |_, status| {
        let background = match status {
            button::Status::Hovered | button::Status::Pressed => Some(CHOSEN),
            _ if on => Some(CHOSEN),
            _ => None,
        };
        button::Style {
            background: background.map(Background::Color),
            text_color: match status {
                button::Status::Disabled => DIM,
                _ => TEXT,
            },
            border: Border {
                radius: 5.0.into(),
                ..Border::default()
            },
            ..button::Style::default()
        }
    }
}

/// A button that is always seen as one.
pub fn raised(_theme: &Theme, status: button::Status) -> button::Style {
    let background = match status {
        button::Status::Hovered | button::Status::Pressed => CHOSEN,
        _ => RAISED,
    };
    button::Style {
        background: Some(Background::Color(background)),
        text_color: match status {
            button::Status::Disabled => DIM,
            _ => TEXT,
        },
        border: Border {
            color: LINE,
            width: 1.0,
            radius: 5.0.into(),
        },
        ..button::Style::default()
    }
}

/// A button whose next click cannot be taken back.
pub fn armed(theme: &Theme, status: button::Status) -> button::Style {
    let style = raised(theme, status);
    button::Style {
        text_color: WARNING,
        border: Border {
            color: WARNING,
            ..style.border
        },
        ..style
    }
}

/// Text of at most so many characters, in one line; what is cut is shown to be.
///
/// It ends with a narrow space that does not break: the renderer redraws what lies within a text's bounds,
/// and the last glyph may reach beyond them by a part of a pixel, which would stay behind.
pub fn shorten(text: &str, most: usize) -> String {
    let mut short = if text.chars().count() <= most {
        text.to_owned()
    } else {
        let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
        short.truncate(short.trim_end().len());
        short.push('…');
        short
    };
    short.push('\u{202f}');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_shown_to_be() {
        assert_eq!(shorten("Grüße", 5), "Grüße\u{202f}");
        assert_eq!(shorten("Grüße an alle", 7), "Grüße…\u{202f}");
        assert_eq!(shorten("", 0), "\u{202f}");
    }

    /// Contrast as WCAG 2 defines it.
    fn contrast(a: Color, b: Color) -> f32 {
        let luminance = |colour: Color| {
            let [r, g, b, _] = colour.into_linear();
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_can_be_read() {
        for ground in [GROUND, RAISED, CHOSEN] {
            assert!(contrast(TEXT, ground) > 7.0);
            assert!(contrast(DIM, ground) > 4.4, "{}", contrast(DIM, ground));
            assert!(contrast(WARNING, ground) > 4.5);
        }
    }
}
