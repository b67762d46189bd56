//! What is seen: client pixels inside our own borders.

mod cursor;
mod drop;
mod frame;
mod label;
mod notice;
pub mod picture;
mod scene;

pub use cursor::CursorArt;
pub(crate) use cursor::MAX_CURSOR_PX;
pub use drop::DropArt;
pub use frame::FrameArt;
pub use label::Label;
pub use notice::NoticeArt;
#[cfg(feature = "drm")]
pub(crate) use scene::cursor_alone;
pub(crate) use scene::{GROUND, SceneElement, build, window_alone};

/// Makes every pixel of a picture, four bytes each, a square of pixels: sharp edges stay sharp.
fn enlarge(pixels: &[u8], width: usize, scale: i32) -> Vec<u8> {
    let scale = usize::try_from(scale).unwrap_or(1).max(1);
    let mut large = Vec::with_capacity(pixels.len() * scale * scale);
    for row in pixels.chunks_exact(width.max(1) * 4) {
        let wide: Vec<u8> = row
            .chunks_exact(4)
            .flat_map(|pixel| pixel.repeat(scale))
            .collect();
        for _ in 0..scale {
            large.extend_from_slice(&wide);
        }
    }
    large
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_pixel_becomes_a_square() {
        let two = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(super::enlarge(&two, 2, 1), two);
        let row = [1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 7, 8];
        assert_eq!(super::enlarge(&two, 2, 2), [row, row].concat());
    }
}
