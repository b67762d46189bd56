//! Bytes to pixels.

use crate::error::DecodeError;
use crate::scale::Rgba;
use crate::{MAX_INPUT, SIZE, bitmap, scale, vector};

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
