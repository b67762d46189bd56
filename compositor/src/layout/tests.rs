use proptest::prelude::*;

use super::*;

fn desktop() -> Layout {
    Layout::new(Size::new(1280, 800))
}

#[test]
fn windows_are_placed_without_covering_each_other_where_there_is_room() {
    let mut layout = desktop();
    for id in 0..4 {
        layout.insert(WindowId(id), Size::new(500, 300));
    }
    let outers: Vec<_> = layout.stack().map(Placed::outer).collect();
    for (i, a) in outers.iter().enumerate() {
        for b in outers.iter().skip(i + 1) {
            assert!(!a.overlaps(b), "{a:?} covers {b:?}");
        }
    }
    layout.insert(WindowId(9), Size::new(900, 500));
    layout.verify_invariants().unwrap();
}

#[test]
fn a_drag_of_the_left_edge_keeps_the_right_edge() {
    let mut layout = desktop();
    let id = WindowId(1);
    layout.insert(id, Size::new(400, 300));
    let right = layout.get(id).unwrap().client.right();
    let left_edge = Edges {
        left: true,
        ..Edges::default()
    };
    assert!(layout.begin_resize(id, left_edge, Point::new(10, 100)));
    let change = layout.drag_to(Point::new(110, 100));
    assert_eq!(change, Some(Change::Resize(id, Size::new(300, 300))));
    layout.committed(id, Size::new(304, 300));
    assert_eq!(layout.get(id).unwrap().client.right(), right);
}

#[test]
fn fullscreen_stays_inside_the_border_and_restores() {
    let mut layout = desktop();
    let id = WindowId(1);
    layout.insert(id, Size::new(400, 300));
    let before = layout.get(id).unwrap().client;
    let size = layout.set_mode(id, Mode::Fullscreen).unwrap();
    assert_eq!(
        size,
        Size::new(1280 - 2 * BORDER_PX, 800 - 2 * BORDER_PX - TITLE_PX)
    );
    // A client that draws more than the desktop is cut.
    layout.committed(id, Size::new(4000, 4000));
    let outer = layout.get(id).unwrap().outer();
    assert_eq!(outer, Rect::new(0, 0, 1280, 800));
    assert_eq!(
        layout.set_mode(id, Mode::Floating),
        Some(Size::new(400, 300))
    );
    layout.committed(id, Size::new(400, 300));
    assert_eq!(layout.get(id).unwrap().client, before);
}

#[test]
fn alt_tab_goes_through_all_windows_and_round() {
    let mut layout = desktop();
    for id in 0..3 {
        layout.insert(WindowId(id), Size::new(200, 100));
    }
    assert_eq!(layout.cycle(), Some(WindowId(1)));
    assert_eq!(layout.cycle(), Some(WindowId(0)));
    assert_eq!(layout.cycle(), Some(WindowId(2)));
    layout.end_cycle();
    assert_eq!(layout.cycle(), Some(WindowId(0)));
}

#[test]
fn the_highest_window_is_hit_first() {
    let mut layout = Layout::new(Size::new(300, 300));
    layout.insert(WindowId(1), Size::new(250, 200));
    layout.insert(WindowId(2), Size::new(250, 200));
    let top = layout.get(WindowId(2)).unwrap().client;
    assert_eq!(
        layout.hit(Point::new(top.x + 5, top.y + 5)),
        Some((WindowId(2), Part::Client))
    );
    let close = layout.get(WindowId(2)).unwrap().close_button();
    assert_eq!(
        layout.hit(Point::new(close.x + 2, close.y + 2)),
        Some((WindowId(2), Part::Close))
    );
}

#[test]
fn a_window_in_view_stays_in_view_when_a_panel_or_a_smaller_screen_comes() {
    let mut layout = desktop();
    let id = WindowId(1);
    layout.insert(id, Size::new(400, 300));
    let panel = Rect::new(0, 40, 1280, 760);
    layout.set_area(Size::new(1280, 800), panel);
    let outer = layout.get(id).unwrap().outer();
    assert_eq!(panel.intersection(&outer), Some(outer));
    assert_eq!(layout.bounds_of(id), Size::new(1272, 728));
    let small = Rect::new(0, 0, 420, 360);
    layout.set_area(small.size(), small);
    let outer = layout.get(id).unwrap().outer();
    assert_eq!(small.intersection(&outer), Some(outer));
    // Nothing is left for windows: not believed.
    layout.set_area(small.size(), Rect::new(0, 900, 10, 10));
    assert_eq!(layout.area(), small);
    layout.verify_invariants().unwrap();
}

