//! What a target sees, by the answers of the manager.

use serde_json::json;
use wayland_client::protocol::wl_data_device_manager::DndAction;

use super::{FORBIDDEN, LEFT, LIT, TEXT_TYPES, Two};
use crate::fixture::Desk;

#[test]
fn the_target_sees_nothing_until_the_yes_and_then_a_whole_drag() {
    let mut two = Two::new();
    two.begin(&["text/html", "text/plain"], b"dragged");
    let asked = two.over();
    assert_eq!(
        (&asked["source"], &asked["target"], &asked["kind"]),
        (&json!("work"), &json!("personal"), &json!("text"))
    );
    assert_eq!(two.desk.picture().count(LIT), 0);
    two.answer_over(&asked, true);
    assert!(two.desk.picture().count(LIT) > 2000);
    assert_eq!(two.desk.picture().count(FORBIDDEN), 0);
    two.saw_nothing();
    assert!(two.work.sync());
    assert!(
        !two.work.told.has("send"),
        "it was read before it was dropped"
    );
    two.desk.button(LEFT, false);
    two.work.until("it is read", |t| t.has("send text/plain"));
    let asked = two.event("drop");
    assert_eq!(
        (&asked["kind"], &asked["bytes"]),
        (&json!("text"), &json!(7))
    );
    assert_eq!(two.desk.picture().count(LIT), 0);
    two.saw_nothing();
    two.answer(&asked, json!({"allow": true}));
    assert_eq!(two.take("text/plain"), b"dragged");
    assert_eq!(two.offered(), TEXT_TYPES);
    two.work
        .until("the end", |t| t.has("dropped") && t.has("finished"));
    assert!(!two.work.told.has("cancelled"));
    assert_eq!(
        two.notice(),
        "dropped 7 bytes of text from work into personal"
    );
    // It is nobody's clipboard.
    assert!(two.personal.told.clipboard.is_none());
}

#[test]
fn after_a_no_the_target_has_seen_nothing() {
    let mut two = Two::new();
    let asked = two.dropped(&["text/plain"], b"secret");
    two.answer(
        &asked,
        json!({"allow": false, "reason": "refused by the user"}),
    );
    two.work.until("the end", |t| t.has("cancelled"));
    assert_eq!(
        two.notice(),
        "not dropped from work into personal: refused by the user"
    );
    two.saw_nothing();
    let late = json!({"op": "answer_drop", "id": asked["id"], "allow": true});
    assert_eq!(two.desk.control(late)["ok"], false);
    two.saw_nothing();
}

#[test]
fn a_forbidden_target_is_marked_and_nothing_is_read() {
    let mut two = Two::new();
    two.begin(&["text/plain"], b"secret");
    let asked = two.over();
    two.answer_over(&asked, false);
    let picture = two.desk.picture();
    assert!(picture.count(FORBIDDEN) > 100);
    assert_eq!(picture.count(LIT), 0);
    // One question is enough, however often it comes back.
    let work = two.desk.window_of("work").unwrap();
    two.desk.pointer(work.x + 5, work.y + 5);
    assert_eq!(two.desk.picture().count(FORBIDDEN), 0);
    two.move_over();
    two.desk.button(LEFT, false);
    two.work.until("the end", |t| t.has("cancelled"));
    assert_eq!(
        two.notice(),
        "not dropped from work into personal: the rule r:1 denies it"
    );
    assert!(!two.work.told.has("send") && !two.work.told.has("dropped"));
    two.saw_nothing();
}

#[test]
fn files_are_the_targets_own_when_it_sees_them() {
    let mut two = Two::new();
    let list = b"file:///home/user/a%20b\r\nfile:///home/user/folder\r\n";
    let asked = two.dropped(&["text/plain", "text/uri-list"], list);
    assert!(two.work.told.has("send text/uri-list"));
    assert_eq!(asked["kind"], "files");
    let files = json!(["file:///home/user/a%20b", "file:///home/user/folder"]);
    assert_eq!(asked["files"], files);
    two.saw_nothing();
    let landed = json!(["file:///home/user/Incoming/work/a%20b"]);
    two.answer(&asked, json!({"allow": true, "files": landed}));
    let data = two.take("text/uri-list");
    assert_eq!(data, b"file:///home/user/Incoming/work/a%20b\r\n");
    assert_eq!(two.offered(), ["text/uri-list"]);
    two.work.until("the end", |t| t.has("finished"));
    assert_eq!(two.notice(), "dropped files from work into personal");
}

#[test]
fn a_list_without_files_is_taken_as_text() {
    let mut two = Two::new();
    two.begin(&["text/uri-list", "text/plain"], b"https://a.example/\r\n");
    let asked = two.over();
    two.answer_over(&asked, true);
    two.desk.button(LEFT, false);
    two.work
        .until("the second question", |t| t.has("send text/plain"));
    let asked = two.event("drop");
    assert_eq!(
        (&asked["kind"], &asked["bytes"]),
        (&json!("text"), &json!(20))
    );
}

