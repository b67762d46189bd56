//! Moving and resizing by drag.

use super::{Layout, MIN_SIZE, Mode, Point, Rect, Size, WindowId, clamp_size};

/// Corners are this long, measured along the border.
const CORNER_PX: i32 = 16;

/// The edges that a resize moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Edges {
    pub left: bool,
    pub right: bool,
    pub top: bool,
    pub bottom: bool,
}

impl Edges {
    /// The edges nearest to a point on the border around `client`.
    pub fn around(client: Rect, at: Point) -> Self {
        Self {
            left: at.x < client.x.saturating_add(CORNER_PX),
            right: at.x >= client.right().saturating_sub(CORNER_PX),
            top: at.y
                < client
                    .y
                    .saturating_sub(super::TITLE_PX)
                    .saturating_add(CORNER_PX),
            bottom: at.y >= client.bottom().saturating_sub(CORNER_PX),
        }
        .without_opposites()
    }

    /// The quarter of a window that a point is in, for resizing from inside.
    pub fn quarter(client: Rect, at: Point) -> Self {
        let right = at.x >= client.x.saturating_add(client.w / 2);
        let bottom = at.y >= client.y.saturating_add(client.h / 2);
        Self {
            left: !right,
            right,
            top: !bottom,
            bottom,
        }
    }

    /// Is there an edge at all?
    pub fn any(&self) -> bool {
        self.left || self.right || self.top || self.bottom
    }

    fn without_opposites(mut self) -> Self {
        if self.left && self.right {
            self.left = false;
        }
        if self.top && self.bottom {
            self.top = false;
        }
        self
    }
}

#[derive(Debug)]
pub(super) struct Grab {
    pub(super) id: WindowId,
    kind: Kind,
    from: Point,
    start: Rect,
}

#[derive(Debug)]
enum Kind {
    Move,
    Resize(Edges),
}

impl Grab {
    pub(super) fn anchor_for(&self, id: WindowId) -> Option<Edges> {
        match self.kind {
            Kind::Resize(edges) if self.id == id => Some(edges),
            _ => None,
        }
    }
}

/// What a drag asks the rest of the compositor to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The window is elsewhere now.
    Moved(WindowId),
    /// The client is to draw this size.
    Resize(WindowId, Size),
}

impl Layout {
    /// The user takes hold of a window to move it. A maximised window becomes floating again;
    /// the answer is then the size it is to draw.
    pub fn begin_move(&mut self, id: WindowId, at: Point) -> Option<Change> {
        let window = self.get(id)?;
        let mut change = None;
        if window.mode != Mode::Floating {
            let width = window.restore.w;
            let size = self.set_mode(id, Mode::Floating)?;
            // The title bar stays under the pointer.
            let window = self.get_mut(id)?;
            window.client.w = size.w;
            window.client.h = size.h;
            window.client.x = at.x.saturating_sub(width / 2);
            window.client.y = at.y.saturating_add(super::TITLE_PX / 2);
            change = Some(Change::Resize(id, size));
            self.keep_reachable(id);
        }
        let start = self.get(id)?.client;
        self.grab = Some(Grab {
            id,
            kind: Kind::Move,
            from: at,
            start,
        });
        change
    }

    /// The user takes hold of edges of a window. Maximised windows are not resized.
    pub fn begin_resize(&mut self, id: WindowId, edges: Edges, at: Point) -> bool {
        let edges = edges.without_opposites();
        let Some(window) = self.get(id) else {
            return false;
        };
        if window.mode != Mode::Floating || !edges.any() {
            return false;
        }
        let start = window.client;
        self.grab = Some(Grab {
            id,
            kind: Kind::Resize(edges),
            from: at,
            start,
        });
        true
    }

    /// Is a window being dragged?
    pub fn grabbed(&self) -> Option<WindowId> {
        self.grab.as_ref().map(|g| g.id)
    }

    /// Is this window being resized by the user?
    pub fn resizing(&self, id: WindowId) -> bool {
        self.grab
            .as_ref()
            .is_some_and(|g| g.anchor_for(id).is_some())
    }

    /// The pointer moved while a window is dragged.
    pub fn drag_to(&mut self, at: Point) -> Option<Change> {
        let grab = self.grab.as_ref()?;
        let (id, start) = (grab.id, grab.start);
        let dx = at.x.saturating_sub(grab.from.x);
        let dy = at.y.saturating_sub(grab.from.y);
        match grab.kind {
            Kind::Move => {
                let window = self.get_mut(id)?;
                window.client.x = start.x.saturating_add(dx);
                window.client.y = start.y.saturating_add(dy);
                self.keep_reachable(id);
                Some(Change::Moved(id))
            }
            Kind::Resize(edges) => {
                let window = self.get(id)?;
                let grow = |on_start: bool, on_end: bool, delta: i32, length: i32| {
                    if on_end {
                        length.saturating_add(delta)
                    } else if on_start {
                        length.saturating_sub(delta)
                    } else {
                        length
                    }
                };
                let size = Size::new(
                    grow(edges.left, edges.right, dx, start.w),
                    grow(edges.top, edges.bottom, dy, start.h),
                );
                let limit = |wanted: i32, floor: i32, min: i32, max: i32| {
                    let low = floor.max(min);
                    let high = if max > 0 {
                        max.max(low)
                    } else {
                        super::MAX_SIZE_PX
                    };
                    wanted.clamp(low, high)
                };
                Some(Change::Resize(
                    id,
                    clamp_size(Size::new(
                        limit(size.w, MIN_SIZE.w, window.min.w, window.max.w),
                        limit(size.h, MIN_SIZE.h, window.min.h, window.max.h),
                    )),
                ))
            }
        }
    }

    /// The button was released. Answers the window that was dragged.
    pub fn end_drag(&mut self) -> Option<WindowId> {
        self.grab.take().map(|g| g.id)
    }
}