/// A small output to the right of the first one.
fn two_outputs() -> (Layout, Rect) {
    let mut layout = desktop();
    let other = Rect::new(1280, 0, 800, 600);
    assert_eq!(layout.set_others(vec![other]), []);
    assert_eq!(layout.screen(), Size::new(2080, 800));
    assert_eq!(layout.main(), Size::new(1280, 800));
    (layout, other)
}

#[test]
fn windows_go_from_one_output_to_the_other() {
    let (mut layout, other) = two_outputs();
    let id = WindowId(1);
    layout.insert(id, Size::new(400, 300));
    assert_eq!(layout.area_of(id), layout.area());
    let at = layout.get(id).unwrap().title_bar();
    let at = Point::new(at.x + 10, at.y + 10);
    layout.begin_move(id, at);
    // Over the edge between them there is nothing that holds it.
    for x in (0..1400).step_by(7) {
        layout.drag_to(Point::new(at.x + x, at.y + 100));
        let client = layout.get(id).unwrap().client;
        assert_eq!(
            (client.x, client.y),
            (at.x + x - 10, at.y + 100 - 10 + TITLE_PX)
        );
    }
    layout.end_drag();
    assert_eq!(layout.area_of(id), other);
    assert_eq!(layout.bounds_of(id), Size::new(792, 568));
    // It fills the output that it is on, and comes back to where it was.
    let before = layout.get(id).unwrap().client;
    assert_eq!(
        layout.set_mode(id, Mode::Maximised),
        Some(Size::new(792, 568))
    );
    layout.committed(id, Size::new(792, 568));
    assert_eq!(layout.get(id).unwrap().outer(), other);
    layout.set_mode(id, Mode::Floating);
    layout.committed(id, before.size());
    assert_eq!(layout.get(id).unwrap().client, before);
    // The other one is lower: a title bar below its end could not be seen.
    layout.begin_move(id, Point::new(1500, 100));
    layout.drag_to(Point::new(1500, 5000));
    assert!(layout.get(id).unwrap().title_bar().bottom() <= other.bottom());
    layout.verify_invariants().unwrap();
}

#[test]
fn windows_of_an_output_that_goes_come_to_one_that_stays() {
    let (mut layout, other) = two_outputs();
    let (floating, filling, here) = (WindowId(1), WindowId(2), WindowId(3));
    for id in [floating, filling, here] {
        layout.insert(id, Size::new(300, 200));
    }
    let mine = layout.get(here).unwrap().client;
    for id in [floating, filling] {
        let at = layout.get(id).unwrap().title_bar();
        layout.begin_move(id, Point::new(at.x, at.y));
        layout.drag_to(Point::new(1700, 300));
        layout.end_drag();
        assert_eq!(layout.area_of(id), other);
    }
    layout.set_mode(filling, Mode::Maximised);
    let resized = layout.set_others(Vec::new());
    assert_eq!(resized, [(filling, Size::new(1272, 768))]);
    let area = layout.area();
    let outer = layout.get(floating).unwrap().outer();
    assert_eq!(area.intersection(&outer), Some(outer));
    assert_eq!(layout.get(here).unwrap().client, mine);
    layout.verify_invariants().unwrap();
}

#[test]
fn the_pointer_is_where_an_output_is() {
    let (layout, _) = two_outputs();
    for (at, shown) in [
        ((5, 5), (5, 5)),
        ((1279, 799), (1279, 799)),
        ((1280, 599), (1280, 599)),
        ((-4, 900), (0, 799)),
        ((1500, 700), (1500, 599)),
        ((1285, 795), (1279, 795)),
        ((9000, 20), (2079, 20)),
        ((i32::MAX, i32::MIN), (2079, 0)),
    ] {
        let shown_at = layout.shown(Point::new(at.0, at.1));
        assert_eq!((shown_at.x, shown_at.y), shown, "{at:?}");
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u64, i32, i32),
    Remove(u64),
    Focus(u64),
    Cycle,
    EndCycle,
    Commit(u64, i32, i32),
    Limits(u64, i32, i32, i32, i32),
    Mode(u64, u8),
    Area(i32, i32),
    Panel(i32, i32, i32, i32),
    Others(Vec<(i32, i32, i32)>),
    Move(u64, i32, i32),
    Resize(u64, u8, i32, i32),
    Drag(i32, i32),
    EndDrag,
}