#[test]
fn files_that_cannot_be_handed_on_are_told_of() {
    let mut two = Two::new();
    let asked = two.dropped(&["text/uri-list"], b"file:///a\r\n");
    two.answer(&asked, json!({"allow": true}));
    assert_eq!(
        two.notice(),
        "the files from work are in ~/Incoming/work of personal, but cannot be handed to its window"
    );
    two.work.until("the end", |t| t.has("finished"));

    let asked = two.dropped(&["text/uri-list"], b"file:///a\r\n");
    two.target.toplevel.destroy();
    two.target.xdg.destroy();
    two.target.surface.destroy();
    two.saw_nothing();
    let files = json!(["file:///home/user/Incoming/work/a"]);
    two.answer(&asked, json!({"allow": true, "files": files}));
    assert_eq!(
        two.notice(),
        "the files from work are in ~/Incoming/work of personal, but its window is gone"
    );
    two.saw_nothing();
}

#[test]
fn escape_ends_a_drag() {
    let mut two = Two::new();
    two.begin(&["text/plain"], b"x");
    let asked = two.over();
    two.desk.key(1, true);
    two.work.until("the end", |t| t.has("cancelled"));
    let late = json!({"op": "answer_drag_over", "id": asked["id"], "allow": true});
    assert_eq!(two.desk.control(late)["ok"], false);
    two.desk.key(1, false);
    // The press that began it begins no other one.
    two.work.told.log.clear();
    let again = two.work.data_manager.create_data_source(&two.work.qh, ());
    again.offer("text/plain".into());
    let serial = two.work.told.serial;
    let surface = &two.window.surface;
    two.work
        .device
        .start_drag(Some(&again), surface, None, serial);
    two.work.until("it is refused", |t| t.has("cancelled"));
    two.desk.button(LEFT, false);
    two.saw_nothing();
    assert!(!two.personal.told.has("release 0x110"));
    assert!(!two.work.told.has("send"));
    // Afterwards everything is as before.
    let asked = two.dropped(&["text/plain"], b"again");
    assert_eq!(asked["bytes"], 5);
}

#[test]
fn what_may_not_be_copied_or_is_unknown_goes_nowhere() {
    let mut two = Two::new();
    for (types, actions, why) in [
        (
            ["text/html", "image/svg+xml"],
            DndAction::Copy,
            "it drags neither files nor text nor a PNG picture",
        ),
        (
            ["text/html", "text/plain"],
            DndAction::Move,
            "it does not let it be copied",
        ),
    ] {
        two.begin_with(&types, b"x", actions);
        two.move_over();
        assert!(two.desk.picture().count(FORBIDDEN) > 100);
        two.desk.button(LEFT, false);
        two.work.until("the end", |t| t.has("cancelled"));
        let notice = two.notice();
        assert_eq!(
            notice,
            format!("not dropped from work into personal: {why}")
        );
        two.saw_nothing();
    }
}

#[test]
fn without_a_manager_every_target_is_forbidden() {
    let mut two = Two::new();
    two.events = two.desk.control_channel();
    // The compositor has noticed that the old one is gone.
    assert_eq!(two.events.ask(json!({"op": "windows"}), &[])["ok"], true);
    two.begin(&["text/plain"], b"x");
    two.move_over();
    assert!(two.desk.picture().count(FORBIDDEN) > 100);
    two.desk.button(LEFT, false);
    two.work.until("the end", |t| t.has("cancelled"));
    two.saw_nothing();
}

#[test]
fn the_desktops_own_panels_are_no_target() {
    use crate::clients::{Client, Panel};
    use wayland_protocols_wlr::layer_shell::v1::client::{
        zwlr_layer_shell_v1::Layer,
        zwlr_layer_surface_v1::{Anchor, KeyboardInteractivity},
    };
    let mut two = Two::new();
    let desk: &Desk = &two.desk;
    let mut host = Client::connect(desk, "host");
    let panel = Panel {
        layer: Layer::Top,
        anchor: Anchor::Top | Anchor::Left | Anchor::Right,
        size: (0, 40),
        zone: 40,
        keyboard: KeyboardInteractivity::None,
    };
    let _panel = host.panel(&panel, 0xff00_ff00);
    two.begin(&["text/plain"], b"x");
    two.desk.pointer(700, 10);
    two.desk.pointer(701, 10);
    assert_eq!(two.desk.picture().count(FORBIDDEN), 0);
    two.desk.button(LEFT, false);
    two.work.until("the end", |t| t.has("cancelled"));
    assert!(host.sync() && host.told.offers.is_empty());
    assert!(!host.told.has("drag enter"));
}
