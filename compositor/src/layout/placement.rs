//! Where a new window goes: the first free place in reading order, else one step further down and
//! right than the window before.

use super::{BORDER_PX, Layout, Rect, Size, TITLE_PX, client_of, outer_of};

/// Room between a new window and its neighbours.
const GAP_PX: i32 = 8;

impl Layout {
    pub(super) fn place(&mut self, size: Size) -> Rect {
        let outer = outer_of(Rect::new(0, 0, size.w, size.h)).size();
        let taken: Vec<Rect> = self.stack.iter().map(|w| w.outer()).collect();
        let fits = |x: i32, y: i32| {
            let spot = Rect::new(x, y, outer.w, outer.h);
            x >= self.area.x
                && y >= self.area.y
                && spot.right() <= self.area.right()
                && spot.bottom() <= self.area.bottom()
                && !taken.iter().any(|other| {
                    other
                        .grown(GAP_PX / 2, GAP_PX / 2, GAP_PX / 2, GAP_PX / 2)
                        .overlaps(&spot)
                })
        };
        let mut columns = vec![self.area.x.saturating_add(GAP_PX)];
        let mut rows = vec![self.area.y.saturating_add(GAP_PX)];
        for other in &taken {
            columns.push(other.right().saturating_add(GAP_PX));
            rows.push(other.bottom().saturating_add(GAP_PX));
            columns.push(other.x);
            rows.push(other.y);
        }
        columns.sort_unstable();
        rows.sort_unstable();
        // The very edge only where nothing else is free.
        columns.push(self.area.x);
        rows.push(self.area.y);
        for y in &rows {
            for x in &columns {
                if fits(*x, *y) {
                    return client_of(Rect::new(*x, *y, outer.w, outer.h));
                }
            }
        }
        let step = BORDER_PX + TITLE_PX;
        self.cascade = (self.cascade + 1) % 8;
        let room_w = self.area.w.saturating_sub(outer.w).max(0);
        let room_h = self.area.h.saturating_sub(outer.h).max(0);
        let offset = self.cascade * step;
        let x = offset.min(room_w.max(offset % (self.area.w / 2).max(1)));
        let y = offset.min(room_h.max(offset % (self.area.h / 2).max(1)));
        client_of(Rect::new(
            self.area.x.saturating_add(x),
            self.area.y.saturating_add(y),
            outer.w,
            outer.h,
        ))
    }
}
