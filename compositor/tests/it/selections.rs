//! Every domain has a clipboard of its own.

use serde_json::json;

use crate::{
    clients::{Client, pasted},
    fixture::Desk,
};

const BLUE: u32 = 0xff00_00ff;

fn focus(desk: &Desk, domain: &str) {
    let w = desk.window_of(domain).unwrap();
    desk.click(w.x + w.w / 2, w.y + w.h / 2);
}

#[test]
fn two_domains_have_two_clipboards() {
    let desk = Desk::two();
    let mut work = Client::connect(&desk, "work");
    let mut personal = Client::connect(&desk, "personal");
    work.window(100, 100, BLUE);
    personal.window(100, 100, BLUE);
    focus(&desk, "work");
    work.until("focus", |t| t.has("press 0x110"));
    work.copy(b"work's secret");
    focus(&desk, "personal");
    personal.until("focus", |t| t.has("press 0x110"));
    assert!(
        personal.told.clipboard.is_none(),
        "personal sees that work has copied"
    );
    assert!(personal.told.offers.is_empty());
    personal.copy(b"personal's own");
    focus(&desk, "work");
    let mut third = Client::connect(&desk, "work");
    third.window(100, 100, BLUE);
    third.until("the clipboard", |t| t.clipboard.is_some());
    assert_eq!(pasted(&mut work, &mut third), b"work's secret");
    assert!(!work.told.has("cancelled"));
    let mut fourth = Client::connect(&desk, "personal");
    fourth.window(100, 100, BLUE);
    fourth.until("the clipboard", |t| t.clipboard.is_some());
    assert_eq!(pasted(&mut personal, &mut fourth), b"personal's own");
}

#[test]
fn eight_mebibytes_arrive_whole() {
    let desk = Desk::two();
    let mut from = Client::connect(&desk, "work");
    from.window(100, 100, BLUE);
    from.until("focus", |t| t.has("keyboard enter"));
    let data: Vec<u8> = (0..8 << 20).map(|i: u32| (i % 251) as u8).collect();
    from.copy(&data);
    let mut into = Client::connect(&desk, "work");
    into.window(100, 100, BLUE);
    into.until("the clipboard", |t| t.clipboard.is_some());
    assert!(pasted(&mut from, &mut into) == data);
}

#[test]
fn only_who_has_the_keyboard_may_copy() {
    let desk = Desk::two();
    let mut user = Client::connect(&desk, "work");
    let mut sneak = Client::connect(&desk, "work");
    sneak.window(100, 100, BLUE);
    user.window(100, 100, BLUE);
    user.until("focus", |t| t.has("keyboard enter"));
    user.copy(b"good");
    sneak.copy(b"evil");
    sneak.until("refused", |t| t.has("cancelled"));
    let mut into = Client::connect(&desk, "work");
    into.window(100, 100, BLUE);
    into.until("the clipboard", |t| t.clipboard.is_some());
    assert_eq!(pasted(&mut user, &mut into), b"good");
}

#[test]
fn a_source_that_dies_empties_the_clipboard() {
    let desk = Desk::two();
    let mut into = Client::connect(&desk, "work");
    into.window(100, 100, BLUE);
    {
        let mut from = Client::connect(&desk, "work");
        from.window(100, 100, BLUE);
        from.until("focus", |t| t.has("keyboard enter"));
        from.copy(b"gone soon");
    }
    into.until("the keyboard again", |t| {
        t.log.iter().filter(|l| *l == "keyboard enter").count() == 2
    });
    assert!(into.sync());
    assert!(into.told.clipboard.is_none());
}

#[test]
fn the_primary_selection_stays_in_its_domain_too() {
    let desk = Desk::two();
    let mut work = Client::connect(&desk, "work");
    work.window(100, 100, BLUE);
    work.until("focus", |t| t.has("keyboard enter"));
    work.copy_primary(b"selected");
    let mut personal = Client::connect(&desk, "personal");
    personal.window(100, 100, BLUE);
    personal.until("focus", |t| t.has("keyboard enter"));
    assert!(personal.told.primary.is_none());
    let mut other = Client::connect(&desk, "work");
    other.window(100, 100, BLUE);
    other.until("the selection", |t| t.primary.is_some());
}

#[test]
fn a_removed_domain_leaves_no_clipboard_behind() {
    let desk = Desk::two();
    let mut work = Client::connect(&desk, "work");
    work.window(100, 100, BLUE);
    work.until("focus", |t| t.has("keyboard enter"));
    work.copy(b"old");
    desk.control(json!({"op": "remove_domain", "name": "work"}));
    desk.add_domain("work", "red", "#cc0000");
    let mut again = Client::connect(&desk, "work");
    again.window(100, 100, BLUE);
    again.until("focus", |t| t.has("keyboard enter"));
    assert!(again.told.clipboard.is_none());
}
