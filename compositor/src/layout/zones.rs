//! Where panels, menus and backgrounds are, and what they leave to windows. Pure, like the rest of
//! the layout.

use super::{MAX_SIZE_PX, Rect, Size};

/// How high above or below the windows something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Layer {
    Background,
    Bottom,
    Top,
    Overlay,
}

impl Layer {
    /// Above all windows?
    pub fn above_windows(self) -> bool {
        matches!(self, Self::Top | Self::Overlay)
    }
}

/// Four lengths or four choices, one for each edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Sides<T> {
    pub top: T,
    pub right: T,
    pub bottom: T,
    pub left: T,
}

/// What a panel asks for (`zwlr_layer_surface_v1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// How high it is.
    pub layer: Layer,
    /// The edges that it clings to.
    pub anchor: Sides<bool>,
    /// Its size; zero means from edge to edge.
    pub size: Size,
    /// Distance from the edges it clings to.
    pub margin: Sides<i32>,
    /// Pixels that windows keep away from its edge; 0: it keeps away from others' zones; -1: it
    /// takes no notice of them.
    pub zone: i32,
    /// It is shown. What is not shown yet gets a place and takes no zone.
    pub shown: bool,
}

/// Places all wishes on a screen. Answers a rectangle for each, in their order, and what is left
/// to windows. Those with a zone come first, the highest layer before the lower ones.
pub fn arrange(screen: Size, wishes: &[Wish]) -> (Vec<Rect>, Rect) {
    let whole = Rect::new(0, 0, screen.w, screen.h);
    let mut left = whole;
    let mut places = vec![Rect::default(); wishes.len()];
    let mut order: Vec<usize> = (0..wishes.len()).collect();
    order.sort_by_key(|i| {
        wishes
            .get(*i)
            .map(|w| (w.zone <= 0, std::cmp::Reverse(w.layer)))
    });
    for index in order {
        let (Some(wish), Some(place)) = (wishes.get(index), places.get_mut(index)) else {
            continue;
        };
        *place = position(wish, if wish.zone < 0 { whole } else { left });
        if wish.shown && wish.zone > 0 {
            left = reserve(wish, left);
        }
    }
    (places, left)
}

fn position(wish: &Wish, within: Rect) -> Rect {
    let (x, w) = line(
        (within.x, within.w),
        wish.size.w,
        (wish.anchor.left, wish.anchor.right),
        (wish.margin.left, wish.margin.right),
    );
    let (y, h) = line(
        (within.y, within.h),
        wish.size.h,
        (wish.anchor.top, wish.anchor.bottom),
        (wish.margin.top, wish.margin.bottom),
    );
    Rect::new(x, y, w, h)
}

/// One direction: start and length.
fn line(
    (start, length): (i32, i32),
    wanted: i32,
    anchored: (bool, bool),
    margin: (i32, i32),
) -> (i32, i32) {
    let (near, far) = (
        if anchored.0 { margin.0 } else { 0 },
        if anchored.1 { margin.1 } else { 0 },
    );
    let room = length.saturating_sub(near).saturating_sub(far).max(1);
    let size = if wanted > 0 { wanted } else { room }.clamp(1, MAX_SIZE_PX);
    let first = start.saturating_add(near);
    let last = start
        .saturating_add(length)
        .saturating_sub(far)
        .saturating_sub(size);
    match anchored {
        (true, false) => (first, size),
        (false, true) => (last, size),
        _ => (first.saturating_add(last.saturating_sub(first) / 2), size),
    }
}

/// Takes a zone from what is left. A zone needs one edge that it is at: the only one, or the one
/// between two opposite ones.
fn reserve(wish: &Wish, left: Rect) -> Rect {
    let a = wish.anchor;
    let cut = |margin: i32, length: i32| {
        // Windows keep at least half of the screen, whatever a panel asks for.
        wish.zone.saturating_add(margin).clamp(0, length / 2)
    };
    let (across, along) = (a.left == a.right, a.top == a.bottom);
    match () {
        () if a.top && !a.bottom && across => {
            let by = cut(wish.margin.top, left.h);
            Rect::new(left.x, left.y.saturating_add(by), left.w, left.h - by)
        }
        () if a.bottom && !a.top && across => {
            let by = cut(wish.margin.bottom, left.h);
            Rect::new(left.x, left.y, left.w, left.h - by)
        }
        () if a.left && !a.right && along => {
            let by = cut(wish.margin.left, left.w);
            Rect::new(left.x.saturating_add(by), left.y, left.w - by, left.h)
        }
        () if a.right && !a.left && along => {
            let by = cut(wish.margin.right, left.w);
            Rect::new(left.x, left.y, left.w - by, left.h)
        }
        () => left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(layer: Layer, edges: &str, size: (i32, i32), zone: i32) -> Wish {
        Wish {
            layer,
            anchor: Sides {
                top: edges.contains('t'),
                right: edges.contains('r'),
                bottom: edges.contains('b'),
                left: edges.contains('l'),
            },
            size: Size::new(size.0, size.1),
            margin: Sides::default(),
            zone,
            shown: true,
        }
    }

    #[test]
    fn a_panel_takes_its_edge_and_others_keep_away_from_it() {
        let screen = Size::new(1000, 600);
        let wishes = [
            wish(Layer::Background, "tlrb", (0, 0), -1),
            wish(Layer::Overlay, "", (400, 300), 0),
            wish(Layer::Top, "tlr", (0, 30), 30),
            wish(Layer::Top, "l", (50, 0), 0),
        ];
        let (places, left) = arrange(screen, &wishes);
        assert_eq!(places[0], Rect::new(0, 0, 1000, 600));
        assert_eq!(places[1], Rect::new(300, 165, 400, 300));
        assert_eq!(places[2], Rect::new(0, 0, 1000, 30));
        assert_eq!(places[3], Rect::new(0, 30, 50, 570));
        assert_eq!(left, Rect::new(0, 30, 1000, 570));
    }

    #[test]
    fn a_panel_that_is_not_shown_takes_nothing() {
        let mut panel = wish(Layer::Top, "blr", (0, 40), 40);
        panel.shown = false;
        let (places, left) = arrange(Size::new(800, 600), &[panel]);
        assert_eq!(places[0], Rect::new(0, 560, 800, 40));
        assert_eq!(left, Rect::new(0, 0, 800, 600));
    }

    #[test]
    fn margins_and_absurd_numbers_are_borne() {
        let mut panel = wish(Layer::Top, "trl", (0, 20), 20);
        panel.margin = Sides {
            top: 5,
            right: 10,
            bottom: 0,
            left: 10,
        };
        let (places, left) = arrange(Size::new(800, 600), &[panel]);
        assert_eq!(places[0], Rect::new(10, 5, 780, 20));
        assert_eq!(left, Rect::new(0, 25, 800, 575));
        let absurd = Wish {
            zone: i32::MAX,
            size: Size::new(i32::MAX, i32::MAX),
            margin: Sides {
                top: i32::MAX,
                right: i32::MIN,
                bottom: i32::MAX,
                left: i32::MIN,
            },
            ..panel
        };
        let (_, left) = arrange(Size::new(800, 600), &[absurd, absurd]);
        assert!(left.h >= 150, "{left:?}");
    }
}
