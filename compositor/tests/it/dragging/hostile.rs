//! Sources that give too much, nothing or nonsense, targets that do not answer, and ends in between.

use std::{sync::atomic::Ordering, time::Duration};

use bulkhead_compositor::CrossingLimits;
use serde_json::json;

use super::{LEFT, Two};
use crate::clients::{COPY, Manner};

/// Drops something that is never asked about.
fn drop_in_vain(two: &mut Two, types: &[&str], data: &[u8]) -> String {
    two.begin(types, data);
    let asked = two.over();
    two.answer_over(&asked, true);
    two.desk.button(LEFT, false);
    two.work.until("it is read", |t| t.has("send"));
    two.work.until("the end", |t| t.has("cancelled"));
    let notice = two.notice();
    two.saw_nothing();
    notice
        .strip_prefix("not dropped from work into personal: ")
        .unwrap()
        .to_owned()
}

#[test]
fn an_endless_stream_is_cut_off() {
    let mut two = Two::new();
    two.work.told.manner = Manner::Endless;
    let why = drop_in_vain(&mut two, &["text/plain"], &[b'x'; 1 << 20]);
    assert_eq!(why, "it offers more than 16.0 MiB");
    let cut = two.work.told.cut.clone();
    two.desk.wait("the pipe is closed", || {
        cut.load(Ordering::SeqCst).then_some(())
    });
    let why = drop_in_vain(&mut two, &["text/uri-list"], b"file:///a\r\n");
    assert_eq!(why, "it offers more than 24.0 KiB");
}

#[test]
fn a_source_that_gives_nothing_is_given_up() {
    let mut two = Two::with(CrossingLimits {
        stalled: Duration::from_millis(500),
        ..CrossingLimits::default()
    });
    two.work.told.manner = Manner::Stalled;
    let why = drop_in_vain(&mut two, &["text/plain"], b"half");
    assert_eq!(why, "it does not give what it drags");
}

#[test]
fn nonsense_goes_nowhere() {
    let mut two = Two::new();
    for (kind, data, why) in [
        ("text/plain", &b"caf\xe9"[..], "it is not UTF-8 text"),
        ("text/plain", b"", "it is empty"),
        ("text/uri-list", b"sftp://a/b\r\n", "it names no file"),
        (
            "text/uri-list",
            b"file:///a\x1b\r\n",
            "its list of files cannot be read",
        ),
    ] {
        assert_eq!(drop_in_vain(&mut two, &[kind], data), why);
    }
    let why = drop_in_vain(&mut two, &["image/png"], b"GIF89a");
    assert!(why.starts_with("it is no PNG picture"), "{why}");
}

#[test]
fn a_source_that_ends_while_it_is_read_gives_nothing() {
    let mut two = Two::new();
    two.work.told.manner = Manner::Stalled;
    let source = two.begin(&["text/plain"], b"half");
    let asked = two.over();
    two.answer_over(&asked, true);
    two.desk.button(LEFT, false);
    two.work.until("it is read", |t| t.has("send"));
    source.destroy();
    assert!(two.work.sync());
    assert_eq!(
        two.desk
            .control(json!({"op": "remove_domain", "name": "work"}))["ok"],
        true
    );
    assert_eq!(
        two.notice(),
        "not dropped from work into personal: a domain has ended"
    );
    two.saw_nothing();
}

#[test]
fn what_was_read_outlives_its_source() {
    let mut two = Two::new();
    let asked = two.dropped(&["text/plain"], b"last words");
    assert_eq!(
        two.desk
            .control(json!({"op": "remove_domain", "name": "work"}))["ok"],
        true
    );
    two.answer(&asked, json!({"allow": true}));
    assert_eq!(two.take("text/plain"), b"last words");
}

#[test]
fn a_target_that_ends_gets_nothing() {
    let mut two = Two::new();
    let asked = two.dropped(&["text/plain"], b"x");
    let gone = json!({"op": "remove_domain", "name": "personal"});
    assert_eq!(two.desk.control(gone)["ok"], true);
    two.answer(&asked, json!({"allow": true}));
    two.work.until("the end", |t| t.has("cancelled"));
    assert_eq!(
        two.notice(),
        "not dropped from work into personal: its window is gone"
    );
}

#[test]
fn a_target_that_does_not_agree_is_left() {
    let mut two = Two::with(CrossingLimits {
        stalled: Duration::from_millis(700),
        ..CrossingLimits::default()
    });
    let asked = two.dropped(&["text/uri-list"], b"file:///a\r\n");
    let files = json!(["file:///home/user/Incoming/work/a"]);
    two.answer(&asked, json!({"allow": true, "files": files}));
    two.personal.until("it is left", |t| t.has("drag leave"));
    assert!(!two.personal.told.has("drag drop"));
    assert_eq!(
        two.notice(),
        "the files from work are in ~/Incoming/work of personal, but its window does not take it"
    );
    // To finish what was never dropped is an error of the client's own.
    let offer = two.personal.told.drag_offer.clone().unwrap();
    offer.finish();
    two.personal.assert_thrown_out();
}

#[test]
fn a_target_that_agrees_late_or_to_something_else() {
    let mut two = Two::new();
    let asked = two.dropped(&["text/plain"], b"words");
    two.answer(&asked, json!({"allow": true}));
    two.personal.until("the drag", |t| t.has("drag enter"));
    let offer = two.personal.told.drag_offer.clone().unwrap();
    let serial = two.personal.told.drag_enter_serial;
    offer.accept(serial, Some("image/png".into()));
    offer.set_actions(
        wayland_client::protocol::wl_data_device_manager::DndAction::Move,
        COPY,
    );
    two.personal.told.log.clear();
    two.personal
        .until("it is asked again", |t| t.has("drag motion"));
    assert!(!two.personal.told.has("drag drop"));
    offer.set_actions(COPY, COPY);
    offer.accept(serial, Some("UTF8_STRING".into()));
    two.personal.until("the drop", |t| t.has("drag drop"));
}

#[test]
fn drops_that_wait_have_an_end() {
    let mut two = Two::new();
    for _ in 0..2 {
        two.dropped(&["text/plain"], b"x");
    }
    two.begin(&["text/plain"], b"x");
    two.move_over();
    two.desk.button(LEFT, false);
    two.work.until("the end", |t| t.has("cancelled"));
    assert!(
        two.notice()
            .ends_with("the drops before this one still wait")
    );
}

#[test]
fn a_manager_that_goes_ends_what_waits() {
    let mut two = Two::new();
    let _asked = two.dropped(&["text/plain"], b"x");
    two.events = two.desk.control_channel();
    assert_eq!(two.events.ask(json!({"op": "windows"}), &[])["ok"], true);
    two.work.until("the end", |t| t.has("cancelled"));
    two.saw_nothing();
}
