//! Where windows are: a stack of floating windows that people move, resize, raise and maximise.
//!
//! Pure on purpose: no Wayland, no pixels, no clock. The rest of the compositor tells it what the
//! user did and what size a client really drew, and asks it where everything is.

mod geometry;
mod grab;
mod outputs;
mod placement;
#[cfg(test)]
mod tests;
pub mod zones;

pub use geometry::{Point, Rect, Size};
pub use grab::{Change, Edges};

/// Width of the coloured border at each side of a window.
pub const BORDER_PX: i32 = 4;
/// Height of the bar with the domain's name, between the upper border and the client's pixels.
pub const TITLE_PX: i32 = 24;
/// Width of the border around a popup.
pub const POPUP_BORDER_PX: i32 = 2;
/// A window can be made no smaller than this by the user.
pub const MIN_SIZE: Size = Size { w: 64, h: 32 };
/// Guests may ask for any size; beyond this a size is cut. Stops arithmetic and allocation games.
pub const MAX_SIZE_PX: i32 = 16_384;
/// So much of a title bar always stays on the desktop, so that the user can take hold of it.
const REACHABLE_PX: i32 = 48;

/// Names a window for as long as the compositor runs; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowId(pub u64);

/// How a window takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Where the user put it, at the size that the user or the client chose.
    Floating,
    /// Fills its output inside its own border.
    Maximised,
    /// What a client gets when it asks for fullscreen: it believes so, but the border stays.
    Fullscreen,
}

/// Which part of a window is at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The client's own pixels.
    Client,
    /// The bar with the domain's name.
    Title,
    /// The close button in that bar.
    Close,
    /// The border, with the edges that a drag from there resizes.
    Border(Edges),
}

/// One window in the stack.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its name.
    pub id: WindowId,
    /// The client's pixels, without border and title.
    pub client: Rect,
    /// How it takes its place.
    pub mode: Mode,
    restore: Rect,
    min: Size,
    max: Size,
}

impl Placed {
    /// The client's pixels with border and title bar.
    pub fn outer(&self) -> Rect {
        outer_of(self.client)
    }

    /// The title bar.
    pub fn title_bar(&self) -> Rect {
        let c = self.client;
        Rect::new(c.x, c.y.saturating_sub(TITLE_PX), c.w, TITLE_PX)
    }

    /// The close button, a square at the right end of the title bar.
    pub fn close_button(&self) -> Rect {
        let bar = self.title_bar();
        let side = TITLE_PX.min(bar.w);
        Rect::new(bar.right().saturating_sub(side), bar.y, side, TITLE_PX)
    }

    fn part_at(&self, at: Point) -> Option<Part> {
        if self.client.contains(at) {
            Some(Part::Client)
        } else if self.close_button().contains(at) {
            Some(Part::Close)
        } else if self.title_bar().contains(at) {
            Some(Part::Title)
        } else if self.outer().contains(at) {
            Some(Part::Border(Edges::around(self.client, at)))
        } else {
            None
        }
    }
}

/// The client's rectangle grown by border and title bar.
pub fn outer_of(client: Rect) -> Rect {
    client.grown(BORDER_PX, BORDER_PX + TITLE_PX, BORDER_PX, BORDER_PX)
}

fn client_of(outer: Rect) -> Rect {
    Rect {
        x: outer.x.saturating_add(BORDER_PX),
        y: outer.y.saturating_add(BORDER_PX + TITLE_PX),
        w: outer.w.saturating_sub(2 * BORDER_PX).max(1),
        h: outer.h.saturating_sub(2 * BORDER_PX + TITLE_PX).max(1),
    }
}

/// All windows, from the lowest to the highest, and who has the focus.
#[derive(Debug)]
pub struct Layout {
    /// The size of the first output, which has the panels; its corner is the desktop's.
    main: Size,
    /// The part of it that panels leave to windows.
    area: Rect,
    /// The other outputs.
    others: Vec<Rect>,
    stack: Vec<Placed>,
    focused: Option<WindowId>,
    grab: Option<grab::Grab>,
    cycle: Option<(Vec<WindowId>, usize)>,
    cascade: i32,
}

impl Layout {
    /// An empty desktop on one output of this size.
    pub fn new(main: Size) -> Self {
        let main = Size::new(main.w.max(1), main.h.max(1));
        Self {
            main,
            area: Rect::new(0, 0, main.w, main.h),
            others: Vec::new(),
            stack: Vec::new(),
            focused: None,
            grab: None,
            cycle: None,
            cascade: 0,
        }
    }

