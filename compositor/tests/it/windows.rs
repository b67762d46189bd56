//! Windows appear, change, get the focus, and go away.

use std::time::Duration;

use serde_json::json;
use wayland_client::{Proxy, protocol::wl_buffer::WlBuffer};

use crate::{clients::Client, fixture::Desk};

const BLUE: u32 = 0xff00_00ff;

#[test]
fn the_keyboard_comes_with_the_first_buffer_not_before() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let window = client.bare_window();
    assert!(client.sync());
    assert!(!client.told.has("keyboard enter"));
    client.show(&window.surface, 100, 100, BLUE);
    client.until("the keyboard", |t| t.has("keyboard enter"));
    assert!(client.told.has("repeat 25 600"));
    assert!(client.told.keymap > 1000);
}

#[test]
fn a_window_that_attaches_nothing_vanishes_and_can_come_back() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let window = client.window(100, 100, BLUE);
    window.surface.attach(None, 0, 0);
    window.surface.commit();
    assert!(client.sync());
    assert!(desk.window_of("work").is_none());
    let key = window.xdg.id().protocol_id();
    let before = client.told.configured[&key];
    window.surface.commit();
    client.until("a new first configure", |t| t.configured[&key] > before);
    client.show(&window.surface, 50, 60, BLUE);
    assert!(client.sync());
    assert_eq!(desk.window_of("work").unwrap().w, 50);
}

#[test]
fn buffers_come_back_once_when_others_are_shown() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let window = client.bare_window();
    let draw = |client: &Client| {
        let buffer = client.buffer(100, 100, BLUE);
        window.surface.attach(Some(&buffer), 0, 0);
        window.surface.damage_buffer(0, 0, 100, 100);
        window.surface.commit();
        buffer
    };
    let count = |client: &Client, buffer: &WlBuffer| {
        let line = format!("buffer {} back", buffer.id().protocol_id());
        client.told.log.iter().filter(|told| **told == line).count()
    };
    let mut last = draw(&client);
    // One a frame, and several a frame.
    for round in 0..6 {
        let mut replaced = vec![last];
        for _ in 0..round {
            replaced.push(draw(&client));
        }
        last = draw(&client);
        for buffer in &replaced {
            let line = format!("buffer {} back", buffer.id().protocol_id());
            client.until("a buffer to come back", |t| t.has(&line));
        }
        assert!(client.sync());
        assert!(replaced.iter().all(|buffer| count(&client, buffer) == 1));
        assert_eq!(count(&client, &last), 0, "the one that is shown");
    }
    // Nothing replaces it, and it comes back all the same.
    window.surface.attach(None, 0, 0);
    window.surface.commit();
    let line = format!("buffer {} back", last.id().protocol_id());
    client.until("the last one", |t| t.has(&line));
}

#[test]
fn a_killed_client_takes_only_its_own_windows_along() {
    let desk = Desk::two();
    let mut stays = Client::connect(&desk, "personal");
    stays.window(100, 100, BLUE);
    {
        let mut goes = Client::connect(&desk, "work");
        goes.window(100, 100, BLUE);
        assert_eq!(desk.windows().len(), 2);
    }
    desk.wait("the window is gone", || {
        desk.window_of("work").is_none().then_some(())
    });
    assert!(stays.sync());
    stays.until("the keyboard is back", |t| {
        t.log.iter().filter(|l| *l == "keyboard enter").count() >= 2
    });
    desk.wait("all counted as gone", || {
        let s = desk.stats("work");
        (s["clients"] == 0
            && s["surfaces"] == 0
            && s["buffers"] == 0
            && s["pools"] == 0
            && s["bytes"] == 0
            && s["callbacks"] == 0)
            .then_some(())
    });
}

#[test]
fn an_idle_desktop_draws_nothing() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let window = client.window(100, 100, BLUE);
    desk.test(json!({"op": "settle", "quiet_ms": 100, "timeout_ms": 5000}));
    let pictures = || {
        desk.test(json!({"op": "stats"}))["pictures"]
            .as_u64()
            .unwrap()
    };
    let before = pictures();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(pictures(), before);
    // A commit that changes nothing is answered, and nothing is drawn for it.
    window.surface.frame(&client.qh, ());
    window.surface.commit();
    client.until("the frame callback", |t| t.frames == 1);
    assert_eq!(pictures(), before);
    // A client that draws as fast as it is told to draws 60 times a second.
    let began = std::time::Instant::now();
    for i in 0..12u32 {
        window.surface.frame(&client.qh, ());
        client.show(&window.surface, 100, 100, 0xff00_0000 | (i * 20));
        client.until("the frame callback", move |t| t.frames == 2 + i as usize);
    }
    assert!(
        began.elapsed() > Duration::from_millis(150),
        "{:?}",
        began.elapsed()
    );
    assert!(pictures() >= before + 11);
}

#[test]
fn activation_tokens_raise_nothing() {
    let desk = Desk::two();
    let mut first = Client::connect(&desk, "work");
    let window = first.window(100, 100, BLUE);
    let mut second = Client::connect(&desk, "personal");
    second.window(100, 100, BLUE);
    let token = first.activation.get_activation_token(&first.qh, ());
    token.set_surface(&window.surface);
    token.commit();
    first.until("a token", |t| t.token.is_some());
    first
        .activation
        .activate(first.told.token.clone().unwrap(), &window.surface);
    assert!(first.sync());
    assert_eq!(desk.window_of("personal").unwrap().all["focused"], true);
    assert_eq!(desk.window_of("work").unwrap().all["focused"], false);
}

#[test]
fn a_client_that_is_never_answered_for_its_geometry_is_cut_to_the_desktop() {
    let desk = Desk::two();
    let mut client = Client::connect(&desk, "work");
    let window = client.bare_window();
    client.show(&window.surface, 2000, 1500, BLUE);
    assert!(client.sync());
    let key = window.toplevel.id().protocol_id();
    client.until("a smaller size", |t| {
        t.configures.get(&key) == Some(&(792, 568))
    });
}
