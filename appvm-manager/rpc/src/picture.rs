//! `bulkhead.DecodePicture`: a picture of another domain becomes pixels, in a disposable.
//!
//! The host runs it when the user moves a picture from one domain to another. The decoder is the
//! part that a picture may harm, and the domain ends with it. What goes out are the first bytes
//! [`MAGIC`], width, height and bytes of a pixel (four bytes each, little endian), and the pixels row
//! by row, eight bits a channel: grey (1), grey and alpha (2), red, green and blue (3), with alpha (4).
//! `compositor/src/selection/crossing/redraw.rs` takes it and believes nothing of it.

use std::io::{self, Cursor, Read, Write};

/// The service.
pub const DECODE: &str = "bulkhead.DecodePicture";
/// The first bytes of pixels.
const MAGIC: [u8; 8] = *b"BLKHPIX1";
/// The longest picture's file.
const MAX_FILE_BYTES: u64 = 32 << 20;
/// What the decoder may allocate besides the pixels.
const MAX_DECODER_BYTES: usize = 64 << 20;
/// A picture of more pixels is nobody's.
const MAX_PIXELS: u64 = 64 << 20;

/// Why there are no pixels.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// It is no picture that can be decoded.
    #[error("the picture: {0}")]
    Decode(#[from] png::DecodingError),
    /// Larger than pictures are.
    #[error("the picture is too large")]
    TooLarge,
    /// A stream broke.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads a PNG file to its end and writes its pixels.
pub fn decode(untrusted: impl Read, mut out: impl Write) -> Result<(), PictureError> {
    let mut bytes = Vec::new();
    untrusted.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(PictureError::TooLarge);
    }
    let limits = png::Limits {
        bytes: MAX_DECODER_BYTES,
    };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info()?;
    let (width, height) = reader.info().size();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(PictureError::TooLarge);
    }
    let (colour, _) = reader.output_color_type();
    let channels = colour.samples();
    let size = reader.output_buffer_size().ok_or(PictureError::TooLarge)?;
    // Nothing goes out before the whole picture is decoded: half of one is none.
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels)?;
    pixels.truncate(frame.buffer_size());
    out.write_all(&MAGIC)?;
    for number in [width, height, u32::try_from(channels).unwrap_or(0)] {
        out.write_all(&number.to_le_bytes())?;
    }
    out.write_all(&pixels)?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(
        colour: png::ColorType,
        depth: png::BitDepth,
        extra: impl FnOnce(&mut png::Encoder<'_, &mut Vec<u8>>),
        data: &[u8],
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 2, 2);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        extra(&mut encoder);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        bytes
    }

    fn decoded(file: &[u8]) -> Result<(u32, Vec<u8>), PictureError> {
        let mut out = Vec::new();
        decode(file, &mut out)?;
        let (head, pixels) = out.split_at(20);
        assert_eq!(head[..8], MAGIC);
        assert_eq!(head[8..16], [2, 0, 0, 0, 2, 0, 0, 0]);
        let channels = u32::from_le_bytes(head[16..].try_into().unwrap());
        assert_eq!(pixels.len(), 4 * channels as usize);
        Ok((channels, pixels.to_vec()))
    }

    #[test]
    fn pictures_of_every_kind_become_pixels_of_eight_bits() {
        use png::BitDepth::{Eight, One, Sixteen};
        use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
        let plain = |_: &mut png::Encoder<'_, &mut Vec<u8>>| {};
        for (colour, channels) in [(Grayscale, 1), (GrayscaleAlpha, 2), (Rgb, 3), (Rgba, 4)] {
            let data: Vec<u8> = (0..4 * channels).map(|i| i * 9).collect();
            let (got, pixels) = decoded(&file(colour, Eight, plain, &data)).unwrap();
            assert_eq!((got, pixels), (u32::from(channels), data));
        }
        let wide: Vec<u8> = (0..4).flat_map(|i| [i * 60, 99]).collect();
        let (channels, pixels) = decoded(&file(Grayscale, Sixteen, plain, &wide)).unwrap();
        assert_eq!((channels, pixels), (1, vec![0, 60, 120, 180]));
        let (_, pixels) = decoded(&file(Grayscale, One, plain, &[0x40, 0x80])).unwrap();
        assert_eq!(pixels, [0, 255, 255, 0]);
        let palette = |encoder: &mut png::Encoder<'_, &mut Vec<u8>>| {
            encoder.set_palette(vec![1, 2, 3, 4, 5, 6]);
            encoder.set_trns(vec![255, 7]);
        };
        let (channels, pixels) = decoded(&file(Indexed, Eight, palette, &[0, 1, 1, 0])).unwrap();
        assert_eq!(channels, 4);
        assert_eq!(pixels[..8], [1, 2, 3, 255, 4, 5, 6, 7]);
    }

    #[test]
    fn what_is_none_gives_nothing() {
        let plain = |_: &mut png::Encoder<'_, &mut Vec<u8>>| {};
        let whole = file(png::ColorType::Rgb, png::BitDepth::Eight, plain, &[5; 12]);
        let at = whole.windows(4).position(|w| w == b"IDAT").unwrap();
        let mut garbage = whole.clone();
        garbage[at + 4..at + 10].fill(0xff);
        for bytes in [&whole[..at + 6], &garbage, b"GIF89a", b""] {
            let mut out = Vec::new();
            assert!(decode(bytes, &mut out).is_err());
            assert!(out.is_empty());
        }
    }
}
