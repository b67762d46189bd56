//! Which pixels changed.

/// Pixels from `x0`, `y0` (inside) to `x1`, `y1` (outside). Never empty inside a [`Region`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// Left edge.
    pub x0: i32,
    /// Upper edge.
    pub y0: i32,
    /// Right edge, outside.
    pub x1: i32,
    /// Lower edge, outside.
    pub y1: i32,
}

impl Rect {
    /// From position and size as a client gives them: any numbers at all. A size below one gives
    /// an empty rectangle.
    pub fn from_untrusted(x: i32, y: i32, width: i32, height: i32) -> Self {
        let x1 = x.saturating_add(width.max(0));
        let y1 = y.saturating_add(height.max(0));
        Self {
            x0: x,
            y0: y,
            x1,
            y1,
        }
    }

    /// The whole of a picture.
    pub fn whole(width: i32, height: i32) -> Self {
        Self {
            x0: 0,
            y0: 0,
            x1: width,
            y1: height,
        }
    }

    fn is_empty(&self) -> bool {
        self.x0 >= self.x1 || self.y0 >= self.y1
    }

    /// The part inside another rectangle; possibly empty.
    #[must_use]
    pub fn clip(&self, to: &Self) -> Self {
        Self {
            x0: self.x0.max(to.x0),
            y0: self.y0.max(to.y0),
            x1: self.x1.min(to.x1),
            y1: self.y1.min(to.y1),
        }
    }

    /// Multiplied by a whole scale.
    #[must_use]
    pub fn scale(&self, by: i32) -> Self {
        let times = |n: i32| n.saturating_mul(by);
        Self {
            x0: times(self.x0),
            y0: times(self.y0),
            x1: times(self.x1),
            y1: times(self.y1),
        }
    }

    fn union(&self, other: &Self) -> Self {
        Self {
            x0: self.x0.min(other.x0),
            y0: self.y0.min(other.y0),
            x1: self.x1.max(other.x1),
            y1: self.y1.max(other.y1),
        }
    }

    fn area(&self) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let side = |from: i32, to: i32| u64::from(to.abs_diff(from));
        side(self.x0, self.x1).saturating_mul(side(self.y0, self.y1))
    }
}

/// More rectangles than this become their bounding box: a client that names thousands of single
/// pixels must not cost thousands of comparisons for each.
const MAX_RECTS: usize = 64;

/// A set of pixels as rectangles that do not overlap, so that none is copied twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    rects: Vec<Rect>,
}

impl Region {
    /// The pixels of one rectangle.
    pub fn of(rect: Rect) -> Self {
        let mut region = Self::default();
        region.add(rect);
        region
    }

    /// Adds the pixels of a rectangle.
    pub fn add(&mut self, rect: Rect) {
        if rect.is_empty() {
            return;
        }
        let mut pieces = vec![rect];
        for known in &self.rects {
            let mut rest = Vec::with_capacity(pieces.len());
            for piece in pieces {
                subtract(piece, known, &mut rest);
            }
            pieces = rest;
            if pieces.is_empty() {
                return;
            }
        }
        self.rects.extend(pieces);
        if self.rects.len() > MAX_RECTS {
            let bounds = self.rects.iter().fold(rect, |all, one| all.union(one));
            self.rects = vec![bounds];
        }
    }

    /// Adds all pixels of another region.
    pub fn add_region(&mut self, other: &Self) {
        for rect in &other.rects {
            self.add(*rect);
        }
    }

    /// The rectangles; no two overlap.
    pub fn rects(&self) -> &[Rect] {
        &self.rects
    }

    /// How many pixels.
    pub fn area(&self) -> u64 {
        self.rects.iter().map(Rect::area).sum()
    }
}

/// Appends what is left of `piece` without `hole`: at most four rectangles.
fn subtract(piece: Rect, hole: &Rect, rest: &mut Vec<Rect>) {
    let common = piece.clip(hole);
    if common.is_empty() {
        rest.push(piece);
        return;
    }
    let parts = [
        Rect {
            y1: common.y0,
            ..piece
        },
        Rect {
            y0: common.y1,
            ..piece
        },
        Rect {
            y0: common.y0,
            y1: common.y1,
            x1: common.x0,
            ..piece
        },
        Rect {
            y0: common.y0,
            y1: common.y1,
            x0: common.x1,
            ..piece
        },
    ];
    rest.extend(parts.into_iter().filter(|part| !part.is_empty()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small() -> impl Strategy<Value = Rect> {
        (-4i32..20, -4i32..20, -2i32..12, -2i32..12)
            .prop_map(|(x, y, w, h)| Rect::from_untrusted(x, y, w, h))
    }

    proptest! {
        /// A region holds exactly the pixels added, each in one rectangle.
        #[test]
        fn holds_what_was_added(rects in prop::collection::vec(small(), 0..10)) {
            let mut region = Region::default();
            for rect in &rects {
                region.add(*rect);
            }
            let inside = |r: &Rect, x: i32, y: i32| x >= r.x0 && x < r.x1 && y >= r.y0 && y < r.y1;
            for y in -5..40 {
                for x in -5..40 {
                    let wanted = rects.iter().any(|r| inside(r, x, y));
                    let count = region.rects().iter().filter(|r| inside(r, x, y)).count();
                    prop_assert_eq!(count, usize::from(wanted), "at {},{}", x, y);
                }
            }
        }

        /// Any numbers from a client are fine.
        #[test]
        fn any_numbers(
            rects in prop::collection::vec(
                (any::<i32>(), any::<i32>(), any::<i32>(), any::<i32>(), any::<i32>()),
                0..20,
            ),
        ) {
            let mut region = Region::default();
            for (x, y, w, h, scale) in rects {
                let rect = Rect::from_untrusted(x, y, w, h).scale(scale.rem_euclid(9));
                region.add(rect.clip(&Rect::whole(4000, 3000)));
            }
            prop_assert!(region.area() <= 4000 * 3000);
        }
    }

    #[test]
    fn thousands_of_pixels_become_one_box() {
        let mut region = Region::default();
        for i in 0..5000 {
            region.add(Rect::from_untrusted(i * 2 % 1000, i / 7 * 2, 1, 1));
            assert!(region.rects().len() <= MAX_RECTS);
        }
    }
}
