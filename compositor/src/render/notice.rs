//! A notice's picture: a dark bar at the lower edge, where it hides no title bar of a window that is
//! placed as usual, with domains' names on their colours.

use embedded_graphics::{
    Drawable,
    geometry::{Point as At, Size},
    mono_font::{
        MonoFont,
        iso_8859_1::{FONT_9X15, FONT_9X15_BOLD},
    },
    primitives::{Primitive, PrimitiveStyle, Rectangle},
};
use smithay::backend::renderer::{
    ImportAll, ImportMem, Renderer, element::memory::MemoryRenderBuffer,
};

use super::{
    FrameArt,
    frame::{buffer, memory},
    label::{self, Canvas as Pixels, drawable, rgb},
    scene::Canvas,
};
use crate::{
    domain::Colour,
    layout::{Rect, TITLE_PX},
    notice::{Notice, Span},
};

/// Room to the left and the right of the text.
const MARGIN_PX: i32 = 12;
/// A character of the font.
const CHARACTER_PX: i32 = 9;
/// The bar's own border.
const BORDER_PX: i32 = 2;
/// From the bar to the panels, or to the edge of the screen.
const GAP_PX: i32 = 14;
/// No notice is longer, however wide the screen is.
const MAX_CHARACTERS: i32 = 160;

const GROUND: Colour = Colour {
    red: 0x1d,
    green: 0x20,
    blue: 0x26,
};
const INK: Colour = Colour {
    red: 0xf2,
    green: 0xf2,
    blue: 0xf2,
};

/// The picture of one notice.
#[derive(Debug, Default)]
pub struct NoticeArt {
    frame: FrameArt,
    bar: Option<(i32, i32, MemoryRenderBuffer)>,
}

/// The text, cut to a number of characters. Names of domains are kept whole as long as anything is.
fn cut(spans: &[Span], room: i32) -> Vec<Span> {
    let mut room = usize::try_from(room).unwrap_or(0);
    let mut shown = Vec::new();
    for span in spans {
        let text = drawable(span.text());
        let length = text.chars().count();
        let text: String = if length > room {
            let kept = room.saturating_sub(2);
            text.chars()
                .take(kept)
                .chain("..".chars().take(room))
                .collect()
        } else {
            text
        };
        shown.push(match span {
            Span::Words(_) => Span::Words(text),
            Span::Domain(_, colour) => Span::Domain(text, *colour),
        });
        if length > room {
            break;
        }
        room -= length;
    }
    shown
}

/// The width that a screen leaves to the text, in characters.
fn room(screen: i32) -> i32 {
    ((screen - 2 * (MARGIN_PX + BORDER_PX)) / CHARACTER_PX).clamp(0, MAX_CHARACTERS)
}

fn characters(spans: &[Span]) -> i32 {
    let all: usize = spans.iter().map(|span| span.text().chars().count()).sum();
    i32::try_from(all).unwrap_or(MAX_CHARACTERS)
}

fn draw(spans: &[Span], width: i32) -> Pixels {
    let mut pixels = Pixels::new(width, TITLE_PX, GROUND);
    let mut x = MARGIN_PX;
    for span in spans {
        let (font, ink): (&MonoFont<'_>, _) = match span {
            Span::Words(_) => (&FONT_9X15, INK),
            Span::Domain(name, colour) => {
                let length = i32::try_from(name.chars().count()).unwrap_or(0);
                let size = Size::new((length * CHARACTER_PX + 4).unsigned_abs(), 19);
                let chip = Rectangle::new(At::new(x - 2, (TITLE_PX - 19) / 2), size);
                let style = PrimitiveStyle::with_fill(rgb(*colour));
                let _ = chip.into_styled(style).draw(&mut pixels);
                (&FONT_9X15_BOLD, colour.ink())
            }
        };
        x = label::write(&mut pixels, font, ink, x, span.text());
    }
    pixels
}

/// Puts a notice on the picture, above whatever follows. `area` is what panels leave to windows.
pub(super) fn show<R>(notice: &mut Notice, canvas: &mut Canvas<'_, R>, area: Rect)
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    let scale = canvas.scale;
    let art = &mut notice.art;
    let room = room(area.w);
    if !matches!(&art.bar, Some((drawn_for, at, _)) if (*drawn_for, *at) == (scale, room)) {
        let spans = cut(&notice.spans, room);
        let width = characters(&spans) * CHARACTER_PX + 2 * MARGIN_PX;
        let pixels = draw(&spans, width).pixels;
        art.bar = Some((scale, room, buffer(&pixels, (width, TITLE_PX), scale)));
    }
    let width = characters(&cut(&notice.spans, room)) * CHARACTER_PX + 2 * MARGIN_PX;
    let Some((.., bar)) = &art.bar else { return };
    let place = Rect::new(
        area.x + (area.w - width) / 2,
        area.bottom() - GAP_PX - BORDER_PX - TITLE_PX,
        width,
        TITLE_PX,
    );
    art.frame.border(canvas, place, BORDER_PX, INK);
    memory(canvas, bar, place);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans() -> Vec<Span> {
        let red = "#cc0000".parse().unwrap();
        vec![
            "pasted 1.2 KiB of text from ".into(),
            Span::Domain("work".into(), red),
        ]
    }

    #[test]
    fn it_is_cut_to_the_screen() {
        assert_eq!(cut(&spans(), 160), spans());
        assert_eq!(cut(&spans(), 32), spans());
        let shown = |room| -> String { cut(&spans(), room).iter().map(Span::text).collect() };
        assert_eq!(shown(31), "pasted 1.2 KiB of text from w..");
        assert_eq!(shown(9), "pasted ..");
        assert_eq!((shown(1), shown(0)), (".".into(), String::new()));
        assert_eq!(shown(-4), "");
        assert_eq!(room(20), 0);
        assert_eq!(cut(&["a\u{202e}b".into()], 9), ["a?b".into()]);
    }

    #[test]
    fn names_stand_on_their_colour() {
        let pixels = draw(&spans(), 400);
        let red = |pixel: &[u8]| pixel == [0, 0, 0xcc, 255];
        let count = pixels.pixels.chunks_exact(4).filter(|p| red(p)).count();
        assert!(count > 19 * 9 * 4 / 2, "{count}");
    }
}
