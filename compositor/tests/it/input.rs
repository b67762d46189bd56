//! Keys, pointer and touch; the desktop's own gestures.

use serde_json::json;
use wayland_client::Proxy;

use crate::{clients::Client, fixture::Desk};

const BLUE: u32 = 0xff00_00ff;
const LEFT: u32 = 0x110;
const RIGHT: u32 = 0x111;
const SUPER: u32 = 125;

#[test]
fn keys_go_to_the_focused_window_only() {
    let desk = Desk::two();
    let mut work = Client::connect(&desk, "work");
    let mut personal = Client::connect(&desk, "personal");
    work.window(200, 100, BLUE);
    personal.window(200, 100, BLUE);
    desk.test(json!({"op": "type", "text": "aB"}));
    personal.until("keys", |t| t.has("key 48 up"));
    for expected in ["key 30 down", "key 30 up", "key 42 down", "key 48 down"] {
        assert!(personal.told.has(expected), "{expected}");
    }
    assert!(work.sync());
    assert!(!work.told.log.iter().any(|l| l.starts_with("key ")));
    let w = desk.window_of("work").unwrap();
    desk.click(w.x + 5, w.y + 5);
    work.until("the click", |t| {
        t.has("press 0x110") && t.has("pointer enter 5,5")
    });
    desk.test(json!({"op": "type", "text": "c"}));
    work.until("keys", |t| t.has("key 46 up"));
    assert!(personal.sync());
    assert!(!personal.told.has("key 46 down"));
}

#[test]
fn a_title_bar_drag_moves_and_the_client_sees_none_of_it() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    client.window(200, 100, BLUE);
    let w = desk.window_of("work").unwrap();
    desk.pointer(w.x + 50, w.y - 10);
    desk.button(LEFT, true);
    desk.pointer(w.x + 150, w.y + 90);
    desk.button(LEFT, false);
    let moved = desk.window_of("work").unwrap();
    assert_eq!((moved.x, moved.y), (w.x + 100, w.y + 100));
    assert!(client.sync());
    assert!(!client.told.log.iter().any(|l| l.starts_with("press")));
}

#[test]
fn super_and_drag_moves_and_resizes() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let window = client.window(200, 100, BLUE);
    let w = desk.window_of("work").unwrap();
    desk.key(SUPER, true);
    desk.pointer(w.x + 150, w.y + 80);
    desk.button(LEFT, true);
    desk.pointer(w.x + 160, w.y + 100);
    desk.button(LEFT, false);
    let moved = desk.window_of("work").unwrap();
    assert_eq!((moved.x, moved.y), (w.x + 10, w.y + 20));
    desk.button(RIGHT, true);
    desk.pointer(w.x + 200, w.y + 130);
    assert!(client.sync());
    let key = window.toplevel.id().protocol_id();
    client.until("a new size", |t| {
        t.configures.get(&key) == Some(&(240, 130))
    });
    assert!(client.told.states[&key].contains(&3), "resizing");
    desk.button(RIGHT, false);
    desk.key(SUPER, false);
    client.show(&window.surface, 240, 130, BLUE);
    assert!(client.sync());
    let resized = desk.window_of("work").unwrap();
    assert_eq!((resized.x, resized.w, resized.h), (moved.x, 240, 130));
    assert!(!client.told.log.iter().any(|l| l.starts_with("press")));
}

#[test]
fn a_client_that_draws_late_keeps_the_size_that_it_was_dragged_to() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let window = client.window(200, 100, BLUE);
    let w = desk.window_of("work").unwrap();
    desk.pointer(w.x + 300, w.y + 300);
    desk.pointer(w.x + w.w + 1, w.y + w.h + 1);
    desk.button(LEFT, true);
    desk.pointer(w.x + w.w + 61, w.y + w.h + 41);
    // It has not drawn anything yet when the button is let go.
    desk.button(LEFT, false);
    assert!(client.sync());
    let key = window.toplevel.id().protocol_id();
    assert_eq!(client.told.configures.get(&key), Some(&(260, 140)));
    assert!(!client.told.states[&key].contains(&3), "still resizing");
    client.show(&window.surface, 260, 140, BLUE);
    assert!(client.sync());
    assert_eq!(client.told.configures.get(&key), Some(&(260, 140)));
    let resized = desk.window_of("work").unwrap();
    assert_eq!((resized.w, resized.h), (260, 140));
}

#[test]
fn a_drag_of_the_left_border_keeps_the_right_one() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let window = client.window(200, 100, BLUE);
    let w = desk.window_of("work").unwrap();
    desk.pointer(w.x + 300, w.y + 300);
    desk.pointer(w.x - 2, w.y + 50);
    desk.button(LEFT, true);
    desk.pointer(w.x + 48, w.y + 50);
    let key = window.toplevel.id().protocol_id();
    client.until("a new size", |t| {
        t.configures.get(&key) == Some(&(150, 100))
    });
    client.show(&window.surface, 150, 100, BLUE);
    assert!(client.sync());
    desk.button(LEFT, false);
    let resized = desk.window_of("work").unwrap();
    assert_eq!((resized.x, resized.x + resized.w), (w.x + 50, w.x + w.w));
}

