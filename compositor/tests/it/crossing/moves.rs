//! What moves where, who hears of it, and what the user is told.

use std::time::Duration;

use serde_json::json;
use wayland_protocols_wlr::layer_shell::v1::client::{
    zwlr_layer_shell_v1::Layer,
    zwlr_layer_surface_v1::{Anchor, KeyboardInteractivity},
};

use super::{BLUE, CTRL, KEY_C, KEY_V, NOTICE, SHIFT, TEXT_TYPES, Three, assert_saw_nothing, read};
use crate::{
    clients::{Client, Panel},
    fixture::RED,
};

#[test]
fn text_crosses_once_and_nobody_else_sees_anything() {
    let mut three = Three::new();
    three.work.copy("grün".as_bytes());
    assert_eq!(three.copy_across(), "copied 5 bytes of text from work");
    for domain in ["other", "personal"] {
        three.focus(domain);
    }
    assert_saw_nothing(&mut three.personal);
    assert_saw_nothing(&mut three.watcher);

    let (asked, notice) = three.paste_across("personal", true);
    assert_eq!(
        (&asked["source"], &asked["target"]),
        (&json!("work"), &json!("personal"))
    );
    assert_eq!(
        (&asked["kind"], &asked["bytes"]),
        (&json!("text"), &json!(5))
    );
    assert_eq!(notice, "pasted 5 bytes of text from work into personal");
    three
        .personal
        .until("the clipboard", |t| t.clipboard.is_some());
    let types: Vec<_> = three.personal.told.offers.values().collect();
    assert_eq!(types, [&TEXT_TYPES]);
    for mime in TEXT_TYPES {
        let file = three.personal.paste_as(mime).unwrap();
        assert_eq!(read(file), "grün".as_bytes(), "{mime}");
    }
    // Only what was offered is given.
    assert_eq!(read(three.personal.paste_as("text/html").unwrap()), b"");
    // Another client of the domain can paste, too.
    let mut second = Client::connect(&three.desk, "personal");
    second.window(50, 50, BLUE);
    second.until("the clipboard", |t| t.clipboard.is_some());
    assert_eq!(read(second.paste().unwrap()), "grün".as_bytes());

    // It is gone from the desktop: it cannot be pasted again.
    three.focus("other");
    three.desk.chord(&[CTRL, SHIFT, KEY_V]);
    assert!(three.notice().starts_with("not pasted: nothing was copied"));
    assert_saw_nothing(&mut three.watcher);
    // Its source still has it, and was asked once.
    assert!(three.work.sync());
    assert!(!three.work.told.has("cancelled"));
    assert_eq!(
        three.work.told.log.iter().filter(|l| *l == "send").count(),
        1
    );
}

#[test]
fn what_was_pasted_goes_when_its_new_domain_copies() {
    let mut three = Three::new();
    three.work.copy(b"from work");
    three.copy_across();
    three.focus("personal");
    three.personal.copy(b"before");
    three.paste_across("personal", true);
    three
        .personal
        .until("its own is replaced", |t| t.has("cancelled"));
    three
        .personal
        .until("the clipboard", |t| t.clipboard.is_some());
    let old = three.personal.told.clipboard.clone().unwrap();
    three.personal.copy(b"after");
    three
        .personal
        .until("its own", |t| t.clipboard.as_ref() != Some(&old));
    three.personal.told.clipboard = Some(old);
    assert_eq!(read(three.personal.paste().unwrap()), b"");
}

#[test]
fn a_denied_paste_changes_nothing() {
    let mut three = Three::new();
    three.work.copy(b"secret");
    three.copy_across();
    three.focus("personal");
    three.personal.copy(b"own");
    let (_, notice) = three.paste_across("personal", false);
    assert_eq!(
        notice,
        "not pasted from work into personal: the rule r:1 denies it"
    );
    assert!(three.personal.sync());
    assert!(!three.personal.told.has("cancelled"));
    // It may still go where it is allowed.
    let (asked, notice) = three.paste_across("other", true);
    assert_eq!(notice, "pasted 6 bytes of text from work into other");
    let again = json!({"op": "answer_paste", "id": asked["id"], "allow": true});
    assert_eq!(three.desk.control(again)["ok"], false);
}

