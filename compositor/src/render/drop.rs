//! What is shown where a drag has left its domain: a border that lights up, or a crossed circle at
//! the pointer. Both are the desktop's own pixels, above everything that a domain can draw.

use smithay::{
    backend::{
        allocator::Fourcc,
        renderer::{ImportAll, ImportMem, Renderer, element::memory::MemoryRenderBuffer},
    },
    utils::Transform,
};

use super::{FrameArt, enlarge, frame::memory, scene::Canvas};
use crate::{
    domain::Colour,
    layout::{BORDER_PX, Point, Rect, WindowId},
    selection::Light,
    state::State,
};

/// How much thicker the border of a window is on which something may be dropped.
const GLOW_PX: i32 = 5;
/// The circle's width and height.
const MARK_PX: i32 = 30;
/// From the pointer to the circle.
const BESIDE_PX: i32 = 12;

/// The pictures for one drag.
#[derive(Debug, Default)]
pub struct DropArt {
    frame: FrameArt,
    mark: Option<(i32, MemoryRenderBuffer)>,
}

fn brighter(colour: Colour) -> Colour {
    let mix = |c: u8| u8::try_from((u16::from(c) + 2 * 255) / 3).unwrap_or(255);
    Colour {
        red: mix(colour.red),
        green: mix(colour.green),
        blue: mix(colour.blue),
    }
}

/// A circle with a bar across, red on white, transparent around; bytes B, G, R, A.
fn circle() -> Vec<u8> {
    let middle = f64::from(MARK_PX - 1) / 2.0;
    let places = (0..MARK_PX).flat_map(|y| (0..MARK_PX).map(move |x| (x, y)));
    places
        .flat_map(|(x, y)| {
            let (dx, dy) = (f64::from(x) - middle, f64::from(y) - middle);
            let radius = dx.hypot(dy);
            let across = (dx - dy).abs() < 3.5 && radius < 13.0;
            if (9.5..13.0).contains(&radius) || across {
                [0x1a, 0x1a, 0xd0, 0xff]
            } else if radius < 15.0 {
                [0xff; 4]
            } else {
                [0; 4]
            }
        })
        .collect()
}

/// The border of the window that a drag is over, where it may be dropped.
pub(super) fn light<R>(
    state: &mut State,
    canvas: &mut Canvas<'_, R>,
    id: WindowId,
    framed: Rect,
    colour: Colour,
) where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    if let Some(drag) = &mut state.drag
        && drag.abroad.light() == Some((id, Light::Lit))
    {
        let width = BORDER_PX + GLOW_PX;
        drag.abroad
            .art
            .frame
            .border(canvas, framed, width, brighter(colour));
    }
}

/// The crossed circle at the pointer, where nothing may be dropped.
pub(super) fn mark<R>(state: &mut State, canvas: &mut Canvas<'_, R>)
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    let at = state.pointing.cell();
    let Some(drag) = &mut state.drag else { return };
    if !matches!(drag.abroad.light(), Some((_, Light::Forbidden))) {
        return;
    }
    let scale = canvas.scale;
    let art = &mut drag.abroad.art;
    if !matches!(&art.mark, Some((drawn_for, _)) if *drawn_for == scale) {
        let width = usize::try_from(MARK_PX).unwrap_or(1);
        let mark = MemoryRenderBuffer::from_slice(
            &enlarge(&circle(), width, scale),
            Fourcc::Argb8888,
            (MARK_PX * scale, MARK_PX * scale),
            scale,
            Transform::Normal,
            None,
        );
        art.mark = Some((scale, mark));
    }
    if let Some((_, mark)) = &art.mark {
        let corner = Point::new(at.x + BESIDE_PX, at.y + BESIDE_PX);
        memory(
            canvas,
            mark,
            Rect::new(corner.x, corner.y, MARK_PX, MARK_PX),
        );
    }
}
