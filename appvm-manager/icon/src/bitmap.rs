//! PNG.

use std::io::Cursor;

use crate::MAX_SIDE;
use crate::error::DecodeError;
use crate::scale::Rgba;

/// What the decoder may allocate for itself.
const MAX_DECODER_BYTES: usize = 16 * 1024 * 1024;

/// Decodes the first picture of a PNG file.
pub fn decode(untrusted_bytes: &[u8]) -> Result<Rgba, DecodeError> {
    let limits = png::Limits {
        bytes: MAX_DECODER_BYTES,
    };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(untrusted_bytes), limits);
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info()?;
    let (width, height) = reader.info().size();
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(DecodeError::TooLarge(width, height));
    }
    // At most 1024 × 1024 × 4 bytes, after the check above.
    let mut bytes = vec![0; reader.output_buffer_size().ok_or(DecodeError::Empty)?];
    let frame = reader.next_frame(&mut bytes)?;
    bytes.truncate(frame.buffer_size());
    let pixels: Vec<[u8; 4]> = match frame.color_type {
        png::ColorType::Rgba => bytes.as_chunks().0.to_vec(),
        png::ColorType::Rgb => map(&bytes, |[r, g, b]| [r, g, b, 255]),
        png::ColorType::Grayscale => map(&bytes, |[v]| [v, v, v, 255]),
        png::ColorType::GrayscaleAlpha => map(&bytes, |[v, a]| [v, v, v, a]),
        png::ColorType::Indexed => return Err(DecodeError::Pixels),
    };
    Rgba::new(frame.width, frame.height, pixels).ok_or(DecodeError::Empty)
}

fn map<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> [u8; 4]) -> Vec<[u8; 4]> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|pixel| convert(*pixel))
        .collect()
}
