//! Integer rectangles in logical pixels. Every operation saturates: sizes come from guests.

/// A point on the desktop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// To the right.
    pub x: i32,
    /// Downwards.
    pub y: i32,
}

/// A size; never negative in a value that [`super::Layout`] hands out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Width.
    pub w: i32,
    /// Height.
    pub h: i32,
}

/// A rectangle: its top left corner and its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rect {
    /// Left edge.
    pub x: i32,
    /// Top edge.
    pub y: i32,
    /// Width.
    pub w: i32,
    /// Height.
    pub h: i32,
}

impl Point {
    /// A point from its coordinates.
    pub fn new(x: i32, y: i32) -> Self {
        Self { x, y }
    }
}

impl Size {
    /// A size from its two lengths.
    pub fn new(w: i32, h: i32) -> Self {
        Self { w, h }
    }
}

impl Rect {
    /// A rectangle from its corner and its lengths.
    pub fn new(x: i32, y: i32, w: i32, h: i32) -> Self {
        Self { x, y, w, h }
    }

    /// The first column right of the rectangle.
    pub fn right(&self) -> i32 {
        self.x.saturating_add(self.w)
    }

    /// The first row below the rectangle.
    pub fn bottom(&self) -> i32 {
        self.y.saturating_add(self.h)
    }

    /// Width and height.
    pub fn size(&self) -> Size {
        Size::new(self.w, self.h)
    }

    /// Is the point inside?
    pub fn contains(&self, at: Point) -> bool {
        at.x >= self.x && at.x < self.right() && at.y >= self.y && at.y < self.bottom()
    }

    /// Do the two share a pixel?
    pub fn overlaps(&self, other: &Rect) -> bool {
        self.x < other.right()
            && other.x < self.right()
            && self.y < other.bottom()
            && other.y < self.bottom()
    }

    /// The part that both cover, if any.
    pub fn intersection(&self, other: &Rect) -> Option<Rect> {
        if !self.overlaps(other) {
            return None;
        }
        let x = self.x.max(other.x);
        let y = self.y.max(other.y);
        let w = self.right().min(other.right()).saturating_sub(x);
        let h = self.bottom().min(other.bottom()).saturating_sub(y);
        Some(Rect { x, y, w, h })
    }

    /// The rectangle grown by some pixels at each side.
    pub fn grown(&self, left: i32, top: i32, right: i32, bottom: i32) -> Rect {
        Rect {
            x: self.x.saturating_sub(left),
            y: self.y.saturating_sub(top),
            w: self.w.saturating_add(left).saturating_add(right),
            h: self.h.saturating_add(top).saturating_add(bottom),
        }
    }
}
