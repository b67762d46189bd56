//! Domains that give too much, nothing, or nonsense, and a manager that is not there.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use bulkhead_compositor::CrossingLimits;
use serde_json::json;

use super::{BLUE, CTRL, KEY_C, KEY_V, SHIFT, Three, assert_saw_nothing, read};
use crate::clients::{Manner, Told, memory};

#[test]
fn no_manager_or_a_silent_one_is_a_no() {
    let mut three = Three::with(CrossingLimits {
        answer: Duration::from_millis(100),
        ..CrossingLimits::default()
    });
    three.work.copy(b"secret");
    three.copy_across();
    three.focus("personal");
    three.desk.chord(&[CTRL, SHIFT, KEY_V]);
    let asked = three.event("paste");
    // A second press meanwhile asks nobody.
    assert!(three.notice().ends_with("the manager does not answer"));
    let late = json!({"op": "answer_paste", "id": asked["id"], "allow": true});
    assert_eq!(three.desk.control(late)["ok"], false);
    assert_saw_nothing(&mut three.personal);

    three.events = three.desk.control_channel();
    // The compositor has noticed that the old one is gone.
    assert_eq!(three.events.ask(json!({"op": "windows"}), &[])["ok"], true);
    three.desk.chord(&[CTRL, SHIFT, KEY_V]);
    assert_saw_nothing(&mut three.personal);
    assert_eq!(
        three.events.ask(json!({"op": "subscribe"}), &[])["ok"],
        true
    );
    let (_, notice) = three.paste_across("personal", true);
    assert_eq!(notice, "pasted 6 bytes of text from work into personal");
}

#[test]
fn an_endless_stream_is_cut_off() {
    let mut three = Three::new();
    three.work.told.manner = Manner::Endless;
    three.work.copy(&[b'x'; 1 << 20]);
    let notice = three.copy_across();
    assert_eq!(notice, "not copied: work offers more than 16.0 MiB");
    let cut = three.work.told.cut.clone();
    three.desk.wait("the pipe is closed", || {
        cut.load(Ordering::SeqCst).then_some(())
    });
    let given = three.work.told.given.load(Ordering::SeqCst);
    assert!((16 << 20..18 << 20).contains(&given), "{given}");
    three.focus("personal");
    three.desk.chord(&[CTRL, SHIFT, KEY_V]);
    assert!(three.notice().starts_with("not pasted: nothing was copied"));
}

#[test]
fn a_stalled_source_is_given_up_and_the_desktop_goes_on() {
    let mut three = Three::with(CrossingLimits {
        stalled: Duration::from_millis(1500),
        ..CrossingLimits::default()
    });
    three.work.copy(b"first");
    assert!(three.copy_across().starts_with("copied"));
    three.work.told.log.clear();
    three.work.told.manner = Manner::Stalled;
    three.desk.chord(&[CTRL, SHIFT, KEY_C]);
    three.work.until("somebody pastes", |t| t.has("send"));
    let began = Instant::now();
    assert_eq!(three.desk.windows().len(), 3);
    three.focus("personal");
    three.desk.chord(&[CTRL, SHIFT, KEY_V]);
    assert!(
        began.elapsed() < Duration::from_millis(1200),
        "the desktop waited"
    );
    assert_eq!(three.notice(), "not pasted: it is still being copied");
    assert_eq!(
        three.notice(),
        "not copied: work does not give what it has copied"
    );
    // What was held before does not come in its place.
    three.desk.chord(&[CTRL, SHIFT, KEY_V]);
    assert!(three.notice().starts_with("not pasted: nothing was copied"));
}

#[test]
fn a_source_that_dribbles_is_given_up_as_well() {
    let mut three = Three::with(CrossingLimits {
        whole: Duration::from_millis(900),
        stalled: Duration::from_millis(600),
        ..CrossingLimits::default()
    });
    three.work.told.manner = Manner::Dribbling;
    three.work.copy(b"drip");
    assert_eq!(
        three.copy_across(),
        "not copied: work does not give what it has copied"
    );
}