#[test]
fn a_client_moves_its_window_only_while_the_user_holds_a_button_on_it() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let window = client.window(200, 100, BLUE);
    let w = desk.window_of("work").unwrap();
    // With a serial out of the air, and with a button that was released again: nothing.
    for round in 0..2 {
        desk.click(w.x + 10, w.y + 10);
        client.until("the click", move |t| {
            t.log.iter().filter(|l| *l == "release 0x110").count() > round
        });
        window.toplevel._move(
            &client.seat,
            if round == 0 {
                999_999
            } else {
                client.told.serial
            },
        );
        assert!(client.sync());
        desk.pointer(w.x + 110, w.y + 110);
        assert_eq!(desk.window_of("work").unwrap().x, w.x);
    }
    desk.pointer(w.x + 10, w.y + 10);
    desk.button(LEFT, true);
    client.until("the press", |t| {
        t.log.iter().filter(|l| *l == "press 0x110").count() == 3
    });
    window.toplevel._move(&client.seat, client.told.serial);
    assert!(client.sync());
    desk.pointer(w.x + 60, w.y + 30);
    desk.button(LEFT, false);
    let moved = desk.window_of("work").unwrap();
    assert_eq!((moved.x, moved.y), (w.x + 50, w.y + 20));
}

#[test]
fn the_close_button_and_super_q_ask_the_client_to_close() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    client.window(200, 100, BLUE);
    let w = desk.window_of("work").unwrap();
    let closes = |c: &Client| c.told.log.iter().filter(|l| *l == "close").count();
    desk.click(w.x + w.w - 12, w.y - 12);
    client.until("close", |t| t.has("close"));
    // Pressed there and released elsewhere: nothing.
    desk.pointer(w.x + w.w - 12, w.y - 12);
    desk.button(LEFT, true);
    desk.pointer(w.x + 20, w.y + 20);
    desk.button(LEFT, false);
    assert!(client.sync());
    assert_eq!(closes(&client), 1);
    desk.key(SUPER, true);
    desk.key(16, true);
    desk.key(16, false);
    desk.key(SUPER, false);
    client.until("close", |t| {
        t.log.iter().filter(|l| *l == "close").count() == 2
    });
    assert!(!client.told.has("key 16 down") && !client.told.has("key 16 up"));
}

#[test]
fn alt_tab_goes_through_the_windows() {
    let desk = Desk::two();
    let mut work = Client::connect(&desk, "work");
    let mut personal = Client::connect(&desk, "personal");
    work.window(100, 100, BLUE);
    personal.window(100, 100, BLUE);
    desk.key(56, true);
    desk.key(15, true);
    desk.key(15, false);
    desk.key(56, false);
    assert_eq!(desk.window_of("work").unwrap().all["focused"], true);
    assert!(work.sync());
    assert!(!work.told.has("key 15 down"));
}

#[test]
fn touch_and_scrolling_reach_the_client() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    client.window(200, 100, BLUE);
    let w = desk.window_of("work").unwrap();
    desk.test(json!({"op": "touch_down", "id": 0, "x": w.x + 7, "y": w.y + 8}));
    desk.test(json!({"op": "touch_motion", "id": 0, "x": w.x + 9, "y": w.y + 9}));
    desk.test(json!({"op": "touch_up", "id": 0}));
    client.until("touch", |t| t.has("touch up"));
    assert!(client.told.has("touch down 7,8") && client.told.has("touch 9,9"));
    desk.pointer(w.x + 5, w.y + 5);
    desk.test(json!({"op": "pointer_axis", "vertical": 15.0}));
    client.until("scrolling", |t| t.has("axis 15"));
}

#[test]
fn without_a_screen_of_our_own_there_are_no_terminals_to_go_to() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    client.window(200, 100, BLUE);
    for code in [29, 56, 60] {
        desk.key(code, true);
    }
    client.until("Ctrl+Alt+F2", |t| t.has("key 60 down"));
}

#[test]
fn strange_input_is_borne() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    client.window(200, 100, BLUE);
    for (x, y) in [(-1e300, 1e300), (1e18, -5.0), (799.999, 599.999)] {
        desk.test(json!({"op": "pointer_move", "x": x, "y": y}));
    }
    desk.key(u32::MAX, true);
    desk.key(760, true);
    desk.button(u32::MAX, true);
    desk.button(0, false);
    for id in [0, u32::MAX] {
        desk.test(json!({"op": "touch_up", "id": id}));
        desk.test(json!({"op": "touch_motion", "id": id, "x": 1e12, "y": -1e12}));
    }
    desk.test(json!({"op": "pointer_axis", "vertical": 1e300, "horizontal": -1e300}));
    assert_eq!(
        desk.try_test(json!({"op": "type", "text": "é"}))["ok"],
        false
    );
    assert!(client.sync());
    desk.picture();
}
