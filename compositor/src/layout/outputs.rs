//! The outputs that the desktop lies on: the first one with the panels, the others beside it. A window belongs to
//! the output that its middle is nearest to.

use super::{Layout, Mode, Point, Rect, Size, WindowId, client_of};

impl Layout {
    /// The size of the desktop: the smallest rectangle around all outputs.
    pub fn screen(&self) -> Size {
        let whole = Size::new(self.main.w, self.main.h);
        self.others.iter().fold(whole, |size, other| {
            Size::new(size.w.max(other.right()), size.h.max(other.bottom()))
        })
    }

    /// The size of the first output.
    pub fn main(&self) -> Size {
        self.main
    }

    /// The part of the first output where windows are: what panels leave.
    pub fn area(&self) -> Rect {
        self.area
    }

    /// Where windows are on the output nearest to a point.
    pub fn area_at(&self, at: Point) -> Rect {
        let main = Rect::new(0, 0, self.main.w, self.main.h);
        let distance = |output: &Rect| {
            let nearest = inside(output, at);
            let (dx, dy) = (at.x.abs_diff(nearest.x), at.y.abs_diff(nearest.y));
            u64::from(dx).saturating_add(u64::from(dy))
        };
        let nearest = self.others.iter().min_by_key(|output| distance(output));
        match nearest {
            Some(other) if distance(other) < distance(&main) => *other,
            _ => self.area,
        }
    }

    /// The nearest point that an output shows.
    pub fn shown(&self, at: Point) -> Point {
        let main = Rect::new(0, 0, self.main.w, self.main.h);
        let area = self.area_at(at);
        inside(if area == self.area { &main } else { &area }, at)
    }

    /// Where a window may be.
    pub fn area_of(&self, id: WindowId) -> Rect {
        self.get(id).map_or(self.area, |window| {
            let outer = window.outer();
            self.area_at(Point::new(
                outer.x.saturating_add(outer.w / 2),
                outer.y.saturating_add(outer.h / 2),
            ))
        })
    }

    /// The largest client area that fits on a window's output; on the first one if it has none yet.
    pub fn bounds_of(&self, id: WindowId) -> Size {
        client_of(self.area_of(id)).size()
    }

    /// The first output has a new size, or panels leave another part of it. A window that was wholly in
    /// view stays so where it fits. Answers the windows that are to draw a new size.
    pub fn set_area(&mut self, main: Size, area: Rect) -> Vec<(WindowId, Size)> {
        self.change(|layout| {
            layout.main = Size::new(main.w.max(1), main.h.max(1));
            let whole = Rect::new(0, 0, layout.main.w, layout.main.h);
            // Panels that leave nothing are not believed.
            layout.area = area
                .intersection(&whole)
                .filter(|left| left.w > 0 && left.h > 0)
                .unwrap_or(whole);
        })
    }

    /// Other outputs lie beside the first one from now on. Answers as [`Self::set_area`] does.
    pub fn set_others(&mut self, others: Vec<Rect>) -> Vec<(WindowId, Size)> {
        self.change(|layout| {
            layout.others = others;
            layout.others.retain(|other| other.w > 0 && other.h > 0);
        })
    }

    /// The first output has a new size; [`Self::set_area`] follows.
    #[cfg(any(feature = "drm", feature = "winit"))]
    pub(crate) fn set_main(&mut self, main: Size) {
        self.main = Size::new(main.w.max(1), main.h.max(1));
    }

    /// Where windows may be, output by output.
    pub(super) fn areas(&self) -> Vec<Rect> {
        let mut areas = vec![self.area];
        areas.extend(&self.others);
        areas
    }

    fn change(&mut self, change: impl FnOnce(&mut Self)) -> Vec<(WindowId, Size)> {
        let before = self.areas();
        change(self);
        if self.areas() == before {
            return Vec::new();
        }
        let placed: Vec<_> = self
            .stack
            .iter()
            .map(|w| (w.id, w.mode, w.client.size(), w.outer()))
            .collect();
        let mut resized = Vec::new();
        for (id, mode, size, outer) in placed {
            let was_whole = |area: &Rect| area.intersection(&outer) == Some(outer);
            if mode != Mode::Floating {
                self.fill(id, size);
                resized.push((id, self.bounds_of(id)));
            } else if before.iter().any(was_whole) {
                self.pull_in(id);
            }
            self.keep_reachable(id);
        }
        resized
    }
}

/// The nearest point of a rectangle.
fn inside(output: &Rect, at: Point) -> Point {
    let last = |from: i32, length: i32| from.saturating_add(length - 1).max(from);
    Point::new(
        at.x.clamp(output.x, last(output.x, output.w)),
        at.y.clamp(output.y, last(output.y, output.h)),
    )
}