#[test]
fn sixteen_mebibytes_arrive_whole_and_one_byte_more_does_not() {
    let mut three = Three::new();
    let mut data: Vec<u8> = (0..16 << 20).map(|i: u32| b'!' + (i % 89) as u8).collect();
    three
        .work
        .copy_as(&["UTF8_STRING", "text/plain;charset=utf-8"], &data);
    assert_eq!(three.copy_across(), "copied 16.0 MiB of text from work");
    assert!(three.work.told.has("send text/plain;charset=utf-8"));
    three.paste_across("personal", true);
    three
        .personal
        .until("the clipboard", |t| t.clipboard.is_some());
    assert!(read(three.personal.paste().unwrap()) == data);
    data.push(b'!');
    three.work.told.log.clear();
    three.focus("work");
    three.work.copy(&data);
    assert_eq!(
        three.copy_across(),
        "not copied: work offers more than 16.0 MiB"
    );
}

#[test]
fn half_a_picture_is_not_copied() {
    let mut bytes = Vec::new();
    let mut writer = png::Encoder::new(&mut bytes, 64, 48)
        .write_header()
        .unwrap();
    writer.write_image_data(&[7; 64 * 48]).unwrap();
    writer.finish().unwrap();

    let mut three = Three::new();
    three.work.copy_as(&["text/html", "image/png"], &bytes);
    let notice = three.copy_across();
    assert!(notice.starts_with("copied an image of ") && notice.ends_with(" from work"));

    bytes.truncate(bytes.len() - 1);
    three.work.told.log.clear();
    three.work.copy_as(&["image/png"], &bytes);
    let notice = three.copy_across();
    assert!(
        notice.ends_with("it is no PNG picture that may cross: it is cut off"),
        "{notice}"
    );
}

#[test]
fn the_keys_are_the_desktops() {
    let mut three = Three::new();
    three.work.copy(b"x");
    three.copy_across();
    three.focus("personal");
    three.paste_across("personal", true);
    for client in [&mut three.work, &mut three.personal] {
        assert!(client.sync());
        assert!(client.told.has(&format!("key {CTRL} down")));
        for code in [KEY_C, KEY_V] {
            assert!(
                !client
                    .told
                    .log
                    .iter()
                    .any(|l| l.starts_with(&format!("key {code} ")))
            );
        }
    }
    // Without Shift they are the client's.
    three.desk.chord(&[CTRL, KEY_C]);
    three
        .personal
        .until("its own key", |t| t.has(&format!("key {KEY_C} down")));
}

#[test]
fn a_domain_pastes_its_own_without_being_asked_and_what_came_may_go_on() {
    let mut three = Three::new();
    three.work.copy(b"x");
    three.copy_across();
    three.desk.chord(&[CTRL, SHIFT, KEY_V]);
    assert_eq!(three.notice(), "pasted 1 byte of text from work into work");
    // What was pasted is that domain's clipboard now, and is copied from there.
    three.desk.chord(&[CTRL, SHIFT, KEY_C]);
    assert_eq!(three.notice(), "copied 1 byte of text from work");
    let (_, notice) = three.paste_across("personal", true);
    assert_eq!(notice, "pasted 1 byte of text from work into personal");
}

#[test]
fn it_stays_when_its_domain_ends_and_goes_with_the_target() {
    let mut three = Three::new();
    three.work.copy(b"last words");
    three.copy_across();
    three
        .desk
        .control(json!({"op": "remove_domain", "name": "work"}));
    let (_, notice) = three.paste_across("personal", true);
    assert_eq!(notice, "pasted 10 bytes of text from work into personal");
    three
        .desk
        .control(json!({"op": "remove_domain", "name": "personal"}));
    three.desk.add_domain("personal", "green", "#73d216");
    let mut again = Client::connect(&three.desk, "personal");
    again.window(50, 50, BLUE);
    again.until("the keyboard", |t| t.has("keyboard enter"));
    assert_saw_nothing(&mut again);
}

#[test]
fn the_desktops_own_programs_take_no_part() {
    let mut three = Three::new();
    three.work.copy(b"x");
    three.copy_across();
    let mut host = Client::connect(&three.desk, "host");
    let menu = Panel {
        layer: Layer::Overlay,
        anchor: Anchor::empty(),
        size: (300, 200),
        zone: 0,
        keyboard: KeyboardInteractivity::Exclusive,
    };
    host.panel(&menu, 0xffff_00ff);
    host.until("the keyboard", |t| t.has("keyboard enter"));
    three.desk.chord(&[CTRL, SHIFT, KEY_C]);
    assert_eq!(
        three.notice(),
        "not copied: the desktop's own programs take no part"
    );
    three.desk.chord(&[CTRL, SHIFT, KEY_V]);
    assert_eq!(
        three.notice(),
        "not pasted: the desktop's own programs take no part"
    );
    assert_saw_nothing(&mut host);
    drop(host);
    three.work.until("the keyboard again", |t| {
        t.log.iter().filter(|l| *l == "keyboard enter").count() >= 2
    });
    let (_, notice) = three.paste_across("personal", true);
    assert!(notice.starts_with("pasted"));
}

