//! Any size to a square of pixels: each pixel is the mean of the area that it covers.

/// A picture with straight alpha.
#[derive(Debug)]
pub struct Rgba {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 4]>,
}

impl Rgba {
    /// If it has pixels, and as many as its size says.
    pub fn new(width: u32, height: u32, pixels: Vec<[u8; 4]>) -> Option<Self> {
        let (width, height) = (usize::try_from(width).ok()?, usize::try_from(height).ok()?);
        let whole = width.checked_mul(height)? == pixels.len() && !pixels.is_empty();
        whole.then_some(Rgba {
            width,
            height,
            pixels,
        })
    }
}

/// The parts of a source line that a pixel of the result covers: indices and weights.
fn shares(from: f32, to: f32, length: usize) -> impl Iterator<Item = (usize, f32)> + Clone {
    let first = (from.max(0.0) as usize).min(length - 1);
    let last = (to.ceil() as usize).clamp(first + 1, length);
    (first..last).map(move |at| {
        let (start, end) = (from.max(at as f32), to.min(at as f32 + 1.0));
        (at, (end - start).max(0.0))
    })
}

/// The picture in the middle of a square, as large as it fits.
pub fn to_square(picture: &Rgba, side: u32) -> Vec<u8> {
    let side = side as usize;
    let longest = picture.width.max(picture.height);
    let fitted = |length: usize| (length * side).div_ceil(longest).clamp(1, side);
    let (width, height) = (fitted(picture.width), fitted(picture.height));
    let (left, top) = ((side - width) / 2, (side - height) / 2);
    let step = |from: usize, to: usize| from as f32 / to as f32;
    let (step_x, step_y) = (step(picture.width, width), step(picture.height, height));
    let mut result = vec![0; side * side * 4];
    for y in 0..height {
        let rows = shares(y as f32 * step_y, (y + 1) as f32 * step_y, picture.height);
        for x in 0..width {
            let columns = shares(x as f32 * step_x, (x + 1) as f32 * step_x, picture.width);
            // Colours are weighed by their alpha: what is transparent has no colour.
            let (mut colour, mut alpha, mut weight) = ([0.0_f32; 3], 0.0_f32, 0.0_f32);
            for (row, share_y) in rows.clone() {
                for (column, share_x) in columns.clone() {
                    let share = share_x * share_y;
                    let [r, g, b, a] = picture.pixels[row * picture.width + column];
                    let opacity = share * f32::from(a);
                    for (sum, part) in colour.iter_mut().zip([r, g, b]) {
                        *sum += f32::from(part) * opacity;
                    }
                    alpha += opacity;
                    weight += share;
                }
            }
            let at = ((top + y) * side + left + x) * 4;
            if alpha > 0.0 && weight > 0.0 {
                for (index, sum) in colour.iter().enumerate() {
                    result[at + index] = (sum / alpha).round() as u8;
                }
                result[at + 3] = (alpha / weight).round() as u8;
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixel(result: &[u8], x: usize, y: usize) -> [u8; 4] {
        result[(y * 48 + x) * 4..][..4].try_into().unwrap()
    }

    #[test]
    fn sizes_and_proportions() {
        for (width, height) in [
            (1, 1),
            (3, 7),
            (16, 16),
            (47, 48),
            (49, 1),
            (1, 1024),
            (1024, 1024),
        ] {
            let pixels = vec![[10, 20, 30, 255]; (width * height) as usize];
            let result = to_square(&Rgba::new(width, height, pixels).unwrap(), 48);
            assert_eq!(result.len(), 48 * 48 * 4);
            assert_eq!(
                pixel(&result, 23, 23)[..3],
                [10, 20, 30],
                "{width}x{height}"
            );
        }
        let wide = to_square(&Rgba::new(2, 1, vec![[9, 9, 9, 255]; 2]).unwrap(), 48);
        assert_eq!(pixel(&wide, 0, 0), [0; 4]);
        assert_eq!(pixel(&wide, 0, 24), [9, 9, 9, 255]);
        assert!(Rgba::new(2, 2, vec![[0; 4]; 3]).is_none());
        assert!(Rgba::new(0, 0, Vec::new()).is_none());
    }

    #[test]
    fn means_are_weighed_by_alpha() {
        let mut pixels = vec![[255, 0, 0, 255]; 96 * 96];
        // Every second column is transparent green, which must not show.
        for (index, pixel) in pixels.iter_mut().enumerate() {
            if index % 2 == 1 {
                *pixel = [0, 255, 0, 0];
            }
        }
        let result = to_square(&Rgba::new(96, 96, pixels).unwrap(), 48);
        assert_eq!(pixel(&result, 10, 10), [255, 0, 0, 128]);
    }
}
