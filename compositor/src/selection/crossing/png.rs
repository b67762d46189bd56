//! The outer shape of a PNG file (PNG specification, third edition, chapter 5). Nothing is decoded:
//! a decoder on the host would be a way into it.

/// The first bytes of every PNG file (5.2).
const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
/// Length, type and checksum of a chunk (5.3).
const CHUNK_BYTES: usize = 12;
/// No side is longer: decoders of the target would allocate what this says.
const MAX_SIDE_PX: u32 = 16_384;
/// No picture has more pixels: 256 MiB when decoded.
const MAX_PIXELS: u64 = 64 << 20;

/// Width and height in pixels, both from 1 to 16,384, at most 64 million in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub width: u32,
    pub height: u32,
}

impl Size {
    /// If a picture of that size may cross.
    pub fn new(untrusted_width: u32, untrusted_height: u32) -> Option<Self> {
        let sides = 1..=MAX_SIDE_PX;
        let pixels = u64::from(untrusted_width) * u64::from(untrusted_height);
        let fits = sides.contains(&untrusted_width)
            && sides.contains(&untrusted_height)
            && pixels <= MAX_PIXELS;
        fits.then_some(Self {
            width: untrusted_width,
            height: untrusted_height,
        })
    }
}

/// What is wrong with a picture.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Wrong {
    #[error("it does not begin as one")]
    Signature,
    #[error("it is cut off")]
    Short,
    #[error("a part of it is malformed")]
    Chunk,
    #[error("its header is malformed")]
    Header,
    #[error("it has no pixels, more than {MAX_SIDE_PX} in a row, or more than {MAX_PIXELS}")]
    Size,
    #[error("something follows its end")]
    Trailing,
}

/// Checks signature, header and chunks up to the end, and gives the size that the header says. Runs
/// once over the chunks, however many.
pub(crate) fn check(untrusted: &[u8]) -> Result<Size, Wrong> {
    let mut rest = untrusted.strip_prefix(&SIGNATURE).ok_or(Wrong::Signature)?;
    let mut size = None;
    let mut pixels = false;
    loop {
        let (untrusted_length, after) = rest.split_first_chunk::<4>().ok_or(Wrong::Short)?;
        let (kind, after) = after.split_first_chunk::<4>().ok_or(Wrong::Short)?;
        let length = u32::from_be_bytes(*untrusted_length);
        let length = usize::try_from(length).map_err(|_| Wrong::Short)?;
        let (data, after) = after.split_at_checked(length).ok_or(Wrong::Short)?;
        // The checksum is the decoder's business.
        let (_, after) = after.split_first_chunk::<4>().ok_or(Wrong::Short)?;
        debug_assert_eq!(rest.len() - after.len(), CHUNK_BYTES + length);
        match (kind, size) {
            (b"IHDR", None) => size = Some(header(data)?),
            // The header comes first and once (5.6).
            (b"IHDR", Some(_)) | (_, None) => return Err(Wrong::Header),
            (b"IDAT", Some(_)) => pixels = true,
            (b"IEND", Some(size)) => {
                return match (data, after, pixels) {
                    ([], [], true) => Ok(size),
                    ([], [], false) => Err(Wrong::Short),
                    ([], ..) => Err(Wrong::Trailing),
                    _ => Err(Wrong::Chunk),
                };
            }
            (b"PLTE", Some(_)) => {}
            // Chunks that a decoder may skip have a small first letter; others are unknown (5.4).
            ([b'a'..=b'z', others @ ..], Some(_)) if others.iter().all(u8::is_ascii_alphabetic) => {
            }
            _ => return Err(Wrong::Chunk),
        }
        rest = after;
    }
}

