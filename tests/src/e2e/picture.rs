//! Screenshots as the tests see them: decoded PNGs with questions about their colours.

use std::path::Path;

/// A decoded picture, 8 bits per channel, rows from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    rgb: Vec<[u8; 3]>,
}

/// A rectangle in pixels of a picture or of the desktop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Left edge.
    pub x: i32,
    /// Top edge.
    pub y: i32,
    /// Width.
    pub width: i32,
    /// Height.
    pub height: i32,
}

impl Picture {
    /// Reads a PNG file.
    pub fn open(path: &Path) -> Result<Picture, String> {
        let describe = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let file = std::fs::File::open(path).map_err(|e| describe(&e))?;
        let mut decoder = png::Decoder::new(std::io::BufReader::new(file));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().map_err(|e| describe(&e))?;
        let size = reader
            .output_buffer_size()
            .ok_or_else(|| describe(&"the picture is too large"))?;
        let mut bytes = vec![0; size];
        let info = reader.next_frame(&mut bytes).map_err(|e| describe(&e))?;
        let channels = info.color_type.samples();
        let rgb = bytes[..info.buffer_size()]
            .chunks_exact(channels)
            .map(|p| {
                if channels >= 3 {
                    [p[0], p[1], p[2]]
                } else {
                    [p[0]; 3]
                }
            })
            .collect();
        Ok(Picture {
            width: info.width,
            height: info.height,
            rgb,
        })
    }

    /// The colour at a place; black outside the picture.
    pub fn at(&self, x: i32, y: i32) -> [u8; 3] {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else {
            return [0; 3];
        };
        if x >= self.width || y >= self.height {
            return [0; 3];
        }
        self.rgb[(y * self.width + x) as usize]
    }

    /// The share (0.0 to 1.0) of pixels of `area` that lie within `tolerance` of `colour`.
    pub fn share_of(&self, area: Area, colour: [u8; 3], tolerance: u8) -> f64 {
        let mut hits = 0u32;
        let mut total = 0u32;
        for y in area.y..area.y + area.height {
            for x in area.x..area.x + area.width {
                total += 1;
                hits += u32::from(near(self.at(x, y), colour, tolerance));
            }
        }
        f64::from(hits) / f64::from(total.max(1))
    }

    /// How many different colours an area holds.
    pub fn colours(&self, area: Area) -> usize {
        let mut seen = std::collections::HashSet::new();
        for y in area.y..area.y + area.height {
            for x in area.x..area.x + area.width {
                seen.insert(self.at(x, y));
            }
        }
        seen.len()
    }

    /// The whole picture as an area.
    pub fn area(&self) -> Area {
        Area {
            x: 0,
            y: 0,
            width: self.width as i32,
            height: self.height as i32,
        }
    }

    /// The share of pixels that differ from `other` by more than `tolerance` in any channel;
    /// 1.0 when the sizes differ.
    pub fn difference(&self, other: &Picture, tolerance: u8) -> f64 {
        if (self.width, self.height) != (other.width, other.height) {
            return 1.0;
        }
        let different = self
            .rgb
            .iter()
            .zip(&other.rgb)
            .filter(|(a, b)| !near(**a, **b, tolerance))
            .count();
        different as f64 / self.rgb.len().max(1) as f64
    }
}

/// Whether two colours differ by at most `tolerance` in each channel.
pub fn near(a: [u8; 3], b: [u8; 3], tolerance: u8) -> bool {
    a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= tolerance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkered() -> Picture {
        Picture {
            width: 2,
            height: 1,
            rgb: vec![[255, 0, 0], [0, 0, 0]],
        }
    }

    #[test]
    fn shares_and_differences_count_pixels() {
        let picture = checkered();
        assert_eq!(picture.share_of(picture.area(), [250, 0, 0], 5), 0.5);
        assert_eq!(picture.colours(picture.area()), 2);
        assert_eq!(picture.difference(&picture, 0), 0.0);
        let mut other = picture.clone();
        other.rgb[1] = [9, 9, 9];
        assert_eq!(picture.difference(&other, 8), 0.5);
        assert_eq!(picture.difference(&other, 9), 0.0);
    }

    #[test]
    fn outside_is_black() {
        assert_eq!(checkered().at(-1, 0), [0; 3]);
        assert_eq!(checkered().at(2, 0), [0; 3]);
    }
}
