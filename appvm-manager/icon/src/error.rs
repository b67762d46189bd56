//! What can be wrong with a picture.

use crate::{MAX_INPUT, MAX_SIDE};

/// Why bytes are no icon.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say it.
pub enum DecodeError {
    #[error("the picture's file is longer than {MAX_INPUT} bytes")]
    TooLong,
    #[error("the picture is {0}x{1} pixels; at most {max}x{max} are decoded", max = MAX_SIDE)]
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