fn any_length() -> impl Strategy<Value = i32> {
    prop_oneof![8 => -50..2000i32, 1 => Just(i32::MAX), 1 => Just(i32::MIN), 1 => Just(0)]
}

fn op() -> impl Strategy<Value = Op> {
    let id = 0..6u64;
    let len = any_length;
    prop_oneof![
        (id.clone(), len(), len()).prop_map(|(i, w, h)| Op::Insert(i, w, h)),
        id.clone().prop_map(Op::Remove),
        id.clone().prop_map(Op::Focus),
        Just(Op::Cycle),
        Just(Op::EndCycle),
        (id.clone(), len(), len()).prop_map(|(i, w, h)| Op::Commit(i, w, h)),
        (id.clone(), len(), len(), len(), len())
            .prop_map(|(i, a, b, c, d)| Op::Limits(i, a, b, c, d)),
        (id.clone(), 0..3u8).prop_map(|(i, m)| Op::Mode(i, m)),
        (1..3000i32, 1..3000i32).prop_map(|(w, h)| Op::Area(w, h)),
        (len(), len(), len(), len()).prop_map(|(x, y, w, h)| Op::Panel(x, y, w, h)),
        prop::collection::vec((0..3000i32, 1..3000i32, 1..3000i32), 0..3).prop_map(Op::Others),
        (id.clone(), len(), len()).prop_map(|(i, x, y)| Op::Move(i, x, y)),
        (id, 0..16u8, len(), len()).prop_map(|(i, e, x, y)| Op::Resize(i, e, x, y)),
        (len(), len()).prop_map(|(x, y)| Op::Drag(x, y)),
        Just(Op::EndDrag),
    ]
}

fn apply(layout: &mut Layout, op: Op) {
    match op {
        Op::Insert(i, w, h) => layout.insert(WindowId(i), Size::new(w, h)),
        Op::Remove(i) => layout.remove(WindowId(i)),
        Op::Focus(i) => layout.focus(WindowId(i)),
        Op::Cycle => drop(layout.cycle()),
        Op::EndCycle => layout.end_cycle(),
        Op::Commit(i, w, h) => layout.committed(WindowId(i), Size::new(w, h)),
        Op::Limits(i, a, b, c, d) => {
            layout.set_limits(WindowId(i), Size::new(a, b), Size::new(c, d));
        }
        Op::Mode(i, m) => {
            let mode = [Mode::Floating, Mode::Maximised, Mode::Fullscreen][usize::from(m)];
            layout.set_mode(WindowId(i), mode);
        }
        Op::Area(w, h) => drop(layout.set_area(Size::new(w, h), Rect::new(0, 0, w, h))),
        Op::Panel(x, y, w, h) => drop(layout.set_area(layout.main(), Rect::new(x, y, w, h))),
        Op::Others(others) => {
            let mut x = layout.main().w;
            let mut place = |(gap, w, h)| {
                let rect = Rect::new(x + gap, 0, w, h);
                x = rect.right();
                rect
            };
            let others = others.into_iter().map(&mut place).collect();
            layout.set_others(others);
        }
        Op::Move(i, x, y) => drop(layout.begin_move(WindowId(i), Point::new(x, y))),
        Op::Resize(i, e, x, y) => {
            let edges = Edges {
                left: e & 1 != 0,
                right: e & 2 != 0,
                top: e & 4 != 0,
                bottom: e & 8 != 0,
            };
            layout.begin_resize(WindowId(i), edges, Point::new(x, y));
        }
        Op::Drag(x, y) => {
            if let Some(Change::Resize(id, size)) = layout.drag_to(Point::new(x, y)) {
                layout.committed(id, size);
            }
        }
        Op::EndDrag => drop(layout.end_drag()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_sequence_of_operations_breaks_the_desktop(ops in prop::collection::vec(op(), 1..60)) {
        let mut layout = desktop();
        for op in ops {
            let shown = format!("{op:?}");
            apply(&mut layout, op);
            if let Err(problem) = layout.verify_invariants() {
                panic!("after {shown}: {problem}");
            }
        }
    }
}
