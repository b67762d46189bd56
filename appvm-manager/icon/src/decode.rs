//! Bytes to pixels.

use crate::scale::Rgba;
use crate::{MAX_INPUT, SIZE, bitmap, scale, vector};

/// Why bytes are no icon.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say it.
pub enum DecodeError {
    #[error("the picture's file is longer than {MAX_INPUT} bytes")]
    TooLong,
    #[error("the picture is {0}x{1} pixels; at most {max}x{max} are decoded", max = bitmap::MAX_SIDE)]
    TooLarge(u32, u32),
    #[error("the picture is empty")]
    Empty,
    #[error("PNG: {0}")]
    Png(#[from] png::DecodingError),
    #[error("PNG: a kind of pixels that is not known")]
    Pixels,
    #[error("SVG: {0}")]
    Xml(#[from] resvg::usvg::roxmltree::Error),
    #[error("SVG: {0}")]
    Svg(#[from] resvg::usvg::Error),
    #[error("it is neither a PNG nor an SVG file")]
    Unknown,
}

/// The picture as [`SIZE`]×[`SIZE`] pixels, with straight alpha. What it is, its bytes say.
pub fn decode(untrusted_bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    if untrusted_bytes.len() > MAX_INPUT {
        return Err(DecodeError::TooLong);
    }
    if untrusted_bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        let picture: Rgba = bitmap::decode(untrusted_bytes)?;
        return Ok(scale::to_square(&picture, SIZE));
    }
    match std::str::from_utf8(untrusted_bytes) {
        Ok(text)
            if text
                .trim_start_matches('\u{feff}')
                .trim_start()
                .starts_with('<') =>
        {
            vector::render(text, SIZE)
        }
        _ => Err(DecodeError::Unknown),
    }
}
