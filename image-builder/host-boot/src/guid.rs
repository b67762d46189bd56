//! GUIDs as GPT stores them: the first three fields little-endian, the rest in the order read.

use std::{fmt, str::FromStr};

/// A GUID in its on-disk form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Guid(pub [u8; 16]);

/// The place on disk of each byte as it is written in text.
const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

/// A text is not a GUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a GUID; one looks like 4f68bce3-e8cd-4db1-96e7-fbcaf984b709")]
pub struct NotAGuid(pub String);

impl Guid {
    /// The GUID of an unused table entry.
    pub const ZERO: Self = Self([0; 16]);

    /// From its sixteen bytes in the order in which they are written in text.
    #[must_use]
    pub fn from_text_order(bytes: [u8; 16]) -> Self {
        let mut guid = [0; 16];
        for (byte, place) in bytes.into_iter().zip(ORDER) {
            guid[place] = byte;
        }
        Self(guid)
    }
}

impl FromStr for Guid {
    type Err = NotAGuid;

    fn from_str(text: &str) -> Result<Self, NotAGuid> {
        let wrong = || NotAGuid(text.to_owned());
        let dashes_fit = text.char_indices().all(|(index, letter)| {
            (letter == '-') == matches!(index, 8 | 13 | 18 | 23) && letter.is_ascii()
        });
        if text.len() != 36 || !dashes_fit {
            return Err(wrong());
        }
        let digits = text.replace('-', "");
        let bytes = crate::parameters::from_hex(&digits).ok_or_else(wrong)?;
        Ok(Self::from_text_order(
            bytes.try_into().map_err(|_| wrong())?,
        ))
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, place) in ORDER.into_iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                formatter.write_str("-")?;
            }
            write!(formatter, "{:02x}", self.0[place])?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_agree_with_the_specification() {
        // UEFI specification, appendix A: the EFI system partition's type.
        let guid: Guid = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b".parse().unwrap();
        assert_eq!(guid.0[..6], [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8]);
        assert_eq!(guid.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
    }

    #[test]
    fn odd_texts_are_refused() {
        for text in [
            "",
            "c12a7328f81f11d2ba4b00a0c93ec93b",
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93",
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93bb",
            "g12a7328-f81f-11d2-ba4b-00a0c93ec93b",
            "-12a7328cf81f-11d2-ba4b-00a0c93ec93b",
            "é2a7328-f81f-11d2-ba4b-00a0c93ec93b",
        ] {
            assert!(text.parse::<Guid>().is_err(), "{text}");
        }
    }
}
