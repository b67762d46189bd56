//! Images that a guest may have in host memory, and the numbers by which it asks for them.

use std::collections::VecDeque;

use crate::memory::host_window::PAGE_SIZE;

/// Longest side of an image.
const MAX_SIDE_PX: u32 = 16384;
/// Largest image.
const MAX_IMAGE_BYTES: u64 = 256 << 20;
/// So many different images a context may have asked about; older ones are forgotten. (With
/// rutabaga each question stays for ever.)
const MAX_REMEMBERED: usize = 256;

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// A DRM fourcc.
    pub format: u32,
}

/// No such image can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no image of {}×{} pixels in format {:#x}", .0.width, .0.height, .0.format)]
pub struct NoSuchImage(pub Image);

impl Image {
    /// Bytes per row and bytes altogether, the latter a multiple of the page size.
    pub fn layout(&self) -> Result<(u32, u64), NoSuchImage> {
        let no = NoSuchImage(*self);
        let sides = 1..=MAX_SIDE_PX;
        if !sides.contains(&self.width) || !sides.contains(&self.height) {
            return Err(no);
        }
        let stride = bytes_per_pixel(self.format)
            .and_then(|bytes| self.width.checked_mul(bytes))
            .ok_or(no)?;
        let size = u64::from(stride)
            .checked_mul(u64::from(self.height))
            .and_then(|size| size.checked_next_multiple_of(PAGE_SIZE))
            .filter(|size| *size <= MAX_IMAGE_BYTES)
            .ok_or(no)?;
        Ok((stride, size))
    }

    /// The answer to a question about this image.
    pub fn requirements(&self, blob_id: u32) -> Result<[u8; 64], NoSuchImage> {
        let (stride, size) = self.layout()?;
        let mut bytes = [0; 64];
        bytes[0..4].copy_from_slice(&stride.to_le_bytes());
        bytes[40..48].copy_from_slice(&size.to_le_bytes());
        bytes[48..52].copy_from_slice(&blob_id.to_le_bytes());
        bytes[52..56].copy_from_slice(&1u32.to_le_bytes());
        bytes[56..60].copy_from_slice(&(-1i32).to_le_bytes());
        bytes[60..64].copy_from_slice(&(-1i32).to_le_bytes());
        Ok(bytes)
    }
}

/// Bytes per pixel of the packed formats that rutabaga's memory allocator knows.
fn bytes_per_pixel(format: u32) -> Option<u32> {
    match &format.to_le_bytes() {
        b"R8  " => Some(1),
        b"RG16" => Some(2),
        b"BG24" => Some(3),
        b"AR24" | b"XR24" | b"AB24" | b"XB24" | b"AR30" | b"XR30" | b"AB30" | b"XB30" => Some(4),
        b"AB4H" => Some(8),
        _ => None,
    }
}

/// The images that a context asked about.
#[derive(Debug, Default)]
pub struct Catalogue {
    images: VecDeque<(u32, Image)>,
}

impl Catalogue {
    /// The number under which `image` is known, if it is.
    pub fn number_of(&self, image: Image) -> Option<u32> {
        let known = self.images.iter().find(|(_, other)| *other == image);
        known.map(|(number, _)| *number)
    }

    /// Remembers `image` under a new number.
    pub fn remember(&mut self, number: u32, image: Image) {
        if self.images.len() >= MAX_REMEMBERED {
            self.images.pop_front();
        }
        self.images.push_back((number, image));
    }

    /// The image with this number.
    pub fn get(&self, number: u32) -> Option<Image> {
        let known = self.images.iter().find(|(other, _)| *other == number);
        known.map(|(_, image)| *image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: u32, height: u32, format: &[u8; 4]) -> Image {
        Image {
            width,
            height,
            format: u32::from_le_bytes(*format),
        }
    }

    #[test]
    fn sizes_are_whole_pages() {
        assert_eq!(image(10, 10, b"AR24").layout(), Ok((40, 4096)));
        assert_eq!(image(1024, 3, b"XR24").layout(), Ok((4096, 12288)));
        assert_eq!(image(4096, 16, b"R8  ").layout(), Ok((4096, 65536)));
    }

    #[test]
    fn impossible_images_are_refused() {
        for bad in [
            image(0, 1, b"AR24"),
            image(1, 0, b"AR24"),
            image(1 << 30, 1 << 30, b"AR24"),
            image(16384, 16384, b"AB4H"),
            image(1, 1, b"NV12"),
            image(u32::MAX, 1, b"AR24"),
        ] {
            assert_eq!(bad.layout(), Err(NoSuchImage(bad)));
        }
    }

    #[test]
    fn questions_have_a_quota() {
        let mut catalogue = Catalogue::default();
        for number in 0..10_000 {
            catalogue.remember(number, image(number + 1, 1, b"AR24"));
        }
        assert_eq!(catalogue.images.len(), MAX_REMEMBERED);
        assert_eq!(catalogue.get(0), None);
        assert_eq!(catalogue.get(9999), Some(image(10_000, 1, b"AR24")));
        assert_eq!(catalogue.number_of(image(10_000, 1, b"AR24")), Some(9999));
    }
}