#[test]
fn what_is_not_text_is_refused() {
    let mut three = Three::new();
    three.work.copy(b"caf\xe9");
    assert_eq!(
        three.copy_across(),
        "not copied from work: it is not UTF-8 text"
    );
    three
        .work
        .copy_as(&["text/html", "application/octet-stream"], b"x");
    three.desk.chord(&[CTRL, SHIFT, KEY_C]);
    let nothing = "not copied: work has copied neither text nor files nor a PNG picture";
    assert_eq!(three.notice(), nothing);
    three.focus("personal");
    three.desk.chord(&[CTRL, SHIFT, KEY_C]);
    assert_eq!(three.notice(), "not copied: personal has copied nothing");
}

#[test]
fn a_client_that_never_reads_is_cut_off() {
    let mut three = Three::with(CrossingLimits {
        stalled: Duration::from_millis(200),
        ..CrossingLimits::default()
    });
    three.work.copy(&[b'x'; 1 << 20]);
    three.copy_across();
    three.paste_across("personal", true);
    three
        .personal
        .until("the clipboard", |t| t.clipboard.is_some());
    let mut pipes: Vec<_> = (0..12).map(|_| three.personal.paste().unwrap()).collect();
    assert!(three.personal.sync());
    // No more than eight are served at a time.
    for _ in 0..4 {
        assert_eq!(read(pipes.pop().unwrap()), b"");
    }
    std::thread::sleep(Duration::from_millis(600));
    for pipe in pipes {
        let got = read(pipe).len();
        assert!(got > 0 && got < 1 << 20, "{got}");
    }
    // Who reads gets it still.
    assert_eq!(read(three.personal.paste().unwrap()).len(), 1 << 20);
}

#[test]
fn what_is_no_pipe_is_not_written_to() {
    let mut three = Three::new();
    three.work.copy(b"secret");
    three.copy_across();
    three.paste_across("personal", true);
    three
        .personal
        .until("the clipboard", |t| t.clipboard.is_some());
    let file = memory(0);
    let offer = three.personal.told.clipboard.clone().unwrap();
    offer.receive("text/plain".into(), std::os::fd::AsFd::as_fd(&file));
    assert!(three.personal.sync());
    assert_eq!(read(three.personal.paste().unwrap()), b"secret");
    assert_eq!(rustix::fs::fstat(&file).unwrap().st_size, 0);
}

#[test]
fn a_source_that_ends_in_the_middle_gives_nothing() {
    let mut three = Three::new();
    three.work.told.manner = Manner::Late;
    three.work.copy(b"half");
    three.focus("work");
    three.desk.chord(&[CTRL, SHIFT, KEY_C]);
    three.work.until("somebody pastes", |t| t.has("send"));
    three
        .desk
        .control(json!({"op": "remove_domain", "name": "work"}));
    assert_eq!(three.notice(), "not copied: work has ended");
}

#[test]
fn a_window_that_opens_by_itself_gets_nothing() {
    let mut three = Three::with(CrossingLimits {
        taken_keyboard: Duration::from_secs(3600),
        ..CrossingLimits::default()
    });
    three.work.copy(b"x");
    assert_eq!(three.copy_across(), "copied 1 byte of text from work");
    // Just when the user is about to press the keys elsewhere.
    let enters = |t: &Told| t.log.iter().filter(|l| *l == "keyboard enter").count();
    let before = enters(&three.watcher.told);
    three.watcher.window(60, 60, BLUE);
    three.watcher.until("the keyboard", |t| enters(t) > before);
    three.watcher.copy(b"something else");
    for (key, what) in [(KEY_C, "copied"), (KEY_V, "pasted")] {
        three.desk.chord(&[CTRL, SHIFT, key]);
        let notice = three.notice();
        let begins = format!("not {what}: other has just taken the keyboard;");
        assert!(notice.starts_with(&begins), "{notice}");
    }
    assert!(three.watcher.sync());
    assert!(!three.watcher.told.has("send"));
    // What was held is still there for the window that the user chooses.
    let (_, notice) = three.paste_across("personal", true);
    assert_eq!(notice, "pasted 1 byte of text from work into personal");
}