#[test]
fn a_notice_is_seen_above_everything_and_goes_by_itself() {
    let mut three = Three::new();
    // A window over the whole desktop.
    let big = three.work.window(780, 560, 0xffff_00ff);
    three.work.until("the window", |t| t.has("keyboard enter"));
    assert_eq!(three.desk.picture().count(NOTICE), 0);
    three.work.copy(b"x");
    three.desk.chord(&[CTRL, SHIFT, KEY_C]);
    three.work.until("somebody pastes", |t| t.has("send"));
    assert_eq!(three.notice(), "copied 1 byte of text from work");
    let picture = three.desk.picture();
    assert!(picture.count(NOTICE) > 3000, "{}", picture.count(NOTICE));
    // The domain's name on its colour, in the middle of the lower edge.
    let reds = (250..550).filter(|x| picture.at(*x, 564) == RED).count();
    assert!(reds > 30, "{reds}");
    // Whatever the client draws.
    three.work.show(&big.surface, 780, 560, BLUE);
    assert!(three.work.sync());
    assert!(three.desk.picture().count(NOTICE) > 3000);
    let pictures = || three.desk.test(json!({"op": "stats"}))["pictures"].clone();
    three.desk.wait("it goes", || {
        (three.desk.picture().count(NOTICE) == 0).then_some(())
    });
    // Nothing is drawn any more.
    let before = pictures();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(pictures(), before);
}

#[test]
fn files_are_sent_by_their_domain_and_pasted_under_their_new_names() {
    const COPIED: &str = "x-special/gnome-copied-files";
    let mut three = Three::new();
    let list = b"file:///home/user/a%20b\r\nfile:///home/user/folder\r\n";
    three
        .work
        .copy_as(&[COPIED, "text/uri-list", "UTF8_STRING"], list);
    assert_eq!(three.copy_across(), "copied files from work");
    assert!(three.work.told.has("send text/uri-list"));
    three.focus("personal");
    three.desk.chord(&[CTRL, SHIFT, KEY_V]);
    let asked = three.event("paste");
    assert_eq!(asked["kind"], "files");
    let names = json!(["file:///home/user/a%20b", "file:///home/user/folder"]);
    assert_eq!(asked["files"], names);
    // Longer than the manager may take for anything else, and a second paste changes nothing.
    three.desk.chord(&[CTRL, SHIFT, KEY_V]);
    assert!(three.notice().contains("waits for an answer"));
    assert_saw_nothing(&mut three.watcher);
    let landed = [
        "file:///home/user/Incoming/work/a%20b",
        "file:///home/user/Incoming/work/folder",
    ];
    let answer = json!({"op": "answer_paste", "id": asked["id"], "allow": true, "files": landed});
    assert_eq!(three.desk.control(answer)["ok"], true);
    assert_eq!(three.notice(), "pasted files from work into personal");
    three
        .personal
        .until("the clipboard", |t| t.clipboard.is_some());
    let pasted = three.personal.paste_as("text/uri-list").unwrap();
    assert_eq!(
        read(pasted),
        format!("{}\r\n{}\r\n", landed[0], landed[1]).as_bytes()
    );
    let pasted = three.personal.paste_as(COPIED).unwrap();
    assert_eq!(
        read(pasted),
        format!("copy\n{}\n{}", landed[0], landed[1]).as_bytes()
    );
    assert_saw_nothing(&mut three.watcher);
}

#[test]
fn files_that_are_not_the_domains_own_are_not_copied() {
    let mut three = Three::new();
    three
        .work
        .copy_as(&["text/uri-list"], b"file:///a\r\nsftp://b/c\r\n");
    let why = "not copied from work: not everything in it is a file of its own";
    assert_eq!(three.copy_across(), why);
    // A link that has a text is copied as one.
    let mut three = Three::new();
    three
        .work
        .copy_as(&["text/uri-list", "text/plain"], b"https://a.example/");
    three.focus("work");
    three.desk.chord(&[CTRL, SHIFT, KEY_C]);
    // It is asked twice.
    three
        .work
        .until("the second question", |t| t.has("send text/plain"));
    assert_eq!(three.notice(), "copied 18 bytes of text from work");
}
