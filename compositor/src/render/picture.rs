//! Pictures of the desktop as PNG files.

use std::{fs::File, io::BufWriter, path::Path};

use smithay::{
    backend::{
        allocator::Fourcc,
        renderer::{
            Bind, ExportMem, Offscreen, damage::OutputDamageTracker, pixman::PixmanRenderer,
        },
    },
    reexports::pixman,
    utils::{Buffer, Rectangle, Size, Transform},
};

use super::{GROUND, SceneElement};
use crate::layout::Size as Area;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum PictureError {
    #[error("cannot draw: {0}")]
    Draw(String),
    #[error("cannot write {path}: {source}")]
    Write {
        path: String,
        source: std::io::Error,
    },
    #[error("cannot write {path}: {source}")]
    Encode {
        path: String,
        source: png::EncodingError,
    },
    #[error("there is no such window")]
    NoWindow,
}

/// Pixels as rows of R, G, B.
#[derive(Debug)]
pub struct Picture {
    /// Width and height.
    pub size: Area,
    /// Three bytes a pixel.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// Writes a PNG file.
    pub fn save(&self, path: &Path) -> Result<(), PictureError> {
        let shown = || path.display().to_string();
        let file = File::create(path).map_err(|source| PictureError::Write {
            path: shown(),
            source,
        })?;
        let (w, h) = (self.size.w.unsigned_abs(), self.size.h.unsigned_abs());
        let mut encoder = png::Encoder::new(BufWriter::new(file), w, h);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(&self.rgb))
            .map_err(|source| PictureError::Encode {
                path: shown(),
                source,
            })
    }
}

fn draw_error(error: impl std::fmt::Display) -> PictureError {
    PictureError::Draw(error.to_string())
}

/// Copies a framebuffer.
pub(crate) fn copy(
    renderer: &mut PixmanRenderer,
    image: &mut pixman::Image<'static, 'static>,
    area: Area,
) -> Result<Picture, PictureError> {
    let target = renderer.bind(image).map_err(draw_error)?;
    let region = Rectangle::<i32, Buffer>::from_size((area.w, area.h).into());
    let mapping = renderer
        .copy_framebuffer(&target, region, Fourcc::Xrgb8888)
        .map_err(draw_error)?;
    let bytes = renderer.map_texture(&mapping).map_err(draw_error)?;
    let rgb = bytes
        .chunks_exact(4)
        .flat_map(|pixel| [pixel[2], pixel[1], pixel[0]])
        .collect();
    Ok(Picture { size: area, rgb })
}

/// Draws elements on a fresh picture, whose size is in its own pixels.
pub(crate) fn draw(
    renderer: &mut PixmanRenderer,
    elements: &[SceneElement<PixmanRenderer>],
    area: Area,
    scale: i32,
) -> Result<Picture, PictureError> {
    let size = Size::<i32, Buffer>::from((area.w.max(1), area.h.max(1)));
    let mut image: pixman::Image<'static, 'static> = renderer
        .create_buffer(Fourcc::Xrgb8888, size)
        .map_err(draw_error)?;
    {
        let mut target = renderer.bind(&mut image).map_err(draw_error)?;
        let mut damage =
            OutputDamageTracker::new((area.w, area.h), f64::from(scale), Transform::Normal);
        damage
            .render_output(renderer, &mut target, 0, elements, GROUND)
            .map_err(draw_error)?;
    }
    copy(renderer, &mut image, area)
}
