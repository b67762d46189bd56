//! The border and the title bar of one window: kept from picture to picture, so that only what
//! changed is drawn again.

use smithay::{
    backend::{
        allocator::Fourcc,
        renderer::{
            ImportAll, ImportMem, Renderer,
            element::{
                Kind,
                memory::{MemoryRenderBuffer, MemoryRenderBufferRenderElement},
                solid::{SolidColorBuffer, SolidColorRenderElement},
            },
        },
    },
    utils::Transform,
};

use super::{
    enlarge,
    label::{self, Label},
    scene::{Canvas, SceneElement},
};
use crate::{
    domain::Colour,
    layout::{Point, Rect, TITLE_PX},
};

/// The picture parts of one window's frame.
#[derive(Debug, Default)]
pub struct FrameArt {
    left: SolidColorBuffer,
    right: SolidColorBuffer,
    top: SolidColorBuffer,
    bottom: SolidColorBuffer,
    ground: SolidColorBuffer,
    bar: Option<(Label, i32, MemoryRenderBuffer)>,
}

impl FrameArt {
    /// A border around `inner`, which is a window's client area with its title bar, or a popup.
    pub(crate) fn border<R>(
        &mut self,
        canvas: &mut Canvas<'_, R>,
        inner: Rect,
        width: i32,
        colour: Colour,
    ) where
        R: Renderer + ImportAll + ImportMem,
        R::TextureId: Clone + 'static,
    {
        let outer = inner.grown(width, width, width, width);
        let rgba = colour.rgba();
        let mut strip = |buffer: &mut SolidColorBuffer, x: i32, y: i32, w: i32, h: i32| {
            buffer.update((w, h), rgba);
            let element = solid(canvas, buffer, x, y);
            canvas.elements.push(element);
        };
        strip(&mut self.top, outer.x, outer.y, outer.w, width);
        strip(&mut self.bottom, outer.x, inner.bottom(), outer.w, width);
        strip(&mut self.left, outer.x, inner.y, width, inner.h);
        strip(&mut self.right, inner.right(), inner.y, width, inner.h);
    }

    /// Opaque ground behind a client's pixels: nothing shines through a window.
    pub(crate) fn ground<R>(&mut self, canvas: &mut Canvas<'_, R>, client: Rect, colour: [f32; 4])
    where
        R: Renderer + ImportAll + ImportMem,
        R::TextureId: Clone + 'static,
    {
        self.ground.update((client.w, client.h), colour);
        let element = solid(canvas, &self.ground, client.x, client.y);
        canvas.elements.push(element);
    }

    /// The title bar above `client`.
    pub(crate) fn title_bar<R>(&mut self, canvas: &mut Canvas<'_, R>, client: Rect, label: Label)
    where
        R: Renderer + ImportAll + ImportMem,
        R::TextureId: Clone + Send + 'static,
    {
        let scale = canvas.scale;
        let same = |(drawn, drawn_for, _): &(Label, i32, _)| *drawn == label && *drawn_for == scale;
        if !self.bar.as_ref().is_some_and(same) {
            let width = label.width.max(1);
            let pixels = label::draw(&label).pixels;
            let buffer = buffer(&pixels, (width, TITLE_PX), scale);
            self.bar = Some((label, scale, buffer));
        }
        let Some((.., buffer)) = &self.bar else {
            return;
        };
        memory(canvas, buffer, client.grown(0, TITLE_PX, 0, 0));
    }
}

/// Our own pixels, as large as the picture's scale wants.
pub(super) fn buffer(pixels: &[u8], (width, height): (i32, i32), scale: i32) -> MemoryRenderBuffer {
    MemoryRenderBuffer::from_slice(
        &enlarge(pixels, usize::try_from(width).unwrap_or(1), scale),
        Fourcc::Xrgb8888,
        (width * scale, height * scale),
        scale,
        Transform::Normal,
        None,
    )
}

/// Puts them at the corner of a place.
pub(super) fn memory<R>(canvas: &mut Canvas<'_, R>, buffer: &MemoryRenderBuffer, place: Rect)
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + Send + 'static,
{
    let at = canvas.point(Point::new(place.x, place.y));
    let element = MemoryRenderBufferRenderElement::from_buffer(
        canvas.renderer,
        at.to_f64(),
        buffer,
        None,
        None,
        None,
        Kind::Unspecified,
    );
    match element {
        Ok(element) => canvas.elements.push(SceneElement::Memory(element)),
        Err(error) => tracing::error!(?error, "a bar of text could not be drawn"),
    }
}

fn solid<R>(canvas: &Canvas<'_, R>, buffer: &SolidColorBuffer, x: i32, y: i32) -> SceneElement<R>
where
    R: Renderer + ImportAll + ImportMem,
    R::TextureId: Clone + 'static,
{
    SceneElement::Solid(SolidColorRenderElement::from_buffer(
        buffer,
        canvas.point(Point::new(x, y)),
        f64::from(canvas.scale),
        1.0,
        Kind::Unspecified,
    ))
}
