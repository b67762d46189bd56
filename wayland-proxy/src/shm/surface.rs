//! What a surface shows and what of it changed, commit by commit.

use std::collections::VecDeque;
use std::rc::Rc;

use super::Layout;
use super::damage::{Rect, Region};
use super::pool::Buffer;

/// How many pictures back damage is remembered. A blob that is older is copied as a whole.
const HISTORY: usize = 16;
/// Rectangles of one commit that are kept; beyond, the whole picture counts as changed.
const MAX_PENDING_RECTS: usize = 256;

/// Frame callbacks of a surface that are watched at one time; of more, the later ones prove nothing.
const MAX_WATCHED_FRAMES: usize = 16;

/// A buffer as it was attached.
#[derive(Debug, Clone)]
pub enum Attached {
    /// Nothing: the surface is hidden.
    None,
    /// A buffer in the application's memory, with its `wl_buffer` when it still exists.
    Shm {
        /// The buffer.
        buffer: Rc<Buffer>,
        /// The application's id of it.
        client_id: u32,
    },
    /// A buffer that the host knows (a single pixel), by its id there.
    Host(u32),
}

/// The attach request that waits for the commit.
#[derive(Debug, Clone)]
pub struct PendingAttach {
    /// What was attached.
    pub what: Attached,
    /// Its offset, as it came.
    pub x: i32,
    /// Its offset, as it came.
    pub y: i32,
}

#[derive(Debug, Clone)]
enum Change {
    Whole,
    Part(Region),
}

/// One `wl_surface`.
#[derive(Debug)]
pub struct Surface {
    /// Unique over the life of the process.
    pub key: u64,
    /// Waits for the commit.
    pub attach: Option<PendingAttach>,
    surface_damage: Vec<Rect>,
    buffer_damage: Vec<Rect>,
    too_many_rects: bool,
    scale: i32,
    transformed: bool,
    /// A viewport was made for it once: surface and buffer coordinates are then not related by
    /// anything that is followed here.
    pub has_viewport: bool,
    serial: u64,
    layout: Option<Layout>,
    /// The newest last; the last one belongs to `serial`.
    history: VecDeque<Change>,
    /// It was made a subsurface once. Those may be shown only when their parent is.
    pub is_subsurface: bool,
    /// Frame callbacks that wait: the application's id, and the picture they were committed with or
    /// after; none before the commit.
    frames: Vec<(u32, Option<u64>)>,
    /// The newest picture that the compositor is known to have drawn, or to have had no need to.
    drawn: u64,
}

impl Surface {
    /// A surface that shows nothing.
    pub fn new(key: u64) -> Self {
        Self {
            key,
            attach: None,
            surface_damage: Vec::new(),
            buffer_damage: Vec::new(),
            too_many_rects: false,
            scale: 1,
            transformed: false,
            has_viewport: false,
            serial: 0,
            layout: None,
            history: VecDeque::new(),
            is_subsurface: false,
            frames: Vec::new(),
            drawn: 0,
        }
    }

    /// `wl_surface.damage`, in surface coordinates.
    pub fn damage_surface(&mut self, rect: Rect) {
        if self.surface_damage.len() < MAX_PENDING_RECTS {
            self.surface_damage.push(rect);
        } else {
            self.too_many_rects = true;
        }
    }

    /// `wl_surface.damage_buffer`, in buffer coordinates.
    pub fn damage_buffer(&mut self, rect: Rect) {
        if self.buffer_damage.len() < MAX_PENDING_RECTS {
            self.buffer_damage.push(rect);
        } else {
            self.too_many_rects = true;
        }
    }

    /// `wl_surface.set_buffer_scale`. Nonsense is the host's to refuse.
    pub fn set_scale(&mut self, untrusted_scale: i32) {
        let scale = untrusted_scale.max(1);
        if scale != self.scale {
            self.scale = scale;
            self.too_many_rects = true;
        }
    }

    /// `wl_surface.set_buffer_transform`; 0 is none.
    pub fn set_transform(&mut self, untrusted_transform: u32) {
        if self.transformed != (untrusted_transform != 0) {
            self.too_many_rects = true;
        }
        self.transformed = untrusted_transform != 0;
    }

    /// `wl_surface.frame`: the application asks when to draw the next picture.
    pub fn ask_frame(&mut self, callback: u32) {
        if self.frames.len() < MAX_WATCHED_FRAMES {
            self.frames.push((callback, None));
        }
    }

    /// `wl_callback.done`. The compositor answers when it has drawn what was committed with the request.
    pub fn frame_done(&mut self, callback: u32) {
        let at = self.frames.iter().position(|(id, _)| *id == callback);
        if let Some((_, Some(serial))) = at.map(|at| self.frames.swap_remove(at)) {
            self.drawn = self.drawn.max(serial);
        }
    }