    /// Windows from the lowest to the highest.
    pub fn stack(&self) -> impl DoubleEndedIterator<Item = &Placed> {
        self.stack.iter()
    }

    /// One window.
    pub fn get(&self, id: WindowId) -> Option<&Placed> {
        self.stack.iter().find(|w| w.id == id)
    }

    /// The window that keys go to.
    pub fn focused(&self) -> Option<WindowId> {
        self.focused
    }

    /// Puts a new window on the desktop, above all others and focused. Where there is room it
    /// covers no other window.
    pub fn insert(&mut self, id: WindowId, size: Size) {
        if self.get(id).is_some() {
            return;
        }
        let size = clamp_size(size);
        let client = self.place(size);
        self.stack.push(Placed {
            id,
            client,
            mode: Mode::Floating,
            restore: client,
            min: Size::default(),
            max: Size::default(),
        });
        self.focus(id);
        self.keep_reachable(id);
    }

    /// Takes a window away; the focus goes to the highest one left.
    pub fn remove(&mut self, id: WindowId) {
        self.stack.retain(|w| w.id != id);
        if self.grab.as_ref().is_some_and(|g| g.id == id) {
            self.grab = None;
        }
        if let Some((ids, _)) = &mut self.cycle {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.cycle = None;
            }
        }
        if self.focused == Some(id) {
            self.focused = self.stack.last().map(|w| w.id);
        }
    }

    /// Raises a window and gives it the focus.
    pub fn focus(&mut self, id: WindowId) {
        let Some(index) = self.stack.iter().position(|w| w.id == id) else {
            return;
        };
        let window = self.stack.remove(index);
        self.stack.push(window);
        self.focused = Some(id);
    }

    /// Takes the focus from every window, as when the user clicks the empty desktop.
    pub fn unfocus(&mut self) {
        self.focused = None;
    }

    /// One step of Alt+Tab. The order is fixed at the first step, until [`Self::end_cycle`].
    pub fn cycle(&mut self) -> Option<WindowId> {
        let (ids, index) = match self.cycle.take() {
            Some((ids, index)) => (ids, index),
            None => (self.stack.iter().rev().map(|w| w.id).collect(), 0),
        };
        if ids.is_empty() {
            return None;
        }
        // With no focused window the first step takes the highest one.
        let next = if self.focused.is_none() && index == 0 {
            0
        } else {
            (index + 1) % ids.len().max(1)
        };
        let id = ids.get(next).copied();
        self.cycle = Some((ids, next));
        if let Some(id) = id {
            self.focus(id);
        }
        id
    }

    /// Alt was released.
    pub fn end_cycle(&mut self) {
        self.cycle = None;
    }

    /// The sizes that a client says it can draw; zero means no limit.
    pub fn set_limits(&mut self, id: WindowId, min: Size, max: Size) {
        if let Some(window) = self.get_mut(id) {
            window.min = Size::new(min.w.clamp(0, MAX_SIZE_PX), min.h.clamp(0, MAX_SIZE_PX));
            window.max = Size::new(max.w.clamp(0, MAX_SIZE_PX), max.h.clamp(0, MAX_SIZE_PX));
        }
    }

    /// The client drew its first or another size. While an upper or left edge is dragged, the
    /// opposite edge stays where it is.
    pub fn committed(&mut self, id: WindowId, size: Size) {
        let size = clamp_size(size);
        let anchor = self.grab.as_ref().and_then(|g| g.anchor_for(id));
        let Some(window) = self.get_mut(id) else {
            return;
        };
        let before = window.client;
        window.client.w = size.w;
        window.client.h = size.h;
        if let Some(edges) = anchor {
            if edges.left {
                window.client.x = before.right().saturating_sub(size.w);
            }
            if edges.top {
                window.client.y = before.bottom().saturating_sub(size.h);
            }
        }
        if window.mode != Mode::Floating {
            self.fill(id, size);
        }
        self.keep_reachable(id);
    }

    /// Maximises, makes "fullscreen", or restores. Answers the size that the client is to draw.
    pub fn set_mode(&mut self, id: WindowId, mode: Mode) -> Option<Size> {
        let bounds = self.bounds_of(id);
        if self.grab.as_ref().is_some_and(|g| g.id == id) {
            self.grab = None;
        }
        let window = self.get_mut(id)?;
        if window.mode == Mode::Floating && mode != Mode::Floating {
            window.restore = window.client;
        }
        let was = window.mode;
        window.mode = mode;
        if mode == Mode::Floating {
            if was != Mode::Floating {
                window.client.x = window.restore.x;
                window.client.y = window.restore.y;
            }
            let size = window.restore.size();
            self.keep_reachable(id);
            Some(size)
        } else {
            let size = self.get(id)?.client.size();
            self.fill(id, size);
            Some(bounds)
        }
    }

    /// Moves a window so that all of it is in view; one that is too large loses its right and
    /// lower end.
    fn pull_in(&mut self, id: WindowId) {
        let area = self.area_of(id);
        let Some(window) = self.get_mut(id) else {
            return;
        };
        let outer = window.outer();
        let x = outer
            .x
            .min(area.right().saturating_sub(outer.w))
            .max(area.x);
        let y = outer
            .y
            .min(area.bottom().saturating_sub(outer.h))
            .max(area.y);
        window.client.x = x.saturating_add(BORDER_PX);
        window.client.y = y.saturating_add(BORDER_PX + TITLE_PX);
    }

    /// The highest window at a point, and which part of it.
    pub fn hit(&self, at: Point) -> Option<(WindowId, Part)> {
        self.stack
            .iter()
            .rev()
            .find_map(|w| w.part_at(at).map(|part| (w.id, part)))
    }

    fn get_mut(&mut self, id: WindowId) -> Option<&mut Placed> {
        self.stack.iter_mut().find(|w| w.id == id)
    }

    /// A window that fills an output sits at its corner. A client that draws more than it was
    /// given is cut, so that its border stays visible.
    fn fill(&mut self, id: WindowId, drawn: Size) {
        let (bounds, area) = (self.bounds_of(id), self.area_of(id));
        if let Some(window) = self.get_mut(id) {
            window.client = Rect {
                x: area.x.saturating_add(BORDER_PX),
                y: area.y.saturating_add(BORDER_PX + TITLE_PX),
                w: drawn.w.min(bounds.w),
                h: drawn.h.min(bounds.h),
            };
        }
    }

    /// Moves a window so that its title bar can be reached.
    fn keep_reachable(&mut self, id: WindowId) {
        let area = self.area_of(id);
        let Some(window) = self.get_mut(id) else {
            return;
        };
        let outer = window.outer();
        let keep = REACHABLE_PX.min(outer.w);
        let lowest_y = area
            .bottom()
            .saturating_sub(BORDER_PX + TITLE_PX)
            .max(area.y);
        let y = outer.y.clamp(area.y, lowest_y);
        let leftmost_x = area.x.saturating_add(keep).saturating_sub(outer.w);
        let rightmost_x = area.right().saturating_sub(keep).max(leftmost_x);
        let x = outer.x.clamp(leftmost_x, rightmost_x);
        window.client.x = x.saturating_add(BORDER_PX);
        window.client.y = y.saturating_add(BORDER_PX + TITLE_PX);
    }

    /// What must hold after every operation. Answers what does not.
    pub fn verify_invariants(&self) -> Result<(), String> {
        let mut ids: Vec<_> = self.stack.iter().map(|w| w.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != self.stack.len() {
            return Err("a window is twice in the stack".into());
        }
        if let Some(id) = self.focused
            && self.get(id).is_none()
        {
            return Err(format!("{id:?} has the focus and is not in the stack"));
        }
        if let Some(grab) = &self.grab
            && self.get(grab.id).is_none()
        {
            return Err(format!("{:?} is dragged and is not in the stack", grab.id));
        }
        for window in &self.stack {
            let c = window.client;
            if c.w < 1 || c.h < 1 || c.w > MAX_SIZE_PX || c.h > MAX_SIZE_PX {
                return Err(format!("{:?} has the size {}x{}", window.id, c.w, c.h));
            }
            let outer = window.outer();
            let reached = |area: &Rect| {
                let keep = REACHABLE_PX.min(outer.w).min(area.w);
                let seen = outer.intersection(area).map_or(0, |r| r.w);
                outer.y >= area.y && seen >= keep
            };
            if !self.areas().iter().any(reached) {
                return Err(format!("{:?} has its title bar out of reach", window.id));
            }
            let area = self.area_of(window.id);
            let least = outer_of(client_of(area));
            if window.mode != Mode::Floating
                && (outer.right() > area.right().max(least.right())
                    || outer.bottom() > area.bottom().max(least.bottom()))
            {
                return Err(format!("{:?} fills more than its output", window.id));
            }
        }
        Ok(())
    }
}

/// A size that arithmetic and memory can bear.
pub(crate) fn clamp_size(untrusted: Size) -> Size {
    Size::new(
        untrusted.w.clamp(1, MAX_SIZE_PX),
        untrusted.h.clamp(1, MAX_SIZE_PX),
    )
}
