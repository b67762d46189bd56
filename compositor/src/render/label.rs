//! Trusted text: the title bar's picture, drawn with glyphs that are part of this program.

use embedded_graphics::{
    Drawable, Pixel,
    draw_target::DrawTarget,
    geometry::{OriginDimensions, Point, Size},
    mono_font::{
        MonoFont, MonoTextStyle,
        iso_8859_1::{FONT_9X15, FONT_9X15_BOLD},
    },
    pixelcolor::{Rgb888, RgbColor},
    primitives::{Line, Primitive, PrimitiveStyle},
    text::{Baseline, Text},
};

use crate::{domain::Colour, layout::TITLE_PX};

/// What a title bar says; the picture is drawn again when this changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Width of the bar.
    pub width: i32,
    /// The domain's name, always first and whole.
    pub domain: String,
    /// The window's title, already cleaned.
    pub title: String,
    /// The domain's colour.
    pub colour: Colour,
    /// Does the window have the focus?
    pub focused: bool,
}

/// Pixels in memory order B, G, R, X.
pub(crate) struct Canvas {
    size: Size,
    pub(crate) pixels: Vec<u8>,
}

impl Canvas {
    pub(super) fn new(width: i32, height: i32, colour: Colour) -> Self {
        let size = Size::new(width.max(1).unsigned_abs(), height.max(1).unsigned_abs());
        let count = size.width as usize * size.height as usize;
        let pixels = [colour.blue, colour.green, colour.red, 255].repeat(count);
        Self { size, pixels }
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        self.size
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Self::Error>
    where
        I: IntoIterator<Item = Pixel<Rgb888>>,
    {
        for Pixel(at, colour) in pixels {
            let (Ok(x), Ok(y)) = (usize::try_from(at.x), usize::try_from(at.y)) else {
                continue;
            };
            if x >= self.size.width as usize || y >= self.size.height as usize {
                continue;
            }
            let index = (y * self.size.width as usize + x) * 4;
            if let Some(pixel) = self.pixels.get_mut(index..index + 4) {
                pixel.copy_from_slice(&[colour.b(), colour.g(), colour.r(), 255]);
            }
        }
        Ok(())
    }
}

pub(super) fn rgb(colour: Colour) -> Rgb888 {
    Rgb888::new(colour.red, colour.green, colour.blue)
}

fn mixed(a: Colour, b: Colour) -> Colour {
    let mix = |a: u8, b: u8| u8::try_from((u16::from(a) * 3 + u16::from(b)) / 4).unwrap_or(a);
    Colour {
        red: mix(a.red, b.red),
        green: mix(a.green, b.green),
        blue: mix(a.blue, b.blue),
    }
}

/// The font has Latin-1 only: everything else is shown as a question mark rather than as nothing.
pub(super) fn drawable(text: &str) -> String {
    let known = |c: char| matches!(u32::from(c), 0x20..=0x7e | 0xa1..=0xff);
    text.chars()
        .map(|c| if known(c) { c } else { '?' })
        .collect()
}

/// Writes one line in the middle of a bar as high as a title bar, and answers where it ends.
pub(super) fn write(
    canvas: &mut Canvas,
    font: &MonoFont<'_>,
    ink: Colour,
    x: i32,
    text: &str,
) -> i32 {
    let style = MonoTextStyle::new(font, rgb(ink));
    let height = i32::try_from(font.character_size.height).unwrap_or(TITLE_PX);
    let at = Point::new(x, (TITLE_PX - height) / 2);
    match Text::with_baseline(text, at, style, Baseline::Top).draw(canvas) {
        Ok(end) => end.x,
        Err(never) => match never {},
    }
}

/// Draws a title bar: the domain's name in bold, the title after it, the close button at the
/// right end.
pub(crate) fn draw(label: &Label) -> Canvas {
    let ground = if label.focused {
        label.colour
    } else {
        label.colour.dimmed()
    };
    let ink = ground.ink();
    let mut canvas = Canvas::new(label.width, TITLE_PX, ground);
    let end = write(
        &mut canvas,
        &FONT_9X15_BOLD,
        ink,
        6,
        &drawable(&label.domain),
    );
    let faint = mixed(ink, ground);
    if !label.title.is_empty() {
        let bar = Line::new(Point::new(end + 7, 5), Point::new(end + 7, TITLE_PX - 6));
        let _ = bar
            .into_styled(PrimitiveStyle::with_stroke(rgb(faint), 1))
            .draw(&mut canvas);
        let room = usize::try_from((label.width - TITLE_PX - end - 16) / 9).unwrap_or(0);
        let title = drawable(&label.title);
        let shown: String = if title.chars().count() > room {
            let kept = room.saturating_sub(2);
            title
                .chars()
                .take(kept)
                .chain("..".chars().take(room))
                .collect()
        } else {
            title
        };
        write(&mut canvas, &FONT_9X15, faint, end + 15, &shown);
    }
    let left = label.width - TITLE_PX;
    if left >= 0 {
        // The button covers whatever text reached this far.
        for y in 0..TITLE_PX {
            let line = Line::new(Point::new(left, y), Point::new(label.width - 1, y));
            let _ = line
                .into_styled(PrimitiveStyle::with_stroke(rgb(ground), 1))
                .draw(&mut canvas);
        }
        let (near, far) = (8, TITLE_PX - 9);
        let stroke = PrimitiveStyle::with_stroke(rgb(ink), 2);
        for (from, to) in [((near, near), (far, far)), ((far, near), (near, far))] {
            let line = Line::new(
                Point::new(left + from.0, from.1),
                Point::new(left + to.0, to.1),
            );
            let _ = line.into_styled(stroke).draw(&mut canvas);
        }
    }
    canvas
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(domain: &str, title: &str) -> Label {
        Label {
            width: 400,
            domain: domain.into(),
            title: title.into(),
            colour: Colour {
                red: 0xcc,
                green: 0,
                blue: 0,
            },
            focused: true,
        }
    }

    fn name_part(canvas: &Canvas, chars: usize) -> Vec<u8> {
        let row = 400 * 4;
        canvas
            .pixels
            .chunks(row)
            .flat_map(|r| r[..(6 + chars * 9) * 4].to_vec())
            .collect()
    }

    #[test]
    fn the_name_is_readable_whatever_the_title() {
        let plain = draw(&label("work", ""));
        let long = draw(&label("work", &"personal ".repeat(20)));
        assert_eq!(name_part(&plain, 4), name_part(&long, 4));
        assert_ne!(
            name_part(&plain, 4),
            name_part(&draw(&label("wirk", "")), 4)
        );
    }

    #[test]
    fn any_width_can_be_drawn() {
        for width in [-5, 0, 1, 10, 23, 24, 25, 60] {
            let canvas = draw(&Label {
                width,
                ..label("a-long-domain-name", "title")
            });
            assert_eq!(
                canvas.pixels.len(),
                width.max(1) as usize * TITLE_PX as usize * 4
            );
        }
    }
}