    fn commit_frames(&mut self) {
        for (_, serial) in &mut self.frames {
            serial.get_or_insert(self.serial);
        }
    }

    /// The picture that is shown, if the compositor has drawn it. It is read again only where something
    /// above it moves, so the next picture may be put over it in the same memory where another place
    /// would cost more copying: in the time of that copy, whoever looks there sees a part of what is
    /// about to be shown anyway. Not so a subsurface, whose picture may wait for its parent's.
    pub fn drawn(&self) -> Option<u64> {
        (self.serial > 0 && self.drawn == self.serial && !self.is_subsurface).then_some(self.serial)
    }

    /// A commit without a new picture: its damage means nothing for the copy.
    pub fn commit_without_picture(&mut self) {
        self.surface_damage.clear();
        self.buffer_damage.clear();
        self.commit_frames();
    }

    /// A commit that shows nothing, or a buffer that is not copied.
    pub fn commit_other(&mut self) {
        self.commit_without_picture();
        self.layout = None;
    }

    /// A commit with a new picture of this layout. Returns its serial and how much of it the
    /// application says has changed, in pixels.
    pub fn commit_picture(&mut self, layout: Layout) -> (u64, u64) {
        let whole = Rect::whole(layout.width, layout.height);
        let unknown = self.too_many_rects
            || self.layout != Some(layout)
            || (!self.surface_damage.is_empty() && (self.has_viewport || self.transformed));
        let change = if unknown {
            Change::Whole
        } else {
            let mut region = Region::default();
            for rect in &self.buffer_damage {
                region.add(rect.clip(&whole));
            }
            for rect in &self.surface_damage {
                region.add(rect.scale(self.scale).clip(&whole));
            }
            Change::Part(region)
        };
        let changed = match &change {
            Change::Whole => Region::of(whole).area(),
            Change::Part(region) => region.area(),
        };
        self.surface_damage.clear();
        self.buffer_damage.clear();
        self.too_many_rects = false;
        self.layout = Some(layout);
        self.serial += 1;
        self.commit_frames();
        self.history.push_back(change);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
        (self.serial, changed)
    }

    /// What a blob that holds picture `since` (if any) lacks of the newest one.
    pub fn changed_since(&self, since: Option<u64>) -> (Region, bool) {
        let whole = self.layout.map_or(Region::default(), |l| {
            Region::of(Rect::whole(l.width, l.height))
        });
        let Some(age) = since.and_then(|since| self.serial.checked_sub(since)) else {
            return (whole, true);
        };
        let Ok(age) = usize::try_from(age) else {
            return (whole, true);
        };
        if age > self.history.len() {
            return (whole, true);
        }
        let mut region = Region::default();
        for change in self.history.iter().rev().take(age) {
            match change {
                Change::Whole => return (whole, true),
                Change::Part(part) => region.add_region(part),
            }
        }
        (region, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout {
        width: 4,
        height: 4,
        stride: 16,
        format: 0,
        pixel_bytes: 4,
    };

    #[test]
    fn a_picture_is_drawn_when_its_frame_is_answered() {
        let mut surface = Surface::new(1);
        assert_eq!(surface.drawn(), None);
        surface.ask_frame(10);
        // Not of a commit that is still to come.
        surface.commit_picture(LAYOUT);
        surface.ask_frame(11);
        assert_eq!(surface.drawn(), None);
        surface.frame_done(10);
        assert_eq!(surface.drawn(), Some(1));
        surface.commit_picture(LAYOUT);
        assert_eq!(surface.drawn(), None);
        // Answers of others, and the same one again.
        surface.frame_done(10);
        surface.frame_done(12);
        assert_eq!(surface.drawn(), None);
        surface.frame_done(11);
        assert_eq!(surface.drawn(), Some(2));
        // Asked for after the picture was committed.
        surface.commit_picture(LAYOUT);
        surface.ask_frame(13);
        surface.commit_without_picture();
        surface.frame_done(13);
        assert_eq!(surface.drawn(), Some(3));
        surface.is_subsurface = true;
        assert_eq!(surface.drawn(), None);
    }

    #[test]
    fn an_old_answer_proves_nothing_of_a_newer_picture() {
        let mut surface = Surface::new(1);
        surface.ask_frame(10);
        surface.commit_picture(LAYOUT);
        surface.commit_picture(LAYOUT);
        surface.frame_done(10);
        assert_eq!(surface.drawn(), None);
        for callback in 0..1000 {
            surface.ask_frame(callback);
        }
        surface.commit_picture(LAYOUT);
        assert_eq!(surface.frames.len(), MAX_WATCHED_FRAMES);
        surface.frame_done(999);
        assert_eq!(surface.drawn(), None);
    }
}