/// IHDR (11.2.1).
fn header(data: &[u8]) -> Result<Size, Wrong> {
    let (untrusted_width, rest) = data.split_first_chunk::<4>().ok_or(Wrong::Header)?;
    let (untrusted_height, rest) = rest.split_first_chunk::<4>().ok_or(Wrong::Header)?;
    let &[depth, colour, compression, filter, interlace] = rest else {
        return Err(Wrong::Header);
    };
    let depth_fits = match colour {
        0 => matches!(depth, 1 | 2 | 4 | 8 | 16),
        3 => matches!(depth, 1 | 2 | 4 | 8),
        2 | 4 | 6 => matches!(depth, 8 | 16),
        _ => false,
    };
    if !depth_fits || compression != 0 || filter != 0 || interlace > 1 {
        return Err(Wrong::Header);
    }
    let width = u32::from_be_bytes(*untrusted_width);
    let height = u32::from_be_bytes(*untrusted_height);
    Size::new(width, height).ok_or(Wrong::Size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        [&length, kind.as_slice(), data, &[0; 4]].concat()
    }

    fn ihdr(width: u32, height: u32, rest: [u8; 5]) -> Vec<u8> {
        let data = [&width.to_be_bytes(), &height.to_be_bytes(), rest.as_slice()].concat();
        chunk(b"IHDR", &data)
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        [SIGNATURE.to_vec(), chunks.concat()].concat()
    }

    const RGBA: [u8; 5] = [8, 6, 0, 0, 0];

    fn small() -> [Vec<u8>; 3] {
        [ihdr(2, 2, RGBA), chunk(b"IDAT", b"x"), chunk(b"IEND", b"")]
    }

    #[test]
    fn a_real_file_passes() {
        let mut bytes = Vec::new();
        let mut encoder = ::png::Encoder::new(&mut bytes, 3, 2);
        encoder.set_color(::png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[7; 18]).unwrap();
        writer.finish().unwrap();
        let size = Size::new(3, 2).unwrap();
        assert_eq!(check(&bytes), Ok(size));
        // Cut off anywhere, it is none.
        for length in 0..bytes.len() {
            assert!(check(&bytes[..length]).is_err(), "{length}");
        }
        bytes.push(0);
        assert_eq!(check(&bytes), Err(Wrong::Trailing));
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let [head, data, end] = small();
        let with = |chunks: &[Vec<u8>]| check(&file(chunks));
        let size = Size::new(2, 2).unwrap();
        assert_eq!(with(&small()), Ok(size));
        let text = chunk(b"tEXt", b"Comment\0hello");
        assert_eq!(
            with(&[head.clone(), text, data.clone(), end.clone()]),
            Ok(size)
        );
        assert_eq!(check(b"GIF89a"), Err(Wrong::Signature));
        assert_eq!(with(&[data.clone(), end.clone()]), Err(Wrong::Header));
        assert_eq!(
            with(&[head.clone(), head.clone(), data.clone(), end.clone()]),
            Err(Wrong::Header)
        );
        assert_eq!(with(&[head.clone(), end.clone()]), Err(Wrong::Short));
        assert_eq!(with(&[head.clone(), data.clone()]), Err(Wrong::Short));
        for odd in [b"EVIL", b"x\0yz", b"1234"] {
            let odd = chunk(odd, b"");
            assert_eq!(
                with(&[head.clone(), odd, data.clone(), end.clone()]),
                Err(Wrong::Chunk)
            );
        }
        let long_end = chunk(b"IEND", b"x");
        assert_eq!(
            with(&[head.clone(), data.clone(), long_end]),
            Err(Wrong::Chunk)
        );
        // A length that leads out of the file.
        let mut lie = file(&[head, data, end]);
        lie[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(check(&lie), Err(Wrong::Short));
    }

    #[test]
    fn headers_are_of_known_kinds_and_bounded_sizes() {
        let with = |width, height, rest| {
            check(&file(&[
                ihdr(width, height, rest),
                chunk(b"IDAT", b"x"),
                chunk(b"IEND", b""),
            ]))
        };
        assert!(with(8192, 8192, RGBA).is_ok());
        for (width, height) in [(0, 1), (1, 0), (16_385, 1), (1, u32::MAX), (16_384, 16_384)] {
            assert_eq!(with(width, height, RGBA), Err(Wrong::Size));
        }
        for rest in [
            [3, 6, 0, 0, 0],
            [8, 5, 0, 0, 0],
            [16, 3, 0, 0, 0],
            [8, 6, 1, 0, 0],
            [8, 6, 0, 0, 2],
        ] {
            assert_eq!(with(1, 1, rest), Err(Wrong::Header), "{rest:?}");
        }
    }
}
